"""A rank that is killed once, right after the first checkpoint: what a test has launched."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from jobs.training.families.neural_network import rank
from jobs.training.families.neural_network.quiet import import_tensorflow


def killed_once(argument: dict[str, Any]) -> None:
    """Take part, and be killed once a checkpoint has been written; a second time, all goes well."""
    import_tensorflow()
    from jobs.training.families.neural_network.checkpoint import Checkpoints

    was_killed = Path(argument["folder"]) / "was killed"
    write = Checkpoints._write

    def write_and_die(checkpoints: Checkpoints) -> None:
        write(checkpoints)
        if not was_killed.exists():
            was_killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints._write = write_and_die
    rank.main(argument)
