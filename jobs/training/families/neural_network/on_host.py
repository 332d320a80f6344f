"""One rank on another host: `python -m jobs.training.families.neural_network.on_host`.

Its standard input has a line of JSON, the folder of the job and variables, and stays open as long
as somebody wants the rank: when the connection ends, so does it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import IO, NoReturn

import psutil

from jobs.lake.store_faults import what_store_says
from jobs.services.child import end
from jobs.services.die_with_parent import die_with_parent
from jobs.training.families import TIMELINE
from jobs.training.families.neural_network import job, rank
from jobs.training.families.neural_network.rendezvous import ADDRESS, PORT
from pipelines import places
from pipelines.errors import NightshiftError

_TIMELINE = "HOROVOD_TIMELINE"
_READ_BYTES = 1024
_REACHED_SECONDS = 60
"""As long as Horovod would wait.

Where a machine was lost, a network may need most of it to learn the new ways."""
_TRY_SECONDS = 5
"""Of one connection: one that waits longer tries ever more rarely by itself."""
_PAUSE_SECONDS = 0.2
LEFT_ALONE = 75
"""Exit code: a temporary failure (sysexits.h)."""
_SHELL_OF_SIGNALS = 128
"""A death by signal is told as a shell does, as this plus its number."""


class NobodyListens(NightshiftError):
    """Where ranks should find each other, as when the stage has ended."""


def main(request: IO[str]) -> int:
    """Take part in the training that the first line tells of; gives the exit code."""
    told = json.loads(request.readline())
    return take_part_while_wanted(told["folder"], told["variables"], request.fileno())


def take_part_while_wanted(folder: str, variables: dict[str, str], line: int) -> int:
    """Take part in a training until it is done, or nobody wants it any more; gives the exit code.

    The rank is a process of its own: one that hangs would not hear that nobody wants it any more.

    Args:
        folder: Of the job.
        variables: Of the rank's place.
        line: File that stays open as long as somebody wants the rank.
    """
    with TemporaryDirectory() as scratch:
        # Of all that is written here, so that it goes with this rank, however it ends.
        tempfile.tempdir = scratch
        process_id = os.fork()
        if process_id == 0:
            _be_rank(folder, variables, Path(scratch) / TIMELINE)
        unwanted = Event()
        Thread(target=_end_with, args=(line, process_id, unwanted), daemon=True).start()
        _, status = os.waitpid(process_id, 0)
    code = os.waitstatus_to_exitcode(status)
    if unwanted.is_set():
        return LEFT_ALONE
    return code if code >= 0 else _SHELL_OF_SIGNALS - code


def _be_rank(folder: str, variables: dict[str, str], timeline: Path) -> NoReturn:
    die_with_parent(SIGKILL)
    code = NightshiftError.exit_code
    try:
        _take_part(folder, variables, timeline)
        code = 0
    except NightshiftError as error:
        print(error, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    end(code)


def _take_part(folder: str, variables: dict[str, str], timeline: Path) -> None:
    own = _own_address(variables[ADDRESS])
    require_meeting_point(variables[ADDRESS], int(variables[PORT]))
    here = {"HOROVOD_HOSTNAME": own, "HOROVOD_GLOO_IFACE": _interface(own)}
    os.environ.update(variables | here)
    if _TIMELINE in variables:
        os.environ[_TIMELINE] = str(timeline)
    _require_seen(places.place(folder))
    rank.main({"folder": folder, "is_elsewhere": True})
    # Rank 0 alone writes one.
    if timeline.exists():
        places.write_whole(places.place(variables[_TIMELINE]), timeline.read_bytes())


def _require_seen(folder: Path) -> None:
    """Refuse a host that does not see what a training has laid out for its ranks.

    Raises:
        NightshiftError: it does not.
    """
    for file in job.needed(folder):
        try:
            why = "" if file.exists() else "it is not there."
        except Exception as error:  # each library has its own
            why = what_store_says(error) or f"{error}."
        if why:
            raise NightshiftError(
                f"This host does not see {file}: {why} What a training lays out for its ranks "
                "(NIGHTSHIFT_JOBS), and many rows (NIGHTSHIFT_LAKE), must lie in folders that all "
                "machines see at the same path, or in a store whose credentials each host has."
            )


def _end_with(line: int, process_id: int, unwanted: Event) -> None:
    # A host that vanishes says nothing, and after a while the system does.
    with suppress(OSError):
        # Not through a file's buffer: Python ends in disorder while a thread holds it.
        while os.read(line, _READ_BYTES):
            pass
    unwanted.set()
    # At once: the others wait for this rank in the midst of a step, or have gone.
    with suppress(ProcessLookupError):
        os.kill(process_id, SIGKILL)


def _own_address(other: str) -> str:
    """This host's address on the way to another."""
    family = socket.AF_INET6 if ":" in other else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as way:
        # Nothing is sent: it only asks the routes. The port is that of nobody.
        way.connect((other, 9))
        own: str = way.getsockname()[0]
    return own


def require_meeting_point(address: str, port: int) -> None:
    """Refuse a host that does not reach where ranks find each other.

    Raises:
        NightshiftError: it does not.
    """
    connected(address, port).close()


def connected(address: str, port: int) -> socket.socket:
    """A connection to where ranks find each other.

    Raises:
        NobodyListens: this host reaches that machine, and is refused.
        NightshiftError: it does not reach it.
    """
    deadline = time.monotonic() + _REACHED_SECONDS
    while True:
        try:
            return socket.create_connection((address, port), _TRY_SECONDS)
        except OSError as error:
            is_refused = isinstance(error, ConnectionRefusedError)
            is_final = is_refused or isinstance(error, socket.gaierror)
            if is_final or time.monotonic() > deadline:
                kind = NobodyListens if is_refused else NightshiftError
                raise kind(
                    f"This host does not reach {address}:{port}, where ranks find each other: "
                    f"{error.strerror or error}. Set NIGHTSHIFT_RENDEZVOUS_ADDRESS to an address "
                    "of the stage's machine that the hosts reach, at any port."
                ) from error
        # A network that knows no way says so at once.
        time.sleep(_PAUSE_SECONDS)


def _interface(own: str) -> str:
    """The network interface that has the address.

    Raises:
        NightshiftError: none has.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == own for one in addresses):
            return str(name)
    raise NightshiftError(f"No network interface of this host has the address {own}.")


if __name__ == "__main__":
    sys.exit(main(sys.stdin))
