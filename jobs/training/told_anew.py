"""Outcomes of a window that does not fit into memory, of which a later drop has told anew.

Spark finds them by their keys, and writes those of each day into a file: beside rows of that day a
worker has no more than these in memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs.training import encoding, parts
from jobs.training.parts import Part, Source
from pipelines import places
from pipelines.quoting import quoted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.lake.data_files import DayFile

_DAY, _LAST = "day told", "day told last"
"""With spaces, which no column of a key has."""
_PLACE = "place in the rows"
_WRITTEN = pa.schema([("day", pa.date32())])


@dataclass(frozen=True, kw_only=True, slots=True)
class ToldAnew:
    """The older rows of such outcomes. Workers get it by value."""

    folder: Path
    """A file for each of the days, with the keys of its rows."""
    entity: tuple[str, ...]
    """Columns of the key."""
    days: frozenset[date]
    """That have such rows: nearly always none."""

    def columns_of(self, day: date) -> tuple[str, ...]:
        """What must be read of the rows of that day beside what a model reads."""
        return self.entity if day in self.days else ()

    def is_last(self, rows: pa.Table, day: date) -> NDArray[np.bool_]:
        """Which rows of that day no later drop has told anew."""
        is_last = np.full(len(rows), True)
        if day in self.days:
            keys = list(self.entity)
            with places.opened(_file(self.folder, day)) as file:
                older = pq.read_table(file)
            place = pa.array(np.arange(len(rows)))
            numbered = rows.select(keys).append_column(_PLACE, place)
            found = numbered.join(older, keys=keys, join_type="left semi")
            is_last[found[_PLACE].to_numpy()] = False
        return is_last

    def last_of(self, rows: pa.Table, partition: str) -> pa.Table:
        """The rows that no later drop has told anew; the partition column has their days."""
        is_last = np.full(len(rows), True)
        day_of = rows[partition].to_numpy()
        for day in self.days:
            of_day = np.flatnonzero(day_of == np.datetime64(day))
            own = rows.take(pa.array(of_day))
            is_last[of_day] = self.is_last(own, day)
        return rows.filter(pa.array(is_last))


def find(
    session: SparkSession,
    source: Source,
    files: Collection[DayFile],
    entity: Sequence[str],
    folder: Path,
    cores: int,
) -> ToldAnew:
    """Write the older rows' keys into the folder.

    Args:
        session: Of the Spark whose workers do it.
        source: The training table.
        files: Of all days that have a use; of two rows of an outcome that of the last day counts.
        entity: Columns of the key.
        folder: New, and seen by the workers.
        cores: Of Spark, to which the files are shared out.

    Raises:
        NightshiftError: the table lacks a column of the key.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_schema

    no_rows = source.schema.empty_table()
    keys = [pa.field(name, encoding.existing(no_rows, name).type) for name in entity]
    told = pa.schema([pa.field(_DAY, pa.date32()), *keys])
    shares = [astuple(part) for file in files for part in parts.parts_of(file)]
    size = sum(file.size for file in files)
    days: frozenset[date] = frozenset()
    if shares:
        dealt = parts.deal(session, shares, parts.COLUMNS, size, cores)
        every = dealt.mapInArrow(_Keys(source, told), from_arrow_schema(told))
        of_outcome = Window.partitionBy(*(F.col(quoted(name)) for name in entity))
        marked = every.withColumn(_LAST, F.max(_DAY).over(of_outcome))
        older = marked.where(F.col(_DAY) < F.col(_LAST)).drop(_LAST)
        writing = _writing(str(folder))
        written = older.groupBy(_DAY).applyInArrow(writing, from_arrow_schema(_WRITTEN))
        days = frozenset(row["day"] for row in written.collect())
    return ToldAnew(folder=folder, entity=tuple(entity), days=days)


@dataclass(frozen=True)
class _Keys:
    """Reads the keys of each share of the files; Spark sends it to its workers."""

    source: Source
    told: pa.Schema

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        names = self.told.names[1:]
        for batch in batches:
            for dealt in batch.to_pylist():
                part = Part(**dealt)
                for rows in parts.read(self.source, part, names):
                    day = pa.scalar(part.day, pa.date32())
                    days = pa.chunked_array([pa.repeat(day, len(rows))])
                    columns = [days, *rows.columns]
                    yield from pa.table(columns, schema=self.told).to_batches()


def _writing(folder: str) -> Callable[[pa.Table], pa.Table]:
    """What writes the keys of one day; Spark sends it to its workers."""

    def write(older: pa.Table) -> pa.Table:
        day = older[_DAY][0].as_py()
        content = io.BytesIO()
        pq.write_table(older.drop_columns([_DAY]), content)
        places.write_whole(_file(places.place(folder), day), content.getvalue())
        return pa.Table.from_pylist([{"day": day}], _WRITTEN)

    return write


def _file(folder: Path, day: date) -> Path:
    return folder / f"{day}.parquet"
