"""Reads for which whoever tells people waits only a little: what is told matters more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

MOST_SECONDS = 2.0
"""Airflow ends what it calls after 20 s, and a store that is away keeps a reader for a minute."""
_Rows = Sequence[dict[str, Any]]
_late: list[Thread] = []
"""Reads that were too late, and may still go on."""


def read(rows: Callable[[], _Rows]) -> _Rows:
    """What the function reads.

    Raises:
        TimeoutError: it takes longer than `MOST_SECONDS`, or another one that did still goes on.
            Nobody waits for it any more.
    """
    _late[:] = [one for one in _late if one.is_alive()]
    if _late:
        raise TimeoutError(_told())
    found: list[_Rows] = []
    errors: list[Exception] = []

    def reading() -> None:
        try:
            found.append(rows())
        except Exception as error:
            errors.append(error)

    # Python waits at its end for every other thread, and for no daemon.
    thread = Thread(target=reading, daemon=True)
    thread.start()
    thread.join(MOST_SECONDS)
    if errors:
        raise errors[0]
    if not found:
        _late.append(thread)
        raise TimeoutError(_told())
    return found[0]


def _told() -> str:
    return f"the lake does not answer within {MOST_SECONDS:.0f} s."
