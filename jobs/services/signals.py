"""How a process that is asked to end leaves nothing half-done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
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


@contextmanager
def interrupted_once_done(end: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C ask the block to end, and interrupt when it has; a second one ends the process.

    For a block whose threads do the work: no interrupt reaches them, and they would go on behind
    one that has interrupted the block. Who ignores Ctrl-C, as what a script has in the background,
    goes on.

    Args:
        end: Has the threads end.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        end()

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if asked:
            raise KeyboardInterrupt


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """Let none of these signals end what is done from here on."""
    for one in numbers:
        signal.signal(one, signal.SIG_IGN)
