"""One Horovod rank. It does not know who launched it.

The stage's launcher, `horovodrun`, or `horovod.spark.run`. For example:
`horovodrun -np 4 -H a:2,b:2 python -m jobs.training.families.neural_network.rank /shared/folder`.
"""

from __future__ import annotations

import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from jobs.training.families.neural_network import MODEL
from jobs.training.families.neural_network.quiet import import_tensorflow


def main(argument: dict[str, Any]) -> None:
    """Take part in the training laid out in `argument["folder"]`.

    Rank 0 leaves the model and its history there.
    """
    import_tensorflow()
    import horovod.tensorflow as hvd

    from jobs.training.families.neural_network import job as jobs
    from jobs.training.families.neural_network import loop, network

    folder = Path(argument["folder"])
    hvd.init()
    try:
        job = jobs.read(folder)
        loop.make_repeatable(job.seed)
        told_slope = partial(jobs.await_slope, folder, job.network.timeout_seconds)
        model, outcome = loop.fit(job, told_slope)
        if hvd.rank() == 0:
            network.save(model, folder / MODEL)
            jobs.write_outcome(folder, outcome)
    except Exception:
        # What the launcher shows of a rank that has died.
        jobs.error_file(folder, hvd.rank()).write_text(traceback.format_exc())
        raise
    finally:
        hvd.shutdown()


if __name__ == "__main__":
    main({"folder": sys.argv[1]})
