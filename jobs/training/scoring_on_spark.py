"""Scoring by Spark's Python workers, in Arrow: any number of rows, and few of them in memory.

Spark shares out the files of the rows, and each worker reads its own: that takes a third of the
time that Spark takes to read them and hand them over (docs/decisions/0021). A model travels as
files that are named by their digest; a worker loads it once, and keeps it for later tasks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F

from jobs.lake.arrow_files import arrow_files
from jobs.training import odd_inputs, scoring
from jobs.training.families import family_of
from jobs.training.families.light import Variant
from jobs.training.odd_inputs import Odd
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

    from jobs.lake.data_files import DayFile
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.scoring import Scorer

_MODELS_OF_A_WORKER = 16
"""Loaded ones: a pass over many nights has a model for each turn."""
_PART_BYTES = 64_000_000
"""A larger file is shared out among tasks, by its row groups."""
_TASK_BYTES = 16_000_000
"""Of files that share a task: a task takes some ten milliseconds to be started."""
_ROWS_AT_ONCE = 65_536
"""That a worker holds in memory."""
_UNIT = "day date, path string, part int, parts int"
_ODD_COLUMN, _ODD_KIND, _ODD_ROWS = "odd column", "odd kind", "odd rows"
"""Columns of the rows that count odd inputs, which travel with the predictions. With a space, which
no column of a table has."""

_COUNT_TYPES = {_ODD_COLUMN: pa.string(), _ODD_KIND: pa.string(), _ODD_ROWS: pa.int64()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipped:
    """A model whose files lie where Spark's workers find them."""

    family: str
    variant: Variant
    files: tuple[tuple[str, str], ...]
    """Of each its name in the model's folder, and its digest, by which a worker asks for it."""
    made_by: tuple[tuple[str, str], ...]
    """Columns of a prediction that tell of the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is scored, by which models, and what is told of it."""

    table: str
    """Path or URL of the table that has the rows."""
    schema: pa.Schema
    """Of the rows."""
    partition: str
    """Column of the day."""
    by_day: Mapping[date, Shipped]
    """The model of each day."""
    shown: tuple[str, ...]
    """Columns of the rows that the predictions keep."""
    prediction: str
    """Column of what the model says."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Row groups of a file: those whose number leaves the rest `part`, divided by `parts`."""

    day: date
    path: str
    part: int
    parts: int


def ship(
    session: SparkSession,
    registry: Registry,
    model: ModelVersion,
    variant: Variant,
    made_by: Mapping[str, str],
) -> Shipped:
    """Give the model's files to the session, each proven to be the one registered.

    Raises:
        NightshiftError: one is not, or is gone.
    """
    names = scoring.model_files(model, variant)
    with TemporaryDirectory() as path:
        folder = Path(path)
        registry.fetch(model, names, folder)
        for name in names:
            (folder / name).rename(folder / model.sha256[name])
        session.addArtifacts(*(str(folder / model.sha256[name]) for name in names), file=True)
    return Shipped(
        family=model.family,
        variant=variant,
        files=tuple((name, model.sha256[name]) for name in names),
        made_by=tuple(made_by.items()),
    )


@contextmanager
def scored(
    session: SparkSession, asked: Asked, files: Collection[DayFile]
) -> Iterator[tuple[DataFrame, Counter[Odd]]]:
    """The prediction of each row of the files, and the odd inputs among them.

    The rows are there while the block lasts: on Spark's disks, where memory is too small.

    Args:
        session: Of the Spark that has been given the models.
        asked: What is wanted.
        files: Of days that have a model.
    """
    parts = [astuple(part) for file in files for part in _parts(file)]
    size = sum(file.size for file in files)
    tasks = max(1, min(len(parts), round(size / _TASK_BYTES)))
    # Without a column Spark deals them out one by one, the same number to each task.
    dealt = session.createDataFrame(parts, _UNIT).repartition(tasks)
    told = dealt.mapInArrow(_Score(asked), _told_schema(asked)).persist()
    try:
        is_count = F.col(_ODD_ROWS).isNotNull()
        counts = told.where(is_count).groupBy(_ODD_COLUMN, _ODD_KIND).agg(F.sum(_ODD_ROWS))
        odd: Counter[Odd] = Counter({(row[0], row[1]): row[2] for row in counts.collect()})
        yield told.where(~is_count).drop(_ODD_COLUMN, _ODD_KIND, _ODD_ROWS), odd
    finally:
        told.unpersist()


def _parts(file: DayFile) -> Iterator[_Part]:
    count = max(1, round(file.size / _PART_BYTES))
    for number in range(count):
        yield _Part(file.day, file.path, number, count)


def _told_schema(asked: Asked) -> StructType:
    """Of predictions, and of the rows that count odd inputs."""
    from pyspark.sql.pandas.types import from_arrow_schema

    fields = [asked.schema.field(name) for name in asked.shown]
    fields.append(pa.field(asked.prediction, pa.float64()))
    made_by = next(iter(asked.by_day.values())).made_by
    fields += [pa.field(name, pa.string()) for name, _ in made_by]
    fields += [pa.field(name, kind) for name, kind in _COUNT_TYPES.items()]
    return from_arrow_schema(pa.schema(fields))


@dataclass(frozen=True)
class _Score:
    """Reads and scores the parts that a task was dealt; Spark sends it to its workers."""

    asked: Asked

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        odd: Counter[Odd] = Counter()
        schema = None
        for batch in batches:
            for unit in batch.to_pylist():
                part = _Part(**unit)
                shipped = self.asked.by_day[part.day]
                scorer = _loaded(shipped)
                for rows in _read(self.asked, part, scorer.encoding.columns):
                    odd += odd_inputs.count(rows, scorer.encoding)
                    predicted = self._scored(rows, shipped, scorer)
                    schema = predicted.schema
                    yield from predicted.to_batches()
        if schema is not None and odd:
            yield _counts(odd, schema)

    def _scored(self, rows: pa.Table, shipped: Shipped, scorer: Scorer) -> pa.Table:
        scores = pa.array(scorer.score(rows), pa.float64())
        told = rows.select(list(self.asked.shown)).append_column(self.asked.prediction, scores)
        for name, value in shipped.made_by:
            told = told.append_column(name, pa.repeat(value, len(rows)))
        for name, kind in _COUNT_TYPES.items():
            told = told.append_column(name, pa.nulls(len(rows), kind))
        return told


def _counts(odd: Counter[Odd], schema: pa.Schema) -> pa.RecordBatch:
    """The counts as rows beside the predictions, of which they have nothing."""
    told = {
        _ODD_COLUMN: [column for column, _ in odd],
        _ODD_KIND: [kind for _, kind in odd],
        _ODD_ROWS: list(odd.values()),
    }
    columns = [
        pa.array(told[field.name], field.type)
        if field.name in told
        else pa.nulls(len(odd), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _read(asked: Asked, part: _Part, features: Iterable[str]) -> Iterator[pa.Table]:
    """The rows of a part, some at a time, with the columns that are needed."""
    wanted = list(dict.fromkeys((*asked.shown, *features)))
    with arrow_files(asked.table).open_input_file(part.path) as source:
        file = pq.ParquetFile(source)
        there = file.schema_arrow.names
        groups = [one for one in range(file.num_row_groups) if one % part.parts == part.part]
        columns = [name for name in wanted if name in there]
        for batch in file.iter_batches(_ROWS_AT_ONCE, groups, columns):
            yield pa.table({name: _column(asked, part, batch, name) for name in wanted})


def _column(asked: Asked, part: _Part, batch: pa.RecordBatch, name: str) -> pa.Array:
    kind = asked.schema.field(name).type
    if name in batch.schema.names:
        # Files may have other types than the table: Spark writes instants in nanoseconds.
        return batch[name].cast(kind)
    # The folder tells the day, not the file. Of a column that the table has got since the rows
    # have nothing.
    day = pa.scalar(part.day if name == asked.partition else None, kind)
    return pa.repeat(day, len(batch))


@lru_cache(maxsize=_MODELS_OF_A_WORKER)
def _loaded(shipped: Shipped) -> Scorer:
    from pyspark import SparkFiles

    with TemporaryDirectory() as path:
        folder = Path(path)
        for name, digest in shipped.files:
            content = Path(SparkFiles.get(digest)).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise NightshiftError(
                    f"{name} came to this worker as other bytes than were sent ({digest}): it was "
                    "not loaded. Run the stage again."
                )
            (folder / name).write_bytes(content)
        return scoring.load_from(folder, family_of(shipped.family), shipped.variant)
