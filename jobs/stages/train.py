"""The train stage: a candidate model from the labels known by the last day of the run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.training import dataset, encoding, job, pins
from pipelines.run import Run

if TYPE_CHECKING:
    from jobs.training.job import Job, Outcome
    from jobs.training.registry import ModelVersion, Registry


def train(run: Run) -> dict[str, object]:
    """Train a candidate as of the run's last day, or find the one that the same pins made before.

    Raises:
        Refused: too few labels are known.
        NightshiftError: a rank failed or time was up.
    """
    from jobs.training.registry import Registry

    as_of, ranks = run.days.last, run.environment.ranks or run.pipeline.training.ranks
    days, pinned = dataset.window(run.pipeline, as_of), dataset.snapshot(run, dataset.TABLE)
    work = _job(run, pinned, days)
    found = pins.pins(work, as_of, days, pinned, ranks)
    registry = Registry(run.environment, run.pipeline.name)
    known = None if run.retrain else registry.trained(pins.fingerprint(found))
    told = {
        "as_of": str(as_of),
        "fit_rows": len(work.fit),
        "validation_rows": len(work.validation),
        "table_version": pinned.version,
        "ranks": ranks,
    }
    if known:
        return told | {"model_version": registry.challenge(known).version, "reused": True}
    return told | _train(run, registry, work, found, ranks)


def _job(run: Run, pinned: dataset.Snapshot, days: dataset.Window) -> Job:
    training, column = run.pipeline.training, run.pipeline.table(dataset.TABLE).partition
    rows = dataset.labelled(run, pinned, days.trained)
    fit, validation = (
        dataset.between(rows, column, days.fit),
        dataset.between(rows, column, days.validation),
    )
    dataset.require_rows(run, fit, validation, days)
    learned = encoding.learn(fit, training)
    shuffled = np.random.default_rng(training.seed).permutation(len(fit))
    return job.Job(
        training=training,
        encoding=learned,
        fit=encoding.encode(fit, learned, training.label).take(shuffled),
        validation=encoding.encode(validation, learned, training.label),
    )


def _train(
    run: Run, registry: Registry, work: Job, found: dict[str, object], ranks: int
) -> dict[str, object]:
    from jobs.training.launch import launch

    with job.folder(run.environment.home / "training" / run.pipeline.name) as place:
        job.write(place, work)
        started = time.monotonic()
        launch(run.environment, place, ranks, work.training.timeout_seconds)
        seconds, outcome = time.monotonic() - started, job.read_outcome(place)
        model = _keep(registry, run, place, outcome, found, ranks)
    best = min(outcome.history["val_loss"])
    return {
        "model_version": model.version,
        "reused": False,
        "epochs": len(outcome.history["loss"]),
        "steps_per_epoch": outcome.steps_per_epoch,
        "validation_loss": round(best, 5),
        "calibration_slope": round(outcome.slope, 4),
        "training_seconds": round(seconds, 2),
    }


def _keep(
    registry: Registry,
    run: Run,
    place: Path,
    outcome: Outcome,
    found: dict[str, object],
    ranks: int,
) -> ModelVersion:
    with job.folder(place) as files:
        for name in (job.MODEL, job.ENCODING):
            (place / name).rename(files / name)
        training = run.pipeline.training
        params = {
            name: getattr(training, name)
            for name in training.__slots__
            if name not in ("numeric", "categorical")
        }
        params |= {
            "ranks": ranks,
            "as_of": run.days.last,
            "calibration_slope": outcome.slope,
            "run_id": run.run_id,
        }
        return registry.keep(
            files, run.days.last, pins.fingerprint(found), params, outcome.history, found
        )
