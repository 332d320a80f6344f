"""The lock that processes of one home take turns by.

A lock is a file in the home's runtime folder, held by the system for as long as the process that
took it has the file open. So a process that is killed leaves no lock behind.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from jobs.services.home import private_home
from jobs.services.secrets import private_folder
from pipelines.environment import Environment
from pipelines.errors import AwaitsTurn

_LOOK_EVERY_SECONDS = 0.1


@contextmanager
def hold(
    environment: Environment,
    name: str,
    *,
    is_shared: bool = False,
    waiting: str = "",
    holder: str = "",
    most_seconds: float | None = None,
) -> Iterator[None]:
    """Hold the home's lock of that name for the time of the block, waiting until it is free.

    A child that is forked in the block shares the lock; a program that is started in it does not.
    It is not for a block within a block: who takes the same lock again waits for ever.

    Args:
        environment: Whose home it is; two homes never wait for each other.
        name: Which lock; also the name of its file.
        is_shared: Hold it together with others that share it; one that does not waits for all.
        waiting: What a person is told, once, when another process holds it.
        holder: Who holds it from now on, for those that wait.
        most_seconds: For so long it waits; None: until it is free.

    Raises:
        AwaitsTurn: it was not free in that time.
    """
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    # The file stays when the lock is released: were it removed, one process could hold the removed
    # file's lock and another that of a new file with the same name.
    with (_folder(environment) / name).open("a+") as file:
        if not _is_taken(file, kind):
            if waiting:
                print(f"{waiting}{_holder_of(file)}", file=sys.stderr, flush=True)
            _wait(file, kind, name, most_seconds)
        if holder:
            _note(file, holder)
        yield


def _is_taken(file: IO[str], kind: int) -> bool:
    """Whether it was free, and is ours now."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(
    file: IO[str],
    kind: int,
    name: str,
    most_seconds: float | None,
) -> None:
    if most_seconds is None:
        fcntl.flock(file, kind)
        return
    until = time.monotonic() + most_seconds
    while not _is_taken(file, kind):
        if time.monotonic() >= until:
            raise awaits_turn(name, most_seconds, _holder_of(file))
        time.sleep(_LOOK_EVERY_SECONDS)


def awaits_turn(name: str, most_seconds: float, by: str = "") -> AwaitsTurn:
    """That a lock was not free in the time for which it was to be waited.

    Args:
        name: Which lock.
        most_seconds: That time.
        by: Who holds it, as a sentence of its own after a space.
    """
    return AwaitsTurn(f"The lock '{name}' was not free within {most_seconds:g} s.{by}")


def this_process() -> str:
    """This process, in words for those that wait for it: maybe on other machines."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def held_by(holder: str) -> str:
    """A sentence that names who holds a lock, after a space; empty: nobody has said."""
    return f" The lock is held by {holder}." if holder else ""


def _note(file: IO[str], holder: str) -> None:
    with suppress(OSError):  # such as a full disk: it is held all the same
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), holder.encode())


def _holder_of(file: IO[str]) -> str:
    file.seek(0)
    return held_by(file.read())


def _folder(environment: Environment) -> Path:
    private_home(environment)
    # A lock that others could take would let them stop every run.
    return private_folder(private_folder(environment.runtime) / "locks")
