"""The train stage: a candidate model from the labels known by the last day of the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.lake import publications, snapshots
from jobs.survey import training_definition
from jobs.training import dataset, pins
from jobs.training.encoding import ENCODING
from jobs.training.families import family_of
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.run import Run
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    from jobs.training.dataset import Dataset
    from jobs.training.families import Fit, ModelFamily
    from jobs.training.registry import ModelVersion, Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What is about to be trained."""

    family: ModelFamily
    settings: Any
    data: Dataset
    pins: dict[str, object]


def train(run: Run) -> dict[str, object]:
    """Train a candidate as of the run's last day, or find the one that the same pins made before.

    Raises:
        Refused: too few labels are known, or the model is not finite.
        NightshiftError: the training failed.
    """
    from jobs.training.registry import Registry

    plan = _plan(run)
    registry = Registry(run.environment, run.pipeline.name)
    result = {
        "as_of": str(run.days.last),
        "family": plan.family.name,
        "fit_rows": len(plan.data.fit),
        "validation_rows": len(plan.data.validation),
        "table_version": plan.pins["table_version"],
        # By it the plan of the night sees that another model is declared.
        "definition": training_definition(run.pipeline),
    }
    known = None if run.retrain else registry.trained(pins.fingerprint(plan.pins))
    if known:
        return result | {"model_version": registry.challenge(known).version, "reused": True}
    return result | _train(run, registry, plan)


def _plan(run: Run) -> _Plan:
    as_of = run.days.last
    days = dataset.window(run.pipeline, as_of)
    _require_one_definition(run, Days(days.trained.first, days.held_out.last))
    snapshot = snapshots.newest(run, TRAINING)
    data = dataset.load(run, snapshot, days)
    declared = run.pipeline.training.family
    family = family_of(declared.name)
    settings = family.settings(declared, run.environment)
    pinned = pins.pins(data, family, settings, as_of, days, snapshot)
    return _Plan(family=family, settings=settings, data=data, pins=pinned)


def _require_one_definition(run: Run, days: Days) -> None:
    """Refuse to learn from rows that were made in two ways, as if they were of one kind.

    Raises:
        Refused: they were, and nobody has allowed it; the message says how to make them alike.
    """
    known = publications.in_force(run, TRAINING, days)
    made = {one.definition for one in known.values()}
    if len(made) <= 1 or run.allow_mixed:
        return
    newest = known[max(known)].definition
    last_day = max(day for day, one in known.items() if one.definition != newest)
    name = run.pipeline.name
    raise Refused(
        f"The rows to learn from, {name}.{TRAINING} of {days}, were made by {len(made)} "
        "definitions: the declaration or a transform has changed, and the days until "
        f"{last_day} are as they were. Make them anew: nightshift run {name} --restate "
        f"--from {days.first} --to {run.days.last}. Or say --allow-mixed."
    )


def _train(run: Run, registry: Registry, plan: _Plan) -> dict[str, object]:
    with _private_folder(run.environment.home / "training" / run.pipeline.name) as folder:
        started = time.monotonic()
        fit = plan.family.fit(plan.data, plan.settings, run.environment, folder)
        seconds = time.monotonic() - started
        model = _keep(registry, run, plan, fit, folder)
    slope = fit.calibration_slope
    return {
        "model_version": model.version,
        "reused": False,
        **fit.facts,
        # Of the best epoch, whose weights were kept.
        "validation_loss": round(min(fit.curves["val_loss"]), 5),
        "calibration_slope": None if slope is None else round(slope, 4),
        "training_seconds": round(seconds, 2),
    }


def _keep(
    registry: Registry,
    run: Run,
    plan: _Plan,
    fit: Fit,
    parent: Path,
) -> ModelVersion:
    # A folder of its own: everything in it is registered, and what training left must not be.
    with _private_folder(parent) as files:
        fit.save(files)
        (files / ENCODING).write_text(plan.data.encoding.to_json())
        _require_finite_scores(run, plan, files)
        return registry.keep(
            files,
            as_of=run.days.last,
            fingerprint=pins.fingerprint(plan.pins),
            family=plan.family.name,
            params=_params(run, plan, fit),
            curves=fit.curves,
            pins=plan.pins,
        )


def _require_finite_scores(run: Run, plan: _Plan, files: Path) -> None:
    """Refuse a model whose saved files do not give a number for every row to validate on.

    A weight that is no number makes each prediction none that it has a part in.

    Raises:
        Refused: they do not.
    """
    rows = plan.data.validation
    scores = plan.family.load(files, plan.data.encoding).score(rows)
    odd = int((~np.isfinite(scores)).sum())
    if odd:
        name = run.pipeline.name
        raise Refused(
            f"The model of '{name}' that was trained as of {run.days.last} is not kept: its "
            f"prediction of {odd} of {len(rows)} rows to validate on is no finite number. "
            "The same rows and settings would give it again: lower the learning rate, or look for "
            f"values that are out of all proportion in {name}.{TRAINING}."
        )


def _params(run: Run, plan: _Plan, fit: Fit) -> dict[str, object]:
    """What MLflow shows beside a model, and compares models by."""
    training = run.pipeline.training
    return {
        "task": training.task,
        "label": training.label,
        "features": len(training.features),
        "window_days": training.window_days,
        "holdout_days": training.holdout_days,
        "validation_days": training.validation_days,
        "min_rows": training.min_rows,
        "seed": training.seed,
        "family": plan.family.name,
        **asdict(plan.settings),
        "as_of": run.days.last,
        "calibration_slope": fit.calibration_slope,
        "run_id": run.run_id,
    }


@contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix="job-") as path:
        yield Path(path)
