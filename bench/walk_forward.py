"""How good a pipeline's model is on days that it has not seen: trained again and again, as of them.

`python -m bench.walk_forward weather --from 2013-06-01 --to 2013-08-31` takes the published
training rows, trains as of every seventh day by the pipeline's own declaration (its window, its
family), and measures each model on the days until the next one. Nothing is published or kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from jobs.lake import snapshots
from jobs.output import show
from jobs.training import baselines, dataset
from jobs.training.encoding import Encoding
from jobs.training.families import family_of
from jobs.training.promotion import win_rate
from jobs.training.scoring import Scorer
from jobs.training.tasks import task_of
from pipelines.catalog import pipeline
from pipelines.days import Days, parse_day
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    from jobs.lake.snapshots import Snapshot
    from jobs.training.metrics import Vector

_MODEL = "model"
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """What was foretold for the days after one training."""

    day: np.ndarray
    label: Vector
    predictions: dict[str, Vector]
    """Of the model and of each baseline, by name."""


def main() -> int:
    """Walk, and print a row for the model and one for each baseline, over all days pooled."""
    asked = _arguments()
    environment = Environment.read()
    declared = pipeline(asked.pipeline)
    days = Days(parse_day(asked.first), parse_day(asked.last))
    stretches = []
    for part in _parts(days, asked.every):
        run = Run(pipeline=declared, days=part.shifted(-1), environment=environment)
        stretches.append(_walk(run, part))
        print(f"{part}: {len(stretches[-1].label)} rows", file=sys.stderr, flush=True)
    _show(declared.training.task, stretches)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.walk_forward", description=__doc__)
    parser.add_argument("pipeline")
    parser.add_argument("--from", dest="first", required=True, metavar="D", help="first test day")
    parser.add_argument("--to", dest="last", required=True, metavar="D", help="last test day")
    parser.add_argument("--every", type=int, default=7, help="days from one training to the next")
    return parser.parse_args()


def _parts(days: Days, every: int) -> Iterator[Days]:
    first = days.first
    while first <= days.last:
        last = min(first + timedelta(days=every - 1), days.last)
        yield Days(first, last)
        first = last + timedelta(days=1)


def _walk(run: Run, test_days: Days) -> Stretch:
    """Train as of the evening before the test days, and foretell them."""
    training = run.pipeline.training
    column = run.pipeline.table(TRAINING).partition
    as_of = test_days.first - timedelta(days=1)
    window = dataset.window(run.pipeline, as_of)
    snapshot = snapshots.newest(run, TRAINING)
    tested = dataset.labelled(run, snapshot, test_days)
    past = dataset.labelled(run, snapshot, window.trained)
    predictions = {_MODEL: _trained(run, snapshot, window).score(tested)}
    for declared in training.baselines:
        fitted = baselines.fit(declared, past, training.label)
        predictions[declared.name] = fitted.predict(tested)
    return Stretch(
        day=tested[column].to_numpy(),
        label=tested[training.label].to_numpy().astype(np.float64),
        predictions=predictions,
    )


def _trained(run: Run, snapshot: Snapshot, window: dataset.Window) -> Scorer:
    data = dataset.load(run, snapshot, window)
    declared = run.pipeline.training.family
    family = family_of(declared.name)
    settings = family.settings(declared, run.environment)
    encoding: Encoding = data.encoding
    with TemporaryDirectory() as work, TemporaryDirectory() as files:
        fit = family.fit(data, settings, run.environment, Path(work))
        fit.save(Path(files))
        return Scorer(model=family.load(Path(files), encoding), encoding=encoding)


def _show(task_name: str, stretches: list[Stretch]) -> None:
    task = task_of(task_name)
    day = np.concatenate([one.day for one in stretches])
    label = np.concatenate([one.label for one in stretches])
    pooled = {}
    for name in stretches[0].predictions:
        pooled[name] = np.concatenate([one.predictions[name] for one in stretches])
    own_loss = task.losses(label, pooled[_MODEL])
    rows: list[tuple[object, ...]] = []
    for name, prediction in pooled.items():
        measured = task.measure(label, prediction)
        beaten = win_rate(own_loss, task.losses(label, prediction), day, _RESAMPLES)
        figures = [measured[metric] for metric in task.metrics]
        rounded = [None if value is None else round(value, 4) for value in figures]
        rows.append((name, *rounded, "" if name == _MODEL else f"{beaten:.1%}"))
    print(f"{len(label)} rows of {len(np.unique(day))} days, {len(stretches)} trainings")
    show(["", *task.metrics.values(), "beaten in"], rows)


if __name__ == "__main__":
    sys.exit(main())
