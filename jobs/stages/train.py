"""The train stage: a candidate model from the labels known by the last day of the run."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from jobs.lake import publications
from jobs.lake.locations import sql_name
from jobs.planning.seen import training_definition
from jobs.training import candidate, pins, proof
from jobs.training.candidate import recipe_of
from jobs.training.families import TIMELINE
from jobs.training.machine import free_cores
from jobs.training.metrics import shortened
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.features import days_back
from pipelines.run import Run
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    from jobs.lake.publications import Publication
    from jobs.training.candidate import Candidate, Recipe
    from jobs.training.families import Fit
    from jobs.training.proof import Proof
    from jobs.training.registry import ModelVersion, Registry


def train(run: Run) -> dict[str, object]:
    """Train a candidate as of the run's last day, or find the one that the same pins made before.

    Raises:
        Refused: too few labels are known, or the model is not fit to be served by anyone.
        NightshiftError: the training failed, or MLflow would not keep its model.
    """
    from jobs.training.registry import Registry

    recipe = recipe_of(run)
    _require_one_definition(run, recipe.days.all)
    pinned = pins.pins(run, recipe)
    registry = Registry(run.environment, run.pipeline.name)
    result: dict[str, object] = {
        "as_of": str(run.days.last),
        "family": recipe.family.name,
        "laid_out_by": "Spark" if recipe.on_spark else "this process",
        "table_version": recipe.snapshot.version,
        # By it the plan of the night sees that another model is declared.
        "definition": training_definition(run.pipeline),
    }
    known = None if run.retrain else registry.trained(pins.fingerprint(pinned))
    if known:
        return result | {"model_version": registry.challenge(known).version, "reused": True}
    # Before a training whose model could not be kept.
    registry.create()
    return result | _train(run, registry, recipe, pinned)


def _require_one_definition(run: Run, days: Days) -> None:
    """Refuse to learn from rows that were made in two ways, as if they were of one kind.

    Raises:
        Refused: they were, and nobody has allowed it; the message says how to make them alike.
    """
    # Those that the training reads: of each day the last version that its night knows.
    known = publications.known_by(run, TRAINING, days, run.night)
    made = {one.definition for one in known.values()}
    if len(made) <= 1 or run.allow_mixed:
        return
    newest = known[max(known)].definition
    last_day = max(day for day, one in known.items() if one.definition != newest)
    name = run.pipeline.name
    first = max(
        _first_day_read(run, days, known.values()),
        run.pipeline.first_day,
        _first_night(run, known),
    )
    raise Refused(
        f"The rows to learn from, {name}.{TRAINING} of {days}, were made by {len(made)} "
        "definitions: the declaration or a transform has changed, and the days until "
        f"{last_day} are as they were. Make them anew: nightshift run {name} --restate "
        f"--from {first} --to {run.days.last}. Or say --allow-mixed."
    )


def _first_day_read(run: Run, days: Days, rows: Collection[Publication]) -> date:
    """The first day of data by which training rows of those days differ when it is made anew.

    They are those of the evenings before, in which they were scored. Each of these looks up facts
    of days before it, as old as the views let them be, and those sum up the days before them.
    """
    scored = sql_name(run, run.pipeline.entity_table)
    evenings = [days.first]
    for one in rows:
        evenings += [given.first_day for given in one.inputs if given.name == scored]
    before: dict[str, int] = {}
    for table in run.pipeline.derived:
        read = [before.get(name, 0) for name in table.reads]
        before[table.name] = max(read, default=0) + table.window_days - 1
    oldest = 0
    for view in run.pipeline.views:
        back = days_back(view)
        if back is None:
            return run.pipeline.first_day
        oldest = max(oldest, back)
    return min(evenings) - timedelta(days=max(before.values(), default=0) + oldest)


def _first_night(run: Run, learned: Collection[date]) -> date:
    """The first night that was ever made: of those before it no file need be there.

    Args:
        run: Whose pipeline's nights.
        learned: Those that have rows to learn from: a feed that was named anew begins later.
    """
    feeds = [feed.name for feed in run.pipeline.feeds if not feed.is_reference]
    made: set[date] = set()
    for told in publications.told_of(run, feeds).values():
        # What a table has lost comes back by being made anew.
        made.update(told.lost, (one.day for one in told))
    return min({*made, *learned}) if made else run.pipeline.first_day


def _train(
    run: Run,
    registry: Registry,
    recipe: Recipe,
    pinned: Mapping[str, object],
) -> dict[str, object]:
    with _private_folder(run.environment.home / "training" / run.pipeline.name) as folder:
        started = time.monotonic()
        made = candidate.make(run, recipe, folder, free_cores(run.environment))
        seconds = time.monotonic() - started
        model, proven = _keep(registry, run, recipe, made, pinned, folder)
    judged = made.judged.fit
    slope = judged.calibration_slope
    return {
        "model_version": model.version,
        "reused": False,
        "fit_rows": made.judged.fit_rows,
        "validation_rows": made.validation_rows,
        "fresh_rows": made.fresh.fit_rows,
        **judged.facts,
        "validation_loss": shortened(judged.curves["val_loss"][-1]),
        "calibration_slope": None if slope is None else round(slope, 4),
        "training_seconds": round(seconds, 2),
        "megabytes": round(proven.megabytes, 3),
        "seconds_per_1000_rows": round(proven.seconds_per_1000_rows, 4),
        "light": proven.is_light,
        **_quantised(proven),
    }


def _quantised(proven: Proof) -> dict[str, float]:
    variant = proven.quantised
    if variant is None:
        return {}
    return {
        "quantised_share_of_size": round(variant.share_of_size, 3),
        "quantised_seconds_per_1000_rows": round(variant.seconds_per_1000_rows, 4),
    }


def _keep(
    registry: Registry,
    run: Run,
    recipe: Recipe,
    made: Candidate,
    pinned: Mapping[str, object],
    parent: Path,
) -> tuple[ModelVersion, Proof]:
    from jobs.training import mlflow_flavor

    # Folders of their own: everything in the first is registered, and nothing else must be.
    with _private_folder(parent) as files, _private_folder(parent) as work:
        made.save(files)
        proven = proof.prove(run, recipe.family.name, made, files, work)
        prediction = run.pipeline.prediction
        mlflow_flavor.describe(files, recipe.family.name, made.fresh.encoding, prediction)
        judged = made.judged.fit
        model = registry.keep(
            files,
            as_of=run.days.last,
            fingerprint=pins.fingerprint(pinned),
            family=recipe.family.name,
            recipe=pins.recipe(pinned),
            params=_params(run, recipe, judged),
            curves={**judged.curves, "fresh_loss": made.fresh.fit.curves["loss"]},
            pins=pinned,
            timelines=_timelines(parent),
        )
    return model, proven


def _timelines(folder: Path) -> dict[str, Path]:
    """What the two trainings below the folder have left: of the judged model, of the fresh one."""
    found: dict[str, Path] = {}
    for file in folder.glob(f"*/{TIMELINE}"):
        found[file.parent.name.removeprefix("of the ")] = file
    return found


def _params(run: Run, recipe: Recipe, fit: Fit) -> dict[str, object]:
    """What MLflow shows beside a model, and compares models by."""
    training = run.pipeline.training
    return {
        "task": training.task,
        "label": training.label,
        "features": len(training.features),
        "window_days": training.window_days,
        "holdout_days": training.holdout_days,
        "validation_days": training.validation_days,
        "label_lag_days": run.pipeline.promotion.label_lag_days,
        "min_rows": training.min_rows,
        "seed": training.seed,
        "family": recipe.family.name,
        **asdict(recipe.settings),
        "as_of": run.days.last,
        "calibration_slope": fit.calibration_slope,
        "run_id": run.run_id,
    }


@contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix="job-") as path:
        yield Path(path)
