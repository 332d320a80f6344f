"""One rank of several that begin and end together, as Pods of a Job or tasks of a query."""

from __future__ import annotations

import time
from typing import Protocol

_LOOK_SECONDS = 0.05
"""From one look to the next, where nobody says for how long to wait."""


class Ranks(Protocol):
    """All of them."""

    def code(self, number: int) -> int | None:
        """Exit code of a rank; None: it has not ended, or nobody can tell now."""

    def last_words(self, number: int) -> str:
        """What is known of how a rank has ended, beside its code; empty: nothing."""

    def end(self) -> None:
        """Have all of them end; harmless when they have."""


class NumberedRank:
    """Work of the rank with one number."""

    def __init__(self, ranks: Ranks, number: int) -> None:
        self._ranks = ranks
        self._number = number

    def wait(self, timeout: float | None = None) -> int | None:
        """See `Work`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            code = self._ranks.code(self._number)
            if code is not None:
                return code
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(timeout or _LOOK_SECONDS)

    def kill(self) -> None:
        """See `Work`; one is never ended without the others."""
        self._ranks.end()

    def last_words(self) -> str:
        """See `Ranks.last_words`."""
        return self._ranks.last_words(self._number)
