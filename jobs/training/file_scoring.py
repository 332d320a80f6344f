"""Scoring of a table's files, in Arrow: any number of rows, and few of them in memory.

This process does one file after another, or Spark shares them out; each worker reads its own, and
writes what it says of them (see `parts`). A model travels as files that are named by their digest;
a worker loads it once, and keeps it for later tasks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.lake.arrow_files import arrow_files
from jobs.training import odd_inputs, parts, scoring
from jobs.training.families import family_of
from jobs.training.families.light import Variant
from jobs.training.odd_inputs import Odd
from jobs.training.parts import Part, Source
from jobs.training.tasks import task_of
from jobs.version import source_hash
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.lake.data_files import DayFile
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.scoring import Scorer

_MODELS_OF_A_WORKER = 16
"""Loaded ones: a pass over many nights has a model for each turn."""
_NO_DAY = "__HIVE_DEFAULT_PARTITION__"
"""Folder of rows without a day, as Spark names it: who looks at the files refuses it."""
_COUNTS = "column string, kind string, rows long"
"""What a worker tells: the odd inputs among its rows."""
_COUNTS_SCHEMA = pa.schema(
    {
        "column": pa.string(),
        "kind": pa.string(),
        "rows": pa.int64(),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipped:
    """A model by its files, which Spark's workers find by their digests."""

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
    task: str
    """Name of the learning task."""
    prediction: str
    """Column of what the model says."""
    stamps: Mapping[str, pa.Scalar]
    """Columns that are the same in all predictions."""
    told_by: str
    """Column of the predictions whose days have a folder each."""
    cores: int
    """Of Spark, to which the rows are shared out."""

    @property
    def source(self) -> Source:
        """Where the rows are."""
        return Source(table=self.table, schema=self.schema, partition=self.partition)

    @property
    def told(self) -> pa.Schema:
        """Of the predictions."""
        fields = [self.schema.field(name) for name in self.shown]
        fields.append(pa.field(self.prediction, pa.float64()))
        made_by = next(iter(self.by_day.values())).made_by
        fields += [pa.field(name, pa.string()) for name, _ in made_by]
        stamps = self.stamps.items()
        fields += [pa.field(name, value.type) for name, value in stamps]
        return pa.schema(fields)


def by_files(model: ModelVersion, variant: Variant, made_by: Mapping[str, str]) -> Shipped:
    """The model, told by its files.

    Args:
        model: That serves.
        variant: In which it does.
        made_by: Columns of a prediction that tell of it.
    """
    names = scoring.model_files(model, variant)
    return Shipped(
        family=model.family,
        variant=variant,
        files=tuple((name, model.sha256[name]) for name in names),
        made_by=tuple(made_by.items()),
    )


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
    shipped = by_files(model, variant, made_by)
    with TemporaryDirectory() as path:
        folder = Path(path)
        registry.fetch(model, [name for name, _ in shipped.files], folder)
        for name, digest in shipped.files:
            (folder / name).rename(folder / digest)
        paths = [str(folder / digest) for _, digest in shipped.files]
        session.addArtifacts(*paths, file=True)
    return shipped


def write(
    scorers: Mapping[Shipped, Scorer],
    asked: Asked,
    files: Collection[DayFile],
    place: str,
) -> Counter[Odd]:
    """Write the prediction of each row of the files, in this process.

    See `write_on_spark` for the rest.

    Args:
        scorers: Of each model that is asked.
    """
    odd: Counter[Odd] = Counter()
    for file in files:
        for part in parts.parts_of(file):
            odd += _write(asked, part, scorers[asked.by_day[part.day]], place)
    return odd


def write_on_spark(
    session: SparkSession,
    asked: Asked,
    files: Collection[DayFile],
    place: str,
) -> Counter[Odd]:
    """Write the prediction of each row of the files; returns the odd inputs among the rows.

    Args:
        session: Of the Spark that has been given the models.
        asked: What is wanted.
        files: Of days that have a model.
        place: Path or URL of a new folder, which gets a folder a day with Parquet files.
    """
    shares = [astuple(part) for file in files for part in parts.parts_of(file)]
    size = sum(file.size for file in files)
    dealt = parts.deal(session, shares, parts.COLUMNS, size, asked.cores)
    counts = dealt.mapInArrow(_Score(asked, place), _COUNTS)
    odd: Counter[Odd] = Counter()
    for column, kind, rows in counts.collect():
        odd[column, kind] += rows
    return odd


@dataclass(frozen=True)
class _Score:
    """Scores the parts that a task was dealt; Spark sends it to its workers."""

    asked: Asked
    place: str
    code: str = field(default_factory=source_hash)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts.require_code(self.code)
        odd: Counter[Odd] = Counter()
        for batch in batches:
            for unit in batch.to_pylist():
                part = Part(**unit)
                scorer = _loaded(self.asked.by_day[part.day])
                odd += _write(self.asked, part, scorer, self.place)
        told = []
        for (column, kind), rows in odd.items():
            told.append({"column": column, "kind": kind, "rows": rows})
        yield pa.RecordBatch.from_pylist(told, _COUNTS_SCHEMA)


def _write(asked: Asked, part: Part, scorer: Scorer, place: str) -> Counter[Odd]:
    made_by = asked.by_day[part.day].made_by
    constants = {**dict(made_by), **asked.stamps}
    task = task_of(asked.task)
    odd: Counter[Odd] = Counter()
    wanted = (*asked.shown, *scorer.encoding.columns)
    with _Files(place, part, asked.told_by) as files:
        for rows in parts.read(asked.source, part, wanted):
            # First: it tells of a column that the model cannot read.
            told = scoring.predictions(scorer, rows, asked.shown, task, asked.prediction, constants)
            odd += odd_inputs.count(rows, scorer.encoding)
            files.add(told)
    return odd


class _Files:
    """The Parquet files of a part's predictions, one a day: all of them there in full, or none.

    They are named after the part: where Spark has a task done twice, the same bytes are put in the
    place of the same file.
    """

    def __init__(self, place: str, part: Part, by: str) -> None:
        self._system = arrow_files(place)
        self._name = hashlib.sha256(repr(part).encode()).hexdigest()[:32]
        self._by = by
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._own = uuid4().hex

    def __enter__(self) -> Self:
        return self

    def add(self, told: pa.Table) -> None:
        """Write these rows, too."""
        days = told[self._by]
        for day in pc.unique(days).to_pylist():
            asked = pa.scalar(day)
            is_of_day = pc.is_null(days) if day is None else pc.equal(days, asked)
            rows = told.filter(is_of_day).drop_columns([self._by])
            self._writer(day, rows.schema).write_table(rows)

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        for folder, writer in self._writers.items():
            writer.close()
            if failure is None:
                self._system.move(self._unfinished(folder), f"{folder}/part-{self._name}.parquet")

    def _writer(self, day: date | None, schema: pa.Schema) -> pq.ParquetWriter:
        folder = f"{self._by}={_NO_DAY if day is None else day}"
        if folder not in self._writers:
            self._system.create_dir(folder)
            sink = self._unfinished(folder)
            self._writers[folder] = pq.ParquetWriter(sink, schema, filesystem=self._system)
        return self._writers[folder]

    def _unfinished(self, folder: str) -> str:
        # Of another name than what is looked for.
        return f"{folder}/.{self._name}.{self._own}"


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
