"""Which rows a model learns from.

Read from a published table at a pinned version, without a JVM, in one fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from jobs.lake.arrow_files import arrow_files
from pipelines.days import Days
from pipelines.errors import NightshiftError, Refused
from pipelines.run import Run
from pipelines.spec import Pipeline

TABLE = "training"
SCORED = "scoring"
PREDICTED = "predictions"
_FEWEST_DAYS = 2
"""One to fit on and one to validate on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The days of labels that end with a night, cut so that no day has two uses."""

    fit: Days
    validation: Days
    """For early stopping and calibration."""
    held_out: Days
    """Never trained on: models are compared here."""

    @property
    def trained(self) -> Days:
        """Everything that training may see."""
        return Days(self.fit.first, self.validation.last)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A table at one version: what is read from it can be read again."""

    table: str
    version: int


def window(pipeline: Pipeline, as_of: date) -> Window:
    """The window of the night `as_of`; early in history, as much of it as there is.

    Raises:
        Refused: the feeds do not reach back far enough to keep a held-out and a validation day.
    """
    training = pipeline.training
    held_out = Days.of(as_of).since(training.holdout_days - 1)
    trained = (
        Days.of(as_of)
        .shifted(-training.holdout_days)
        .since(training.window_days - 1)
        .within(pipeline.first_day, None)
    )
    if trained is None or len(trained) < _FEWEST_DAYS:
        needed = training.holdout_days + _FEWEST_DAYS
        raise Refused(
            f"No model of '{pipeline.name}' can be trained as of {as_of}: "
            f"it takes {needed} days of labels, and they begin on {pipeline.first_day}."
        )
    validation = Days.of(trained.last).since(
        _validation_days(training.validation_days, len(trained)) - 1
    )
    return Window(
        fit=Days(trained.first, validation.shifted(-len(validation)).last),
        validation=validation,
        held_out=held_out,
    )


def exists(run: Run, table: str) -> bool:
    """Whether the table has ever been published."""
    return DeltaTable.is_deltatable(_path(run, table))


def snapshot(run: Run, table: str) -> Snapshot:
    """The newest version of a published table, pinned.

    Raises:
        NightshiftError: the table has never been published.
    """
    if not exists(run, table):
        raise NightshiftError(
            f"{run.pipeline.name}.{table} does not exist yet. Run the stages before first: "
            f"nightshift run {run.pipeline.name} --date {run.days.last}"
        )
    return Snapshot(table=table, version=DeltaTable(_path(run, table)).version())


def read(
    run: Run, pinned: Snapshot, days: Days, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """The rows of those partitions, ordered by partition and key.

    The same rows give the same table, byte for byte.
    """
    table = run.pipeline.table(pinned.table)
    delta = DeltaTable(_path(run, pinned.table), version=pinned.version)
    order = (table.partition, *(name for name in table.key if name != table.partition))
    wanted = None if columns is None else list(dict.fromkeys((*columns, *order)))
    bounds = [(table.partition, ">=", days.first), (table.partition, "<=", days.last)]
    rows = delta.to_pyarrow_table(
        filters=bounds, columns=wanted, filesystem=arrow_files(_path(run, pinned.table))
    )
    return rows.sort_by([(name, "ascending") for name in order])


def labelled(run: Run, pinned: Snapshot, days: Days) -> pa.Table:
    """The training rows of those days that have a label."""
    training = run.pipeline.training
    columns = (*training.features, *training.baseline, *training.slices, training.label)
    rows = read(run, pinned, days, columns)
    return rows.filter(pc.is_valid(rows[training.label]))


def require_rows(run: Run, fit: pa.Table, validation: pa.Table, days: Window) -> None:
    """Refuse to train on too little.

    Raises:
        Refused: fewer rows to fit than the pipeline's `min_rows`, or none to validate on; the
            message says how many there are.
    """
    least = run.pipeline.training.min_rows
    short = [
        f"{len(rows)} labelled rows to {use} on {part}, and needs {needed}"
        for use, rows, part, needed in (
            ("fit", fit, days.fit, least),
            ("validate", validation, days.validation, 1),
        )
        if len(rows) < needed
    ]
    if short:
        name = run.pipeline.name
        raise Refused(
            f"Training '{name}' as of {run.days.last} has {'; '.join(short)}. "
            "Publish more days first: "
            f"nightshift run {name} --from {days.trained.first} --to {run.days.last}"
        )


def between(rows: pa.Table, column: str, days: Days) -> pa.Table:
    """The rows whose date lies in the days."""
    dates = rows[column]
    return rows.filter(
        pc.and_(
            pc.greater_equal(dates, pa.scalar(days.first)),
            pc.less_equal(dates, pa.scalar(days.last)),
        )
    )


def _validation_days(wanted: int, days: int) -> int:
    # A short history must still leave most of its days to learn from.
    return max(1, min(wanted, days // 4))


def _path(run: Run, table: str) -> str:
    return run.environment.table_path(f"{run.pipeline.name}.{table}")
