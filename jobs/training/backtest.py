"""How good a pipeline's model would have been: trained as of many nights, scoring what follows.

Training and scoring are those of a night. Nothing touches the registry, and nothing is published.
What is done of a backtest stays in its folder, so that the next time goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.lake import ops, snapshots
from jobs.lake.knowledge import Knowledge
from jobs.services.home import private_home
from jobs.training import baselines, candidate, dataset, metrics, pins, scoring
from jobs.training.candidate import Recipe
from jobs.training.encoding import doubles
from jobs.training.families import family_of
from jobs.training.tasks import task_of
from pipelines import places
from pipelines.days import Days, parse_day
from pipelines.environment import Environment
from pipelines.errors import Refused, UsageError, no_such, refuse_unless
from pipelines.run import Run
from pipelines.spec import TRAINING, Pipeline

MODEL = "model"
"""What the pipeline's model is called beside its baselines."""
EVENT, LABEL = "event_date", "label"
"""Columns of the results, beside the entity, the slices and a prediction by each model."""
_TABLE = "backtests"
_PREDICTED = "predicted_by_"
_KEY = "key_"
_SLICE = "slice_"
"""Prefixes: a pipeline may have columns of any name."""
_FINGERPRINT = b"fingerprint"
_DIGITS = 12
"""Of a digest in a name: enough to tell a person's backtests apart."""


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """Which nights, and how a model is made on each."""

    pipeline: Pipeline
    """As declared, or with other settings of its training."""
    days: Days
    """Days of the event: each is scored by the last model trained before it."""
    every: int
    """Days from one training to the next."""
    environment: Environment
    run_id: str
    cores: int = 0
    """Which the two trainings of a night may keep busy; see `candidate.make`."""

    # Once: the code may be another by the end of an hour, and its digest names the folder.
    @cached_property
    def settings(self) -> dict[str, object]:
        """What is learned from what, and how."""
        training = self.pipeline.training
        family = family_of(training.family.name)
        settings = family.settings(training.family, self.environment)
        measured = {
            "window_days": training.window_days,
            "holdout_days": training.holdout_days,
            "label_lag_days": self.pipeline.promotion.label_lag_days,
            "validation_days": training.validation_days,
            "every": self.every,
            "baselines": [asdict(baseline) for baseline in training.baselines],
            "slices": training.slices,
        }
        return {**pins.how(training, family, settings), **measured}

    @property
    def digest(self) -> str:
        """By which this backtest is told apart from others."""
        return _digest(self.settings)[:_DIGITS]

    @property
    def folder(self) -> Path:
        """Of its results."""
        return folder_of(self.environment, self.pipeline.name, self.digest)

    @property
    def parts(self) -> list[Days]:
        """The days that each training scores."""
        found: list[Days] = []
        for start in range(0, len(self.days), self.every):
            first = self.days.first + timedelta(days=start)
            # Not beyond the calendar, however many days one training is to score.
            end = min(start + self.every, len(self.days)) - 1
            last = self.days.first + timedelta(days=end)
            found.append(Days(first, last))
        return found

    def night(self, part: Days) -> Run:
        """The night whose model scores that part: the one before its first day."""
        return Run(
            pipeline=self.pipeline,
            days=Days.of(part.first - timedelta(days=1)),
            environment=self.environment,
            run_id=self.run_id,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """One training and what it scored."""

    as_of: date
    rows: int
    """0: none of the days that it would have scored has a label, and nothing was trained."""
    seconds: float | None
    """None: it was done before."""


def folder_of(environment: Environment, pipeline: str, digest: str) -> Path:
    """Where the results of a backtest lie."""
    return environment.home / "backtests" / pipeline / digest


def require_start(backtest: Backtest) -> None:
    """Refuse days before which no model can be trained.

    Raises:
        UsageError: one of them is among the backtest's.
    """
    pipeline = backtest.pipeline
    night = dataset.first_night(pipeline)
    refuse_unless(
        backtest.days.first > night,
        f"Days of '{pipeline.name}' before {night + timedelta(days=1)} can be scored by no model "
        f"of a night before them, and {backtest.days} begin earlier: a training takes "
        f"{len(Days(pipeline.first_day, night))} days of labels, which begin on "
        f"{pipeline.first_day}.",
    )


def walk(backtest: Backtest, ranks_in: Environment) -> Iterator[Done]:
    """Train and score night after night; what was done before is not done again.

    Args:
        backtest: What to do.
        ranks_in: Where the processes of a training are started.

    Raises:
        Refused: too few labels are known on one of the nights, or no day has any to measure by.
        UsageError: the training rows were made with another label, or lack what baselines and
            slices read.
        NightshiftError: a training failed.
    """
    measured = 0
    for done in _walk(backtest, ranks_in):
        measured += done.rows
        yield done
    if not measured:
        raise _nothing_to_measure(backtest)


def require_labels(backtest: Backtest) -> None:
    """Refuse days that tell nothing of any model, before one is trained.

    Raises:
        Refused: no row about the days has a label.
        UsageError: the training rows were made with another, or lack what baselines and slices
            read.
        NightshiftError: the training table has never been published.
    """
    _require_columns(backtest)
    run = backtest.night(backtest.parts[0])
    snapshot = snapshots.newest(run, TRAINING)
    if not len(dataset.labelled_events(run, snapshot, backtest.days, ())):
        raise _nothing_to_measure(backtest)


def rows_said(backtest: Backtest) -> str:
    """What the training table says now of all days that it may be asked for: equal for the same.

    Raises:
        NightshiftError: the training table has never been published.
    """
    run = backtest.night(backtest.parts[0])
    # Another setting may learn from more days.
    days = Days(backtest.pipeline.first_day, backtest.days.last)
    return _said(run, snapshots.newest(run, TRAINING).version, days)


def _require_columns(backtest: Backtest) -> None:
    run = backtest.night(backtest.parts[0])
    learned = dataset.window(run.pipeline, run.days.last).all
    needed = Days(learned.first, backtest.days.last)
    dataset.require_columns(run, snapshots.newest(run, TRAINING), needed)


def _nothing_to_measure(backtest: Backtest) -> Refused:
    return Refused(
        f"{backtest.pipeline.name}.{TRAINING} has no labelled row about {backtest.days}: "
        "nothing tells how good a model was. Publish these days first, or ask for others."
    )


def _walk(backtest: Backtest, ranks_in: Environment) -> Iterator[Done]:
    private_home(backtest.environment)
    folder = backtest.folder
    folder.mkdir(parents=True, exist_ok=True)
    _require_columns(backtest)
    settings = json.dumps(backtest.settings)
    for part in backtest.parts:
        run = backtest.night(part)
        file = _file(folder, part, backtest)
        recipe = candidate.recipe_of(run)
        fingerprint = _fingerprint(run, recipe, part)
        if _is_done(file, fingerprint):
            rows = pq.read_metadata(file).num_rows
            yield Done(as_of=run.days.last, rows=rows, seconds=None)
            continue
        started = time.monotonic()
        results = _results(run, recipe, part, backtest.cores, ranks_in)
        _record(backtest, run, part, settings, results)
        _write(file, results, fingerprint)
        seconds = time.monotonic() - started
        yield Done(as_of=run.days.last, rows=len(results), seconds=seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """Every row that was scored, in the order of day and entity."""

    day: np.ndarray
    label: metrics.Vector
    predictions: Mapping[str, metrics.Vector]
    """By `model` and each baseline."""
    slices: Mapping[str, np.ndarray]
    """By column: its value in each row, as text."""
    keys: pa.Table
    """What identifies each row."""


def read(backtest: Backtest, nights: int | None = None) -> Results:
    """What the backtest has scored, which must be done.

    Args:
        backtest: The backtest.
        nights: The first so many trainings; None: all of them.
    """
    folder = backtest.folder
    files = [_file(folder, part, backtest) for part in backtest.parts[:nights]]
    return gathered([pq.read_table(file) for file in files])


def files_of_other(backtest: Backtest, digest: str) -> list[Path]:
    """Where another backtest of the pipeline keeps what it has scored.

    Raises:
        UsageError: there is none of that digest, or it has foretold something else.
    """
    name = backtest.pipeline.name
    known: dict[str, list[Path]] = {}
    for file in sorted(backtest.folder.parent.glob("*/*.parquet")):
        known.setdefault(file.parent.name, []).append(file)
    # Looked up and not a path: `..` leads elsewhere.
    if digest not in known:
        raise no_such(f"backtest of '{name}'", digest, known)
    _require_same_label(backtest, digest)
    return known[digest]


def _require_same_label(backtest: Backtest, digest: str) -> None:
    """Refuse another backtest whose losses are of something else.

    Raises:
        UsageError: it is one.
    """
    about = [("pipeline", "=", backtest.pipeline.name), ("settings_digest", "=", digest)]
    recorded = ops.read(backtest.environment, _TABLE, about)
    if not len(recorded):
        return
    other = json.loads(recorded["settings"][0].as_py())["training"]
    own = pins.learned(backtest.pipeline.training)
    for name in ("task", "label"):
        refuse_unless(
            other.get(name) == own[name],
            f"Backtest {digest} has the {name} {other.get(name)}, and this one {own[name]}: losses "
            "of different things tell nothing of one another. Ask for a backtest of the same "
            f"{name}.",
        )


def read_other(backtest: Backtest, digest: str, keys: pa.Table) -> Results:
    """What another backtest of the pipeline says of the same rows, whatever else it has scored.

    Where it has scored a day as of several nights, it says what it does as of the night of this
    backtest, and else as of the last.

    Args:
        backtest: This one.
        digest: Of the other.
        keys: `Results.keys` of this one.

    Raises:
        UsageError: there is none of that digest, or it has not scored all of these rows.
    """
    files = files_of_other(backtest, digest)
    nights: dict[date, date] = {}
    for part in backtest.parts:
        nights.update(dict.fromkeys(part, backtest.night(part).days.last))
    chosen: dict[date, tuple[tuple[bool, date, str], pa.Table]] = {}
    for file in files:
        rows, night = pq.read_table(file), _night_of(file)
        for day in set(pc.unique(rows[EVENT]).to_pylist()) & set(nights):
            order = (night == nights[day], night, file.name)
            if day not in chosen or order > chosen[day][0]:
                is_of_day = pc.equal(rows[EVENT], pa.scalar(day))
                chosen[day] = order, rows.filter(is_of_day)
    other = gathered([rows for _, rows in chosen.values()]) if chosen else None
    if other is None or not other.keys.equals(keys):
        raise UsageError(
            f"Backtest {digest} has scored other rows than those of {backtest.days}: "
            "run it over the same days."
        )
    return other


def gathered(tables: list[pa.Table]) -> Results:
    """The rows of several trainings, as `kept_rows` has them."""
    rows = pa.concat_tables(tables)
    keys = [name for name in rows.column_names if name.startswith(_KEY)]
    rows = rows.sort_by([(name, "ascending") for name in (EVENT, *keys)])
    predictions: dict[str, metrics.Vector] = {}
    slices: dict[str, np.ndarray] = {}
    for name in rows.column_names:
        if name.startswith(_PREDICTED):
            predictions[name.removeprefix(_PREDICTED)] = rows[name].to_numpy()
        if name.startswith(_SLICE):
            slices[name.removeprefix(_SLICE)] = metrics.slice_values(rows[name])
    return Results(
        day=rows[EVENT].to_numpy(),
        label=rows[LABEL].to_numpy(),
        predictions=predictions,
        slices=slices,
        keys=rows.select([EVENT, *keys]),
    )


def _results(
    run: Run,
    recipe: Recipe,
    part: Days,
    cores: int,
    ranks_in: Environment,
) -> pa.Table:
    """Train as of the night, and score the days after it as that night would have."""
    training = run.pipeline.training
    task = task_of(training.task)
    # Those of events that have got a label, with what was known before the event.
    rows = dataset.labelled_events(run, recipe.snapshot, part)
    names = [MODEL, *(declared.name for declared in training.baselines)]
    predictions = dict.fromkeys(names, np.empty(0))
    # A weekend may have no event, and the newest days no label yet: there is nothing to train for.
    if len(rows):
        predictions[MODEL] = _model_says(run, recipe, rows, cores, ranks_in)
        known = dataset.labelled(run, recipe.snapshot, recipe.days.fresh, training.baseline_columns)
        for declared in training.baselines:
            fitted = baselines.fit(declared, known, training.label, prior_rows=task.prior_rows)
            predictions[declared.name] = fitted.predict(rows)
    return kept_rows(run, rows, predictions)


def kept_rows(
    run: Run,
    rows: pa.Table,
    predictions: Mapping[str, metrics.Vector],
) -> pa.Table:
    """What is kept of scored rows.

    Args:
        run: Whose pipeline's rows they are.
        rows: That were scored.
        predictions: Of each row, by model.
    """
    training = run.pipeline.training
    columns: dict[str, Any] = {
        EVENT: rows[run.pipeline.event_date],
        LABEL: pa.array(doubles(rows[training.label])),
    }
    for name in run.pipeline.entity:
        columns[_KEY + name] = rows[name]
    for name in training.slices:
        columns[_SLICE + name] = rows[name].cast(pa.string())
    for name, values in predictions.items():
        columns[_PREDICTED + name] = pa.array(values)
    return pa.table(columns)


def _model_says(
    run: Run, recipe: Recipe, rows: pa.Table, cores: int, ranks_in: Environment
) -> metrics.Vector:
    with TemporaryDirectory() as path:
        work, files = Path(path) / "work", Path(path) / "files"
        work.mkdir()
        files.mkdir()
        candidate.make(run, recipe, work, cores, ranks_in).save(files)
        says = scoring.load_from(files, recipe.family).score(rows)
    odd = metrics.impossible(task_of(run.pipeline.training.task), says)
    if odd:
        raise Refused(f"Of the model trained as of {run.days.last} {odd}: nothing can be measured.")
    return says


def _record(
    backtest: Backtest,
    run: Run,
    part: Days,
    settings: str,
    results: pa.Table,
) -> None:
    """Put the night's measures into `ops.backtests`, in place of those of an earlier attempt."""
    common = {
        "run_id": backtest.run_id,
        "pipeline": backtest.pipeline.name,
        "settings_digest": backtest.digest,
        "as_of": run.days.last,
    }
    identity = " AND ".join(f"{name} = '{common[name]}'" for name in common if name != "run_id")
    # The night may have scored more days for another backtest.
    identity += f" AND event_date BETWEEN '{part.first}' AND '{part.last}'"
    common |= {"settings": settings, "measured_at": ops.now()}
    rows = [common | measured for measured in _measured(backtest.pipeline, results)]
    ops.replace(backtest.environment, _TABLE, rows, identity)


def _measured(pipeline: Pipeline, results: pa.Table) -> Iterator[dict[str, Any]]:
    task = task_of(pipeline.training.task)
    label = results[LABEL].to_numpy()
    for name in results.column_names:
        if not name.startswith(_PREDICTED):
            continue
        prediction = results[name].to_numpy()
        for day, where in metrics.groups(results[EVENT].to_numpy()):
            yield {
                "model": name.removeprefix(_PREDICTED),
                "event_date": day.item(),
                **metrics.summary(task, label[where], prediction[where]),
            }


def _file(folder: Path, part: Days, backtest: Backtest) -> Path:
    """Of what the night before that part has scored."""
    night = backtest.night(part).days.last
    # One that is cut short must not take the place of a whole one.
    is_whole = len(part) == backtest.every
    return folder / (f"{night}.parquet" if is_whole else f"{night}_{part.last}.parquet")


def _night_of(file: Path) -> date:
    return parse_day(file.stem.partition("_")[0])


def _fingerprint(run: Run, recipe: Recipe, part: Days) -> str:
    """Of all that the night's results follow from."""
    scored = _said(run, recipe.snapshot.version, part)
    trained = pins.fingerprint(pins.pins(run, recipe))
    return _digest([trained, str(part), scored])


def _said(run: Run, version: int, events: Days) -> str:
    """What the training table, at that version, says of events of those days."""
    landed = run.pipeline.labels_land(events)
    knowledge = Knowledge(run)
    is_recorded = bool(knowledge.latest(TRAINING))
    scored = knowledge.table_input(TRAINING, landed).digest if is_recorded else ""
    return scored or str(version)


def _is_done(file: Path, fingerprint: str) -> bool:
    if not file.exists():
        return False
    try:
        told = pq.read_schema(file).metadata or {}
    except pa.ArrowInvalid:
        # Such as one that a failure of the power has emptied.
        return False
    return bool(told.get(_FINGERPRINT) == fingerprint.encode())


def _write(file: Path, results: pa.Table, fingerprint: str) -> None:
    told = results.replace_schema_metadata({_FINGERPRINT: fingerprint.encode()})
    content = pa.BufferOutputStream()
    pq.write_table(told, content)
    # A file that is there is whole, also where two write it.
    places.write_whole(file, content.getvalue().to_pybytes())


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
