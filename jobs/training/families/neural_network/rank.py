"""One Horovod rank. It does not know who launched it: a launcher of ours or `horovodrun`."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jobs.training.families.neural_network import MODEL, alike
from jobs.training.families.neural_network.quiet import import_tensorflow
from pipelines import places

if TYPE_CHECKING:
    import keras


def main(argument: dict[str, Any]) -> None:
    """Take part in the training laid out in `argument["folder"]`.

    One that `is_elsewhere`, which may have other code than the stage, looks at that first. Rank 0
    leaves the model and its history there.
    """
    from jobs.training.families.neural_network import job as jobs

    folder = places.place(argument["folder"])
    number = int(os.environ.get("HOROVOD_RANK", "0"))
    if not places.is_url(folder):
        jobs.process_file(folder, number).write_text(str(os.getpid()))
    # Horovod leaves last: the others would take what they hear of it for the cause.
    with ExitStack() as at_end:
        try:
            if argument.get("is_elsewhere"):
                alike.require_alike(jobs.made_by(folder))
            _take_part(folder, at_end)
        except Exception:
            # What the launcher shows of a rank that has died.
            jobs.error_file(folder, number).write_text(traceback.format_exc())
            raise


def _take_part(folder: Path, at_end: ExitStack) -> None:
    import_tensorflow()
    import horovod.tensorflow as hvd

    from jobs.training.families.neural_network import job as jobs
    from jobs.training.families.neural_network import loop
    from jobs.training.families.neural_network.devices import take_gpu

    hvd.init()
    at_end.callback(hvd.shutdown)
    job = jobs.read(folder)
    take_gpu(hvd.local_rank())
    loop.make_repeatable(job.seed)
    told_slope = partial(jobs.await_slope, folder, job.network.timeout_seconds)
    model, outcome = loop.fit(job, told_slope)
    if hvd.rank() == 0:
        _save(model, folder / MODEL)
        jobs.write_outcome(folder, outcome)


def _save(model: keras.Model, file: Path) -> None:
    from jobs.training.families.neural_network import network

    # Keras writes to disks alone.
    with TemporaryDirectory() as scratch:
        own = Path(scratch) / MODEL
        network.save(model, own)
        places.write_whole(file, own.read_bytes())


if __name__ == "__main__":
    main({"folder": sys.argv[1]})
