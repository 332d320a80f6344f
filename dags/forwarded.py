"""The `nightshift` command in a child of the stage server, asked for by the task itself.

The light client that the command otherwise is does no more than this, and takes a tenth of a second
of a processor to start, in each task of a night.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from pipelines import forwarding, wire
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """How the child has ended."""

    code: int
    said: str
    """What the server says of it: why it was killed, or not begun. Empty: it ended by itself."""
    taken: Mapping[str, Any]
    """What it took of the machine, as the server tells it."""

    @property
    def is_refused(self) -> bool:
        """Whether the server does not run such a thing: nothing was done."""
        return forwarding.is_refused(self.code, self.said)

    @property
    def is_lost(self) -> bool:
        """Whether it could tell nobody how it ended."""
        return self.code == forwarding.LOST or bool(self.said)


class Forwarded:
    """One command in a child of the stage server, which lives as long as our connection."""

    def __init__(self, connection: socket.socket, output: IO[bytes]) -> None:
        self._connection = connection
        self._output = output
        self.is_ended = False
        """Whether we have asked it to end."""

    def lines(self) -> Iterable[bytes]:
        """What it prints, at once."""
        return self._output

    def reply(self) -> Reply:
        """How it has ended; waits for it."""
        self._output.close()
        received = b""
        told = None
        while told is None:
            data = wire.receive(self._connection)
            received += data
            told = wire.decode(received) if data else wire.GONE
        self._connection.close()
        return Reply(
            code=int(told["exit_code"]),
            said=str(told.get("message", "")),
            taken=told.get("taken", {}),
        )

    def end(self) -> None:
        """Ask it to end, and all that it has started in its group."""
        self.is_ended = True
        # The stage server ends the child of a connection that closes. Not by closing ours, which
        # the task may be waiting on.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


def forwarded(words: Sequence[str], variables: Mapping[str, str]) -> Forwarded | None:
    """Have the command done by a child of the stage server.

    Args:
        words: The command's, without its program.
        variables: Those that its own process would have.

    Returns:
        None: it is no such command, or no server takes it; nothing was done.
    """
    if words[0] not in forwarding.FORWARDED:
        return None
    try:
        # What is wrong with a setting the command itself says.
        environment = Environment.read(variables)
        if not wire.answers(environment):
            return None
        connection = wire.connect(environment)
    except (OSError, NightshiftError):
        return None
    reading, writing = os.pipe()
    try:
        wire.send(connection, _request(environment, words, variables), (writing, writing))
    except (OSError, wire.ProtocolError):
        # The server has gone since; or the request is too long for it.
        os.close(reading)
        connection.close()
        return None
    finally:
        os.close(writing)
    return Forwarded(connection, os.fdopen(reading, "rb"))


def _request(
    environment: Environment, words: Sequence[str], variables: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "function": forwarding.FUNCTION,
        "argument": forwarding.argument(environment, words, variables),
        "environ": forwarding.variables(variables, words),
        "folder": str(ROOT),
        "umask": wire.umask(),
    }
