"""Processes of a home: who listens on a port, whose it is, and a sweep that leaves none behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from pipelines.errors import NightshiftError

MARK = "NIGHTSHIFT_PLATFORM"
"""Variable, holding the home, that every process which `up` starts inherits, and a user's own shell
never has."""
LOOPBACK = "127.0.0.1"


class PortTakenError(NightshiftError):
    """Another program listens on a port that a service needs."""

    def __init__(
        self, port: int, service: str, variable: str, holder: psutil.Process | None
    ) -> None:
        self.port, self.holder = port, holder
        super().__init__(
            f"Port {port}, which {service} needs, is taken by {describe(holder)}. "
            f"Stop that program, or set {variable} to a free port (for example {free_port()})."
        )


def answers(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listener(port: int) -> psutil.Process | None:
    """The process that listens on the port, as far as this user may see it."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("inet"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr.port == port
                and connection.pid
            ):
                return psutil.Process(connection.pid)
    return None


def belongs(process: psutil.Process | None, home: Path) -> bool:
    """Whether the process was started for that home."""
    return process is not None and _variable(process, "NIGHTSHIFT_HOME") == str(home)


def require_free(port: int, service: str, variable: str) -> None:
    """Refuse a port that someone listens on.

    Raises:
        PortTakenError: the message names the port, its holder, and the variable that chooses
            another one.
    """
    if answers(port):
        raise PortTakenError(port, service, variable, listener(port))


def describe(process: psutil.Process | None) -> str:
    """A process in words for a person: its id, what it runs, and for which home."""
    if process is None:
        return "a process of another user"
    with suppress(psutil.Error):
        home = _variable(process, "NIGHTSHIFT_HOME")
        of = f", of the Nightshift home {home}" if home else ""
        return f"process {process.pid} ({' '.join(process.cmdline())[:80] or process.name()}{of})"
    return f"process {process.pid}"


def marked(home: Path) -> list[psutil.Process]:
    """All living processes that `up` started for that home, and all below them.

    Never the caller.
    """
    found = {p for p in psutil.process_iter() if _variable(p, MARK) == str(home)}
    for process in list(found):
        with suppress(psutil.Error):
            found.update(process.children(recursive=True))
    return [p for p in found if p.pid != os.getpid() and is_alive(p)]


def is_alive(process: psutil.Process) -> bool:
    """Whether the process still runs; one that only waits to be reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end(processes: Iterable[psutil.Process], patience_seconds: float = 5) -> int:
    """Ask processes to end, kill those that do not; returns how many there were."""
    asked = list(processes)
    for process in asked:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, still_alive = psutil.wait_procs(asked, timeout=patience_seconds)
    for process in still_alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(still_alive, timeout=5)
    return len(asked)


def sweep(home: Path, patience_seconds: float = 5) -> int:
    """End every marked process of the home, also those that appear meanwhile.

    Returns how many there were.
    """
    swept = 0
    while found := marked(home):
        swept += end(found, patience_seconds)
    return swept


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return str(process.environ()[name])
    except (psutil.Error, OSError, KeyError):
        return None
