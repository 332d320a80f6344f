"""The `nightshift` command as a child of a task, whose log keeps the levels of its lines."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipelines.environment import ROOT
from pipelines.errors import NightshiftError, NotLanded, Refused, UsageError

_ERRORS = (
    *(f"{error.kind}: " for error in (NightshiftError, Refused, UsageError)),
    "Traceback (most recent call last)",
)
"""How a line begins that is an error's first."""
_WARNINGS = ("Warning: ", f"{NotLanded.kind}: ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command has ended."""

    exit_code: int
    last_line: str
    """Of what it printed."""


class Process:
    """One command, and the log that its lines go to."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, words: Sequence[str], variables: Mapping[str, str]) -> Ended:
        """Run a command to its end, in a process group of its own; each line is logged at once."""
        self._log.info("Running command: %s", list(words))
        self._child = subprocess.Popen(
            words,
            env=variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._child.stdout is not None
        level = logging.INFO
        line = ""
        # Its output is not closed when a time limit unwinds this: the command, which is ended only
        # afterwards, may still have something to say and would die of a closed pipe instead.
        for raw in self._child.stdout:
            line = raw.decode(errors="backslashreplace").rstrip()
            level = level_of(line, level)
            self._log.log(level, "%s", line)
        code = self._child.wait()
        self._child.stdout.close()
        return Ended(exit_code=code, last_line=line)

    def end(self) -> None:
        """Ask the command to end, and all that it has started in its group."""
        if self._child is None or self._child.returncode is not None:
            return
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(self._child.pid, signal.SIGTERM)


def level_of(line: str, before: int) -> int:
    """The level of a line of the command.

    Args:
        line: What it printed.
        before: The level of the line before: an error's message and traceback have several lines,
            and are the last that is printed.
    """
    if line.startswith(_ERRORS):
        return logging.ERROR
    if line.startswith(_WARNINGS):
        return logging.WARNING
    return logging.ERROR if before == logging.ERROR else logging.INFO
