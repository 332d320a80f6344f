"""Published tables at a pinned version, read without a JVM and in one fixed order.

What is read from a snapshot can be read again, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from jobs.lake.arrow_files import arrow_files
from pipelines.days import Days
from pipelines.errors import NightshiftError
from pipelines.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A table of the run's pipeline at one version."""

    table: str
    version: int


def exists(run: Run, table: str) -> bool:
    """Whether the table has ever been published."""
    return DeltaTable.is_deltatable(_path(run, table))


def newest(run: Run, table: str) -> Snapshot:
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
    run: Run, snapshot: Snapshot, days: Days, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """The rows of those partitions, ordered by partition and key.

    Args:
        columns: Those to read, beside partition and key; None: all.
    """
    table = run.pipeline.table(snapshot.table)
    path = _path(run, snapshot.table)
    order = tuple(dict.fromkeys((table.partition, *table.key)))
    wanted = None if columns is None else list(dict.fromkeys((*columns, *order)))
    from_first = (table.partition, ">=", days.first)
    to_last = (table.partition, "<=", days.last)
    rows = DeltaTable(path, version=snapshot.version).to_pyarrow_table(
        filters=[from_first, to_last], columns=wanted, filesystem=arrow_files(path)
    )
    # Delta keeps files in the order of their commits, and Arrow reads them on many threads.
    return rows.sort_by([(name, "ascending") for name in order])


def between(rows: pa.Table, column: str, days: Days) -> pa.Table:
    """The rows whose date lies in the days."""
    from_first = pc.greater_equal(rows[column], pa.scalar(days.first))
    to_last = pc.less_equal(rows[column], pa.scalar(days.last))
    return rows.filter(pc.and_(from_first, to_last))


def _path(run: Run, table: str) -> str:
    return run.environment.table_path(f"{run.pipeline.name}.{table}")
