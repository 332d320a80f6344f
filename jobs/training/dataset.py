"""Which rows a model learns from, and how they are laid out for it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake import snapshots
from jobs.lake.snapshots import Snapshot
from jobs.training import encoding
from jobs.training.encoding import Encoding, Examples
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.model import Training
from pipelines.run import Run
from pipelines.spec import TRAINING, Pipeline

LAG_DAYS = 7
"""Days after an event by which its label has landed; later ones are not measured."""
_FEWEST_DAYS = 2
"""One to fit on and one to validate on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The days of labels that end with a night, cut so that no day has two uses."""

    fit: Days
    validation: Days
    """For calibration."""
    held_out: Days
    """Models are compared here, by what they learned from the days before."""
    fresh: Days
    """Up to the night: what the model that serves learns from, when the recipe is settled."""

    @property
    def trained(self) -> Days:
        """Everything that the model may see by which the recipe is judged."""
        return Days(self.fit.first, self.validation.last)

    @property
    def all(self) -> Days:
        """Every day that has a use."""
        return Days(self.fit.first, self.held_out.last)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """What a model is fitted to."""

    training: Training
    encoding: Encoding
    fit: Examples
    """Shuffled: a family that learns step by step reads them front to back."""
    validation: Examples | None
    """Of days that are not fitted; None: another training tells the calibration."""
    calibration: Future[float | None] | None = None
    """The slope that the other training tells, as soon as it knows. None: the validation days tell
    it, and without such days predictions are taken as they are."""


def window(pipeline: Pipeline, as_of: date) -> Window:
    """The window of the night `as_of`; early in history, as much of it as there is.

    Raises:
        Refused: the feeds do not reach back far enough to keep a held-out and a validation day.
    """
    training = pipeline.training
    night = Days.of(as_of)
    before = night.shifted(-training.holdout_days).since(training.window_days - 1)
    trained = before.within(pipeline.first_day, None)
    if trained is None or len(trained) < _FEWEST_DAYS:
        needed = training.holdout_days + _FEWEST_DAYS
        raise Refused(
            f"No model of '{pipeline.name}' can be trained as of {as_of}: "
            f"it takes {needed} days of labels, and they begin on {pipeline.first_day}."
        )
    # The newest days validate: they are most like the days to come.
    validated = _validation_days(training.validation_days, len(trained))
    validation = Days.of(trained.last).since(validated - 1)
    newest = night.since(training.window_days - 1)
    return Window(
        fit=Days(trained.first, validation.shifted(-validated).last),
        validation=validation,
        held_out=night.since(training.holdout_days - 1),
        # As far back as the feeds reach.
        fresh=Days(max(newest.first, pipeline.first_day), newest.last),
    )


def labelled(
    run: Run, snapshot: Snapshot, days: Days, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """The training rows of those days that have a label.

    Args:
        run: Whose pipeline's rows they are.
        snapshot: Of the training table.
        days: On which the labels became known.
        columns: Those to read, beside partition, key and label; None: all that models, baselines
            and slices need.
    """
    training = run.pipeline.training
    if columns is None:
        columns = (*training.features, *training.baseline_columns, *training.slices)
    rows = snapshots.read(run, snapshot, days, (*columns, training.label))
    return rows.filter(pc.is_valid(rows[training.label]))


def labelled_events(
    run: Run, snapshot: Snapshot, events: Days, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """The training rows of events of those days that have got a label by now.

    Args:
        run: Whose pipeline's rows they are.
        snapshot: Of the training table.
        events: Days of the events.
        columns: As of `labelled`.
    """
    landed = Days(events.first, events.last + timedelta(days=LAG_DAYS))
    # Of labels the last that are known: a night sees none of a later day.
    rows = labelled(run, replace(snapshot, night=date.max), landed, columns)
    return snapshots.between(rows, run.pipeline.event_date, events)


def judged(run: Run, rows: pa.Table, days: Window) -> Dataset:
    """What the model learns from by which the recipe is judged.

    Args:
        run: Whose pipeline's rows they are.
        rows: Labelled rows of the window.
        days: The window.

    Raises:
        Refused: too few have a label.
    """
    column = run.pipeline.table(TRAINING).partition
    fit = snapshots.between(rows, column, days.fit)
    validation = snapshots.between(rows, column, days.validation)
    _require_rows(run, fit, validation, days)
    return laid_out(run.pipeline.training, fit, validation)


def fresh(run: Run, rows: pa.Table, days: Window) -> Dataset:
    """What the model that serves learns from: everything up to the night.

    Args:
        run: Whose pipeline's rows they are.
        rows: Labelled rows of the window.
        days: The window.
    """
    column = run.pipeline.table(TRAINING).partition
    newest = snapshots.between(rows, column, days.fresh)
    return laid_out(run.pipeline.training, newest, None)


def laid_out(training: Training, fit: pa.Table, validation: pa.Table | None) -> Dataset:
    """The rows as a model reads them; the same rows give the same arrays."""
    learned = encoding.learn(fit, training)
    # Of its own seed, so that nothing else that draws numbers changes the order.
    order = np.random.default_rng(training.seed).permutation(len(fit))
    kept_out = None
    if validation is not None:
        kept_out = encoding.encode(validation, learned, training.label)
    return Dataset(
        training=training,
        encoding=learned,
        fit=encoding.encode(fit, learned, training.label).take(order),
        validation=kept_out,
    )


def _require_rows(
    run: Run,
    fit: pa.Table,
    validation: pa.Table,
    days: Window,
) -> None:
    """Refuse to train on too little; the message says how many rows there are."""
    uses = (
        ("fit", fit, days.fit, run.pipeline.training.min_rows),
        ("validate", validation, days.validation, 1),
    )
    short = [
        f"{len(rows)} labelled rows to {use} on {part}, and needs {needed}"
        for use, rows, part, needed in uses
        if len(rows) < needed
    ]
    if short:
        name = run.pipeline.name
        raise Refused(
            f"Training '{name}' as of {run.days.last} has {'; '.join(short)}. "
            "Publish more days first: "
            f"nightshift run {name} --from {days.trained.first} --to {run.days.last}"
        )


def _validation_days(wanted: int, days: int) -> int:
    # A short history must still leave most of its days to learn from.
    return max(1, min(wanted, days // 4))
