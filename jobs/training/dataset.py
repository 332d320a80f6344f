"""Which rows a model learns from, and how they are laid out for it.

A window that fits into memory is read and encoded in this process; a larger one is laid out by
Spark's workers, and only its validation days are read here (`OnSpark`). What else reads a whole
window into one process, whatever its size: `evaluate` and `backtest`, for their baselines and the
held-out days.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake import amounts, snapshots
from jobs.lake.locations import laid_out_rows, path
from jobs.lake.snapshots import Snapshot
from jobs.spark.server import cores_at_once, running_server
from jobs.spark.session import connect, plan_for
from jobs.training import encoding, shards_on_spark, told_anew
from jobs.training.encoding import Encoding, Examples
from jobs.training.parts import Source
from jobs.training.shards import Shards
from jobs.training.shards_on_spark import Learned
from jobs.training.told_anew import ToldAnew
from pipelines import places
from pipelines.days import Days
from pipelines.errors import Refused, UsageError, refuse_unless
from pipelines.model import Training
from pipelines.run import Run
from pipelines.spec import TRAINING, Pipeline

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.lake.data_files import DayFile

_OTHER_LABEL = " (--restate where they were made for another label)"
"""A way out of too few rows: the code that told both labels may be the same."""
_PLACE = "place told"
"""With a space, which no column has."""
_FEWEST_DAYS = 2
"""One to fit on and one to validate on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The days of labels that end with a night, cut so that no day has two uses.

    Between validation and held-out days lie those whose labels were not known yet when the first
    held-out rows were scored: as many as labels come late. They are fresh, and nothing else.
    """

    fit: Days
    validation: Days
    """For calibration."""
    held_out: Days
    """Models are compared here, by what was known when these rows were scored."""
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
    fit: Examples | Shards
    """Shuffled: a family that learns step by step reads them front to back. In shards only for a
    family that streams."""
    validation: Examples | Shards | None
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
    before = night.shifted(-_unseen_days(pipeline)).since(training.window_days - 1)
    trained = before.within(pipeline.first_day, None)
    if trained is None or len(trained) < _FEWEST_DAYS:
        raise Refused(
            f"No model of '{pipeline.name}' can be trained as of {as_of}: it takes "
            f"{_fewest_days(pipeline)} days of labels, and they begin on {pipeline.first_day}."
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


def first_night(pipeline: Pipeline) -> date:
    """The first whose `window` is long enough for a model."""
    return pipeline.first_day + timedelta(days=_fewest_days(pipeline) - 1)


def _unseen_days(pipeline: Pipeline) -> int:
    """The newest days of labels, from which the judged model learns nothing.

    A held-out row is about a day as long ago as its label is late, and was scored on the evening
    before that day: what landed later was not known then.
    """
    return pipeline.training.holdout_days + pipeline.promotion.label_lag_days


def _fewest_days(pipeline: Pipeline) -> int:
    """As many days of labels as a model takes."""
    return _unseen_days(pipeline) + _FEWEST_DAYS


def columns_read(training: Training) -> tuple[str, ...]:
    """What models, baselines and slices need of a row."""
    return (*training.features, *_compared_by(training))


def _compared_by(training: Training) -> tuple[str, ...]:
    """What baselines and slices need: a model names itself what it lacks."""
    return (*training.baseline_columns, *training.slices)


def labelled(
    run: Run, snapshot: Snapshot, days: Days, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """The training rows of those days that have a label, one for each outcome: see `last_told`.

    Args:
        run: Whose pipeline's rows they are.
        snapshot: Of the training table.
        days: On which the labels became known.
        columns: Those to read, beside partition, key and label; None: all that models, baselines
            and slices need.

    Raises:
        UsageError: the rows were made when another label, or another entity, was declared, or
            before a column of baselines or slices was.
    """
    training = run.pipeline.training
    if columns is None:
        columns = columns_read(training)
    told = outcomes(run, snapshot, days, columns)
    _require_keys(run, snapshot, told)
    rows = last_told(told, run.pipeline.entity)
    return rows.filter(pc.is_valid(rows[training.label]))


def outcomes(
    run: Run,
    snapshot: Snapshot,
    days: Days,
    columns: tuple[str, ...],
    about: Days | None = None,
) -> pa.Table:
    """The training rows of those days, with a label or without, each time that they were told.

    Args:
        run: Whose pipeline's rows they are.
        snapshot: Of the training table.
        days: On which they became known.
        columns: Those to read, beside partition, key and label.
        about: Of events of these days alone; None: of all.

    Raises:
        UsageError: the rows were made when another label was declared, or before a column of
            baselines or slices that is to be read was.
    """
    training = run.pipeline.training
    where = {run.pipeline.event_date: about} if about else {}
    told = snapshots.read(run, snapshot, days, (*columns, training.label), where)
    # Labels of days to come are asked for by the night before them.
    needed = Days(days.first, max(days.first, run.days.last))
    _require_label(run, snapshot, told.column_names, needed)
    compared_by = [name for name in _compared_by(training) if name in columns]
    _require_compared_by(run, snapshot, told.column_names, compared_by, needed)
    return told


def require_columns(run: Run, snapshot: Snapshot, days: Days) -> None:
    """Refuse training rows without the label, or what baselines and slices read, before a training.

    Args:
        run: Whose pipeline's rows they are.
        snapshot: Of the training table.
        days: That are needed, and would be made anew.

    Raises:
        UsageError: the rows were made when another label was declared, or before a column of
            baselines or slices was.
    """
    there = snapshots.schema(run, snapshot).names
    _require_label(run, snapshot, there, days)
    _require_compared_by(run, snapshot, there, _compared_by(run.pipeline.training), days)


def _require_label(
    run: Run,
    snapshot: Snapshot,
    columns: Sequence[str],
    days: Days,
) -> None:
    name, label = run.pipeline.name, run.pipeline.training.label
    refuse_unless(
        label in columns,
        f"{name}.{snapshot.table} has no column '{label}', which '{name}' declares as its "
        "label: its rows were made with another. Make them anew: nightshift run "
        f"{name} --restate --from {days.first} --to {days.last}",
    )


def _require_compared_by(
    run: Run,
    snapshot: Snapshot,
    columns: Sequence[str],
    wanted: Sequence[str],
    days: Days,
) -> None:
    name = run.pipeline.name
    lacking = [one for one in dict.fromkeys(wanted) if one not in columns]
    # What is about a day was scored in the night before it.
    evening = max(days.first - timedelta(days=1), run.pipeline.first_day)
    refuse_unless(
        not lacking,
        f"{name}.{snapshot.table} has no column {', '.join(lacking)}, which baselines or slices of "
        f"'{name}' read: its rows were made before that was declared. Make them anew: nightshift "
        f"run {name} --restate --from {evening} --to {days.last}",
    )


def _require_keys(run: Run, snapshot: Snapshot, rows: pa.Table) -> None:
    """Refuse rows of which a part of the key is not known: nobody can tell them apart."""
    for column in run.pipeline.entity:
        lacking = rows.filter(pc.is_null(rows[column]))
        if not len(lacking):
            continue
        name, event = run.pipeline.name, run.pipeline.event_date
        first: date = pc.min(lacking[event]).as_py() or run.days.first
        # What is about a day was scored in the night before it.
        evening = max(first - timedelta(days=1), run.pipeline.first_day)
        raise UsageError(
            f"{len(lacking)} rows of {name}.{snapshot.table} have no '{column}', by which '{name}' "
            "tells them apart by now: they were made when another entity was declared. Make them "
            f"anew: nightshift run {name} --restate --from {evening} --to {run.days.last}"
        )


def last_told(rows: pa.Table, entity: Sequence[str]) -> pa.Table:
    """Of each entity the last row: an outcome that a later drop tells anew counts once, as of then.

    Args:
        rows: In the order of the days on which they became known.
        entity: Columns of the key.
    """
    keys = list(entity)
    place = pa.array(np.arange(len(rows)))
    numbered = rows.select(keys).append_column(_PLACE, place)
    last = numbered.group_by(keys, use_threads=False).aggregate([(_PLACE, "max")])
    if len(last) == len(rows):
        # As nearly always: nothing is copied.
        return rows
    places = last[f"{_PLACE}_max"].to_numpy()
    return rows.take(pa.array(np.sort(places)))


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
    landed = run.pipeline.labels_land(events)
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
    _require_rows(run, len(fit), len(validation), days)
    return laid_out(run.pipeline.training, fit, validation)


def fresh(run: Run, rows: pa.Table, days: Window) -> Dataset:
    """What the model that serves learns from: everything up to the night.

    Args:
        run: Whose pipeline's rows they are.
        rows: Labelled rows of the window.
        days: The window.

    Raises:
        Refused: too few have a label.
    """
    return laid_out(run.pipeline.training, _newest(run, rows, days), None)


def _newest(run: Run, rows: pa.Table, days: Window) -> pa.Table:
    column = run.pipeline.table(TRAINING).partition
    found = snapshots.between(rows, column, days.fresh)
    _require_fresh_rows(run, len(found), days.fresh)
    return found


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


class LaidOut(Protocol):
    """The rows of a window, as the two models of a night read them."""

    def judged(self) -> Dataset:
        """What the model learns from by which the recipe is judged.

        Raises:
            Refused: too few rows have a label.
        """

    def require_fresh(self) -> None:
        """Refuse too few rows for `fresh`, and lay nothing out: before anything is trained.

        Raises:
            Refused: too few rows have a label.
        """

    def fresh(self) -> Dataset:
        """What the model that serves learns from: everything up to the night.

        Raises:
            Refused: too few rows have a label.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class InProcess:
    """All of them are read here, once."""

    run: Run
    rows: pa.Table
    """Labelled ones of the window."""
    days: Window

    @classmethod
    def of(cls, run: Run, snapshot: Snapshot, days: Window) -> InProcess:
        """Read them."""
        return cls(run=run, rows=labelled(run, snapshot, days.all), days=days)

    def judged(self) -> Dataset:
        """See `LaidOut`."""
        return judged(self.run, self.rows, self.days)

    def require_fresh(self) -> None:
        """See `LaidOut`."""
        _newest(self.run, self.rows, self.days)

    def fresh(self) -> Dataset:
        """See `LaidOut`."""
        return fresh(self.run, self.rows, self.days)


@dataclass(frozen=True, kw_only=True)
class OnSpark:
    """They are laid out by Spark's workers, each time that they are asked for."""

    run: Run
    snapshot: Snapshot
    days: Window
    session: SparkSession
    folder: Path
    """For the shards; the workers see it."""

    def judged(self) -> Dataset:
        """See `LaidOut`."""
        fit = self._window(self.days.fit)
        known = shards_on_spark.learn(self.session, fit)
        validation = self._validation(known.encoding) if known.encoding else None
        _require_rows(self.run, known.rows, 0 if validation is None else len(validation), self.days)
        assert known.encoding is not None, "min_rows is at least 1"
        return self._dataset(fit, known.encoding, known.rows, "judged", validation)

    def require_fresh(self) -> None:
        """See `LaidOut`."""
        _require_fresh_rows(self.run, self._learned_of_newest.rows, self.days.fresh)

    def fresh(self) -> Dataset:
        """See `LaidOut`."""
        self.require_fresh()
        known = self._learned_of_newest
        assert known.encoding is not None, "min_rows is at least 1"
        newest = self._window(self.days.fresh)
        return self._dataset(newest, known.encoding, known.rows, "fresh", None)

    @cached_property
    def _learned_of_newest(self) -> Learned:
        """Read once: for what is required, and for what is laid out then."""
        return shards_on_spark.learn(self.session, self._window(self.days.fresh))

    def _dataset(
        self,
        window: shards_on_spark.Window,
        learned: Encoding,
        rows: int,
        name: str,
        validation: Examples | Shards | None,
    ) -> Dataset:
        folder = self.folder / name
        return Dataset(
            training=self._training,
            encoding=learned,
            fit=shards_on_spark.lay_out(self.session, window, learned, rows, folder),
            validation=validation,
        )

    def _validation(self, learned: Encoding) -> Examples | Shards:
        """Read here when they fit, as they nearly always do."""
        window = self._window(self.days.validation)
        most = self._training.rows_in_process
        if most is None or window.rows <= most:
            columns = self._training.features
            rows = labelled(self.run, self.snapshot, self.days.validation, columns)
            partition = self.run.pipeline.table(self.snapshot.table).partition
            last = self.told_anew.last_of(rows, partition)
            return encoding.encode(last, learned, self._training.label)
        folder = self.folder / "validation"
        return shards_on_spark.lay_out(self.session, window, learned, window.rows, folder)

    def _window(self, days: Days) -> shards_on_spark.Window:
        return shards_on_spark.Window(
            source=_source(self.run, self.snapshot),
            files=_files(self.run, self.snapshot, days),
            training=self._training,
            cores=cores_at_once(self.run.environment),
            told_anew=self.told_anew,
        )

    @cached_property
    def told_anew(self) -> ToldAnew:
        """Rows of all days that have a use which do not count: see `last_told`.

        Raises:
            UsageError: the rows were made when another entity was declared.
        """
        found = told_anew.find(
            self.session,
            _source(self.run, self.snapshot),
            _files(self.run, self.snapshot, self.days.all),
            self.run.pipeline.entity,
            self.folder / "told anew",
            cores_at_once(self.run.environment),
        )
        columns = (self.run.pipeline.event_date,)
        for day in self.days.all:
            # Of the keys alone, and a day at a time, as all of them may not fit into memory.
            keys = snapshots.read(self.run, self.snapshot, Days.of(day), columns)
            _require_keys(self.run, self.snapshot, keys)
        return found

    @property
    def _training(self) -> Training:
        return self.run.pipeline.training


@contextmanager
def on_spark(run: Run, snapshot: Snapshot, days: Window) -> Iterator[OnSpark]:
    """The window, laid out by Spark; the shards are gone with the block.

    Args:
        run: Whose pipeline's rows they are.
        snapshot: Of the training table.
        days: The window.
    """
    # In the lake, which workers and ranks on other machines see too.
    parent = laid_out_rows(run.environment.lake, run.pipeline.name)
    folder = places.place(f"{parent}/{uuid4().hex}")
    with running_server(run.environment) as environment:
        # Whatever the rows of a night are.
        plan_for(environment, many_rows=True)
        try:
            yield OnSpark(
                run=run,
                snapshot=snapshot,
                days=days,
                session=connect(environment),
                folder=folder,
            )
        finally:
            # A training that failed may have left nothing; what stays is for `nightshift maintain`.
            places.remove(folder)


def _source(run: Run, snapshot: Snapshot) -> Source:
    return Source(
        table=path(run, snapshot.table),
        schema=snapshots.schema(run, snapshot),
        partition=run.pipeline.table(snapshot.table).partition,
    )


def _files(run: Run, snapshot: Snapshot, days: Days) -> tuple[DayFile, ...]:
    files = tuple(snapshots.files(run, snapshot, days))
    rows = sum(file.rows for file in files)
    amounts.add_read(rows, sum(file.size for file in files))
    return files


def is_large(run: Run, snapshot: Snapshot, days: Window) -> bool:
    """Whether the window has more rows than are to be read in one process, by the log alone."""
    most = run.pipeline.training.rows_in_process
    return most is not None and snapshots.count(run, snapshot, days.all) > most


def _require_rows(
    run: Run,
    fit: int,
    validation: int,
    days: Window,
) -> None:
    """Refuse to train on too few rows; the message says how many there are."""
    more_to_fit = "raise Training.window_days, or lower min_rows"
    uses = (
        ("fit", fit, days.fit, run.pipeline.training.min_rows, more_to_fit),
        ("validate", validation, days.validation, 1, "raise Training.validation_days"),
    )
    short: list[str] = []
    ways: list[str] = []
    for use, rows, part, needed, way in uses:
        if rows < needed:
            short.append(f"{rows} labelled rows to {use} on {part}, and needs {needed}")
            ways.append(way)
    if short:
        name = run.pipeline.name
        raise Refused(
            f"Training '{name}' as of {run.days.last} has {'; '.join(short)}. "
            "Publish more days first: "
            f"nightshift run {name} --from {days.trained.first} --to {run.days.last}"
            f"{_OTHER_LABEL}. Where they are published: {', and '.join(ways)}."
        )


def _require_fresh_rows(run: Run, rows: int, days: Days) -> None:
    """Refuse too few for the model that serves: what is judged may be older, and have enough."""
    needed = run.pipeline.training.min_rows
    if rows >= needed:
        return
    name = run.pipeline.name
    raise Refused(
        f"Training '{name}' as of {run.days.last} has {rows} labelled rows for the model that "
        f"serves, on {days}, and needs {needed}. Publish more days first: "
        f"nightshift run {name} --from {days.first} --to {days.last}{_OTHER_LABEL}. Where they are "
        "published: raise Training.window_days, or lower min_rows."
    )


def _validation_days(wanted: int, days: int) -> int:
    # A short history must still leave most of its days to learn from.
    return max(1, min(wanted, days // 4))
