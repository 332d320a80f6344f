"""Shows what is waited for: a line per thing that is done, and on a terminal a line that moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

_REMIND_SECONDS = 15


class Progress:
    """Things that are waited for, shown as they are done."""

    def __init__(self, names: Sequence[str], to: TextIO | None = None) -> None:
        self._order, self.waiting = list(names), set(names)
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
        if name in self.waiting:
            self.waiting.remove(name)
            self._clear()
            print(f"  {name:<14} ready after {self._seconds():5.1f} s", file=self._out, flush=True)

    def tick(self) -> None:
        """Show what is still waited for: at once on a terminal, now and then in a file."""
        if not self.waiting:
            return
        left = ", ".join(name for name in self._order if name in self.waiting)
        if self._moves:
            print(
                f"\r\x1b[K  waiting for {left} ({self._seconds():.0f} s)",
                end="",
                file=self._out,
                flush=True,
            )
        elif time.monotonic() - self._reminded > _REMIND_SECONDS:
            self._reminded = time.monotonic()
            print(f"  waiting for {left} ({self._seconds():.0f} s)", file=self._out, flush=True)

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _clear(self) -> None:
        if self._moves:
            print("\r\x1b[K", end="", file=self._out, flush=True)
