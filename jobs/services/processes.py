"""Processes of a home: who listens on a port, whose it is, and a sweep that leaves none behind."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from pipelines.errors import NightshiftError

MARK = "NIGHTSHIFT_PLATFORM"
"""Variable, holding the home, that every process which `up` starts inherits, and a user's own shell
never has."""
LOOPBACK = "127.0.0.1"
_ANSWER_SECONDS = 2
# A process inside a system call may outlive its kill; we go on without it.
_KILLED_SECONDS = 20
_PUT_BACK_SECONDS = 60
"""By which a clock differs that was put back; one that is put back by less is soon past it."""
_MOST_CHARACTERS = 80
"""Of a command line in a message: Java's are pages long."""


class PortTakenError(NightshiftError):
    """Another program listens on a port that a service needs."""

    def __init__(
        self, port: int, service: str, variable: str, holder: psutil.Process | None
    ) -> None:
        self.port = port
        self.holder = holder
        super().__init__(
            f"Port {port}, which {service} needs, is taken by {describe(holder)}. "
            f"Stop that program, or set {variable} to a free port (for example {free_port()})."
        )


def is_clock_put_back(since: float) -> bool:
    """Whether the clock was put back since that moment, as after the start of a machine.

    Whatever is told since then seems to be of before.

    Args:
        since: Seconds since 1970, by the clock of then.
    """
    return since > time.time() + _PUT_BACK_SECONDS


def answers(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections on the port, at any address of the host."""
    try:
        socket.create_connection((host, port), _ANSWER_SECONDS).close()
    except OSError:  # nobody listens, or the name leads nowhere
        return False
    return True


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))  # 0: the system chooses
        return int(probe.getsockname()[1])


def listener(port: int) -> psutil.Process | None:
    """The process that listens on the port, as far as this user may see it."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("inet"):
            is_listening = connection.status == psutil.CONN_LISTEN
            # Of another user's process the system does not tell the id.
            if is_listening and connection.laddr.port == port and connection.pid:
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
        owner = f", of the Nightshift home {home}" if home else ""
        command = " ".join(process.cmdline()) or process.name()
        return f"process {process.pid} ({command[:_MOST_CHARACTERS]}{owner})"
    return f"process {process.pid}"


def marked(home: Path) -> list[psutil.Process]:
    """All living processes that `up` started for that home, and all below them.

    Never the caller.
    """
    all_of_it: set[psutil.Process] = set()
    for process in psutil.process_iter():
        if _variable(process, MARK) == str(home):
            all_of_it.add(process)
            # A child that was started with an emptied environment has no mark.
            with suppress(psutil.Error):
                all_of_it.update(process.children(recursive=True))
    return [one for one in all_of_it if one.pid != os.getpid() and is_alive(one)]


def is_alive(process: psutil.Process) -> bool:
    """Whether the process still runs; one that only waits to be reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_stopped(pid: int) -> bool:
    """Whether it is stopped (SIGSTOP): the system takes connections for it all the same."""
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False


def how_to_go_on(pid: int) -> str:
    """What has a stopped process go on."""
    return f"`kill -CONT {pid}` lets it go on"


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
    psutil.wait_procs(still_alive, timeout=_KILLED_SECONDS)
    return len(asked)


def sweep(home: Path, patience_seconds: float = 5) -> int:
    """End every marked process of the home, also those that appear meanwhile.

    One that outlives its kill is told of, and left.

    Returns how many there were.
    """
    ended = 0
    outlived: set[psutil.Process] = set()
    while left := set(marked(home)) - outlived:
        ended += end(left, patience_seconds)
        outlived.update(filter(is_alive, left))
    for one in outlived:
        print(f"Warning: {describe(one)} does not end, nor by a kill.", file=sys.stderr, flush=True)
    return ended


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return str(process.environ()[name])
    except (psutil.Error, OSError, KeyError):
        return None
