"""The object store of the tests: `python -m tests.object_store.server PORT`.

After the port may stand the address at which it listens, and after that the file of a certificate,
with its key, by which it speaks TLS.

moto keeps what is put in memory, and honours conditional puts. Before it stand the faults that a
test asks for, which a store on a network has now and then.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

CONTROL = "/-/faults"
"""Path by which a test asks for faults; no bucket can have such a name."""
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
_Start = Callable[..., Any]


@dataclass
class Fault:
    """What becomes of the next requests of a kind."""

    kind: str
    """'throttled', 'refused', 'lost' (it is done, and the reply never comes), 'away', or 'noted'
    (no fault: it is done as always, and counted)."""
    method: str
    """Regular expressions that both must match as a whole."""
    path: str
    times: int
    """How many requests it meets; -1: all."""

    def meets(self, method: str, path: str) -> bool:
        """Whether it is this request's turn."""
        is_meant = re.fullmatch(self.method, method) and re.fullmatch(self.path, path)
        return self.times != 0 and bool(is_meant)


class Store:
    """moto's application with faults before it."""

    def __init__(self) -> None:
        # Not moto's dispatcher, which asks at each request which of Amazon's services is meant: a
        # third of the time that a request takes.
        self._moto = create_backend_app("s3")
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._met: dict[str, int] = {}

    def __call__(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        if environ["PATH_INFO"] == CONTROL:
            return self._control(environ, start)
        kind = self._kind(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if kind == "throttled":
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [_SLOW_DOWN]
        if kind == "refused":
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [_DENIED]
        if kind == "away":
            return self._hang_up(environ)
        if kind == "lost":
            b"".join(self._moto(environ, lambda *_: lambda _: None))
            return self._hang_up(environ)
        found: Iterable[bytes] = self._moto(environ, start)
        return found

    def _kind(self, method: str, path: str) -> str | None:
        with self._lock:
            fault = next((one for one in self._faults if one.meets(method, path)), None)
            if fault is None:
                return None
            fault.times -= 1 if fault.times > 0 else 0
            self._met[fault.kind] = self._met.get(fault.kind, 0) + 1
            return fault.kind

    def _control(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        """Take other faults, and tell how many requests met the ones before."""
        told = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)))
        with self._lock:
            met, self._met = self._met, {}
            self._faults = [Fault(**one) for one in told]
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(met).encode()]

    def _hang_up(self, environ: dict[str, Any]) -> Iterable[bytes]:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []


def main() -> None:
    """Serve until a signal ends it."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    port, *more = sys.argv[1:]
    address = more[0] if more else "127.0.0.1"
    certificate = more[1] if more[1:] else None
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    # A connection serves many requests, as a store's does.
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    run_simple(address, int(port), Store(), threaded=True, ssl_context=context)


if __name__ == "__main__":
    main()
