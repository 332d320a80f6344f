"""Tells of processes of the platform that are stopped (SIGSTOP), to who waits for what they do.

What they do goes on when they do: it is waited for, and not without a word.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

_LOOK_SECONDS = 20
"""To look takes some milliseconds of a processor for each process of the platform."""


@contextmanager
def told(home: Path) -> Iterator[None]:
    """Look for them again and again while the block waits; each is told of once."""
    is_over = Event()
    Thread(target=_look, args=(home, is_over), daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _look(home: Path, is_over: Event) -> None:
    known: set[int] = set()
    while not is_over.wait(_LOOK_SECONDS):
        # Here, as most waiting is over by then, and commands begin without it.
        from jobs.services import processes

        for one in processes.marked(home):
            if one.pid in known or not processes.is_stopped(one.pid):
                continue
            known.add(one.pid)
            way_out = processes.how_to_go_on(one.pid)
            print(
                f"Meanwhile: {processes.describe(one)} is stopped (SIGSTOP): {way_out}.",
                file=sys.stderr,
                flush=True,
            )
