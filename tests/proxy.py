"""A proxy that leads nowhere, and remembers what it was asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "grpc_proxy", "no_grpc_proxy")
"""By which libraries are told of one. In capital letters too, but for the last two."""
_SECONDS = 10


@dataclass(frozen=True)
class DeadEnd:
    """A proxy that refuses whatever it is asked for."""

    address: str
    asked: list[str] = field(default_factory=list)
    """The first line of each request."""


@contextmanager
def dead_end() -> Iterator[DeadEnd]:
    """It listens until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        proxy = DeadEnd(f"http://127.0.0.1:{port}")
        thread = threading.Thread(target=_serve, args=(server, proxy), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            # It wakes the thread, which waits in `accept`; `close` alone would not.
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def without_proxy(variables: dict[str, str]) -> dict[str, str]:
    """The variables without those that tell of a proxy."""
    return {name: value for name, value in variables.items() if name.lower() not in VARIABLES}


def _serve(server: socket.socket, proxy: DeadEnd) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(_SECONDS)
            _refuse(connection, proxy)


def _refuse(connection: socket.socket, proxy: DeadEnd) -> None:
    try:
        said = connection.recv(10_000)
        proxy.asked.append(said.partition(b"\r\n")[0].decode(errors="replace"))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    except OSError:
        return
