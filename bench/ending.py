"""How a measurement is ended from outside: nothing that it has started stays."""

from __future__ import annotations

import signal

from jobs.services.signals import ASKED_BY, endings

INTERRUPTED = 130
"""Exit code of a process that Ctrl-C has ended."""


def end_as_by_ctrl_c() -> None:
    """Have `kill`, and the end of the terminal, end this process as Ctrl-C does."""
    for one in endings():
        signal.signal(one, _end)


def _end(*_: object) -> None:
    for one in ASKED_BY:
        # `timeout` tells `make` and what it runs, and `make` tells it again: clearing up goes on.
        # A handler, as what is ignored would be ignored by all that is started meanwhile.
        signal.signal(one, lambda *_: None)
    raise KeyboardInterrupt
