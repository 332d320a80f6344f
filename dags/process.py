"""The `nightshift` command as a task does it, whose log keeps the levels of its lines.

By a child of the stage server where one is up and the command is one that it does, else by a
process of the task's own.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dags.forwarded import Forwarded, Reply, forwarded
from pipelines.environment import ROOT
from pipelines.errors import (
    AwaitsApproval,
    AwaitsTurn,
    NightshiftError,
    NotLanded,
    Refused,
    UsageError,
)

_ERRORS = (
    *(f"{error.kind}: " for error in (NightshiftError, Refused, UsageError)),
    "Traceback (most recent call last)",
)
"""How a line begins that is an error's first."""
_WARNINGS = (
    "Warning: ",
    *(f"{error.kind}: " for error in (NotLanded, AwaitsApproval, AwaitsTurn)),
)


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
        self._forwarded: Forwarded | None = None

    def run(self, words: Sequence[str], variables: Mapping[str, str]) -> Ended:
        """Run a command to its end, in a process group of its own; each line is logged at once."""
        self._log.info("Running command: %s", list(words))
        program, *own = words
        began = datetime.now(UTC)
        self._forwarded = forwarded(own, variables)
        if self._forwarded is None:
            return self._run_here(words, variables)
        line = self._log_lines(self._forwarded.lines())
        reply = self._forwarded.reply()
        if self._forwarded.is_ended:
            return Ended(exit_code=-signal.SIGTERM, last_line=line)
        if not reply.is_lost:
            return Ended(exit_code=reply.code, last_line=line)
        if reply.is_refused:
            return self._run_here(words, variables)
        self._log_lines(reply.said.encode().splitlines())
        # What was to be told and recorded in the end its client does, as it otherwise would have.
        return self._run_here([program, *_when_lost(own, began, reply)], variables)

    def _run_here(self, words: Sequence[str], variables: Mapping[str, str]) -> Ended:
        self._child = subprocess.Popen(
            words,
            env=variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._child.stdout is not None
        # Its output is not closed when a time limit unwinds this: the command, which is ended only
        # afterwards, may still have something to say and would die of a closed pipe instead.
        line = self._log_lines(self._child.stdout)
        code = self._child.wait()
        self._child.stdout.close()
        return Ended(exit_code=code, last_line=line)

    def _log_lines(self, lines: Iterable[bytes]) -> str:
        """Log each line as it comes; returns the last."""
        level = logging.INFO
        line = ""
        for raw in lines:
            line = raw.decode(errors="backslashreplace").rstrip()
            level = level_of(line, level)
            self._log.log(level, "%s", line)
        return line

    def end(self) -> None:
        """Ask the command to end, and all that it has started in its group."""
        if self._forwarded is not None:
            self._forwarded.end()
        if self._child is None or self._child.returncode is not None:
            return
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(self._child.pid, signal.SIGTERM)


def _when_lost(words: Sequence[str], began: datetime, reply: Reply) -> list[str]:
    """The command that does what is left when the child that did this one could tell nobody.

    A stage that was lost is on record, and told of; it is not done again before its next attempt.
    """
    if words[0] != "run":
        return list(words)
    lost = {"since": began.isoformat(), "taken": dict(reply.taken)}
    return [*words, f"--lost={json.dumps(lost)}"]


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
