"""What whoever tells people waits for only a little: what is told matters more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, TypeVar

MOST_SECONDS = 2.0
"""For a read, or for a lock. Airflow ends what it calls after 20 s, and a store that is away keeps
a reader for a minute."""
RECORD_SECONDS = 4.0
"""For what was told to be on record, after all that it was told by."""
_LAKE, _LOCK = "the lake", "the lock of machines"
_Found = TypeVar("_Found")
_Rows = Sequence[dict[str, Any]]
_late: dict[str, Thread] = {}
"""By what was asked, who was too late, and may still go on."""


def read(rows: Callable[[], _Rows]) -> _Rows:
    """What the function reads of the lake.

    Raises:
        TimeoutError: it takes longer than `MOST_SECONDS`, or another one that asked the lake and
            was too late still goes on. Nobody waits for it any more.
    """
    return _within(_LAKE, rows, MOST_SECONDS)


def record(write: Callable[[], None]) -> None:
    """Have the function write to the lake.

    Raises:
        TimeoutError: as of `read`, after `RECORD_SECONDS`. It may be written all the same.
    """
    _within(_LAKE, write, RECORD_SECONDS)


def lock(take: Callable[[], None]) -> None:
    """Have the function take a lock, for which itself it waits no longer than `MOST_SECONDS`.

    Raises:
        TimeoutError: where machines find it nobody answers.
    """
    _within(_LOCK, take, MOST_SECONDS + 0.5)


def _within(what: str, asking: Callable[[], _Found], most_seconds: float) -> _Found:
    late = TimeoutError(f"{what} does not answer within {most_seconds:g} s.")
    before = _late.get(what)
    if before and before.is_alive():
        raise late
    found: list[_Found] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            found.append(asking())
        except Exception as error:
            errors.append(error)

    # Python waits at its end for every other thread, and for no daemon.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(most_seconds)
    if errors:
        raise errors[0]
    if not found:
        _late[what] = thread
        raise late
    return found[0]
