"""Published tables at a pinned version, read without a JVM and in one fixed order.

What is read from a snapshot can be read again, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from jobs.lake.arrow_files import arrow_files
from jobs.lake.locations import path, version
from pipelines.days import Days
from pipelines.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A table of the run's pipeline at one version."""

    table: str
    version: int


def newest(run: Run, table: str) -> Snapshot:
    """The newest version of a published table, pinned.

    Raises:
        NightshiftError: the table has never been published.
    """
    return Snapshot(table=table, version=version(run, table))


def read(
    run: Run, snapshot: Snapshot, days: Days, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """The rows of those partitions, ordered by partition and key.

    Args:
        columns: Those to read, beside partition and key; None: all.
    """
    table = run.pipeline.table(snapshot.table)
    place = path(run, snapshot.table)
    order = tuple(dict.fromkeys((table.partition, *table.key)))
    wanted = None if columns is None else list(dict.fromkeys((*columns, *order)))
    from_first = (table.partition, ">=", days.first)
    to_last = (table.partition, "<=", days.last)
    rows = DeltaTable(place, version=snapshot.version).to_pyarrow_table(
        filters=[from_first, to_last], columns=wanted, filesystem=arrow_files(place)
    )
    # Delta keeps files in the order of their commits, and Arrow reads them on many threads.
    return rows.sort_by([(name, "ascending") for name in order])


def between(rows: pa.Table, column: str, days: Days) -> pa.Table:
    """The rows whose date lies in the days."""
    from_first = pc.greater_equal(rows[column], pa.scalar(days.first))
    to_last = pc.less_equal(rows[column], pa.scalar(days.last))
    return rows.filter(pc.and_(from_first, to_last))
