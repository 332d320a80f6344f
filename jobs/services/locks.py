"""The lock that processes of one home take turns by.

A lock is a file in the home's runtime folder, held by the system for as long as the process that
took it has the file open. So a process that is killed leaves no lock behind.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.services.home import private_home
from jobs.services.secrets import private_folder
from pipelines.environment import Environment


@contextmanager
def hold(
    environment: Environment, name: str, *, is_shared: bool = False, waiting: str = ""
) -> Iterator[None]:
    """Hold the home's lock of that name for the time of the block, waiting until it is free.

    A child that is forked in the block shares the lock; a program that is started in it does not.
    It is not for a block within a block: who takes the same lock again waits for ever.

    Args:
        environment: Whose home it is; two homes never wait for each other.
        name: Which lock; also the name of its file.
        is_shared: Hold it together with others that share it; one that does not waits for all.
        waiting: What a person is told, once, when another process holds it.
    """
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    # The file stays when the lock is released: were it removed, one process could hold the removed
    # file's lock and another that of a new file with the same name.
    with (_folder(environment) / name).open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(file, kind)
        yield


def _folder(environment: Environment) -> Path:
    private_home(environment)
    # A lock that others could take would let them stop every run.
    return private_folder(private_folder(environment.runtime) / "locks")
