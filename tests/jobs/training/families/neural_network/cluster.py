"""What stands for Kubernetes in tests: its API, over TLS, which keeps Jobs and makes their Pods."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "a-token"
OWNER = "of-this-machine"
_HERE = "127.0.0.1"


@dataclass
class Cluster:
    """One namespace, `nights`."""

    folder: Path
    address: str = ""
    made: list[dict[str, Any]] = field(default_factory=list)
    """Jobs, in the order in which they were made."""
    removed: list[str] = field(default_factory=list)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    becomes: list[dict[int, dict[str, Any]]] = field(default_factory=list)
    """Of each Job, the status of each of its Pods by their numbers."""
    refuses: list[tuple[str, int]] = field(default_factory=list)
    """Methods that are answered so, each once."""
    log: str = ""
    asked_logs: list[str] = field(default_factory=list)
    """Of which containers."""
    seen: bool = False
    """Whether somebody was told of Pods when they were last asked for."""
    dry_runs: int = 0
    has_owner: bool = True

    @property
    def account(self) -> Path:
        return self.folder / "account"

    def answer(
        self,
        method: str,
        path: str,
        body: dict[str, Any],
    ) -> tuple[int, Any]:
        if self.refuses and self.refuses[0][0] == method:
            return self.refuses.pop(0)[1], {"message": "not by you"}
        parts = urlsplit(path)
        match method, parts.path.split("/")[3:]:
            case "POST", ["v1", "namespaces", "nights", "jobs"]:
                return self._make(body, "dryRun" in parse_qs(parts.query))
            case "DELETE", ["v1", "namespaces", "nights", "jobs", name]:
                self.removed.append(name)
                self.pods = {
                    pod: found for pod, found in self.pods.items() if not pod.startswith(name)
                }
                return 200, {}
            case "GET", ["namespaces", "nights", "pods"]:
                job = parse_qs(parts.query)["labelSelector"][0].partition("=")[2]
                pods = [one for name, one in self.pods.items() if name.startswith(job)]
                self.seen = bool(pods)
                return 200, {"items": pods}
            case "GET", ["namespaces", "nights", "pods", _, "log"]:
                self.asked_logs += parse_qs(parts.query)["container"]
                return 200, self.log
            case "GET", ["namespaces", "nights", "pods", name] if (
                name == gethostname() and self.has_owner
            ):
                return 200, {"metadata": {"uid": OWNER}}
        return 404, {"message": f"no {path}"}

    def _make(
        self,
        job: dict[str, Any],
        is_dry: bool,
    ) -> tuple[int, Any]:
        if is_dry:
            self.dry_runs += 1
            return 201, job
        self.made.append(job)
        statuses = self.becomes.pop(0)
        for number in range(job["spec"]["completions"]):
            name = f"{job['metadata']['name']}-{number}"
            self.pods[name] = {
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "annotations": {"batch.kubernetes.io/job-completion-index": str(number)},
                },
                "status": statuses[number],
            }
        return 201, job


def ended(code: int) -> dict[str, Any]:
    """Status of a Pod whose container has ended so."""
    state = {"terminated": {"exitCode": code}}
    phase = "Failed" if code else "Succeeded"
    return {"phase": phase, "containerStatuses": [{"name": "rank", "state": state}]}


_RUNS = {"name": "rank", "state": {"running": {}}}
RUNNING = {"phase": "Running", "containerStatuses": [_RUNS]}


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Serve one, whose account lies in the folder."""
    made = Cluster(folder)
    made.account.mkdir()
    (made.account / "token").write_text(TOKEN)
    (made.account / "namespace").write_text("nights")
    pair = certificate(folder, made.account / "ca.crt")

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            if self.headers["Authorization"] == f"Bearer {TOKEN}":
                status, said = made.answer(self.command, self.path, body)
            else:
                status, said = 401, {"message": "Unauthorized"}
            content = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names that http.server asks for

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((_HERE, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    made.address = f"https://{_HERE}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path, authority: Path) -> Path:
    """A file with key and certificate, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(_HERE))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = signed.public_bytes(serialization.Encoding.PEM)
    authority.write_bytes(written)
    file = folder / "key.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(secret + written)
    return file
