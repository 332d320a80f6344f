"""The channel `log`: a line on stderr, and a JSON line in `<home>/logs/notifications.log`."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from contextlib import closing
from logging.handlers import RotatingFileHandler
from pathlib import Path

from jobs.notifications.lines import say
from jobs.notifications.message import Message
from pipelines.environment import Environment

FILE = "notifications.log"
_LOCK = ".notifications.lock"
_MOST_BYTES = 20_000_000
_BACKUPS = 2
"""Files of before that are kept; as of the services' logs."""


def deliver(environment: Environment, message: Message) -> None:
    """Write the message where the run writes its log, and append it to the home's own file.

    Raises:
        OSError: the file cannot be written.
    """
    say(f"Notification: {message['text']}")
    environment.logs.mkdir(parents=True, exist_ok=True)
    # Of two processes that begin it anew, the later would throw away what the other has kept.
    with (environment.logs / _LOCK).open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _append(environment, json.dumps(message))


def _append(environment: Environment, line: str) -> None:
    path = environment.logs / FILE
    file = RotatingFileHandler(
        path,
        maxBytes=_MOST_BYTES,
        backupCount=_BACKUPS,
        encoding="utf-8",
    )
    with closing(file):
        # Not by `emit`, which would print a traceback of a full disk, and go on.
        if file.shouldRollover(logging.makeLogRecord({"msg": line})):
            file.doRollover()
        assert file.stream is not None, "it is not opened later"
        # What was cut off spoils no line but its own.
        begin = "\n" if _is_cut_off(path) else ""
        file.stream.write(f"{begin}{line}\n")


def _is_cut_off(path: Path) -> bool:
    """Whether its last line has no end, as after a full disk."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
