"""A line to each rank in a Pod or on an executor: it says when all are there, and are wanted.

They start one after another, as images arrive and cores get free, and Horovod gives up who comes a
minute after the others. And neither Kubernetes nor Spark ends a rank whose stage was killed while
the Pod, or the cluster, lives on. A rank on an executor tells by it how it has ended, as well.
"""

from __future__ import annotations

import json
import select
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Thread

from jobs.training.families.neural_network.on_host import NobodyListens, connected

ALL_THERE = b"\n"
_SAY_SECONDS = 5
"""For a rank that has connected, to say who it is."""
_NUMBER_BYTES = 16
_SILENT_SECONDS = 10
"""Without a word from the other machine, until it is asked whether it is there."""
_PROBES = 3
_READ_BYTES = 4096
LOST = 255
"""In the place of an exit code that nobody knows: as of an ssh that has lost its host."""


@dataclass(frozen=True, slots=True)
class End:
    """Of a rank."""

    code: int
    """Its exit code."""
    said: str
    """The last words of its output."""


class Line:
    """Held by the stage: open as long as it wants its ranks, however it ends."""

    def __init__(self, address: str, ranks: int) -> None:
        """Listen for them.

        Args:
            address: Of this machine.
            ranks: How many will come.
        """
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self._ranks = ranks
        self._held: dict[int, socket.socket] = {}
        self._ends: dict[int, End] = {}
        self._is_closed = False
        Thread(target=self._hold_all, daemon=True).start()

    def close(self) -> None:
        """Want them no longer."""
        self._is_closed = True
        # It wakes the thread that waits there, as closing alone would not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    @property
    def held(self) -> int:
        """How many ranks have come, also those that have gone since."""
        return len(self._held)

    @property
    def there(self) -> int:
        """How many ranks have come and are there still."""
        return sum(self.end_of(number) is None for number in tuple(self._held))

    def is_held(self, number: int) -> bool:
        """Whether the rank of that number has come, also when it has gone since."""
        return number in self._held

    def end_of(self, number: int) -> End | None:
        """How a rank that has come has ended; None: it has not.

        One that has gone without a word is lost, as with its executor.
        """
        if number not in self._ends:
            watched = select.poll()
            watched.register(self._held[number], select.POLLIN)
            if not watched.poll(0):
                return None
            self._ends[number] = _told(self._held[number])
        return self._ends[number]

    def _hold_all(self) -> None:
        # Also when all are there: one that comes in vain is to hear so.
        while not self._is_closed:
            # One that has gone while it was taken in is not the end of the line.
            with suppress(OSError):
                connection, _ = self._listener.accept()
                self._hold(connection)
        self._listener.close()
        for connection in self._held.values():
            connection.close()

    def _hold(self, connection: socket.socket) -> None:
        connection.settimeout(_SAY_SECONDS)
        _notice_silence(connection)
        try:
            number = int(connection.recv(_NUMBER_BYTES))
        except (OSError, ValueError):
            number = -1
        if number not in range(self._ranks) or number in self._held:
            connection.close()
            return
        self._held[number] = connection
        if len(self._held) == self._ranks:
            for one in self._held.values():
                # One that has gone is seen by its Pod.
                with suppress(OSError):
                    one.sendall(ALL_THERE)


def reach(address: str, port: int, number: int) -> socket.socket | None:
    """The rank's end of the line, once all are there; None: nobody wants it any more.

    Raises:
        NightshiftError: this machine does not reach the stage.
    """
    try:
        line = connected(address, port)
    except NobodyListens:
        return None
    # However long the others take: it is closed when nobody waits for them any more.
    line.settimeout(None)
    with suppress(OSError):
        _notice_silence(line)
        line.sendall(b"%d" % number)
        if line.recv(1) == ALL_THERE:
            return line
    line.close()
    return None


def await_close(line: socket.socket) -> None:
    """Hold the rank's end of the line until the stage closes its own, or is gone."""
    with line, suppress(OSError):
        line.recv(1)


def tell_end(line: socket.socket, end: End) -> None:
    """Say by the rank's end of the line how it has ended; nobody may listen any more."""
    with suppress(OSError):
        line.sendall(json.dumps(asdict(end)).encode())


def _told(line: socket.socket) -> End:
    said = b""
    try:
        while part := line.recv(_READ_BYTES):
            said += part
        found = json.loads(said)
        return End(int(found["code"]), str(found["said"]))
    except (OSError, ValueError, TypeError, KeyError):
        return End(LOST, "")


def _notice_silence(line: socket.socket) -> None:
    """Have the system close a line to a machine that is gone."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENT_SECONDS)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENT_SECONDS)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
