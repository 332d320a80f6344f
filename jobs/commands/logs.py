"""The command `nightshift logs`: what the services of this home have written."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from jobs.output import show
from pipelines.environment import Environment
from pipelines.errors import UsageError, no_such

COLUMNS = ("service", "bytes", "written at (UTC)")

_LOOK_SECONDS = 0.3


def logs(
    environment: Environment, service: str | None, *, follow: bool, lines: int, form: str
) -> int:
    """List the logs, or print the end of one and, when asked, what is written to it from then on.

    Args:
        environment: Whose services.
        service: Whose log; None lists the logs there are.
        follow: Go on until interrupted.
        lines: How many of the last lines are printed; 0 prints none.
        form: How the list is printed.

    Raises:
        UsageError: there is no such service, or it has not written a log yet.
    """
    if service is None:
        if follow:
            raise UsageError("Say whose log to follow, for example: nightshift logs spark --follow")
        show(COLUMNS, [_row(log) for log in written(environment)], form)
        print(f"Logs are in {environment.logs}", file=sys.stderr)
        return 0
    log = log_of(environment, service)
    with suppress(KeyboardInterrupt):  # how following ends
        for text in _followed(log, lines) if follow else end_of(log, lines):
            sys.stdout.write(text)
            sys.stdout.flush()
    return 0


def written(environment: Environment) -> list[Path]:
    """The logs that are there, sorted by name."""
    return sorted(environment.logs.glob("*.log"))


def names(environment: Environment) -> list[str]:
    """What `log_of` knows: the services, and whoever else has written a log."""
    from jobs.services.definitions import services

    known = {one.name for one in services(environment)}
    return sorted(known | {log.stem for log in written(environment)})


def log_of(environment: Environment, service: str) -> Path:
    """The log of a service.

    Raises:
        UsageError: there is no such service (the message offers the near miss), or no log of it.
    """
    known = names(environment)
    if service not in known:
        raise no_such("service", service, known)
    log = environment.logs / f"{service}.log"
    if not log.exists():
        raise UsageError(
            f"The service '{service}' has not written a log yet: {log} does not exist. "
            "Start the services: nightshift up"
        )
    return log


def end_of(log: Path, lines: int) -> Iterator[str]:
    """The last lines of a log, each with its end."""
    # What others write need not be UTF-8.
    with log.open(encoding="utf-8", errors="replace") as file:
        yield from _last(file, lines)


def _last(file: TextIO, lines: int) -> deque[str]:
    # A longer log than Python can count is none.
    return deque(file, maxlen=min(lines, sys.maxsize))


def _followed(log: Path, lines: int) -> Iterator[str]:
    """The last lines, and then what is added; a log begun anew is followed from its start."""
    file = log.open(encoding="utf-8", errors="replace")
    try:
        yield from _last(file, lines)
        while True:
            yield file.read()
            if _is_begun_anew(log, file.fileno()):
                file.close()
                file = log.open(encoding="utf-8", errors="replace")
            else:
                time.sleep(_LOOK_SECONDS)
    finally:
        file.close()


def _is_begun_anew(log: Path, descriptor: int) -> bool:
    """Whether the supervisor has put another file in its place, or emptied it."""
    if not log.exists():
        return False
    there = log.stat()
    read = os.fstat(descriptor)
    emptied = there.st_size < os.lseek(descriptor, 0, os.SEEK_CUR)
    return emptied or not os.path.samestat(there, read)


def _row(log: Path) -> tuple[object, ...]:
    there = log.stat()
    at = datetime.fromtimestamp(there.st_mtime, UTC)
    return (log.stem, there.st_size, f"{at:%Y-%m-%d %H:%M:%S}")
