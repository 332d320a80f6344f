"""Shows what is waited for: a line per thing that is done, and on a terminal a line that moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

_REMIND_SECONDS = 15
_START_OF_LINE = "\r\x1b[K"
"""Takes a terminal back to the start of its line and empties it."""


class Progress:
    """Things that are waited for, shown as they are done."""

    def __init__(self, names: Sequence[str], to: TextIO | None = None) -> None:
        self._order = list(names)
        self.waiting = set(names)
        self._out = to or sys.stderr
        self._moves = self._out.isatty()
        self._started = time.monotonic()
        self._reminded = self._started

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()

    def done(self, name: str) -> None:
        """Show that it is done, once."""
        if name not in self.waiting:
            return
        self.waiting.remove(name)
        self._clear()
        self._print(f"  {name:<14} ready after {self._seconds():5.1f} s")

    def give_up(self, name: str, why: str) -> None:
        """Wait for it no longer, and show why."""
        self.waiting.remove(name)
        self._clear()
        self._print(why)

    def tick(self) -> None:
        """Show what is still waited for: at once on a terminal, now and then in a file."""
        if not self.waiting:
            return
        left = ", ".join(name for name in self._order if name in self.waiting)
        line = f"  waiting for {left} ({self._seconds():.0f} s)"
        if self._moves:
            self._print(f"{_START_OF_LINE}{line}", end="")
        elif time.monotonic() - self._reminded > _REMIND_SECONDS:
            self._reminded = time.monotonic()
            self._print(line)

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _clear(self) -> None:
        if self._moves:
            self._print(_START_OF_LINE, end="")

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._out, flush=True)
