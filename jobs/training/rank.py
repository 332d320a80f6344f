"""One Horovod rank. It does not know who launched it.

The stage's launcher, `horovodrun`, or `horovod.spark.run`.

For example `horovodrun -np 4 -H a:2,b:2 python -m jobs.training.rank /shared/folder`.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from jobs.training.quiet import import_tensorflow


def main(argument: dict[str, Any]) -> None:
    """Take part in the training laid out in `argument["folder"]`.

    Rank 0 leaves the model and its history there.
    """
    import_tensorflow()
    import horovod.tensorflow as hvd

    from jobs.training import job, loop
    from jobs.training import model as network

    place = Path(argument["folder"])
    hvd.init()
    try:
        work = job.read(place)
        loop.prepare(work.training.seed, hvd.rank())
        model, outcome = loop.fit(work)
        if hvd.rank() == 0:
            network.save(model, place / job.MODEL)
            job.write_outcome(place, outcome)
    except Exception:
        job.error_file(place, hvd.rank()).write_text(traceback.format_exc())
        raise
    finally:
        hvd.shutdown()


if __name__ == "__main__":
    main({"folder": sys.argv[1]})
