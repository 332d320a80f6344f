"""Hosts that were lost and can be reached again, while the others train on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread

from jobs.training.families.neural_network.launchers import Launcher
from pipelines import places
from pipelines.errors import NightshiftError

_ASK_SECONDS = 60
"""From one question to the hosts to the next."""
_LOOK_SECONDS = 1
"""From one look at the checkpoint to the next: in a store each is a request."""


class HostsAreBackError(Exception):
    """More ranks could take part, and a checkpoint has just been written: little would be lost."""

    def __init__(self, hosts: Mapping[str, int]) -> None:
        super().__init__(", ".join(hosts))
        self.hosts = hosts


class Returning:
    """Asks now and then which hosts can be reached, beside a training on some of them."""

    def __init__(self, launcher: Launcher, ranks: int, taking_part: int, checkpoint: Path) -> None:
        """Of a training.

        Args:
            launcher: Which reaches the hosts.
            ranks: How many ranks were asked for.
            taking_part: How many there are.
            checkpoint: From which other ranks would go on.
        """
        self._launcher = launcher
        self._ranks = ranks
        self._taking_part = taking_part
        self._checkpoint = checkpoint
        self._reached: Mapping[str, int] = {}
        self._seen: int | None = None
        self._next_ask = time.monotonic() + _ASK_SECONDS
        self._next_look = 0.0

    def look(self) -> None:
        """Go on, unless more ranks could.

        Raises:
            HostsAreBackError: they could, from a checkpoint of this moment.
        """
        if not self._reached:
            self._ask_if_due()
        elif time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            seen = _mark(self._checkpoint)
            # Nobody has written one because it cannot be seen now.
            if seen is None:
                return
            if self._seen not in (None, seen):
                raise HostsAreBackError(self._reached)
            self._seen = seen

    def _ask_if_due(self) -> None:
        if time.monotonic() > self._next_ask:
            self._next_ask = time.monotonic() + _ASK_SECONDS
            # A host that is away is waited for, and the ranks are looked at meanwhile.
            Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        # Of a host that cannot be reached at all more was said when it was lost.
        with suppress(NightshiftError):
            found = self._launcher.left(self._ranks)
            if min(self._ranks, sum(found.values())) > self._taking_part:
                self._reached = found


def _mark(checkpoint: Path) -> int | None:
    """A number that is another for each checkpoint; None: there is none, or nobody can tell now."""
    try:
        return places.mark(checkpoint.stat())
    except Exception:  # each library of a store has its own
        return None
