"""How a client and the stage server talk.

One request, one reply, each a length and JSON, over a Unix socket.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError

MOST_BYTES = 1 << 20
"""Of a message: a request is a few hundred, and a length that is noise must not fill our memory."""
_LENGTH = struct.Struct("!I")
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 20
"""As the supervisor has. Without an answer work begins in new processes: slower, and no fault."""
_ANSWER_AGAIN_SECONDS = 1
"""Of one that last gave none: stages and ranks ask one after another, and each would wait."""
READ_BYTES = 65_536
"""At once."""
GONE: Mapping[str, Any] = {
    "exit_code": NightshiftError.exit_code,
    "message": "Fault: the stage server has gone. See `nightshift status`.",
}
"""What stands for the reply of a server that ended before it sent one."""
_LONGEST_PATH = 107
"""Bytes of a Unix socket's path on Linux, `sun_path` less its final zero."""
_PID_SUFFIX = 8
"""Room for what the supervisor appends to a socket's name while it makes it: a dot and its id."""
_STATUS = Path("/proc/self/status")
_UMASK = re.compile(rb"^Umask:\s*([0-7]+)$", re.MULTILINE)
_silent: set[Path] = set()
"""Sockets at which this process was last given no answer in time."""


class ProtocolError(NightshiftError):
    """What came over the socket is not a message."""


def encode(message: dict[str, Any]) -> bytes:
    """The message as bytes."""
    body = json.dumps(message).encode()
    if len(body) > MOST_BYTES:
        raise ProtocolError(f"A message of {len(body)} bytes is too long: at most {MOST_BYTES}.")
    return _LENGTH.pack(len(body)) + body


def decode(received: bytes) -> dict[str, Any] | None:
    """The message that the bytes hold; None while some are still to come.

    Raises:
        ProtocolError: they will never be a message.
    """
    if len(received) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(received)
    if length > MOST_BYTES:
        raise ProtocolError(f"A message of {length} bytes is too long: at most {MOST_BYTES}.")
    body = received[_LENGTH.size :][:length]
    if len(body) < length:
        return None
    return _object(body)


def send(
    connection: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()
) -> None:
    """Send a message whole, with open files beside it."""
    data = encode(message)
    sent = 0
    if descriptors:
        sent = socket.send_fds(connection, [data], list(descriptors))
    if sent < len(data):  # an empty send would fail on a peer that has answered already
        connection.sendall(data[sent:])


def connect(environment: Environment) -> socket.socket:
    """A connection to the home's stage server, to which a client may then send its request.

    Raises:
        OSError: no server is up.
        UsageError: the home's path is too long for a socket in it, so it has no server.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_CONNECT_SECONDS)
        connection.connect(str(socket_path(environment, "stages")))
        # From here on without a limit: a stage takes as long as it takes.
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection


def answers(environment: Environment, most_seconds: float | None = None) -> bool:
    """Whether the home's stage server answers: for one that is stopped the system connects, too.

    Args:
        environment: Whose home it is.
        most_seconds: Wait no longer for the answer; None: as long as a busy one may take.

    Raises:
        OSError: no server is up, or it does not answer in time.
        UsageError: the home's path is too long for a socket in it, so it has no server.
    """
    path = socket_path(environment, "stages")
    patience = _ANSWER_AGAIN_SECONDS if path in _silent else most_seconds or _ANSWER_SECONDS
    with connect(environment) as connection:
        connection.settimeout(patience)
        # Refused by each: nothing is begun.
        send(connection, {})
        try:
            is_there = bool(receive(connection))
        except TimeoutError:
            _silent.add(path)
            raise
    _silent.discard(path)
    return is_there


def receive(connection: socket.socket) -> bytes:
    """What has come of a reply; nothing when who was to send it has gone."""
    try:
        return connection.recv(READ_BYTES)
    except ConnectionError:
        return b""


def umask() -> int | None:
    """What this process takes from the permissions of a file that it makes.

    None: the system does not tell. To ask by setting another one would be seen by other threads.
    """
    with suppress(OSError):
        if told := _UMASK.search(_STATUS.read_bytes()):
            return int(told[1], 8)
    return None


def socket_path(environment: Environment, name: str) -> Path:
    """Where a socket of the home lies.

    Raises:
        UsageError: the home's path is too long for a socket in it.
    """
    path = environment.runtime / f"{name}.sock"
    # Beyond ASCII a character has several.
    too_many = len(os.fsencode(path)) + _PID_SUFFIX - _LONGEST_PATH
    if too_many > 0:
        raise UsageError(
            f"NIGHTSHIFT_HOME={environment.home} is {too_many} bytes too long: a Unix socket's "
            f"path holds {_LONGEST_PATH}. Set it to a shorter one."
        )
    return path


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ProtocolError(f"Not JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("A message is a JSON object.")
    return message
