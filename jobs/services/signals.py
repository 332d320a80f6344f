"""How a process that is asked to end leaves nothing half-done."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

ASKED_BY = (signal.SIGTERM, signal.SIGHUP)
"""How a process is asked to end, beside Ctrl-C."""


def endings() -> list[signal.Signals]:
    """Those of `ASKED_BY` that would end this process without a word.

    Who ignores one, as under `nohup`, goes on, and a handler of the caller's stays.
    """
    return [one for one in ASKED_BY if signal.getsignal(one) is signal.SIG_DFL]


@contextmanager
def interrupted_by(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Let each of these signals end the block as Ctrl-C does."""
    before = {one: signal.signal(one, signal.default_int_handler) for one in numbers}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """Let none of these signals end what is done from here on."""
    for one in numbers:
        signal.signal(one, signal.SIG_IGN)
