"""Ranks that meet a fault right after their first checkpoint: what a test has launched."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.training.families.neural_network import rank
from jobs.training.families.neural_network.quiet import import_tensorflow


def killed_once(argument: dict[str, Any]) -> None:
    """Take part, and be killed once a checkpoint has been written; a second time, all goes well."""
    was_killed = Path(argument["folder"]) / "was killed"

    def die() -> None:
        if not was_killed.exists():
            was_killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _take_part(argument, die)


def killed(argument: dict[str, Any]) -> None:
    """Take part, and be killed at each attempt."""
    _take_part(argument, lambda: os.kill(os.getpid(), signal.SIGKILL))


def hung(argument: dict[str, Any]) -> None:
    """Take part, and do nothing any more."""
    _take_part(argument, lambda: os.kill(os.getpid(), signal.SIGSTOP))


def _take_part(argument: dict[str, Any], fault: Callable[[], None]) -> None:
    import_tensorflow()
    from jobs.training.families.neural_network.checkpoint import Checkpoints

    write = Checkpoints._write

    def write_and_meet_it(checkpoints: Checkpoints) -> None:
        write(checkpoints)
        fault()

    Checkpoints._write = write_and_meet_it
    rank.main(argument)
