"""Shares of a table's files, which Spark's Python workers read by themselves.

No row goes through Spark, which takes longer to hand it over than a worker to use it
(docs/decisions/0021).
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake.arrow_files import arrow_files
from jobs.version import source_hash
from pipelines.errors import Refused

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.lake.data_files import DayFile

PART_BYTES = 64_000_000
"""A larger file is shared out among tasks, by its row groups."""
TASK_BYTES = 256_000_000
"""Of files that share a task, about: a second of scoring. To start one takes a tenth of that."""
_LEAST_SHARE = 8
"""Cores that would stand idle get a task each, of no less than this part of `TASK_BYTES`."""
ROWS_AT_ONCE = 65_536
"""That a worker holds in memory."""
COLUMNS = "day date, path string, part int, parts int"
"""Of a part, as Spark deals it out."""


@dataclass(frozen=True, slots=True)
class Part:
    """Row groups of a file: those whose number leaves the rest `part`, divided by `parts`."""

    day: date
    path: str
    part: int
    parts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A table whose files are read."""

    table: str
    """Path or URL."""
    schema: pa.Schema
    """Of the rows."""
    partition: str
    """Column of the day."""


def parts_of(file: DayFile) -> Iterator[Part]:
    """The shares of a file."""
    count = max(1, round(file.size / PART_BYTES))
    for number in range(count):
        yield Part(file.day, file.path, number, count)


def deal(
    session: SparkSession,
    shares: Collection[tuple[Any, ...]],
    columns: str,
    size: int,
    cores: int,
) -> DataFrame:
    """The shares as rows, dealt out to tasks: see `count_of_tasks`.

    Args:
        session: Of the Spark whose workers are to read them.
        shares: Values of the columns.
        columns: Names and types, as SQL writes them.
        size: Bytes of the files.
        cores: Of that Spark.
    """
    tasks = min(count_of_tasks(size, cores), len(shares)) or 1
    # Without a column Spark deals them out one by one: each core's deal begins anywhere.
    return session.createDataFrame(list(shares), columns).repartition(tasks)


def count_of_tasks(size: int, cores: int) -> int:
    """As many for each core, of about `TASK_BYTES`; fewer where that would be next to nothing.

    Args:
        size: Bytes of the files.
        cores: Of the Spark that does them.
    """
    of_each_core = max(1, round(size / (TASK_BYTES * cores)))
    most = max(1, round(size * _LEAST_SHARE / TASK_BYTES))
    return min(of_each_core * cores, most)


def require_code(wanted: str) -> None:
    """Refuse to do a task on a machine with other code than the stage that has dealt it.

    Once a task: it reads all of our files, which takes a hundredth of a second.

    Args:
        wanted: `source_hash`, where the stage runs.

    Raises:
        Refused: the code here is another.
    """
    own = source_hash()
    if own != wanted:
        raise Refused(
            f"The Spark worker on {socket.gethostname()} has code {own}, and the stage has "
            f"{wanted}: its rows would be others. Install there what is here, as from one image, "
            "and run the stage again."
        )


def read(
    source: Source,
    part: Part,
    columns: Iterable[str],
) -> Iterator[pa.Table]:
    """The rows of a part, some at a time, with those columns in the types of the table.

    Without those that the table lacks: what reads one tells of it (`encoding.existing`).
    """
    in_table = set(source.schema.names)
    wanted = [name for name in dict.fromkeys(columns) if name in in_table]
    with arrow_files(source.table).open_input_file(part.path) as opened:
        file = pq.ParquetFile(opened)
        there = file.schema_arrow.names
        groups = [one for one in range(file.num_row_groups) if one % part.parts == part.part]
        of_file = [name for name in wanted if name in there]
        for batch in file.iter_batches(ROWS_AT_ONCE, groups, of_file):
            yield pa.table({name: _column(source, part, batch, name) for name in wanted})


def _column(
    source: Source,
    part: Part,
    batch: pa.RecordBatch,
    name: str,
) -> pa.Array:
    kind = source.schema.field(name).type
    if name in batch.schema.names:
        # Files may have other types than the table: Spark writes instants in nanoseconds.
        return batch[name].cast(kind)
    # The folder tells the day, not the file. Of a column that the table has got since the rows
    # have nothing.
    day = pa.scalar(part.day if name == source.partition else None, kind)
    return pa.repeat(day, len(batch))
