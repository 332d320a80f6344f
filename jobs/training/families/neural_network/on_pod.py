"""One rank in a Pod: `python -m jobs.training.families.neural_network.on_pod JOB PORT`.

Its place is in its variables, as Kubernetes and the launcher have set them.
"""

from __future__ import annotations

import os
import sys

from jobs.services.child import end
from jobs.training.families.neural_network import wanted
from jobs.training.families.neural_network.on_host import LEFT_ALONE, take_part_while_wanted
from jobs.training.families.neural_network.quiet import import_tensorflow
from jobs.training.families.neural_network.rendezvous import ADDRESS

INDEX = "JOB_COMPLETION_INDEX"
"""Variable by which an Indexed Job tells a Pod its number."""


def main(folder: str, port: int) -> int:
    """Take part in the training as soon as all ranks can; gives the exit code."""
    number = os.environ[INDEX]
    # Imported before the ranks wait for each other, as one may need a minute longer for it.
    import_tensorflow()
    import horovod.tensorflow  # noqa: F401 - the rank is a fork of this process

    line = wanted.reach(os.environ[ADDRESS], port, int(number))
    if line is None:
        print("Nobody wants this rank any more: its stage has ended.", file=sys.stderr)
        return LEFT_ALONE
    # A Pod is a host of its own, with one rank.
    place = {"HOROVOD_RANK": number, "HOROVOD_CROSS_RANK": number}
    return take_part_while_wanted(folder, {**os.environ, **place}, line.fileno())


if __name__ == "__main__":
    # At once: the others, or the next attempt, would wait while TensorFlow tidies up.
    end(main(sys.argv[1], int(sys.argv[2])))
