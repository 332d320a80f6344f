"""What stands for a node: it runs the commands of its Pods as processes of this machine.

Each Pod is a network namespace with an address of its own. There are no images, and of volumes only
empty ones and files that Kubernetes itself writes; who a container is, and how much it may take,
nobody enforces.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from pipelines.environment import ROOT
from tests.hosts import NAMES, ip, kill_all_in, make_host, on_host
from tests.jobs.training.families.neural_network.cluster import certificate

NODE = "stand-in"
_LOOK_SECONDS = 0.3
_BEAT_SECONDS = 10
_PATH = f"{ROOT}/.venv/bin:/usr/local/bin:/usr/bin:/bin"
_INIT = ["/usr/bin/tini", "--"]
"""Of the image; a process here needs none."""
_CONTAINER = "/containers/"
Found = dict[str, Any]


class Api:
    """Kubernetes, as whoever KUBECONFIG names."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        kind: str = "json",
    ) -> Found:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": f"application/{kind}"}
        request = urllib.request.Request(
            f"{self._address}{path}", content, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: Found = json.loads(answer.read())
        return found

    def merge(self, path: str, body: object) -> Found:
        return self.ask("PATCH", path, body, "merge-patch+json")


@contextmanager
def api() -> Iterator[Api]:
    """By `kubectl proxy`, which knows how to speak for KUBECONFIG."""
    command = ["kubectl", "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield Api("http://" + proxy.stdout.readline().split()[-1])
        finally:
            proxy.terminate()


@dataclass
class Container:
    """That of a Pod here."""

    pod: Found
    host: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path
    kill_at: float | None = None
    began: str = field(default_factory=lambda: _now())

    @property
    def path(self) -> str:
        meta = self.pod["metadata"]
        return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


class Node:
    """Runs what is bound to it."""

    def __init__(
        self,
        cluster: Api,
        folder: Path,
        bridge: str,
        address: str,
        names: Mapping[str, str],
    ) -> None:
        self._names = "".join(f"{address} {name}\n" for name, address in names.items())
        self.containers: dict[str, Container] = {}
        self.done: dict[str, Container] = {}
        self._api = cluster
        self._folder = folder
        self._bridge = bridge
        self._address = address
        self._number = 1
        self._next_beat = 0.0
        self._is_wanted = True
        self._made: list[Path] = []
        """Folders on which something is mounted for a Pod."""

    def run(self) -> None:
        """Until it is stopped."""
        while self._is_wanted:
            if time.monotonic() > self._next_beat:
                self._next_beat = time.monotonic() + _BEAT_SECONDS
                self._beat()
            found = self._api.ask("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}")
            for pod in found["items"]:
                uid = pod["metadata"]["uid"]
                if uid not in self.containers and uid not in self.done:
                    self._start(pod)
                elif uid in self.containers and pod["metadata"].get("deletionTimestamp"):
                    self._stop(self.containers[uid], pod)
                elif uid in self.done and pod["metadata"].get("deletionTimestamp"):
                    self._forget(self.done[uid])
            there = {pod["metadata"]["uid"] for pod in found["items"]}
            for uid, container in list(self.containers.items()):
                if uid not in there:
                    kill_all_in(container.host)
                self._look(uid, container)
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        self._is_wanted = False

    def end_all(self) -> None:
        for uid, container in list(self.containers.items()):
            kill_all_in(container.host)
            container.process.wait()
            self._look(uid, container)
        # What lies deepest comes first.
        for folder in sorted(self._made, reverse=True):
            folder.rmdir()
        with suppress(urllib.error.HTTPError):
            self._api.ask("DELETE", f"/api/v1/nodes/{NODE}")

    def make(self, kubelet_port: int) -> None:
        # Of others nothing is to come here.
        taint = {"key": NODE, "value": "yes", "effect": "NoSchedule"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "labels": {NODE: "yes"}},
            "spec": {"taints": [taint]},
        }
        with suppress(urllib.error.HTTPError):
            self._api.ask("POST", "/api/v1/nodes", node)
        self._port = kubelet_port
        self._beat()

    def _beat(self) -> None:
        room = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"}
        status = {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": self._address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "StandIn",
                    "lastHeartbeatTime": _now(),
                    "lastTransitionTime": _now(),
                }
            ],
        }
        self._api.merge(f"/api/v1/nodes/{NODE}/status", {"status": status})

    def _start(self, pod: Found) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        if meta.get("deletionTimestamp"):
            return
        self._number += 1
        host = f"p{self._number}x{os.getpid()}"
        address = f"{self._address.rpartition('.')[0]}.{self._number}"
        make_host(host, address, self._bridge)
        ip(f"-n {host} route add default via {self._address}")
        name = spec.get("hostname") or meta["name"]
        hosts = f"127.0.0.1 localhost\n{address} {name}\n{self._names}"
        (NAMES / host / "hosts").write_text(hosts)
        container = spec["containers"][0]
        folder = self._folder / meta["uid"]
        volumes = {one["name"]: one for one in spec.get("volumes", ())}
        steps = [f"hostname {name}"]
        for mount in container.get("volumeMounts", ()):
            volume = volumes[mount["name"]]
            target = Path(mount["mountPath"])
            if target == Path("/tmp"):
                continue
            source = folder / mount["name"]
            source.mkdir(parents=True)
            self._fill(source, volume, pod)
            self._made += [one for one in (target, *target.parents) if not one.exists()]
            target.mkdir(parents=True, exist_ok=True)
            steps.append(f"mount --bind {source} {target}")
        command = [*container.get("command", ()), *container.get("args", ())]
        if command[:2] == _INIT:
            command = command[2:]
        script = " && ".join([*steps, 'exec "$@"'])
        log = self._folder / f"{meta['uid']}.log"
        environ = {"PATH": _PATH, "HOME": "/tmp", "PYTHONPATH": str(ROOT)}
        environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        environ |= self._variables(container, pod, address)
        with log.open("wb") as said:
            process = subprocess.Popen(
                on_host(host, "unshare", "--uts", "sh", "-c", script, "sh", *command),
                env=environ,
                cwd=ROOT,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        made = Container(pod, host, address, process, log)
        self.containers[meta["uid"]] = made
        state = {"running": {"startedAt": made.began}}
        self._tell(made, "Running", state, is_ready=True)

    def _variables(self, container: Found, pod: Found, address: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= self._secret(pod, source["secretRef"]["name"])
        for one in container.get("env", ()):
            value = one.get("value", "")
            origin = one.get("valueFrom", {})
            if "fieldRef" in origin:
                value = _field(origin["fieldRef"]["fieldPath"], pod, address)
            elif "secretKeyRef" in origin:
                keys = self._secret(pod, origin["secretKeyRef"]["name"])
                if origin["secretKeyRef"]["key"] not in keys:
                    continue
                value = keys[origin["secretKeyRef"]["key"]]
            found[one["name"]] = value
        return found

    def _secret(self, pod: Found, name: str) -> dict[str, str]:
        namespace = pod["metadata"]["namespace"]
        found = self._api.ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        data = found["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def _fill(self, folder: Path, volume: Found, pod: Found) -> None:
        namespace = pod["metadata"]["namespace"]
        sources = volume.get("projected", {}).get("sources") or [volume]
        for source in sources:
            if "configMap" in source:
                name = source["configMap"]["name"]
                path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
                for key, value in self._api.ask("GET", path)["data"].items():
                    (folder / key).write_text(value)
            elif "serviceAccountToken" in source:
                account = pod["spec"]["serviceAccountName"]
                path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
                meta = pod["metadata"]
                bound = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"]}
                asked = {"boundObjectRef": {**bound, "uid": meta["uid"]}, "expirationSeconds": 3600}
                request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
                given = self._api.ask("POST", path, {**request, "spec": asked})
                (folder / "token").write_text(given["status"]["token"])
            elif "downwardAPI" in source:
                for item in source["downwardAPI"]["items"]:
                    value = _field(item["fieldRef"]["fieldPath"], pod, "")
                    (folder / item["path"]).write_text(value)

    def _stop(self, container: Container, pod: Found) -> None:
        if container.kill_at is None:
            grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
            container.kill_at = time.monotonic() + grace
            with suppress(psutil.NoSuchProcess):
                os.kill(container.process.pid, signal.SIGTERM)
        elif time.monotonic() > container.kill_at:
            kill_all_in(container.host)

    def _look(self, uid: str, container: Container) -> None:
        code = container.process.poll()
        if code is None:
            return
        # A container ends with its first process.
        kill_all_in(container.host)
        shown = code if code >= 0 else 128 - code
        state = {
            "terminated": {
                "exitCode": shown,
                "reason": "Error" if shown else "Completed",
                "startedAt": container.began,
                "finishedAt": _now(),
            }
        }
        self._tell(container, "Failed" if shown else "Succeeded", state, is_ready=False)
        self.done[uid] = self.containers.pop(uid)
        subprocess.run(["ip", "netns", "del", container.host], check=False)
        shutil.rmtree(NAMES / container.host, ignore_errors=True)
        if container.kill_at is not None:
            self._forget(container)

    def _forget(self, container: Container) -> None:
        uid = container.pod["metadata"]["uid"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        with suppress(urllib.error.HTTPError):
            self._api.ask("DELETE", container.path, body)

    def _tell(
        self,
        one: Container,
        phase: str,
        state: Found,
        *,
        is_ready: bool,
    ) -> None:
        container = one.pod["spec"]["containers"][0]
        told = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": is_ready,
            "started": is_ready,
            "restartCount": 0,
            "state": state,
        }
        word = "True" if is_ready else "False"
        conditions = [
            {"type": kind, "status": word, "lastTransitionTime": _now()}
            for kind in ("Ready", "ContainersReady")
        ]
        status = {
            "phase": phase,
            "hostIP": self._address,
            "podIP": one.address,
            "podIPs": [{"ip": one.address}],
            "startTime": one.began,
            "containerStatuses": [told],
            "conditions": [*conditions, {"type": "PodScheduled", "status": "True"}],
        }
        with suppress(urllib.error.HTTPError):
            self._api.merge(f"{one.path}/status", {"status": status})


@contextmanager
def node(
    cluster: Api,
    folder: Path,
    bridge: str,
    address: str,
    names: Mapping[str, str],
) -> Iterator[Node]:
    """One that works while the block lasts.

    Args:
        cluster: Whose it is.
        folder: For logs and volumes.
        bridge: To which its Pods are joined.
        address: Of this machine there.
        names: Of Services: the addresses to which they lead in a Pod.
    """
    made = Node(cluster, folder, bridge, address, names)

    class Logs(BaseHTTPRequestHandler):
        """As of a kubelet, which Kubernetes asks for them."""

        def do_GET(self) -> None:
            path, _, _ = self.path.partition("?")
            _, _, namespace, name, *_ = path.split("/")
            content = b""
            for one in (*made.done.values(), *made.containers.values()):
                meta = one.pod["metadata"]
                if (meta["namespace"], meta["name"]) == (namespace, name):
                    content = one.log.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Logs)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder, folder / "ca.crt"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threads = [
        threading.Thread(target=server.serve_forever),
        threading.Thread(target=made.run),
    ]
    made.make(server.server_port)
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.stop()
        server.shutdown()
        for thread in threads:
            thread.join()
        server.server_close()
        made.end_all()


def _field(path: str, pod: Found, address: str) -> str:
    """A value of the Pod, by its path there."""
    if path == "status.podIP":
        return address
    head, bracket, key = path.partition("[")
    found: Any = pod
    for name in head.split("."):
        found = found[name]
    return str(found[key.strip("']")] if bracket else found)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


__all__ = ["NODE", "Api", "Node", "api", "node"]
