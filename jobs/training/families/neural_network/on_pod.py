"""One rank in a Pod: `python -m jobs.training.families.neural_network.on_pod JOB PORT`.

Its place is in its variables, as Kubernetes and the launcher have set them.
"""

from __future__ import annotations

import os
import socket
import sys

from jobs.services.child import end
from jobs.training.families.neural_network import wanted
from jobs.training.families.neural_network.on_host import LEFT_ALONE, take_part_while_wanted
from jobs.training.families.neural_network.quiet import import_tensorflow
from jobs.training.families.neural_network.rendezvous import ADDRESS
from pipelines.errors import NightshiftError

INDEX = "JOB_COMPLETION_INDEX"
"""Variable by which an Indexed Job tells a Pod its number."""


def main(folder: str, port: int) -> int:
    """Take part in the training as soon as all ranks can; gives the exit code."""
    number = int(os.environ[INDEX])
    try:
        line = come(port, number)
    except NightshiftError as error:
        print(error, file=sys.stderr)
        # Its node may be cut off: the Pods of the next attempt may be on others.
        return LEFT_ALONE
    if line is None:
        print("Nobody wants this rank any more: its stage has ended.", file=sys.stderr)
        return LEFT_ALONE
    return take_part(folder, number, line)


def come(port: int, number: int) -> socket.socket | None:
    """The rank's end of the line to the stage, once all ranks are there; None: nobody wants it.

    Raises:
        NightshiftError: this machine does not reach the stage.
    """
    # Imported before the ranks wait for each other, as one may need a minute longer for it.
    import_tensorflow()
    import horovod.tensorflow  # noqa: F401 - the rank is a fork of this process

    return wanted.reach(os.environ[ADDRESS], port, number)


def take_part(folder: str, number: int, line: socket.socket) -> int:
    """Take part in the training while the stage holds the line; gives the exit code."""
    # Each has a place of its own, with one rank.
    place = {"HOROVOD_RANK": str(number), "HOROVOD_CROSS_RANK": str(number)}
    return take_part_while_wanted(folder, {**os.environ, **place}, line.fileno())


if __name__ == "__main__":
    # At once: the others, or the next attempt, would wait while TensorFlow tidies up.
    end(main(sys.argv[1], int(sys.argv[2])))
