from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, WriterProperties, write_deltalake
from pyspark import SparkFiles
from pyspark.sql import SparkSession

from jobs.lake.data_files import day_files
from jobs.training import file_scoring, odd_inputs, parts, scoring
from jobs.training.encoding import ENCODING
from jobs.training.file_scoring import Asked, Shipped
from jobs.training.odd_inputs import Odd
from jobs.training.parts import Part
from jobs.training.registry import ModelVersion, Registry
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from tests.jobs.training import small

NIGHTS = Days(date(2013, 1, 23), date(2013, 1, 24))
ROWS = small.scoring_rows(NIGHTS, per_day=6000)
KEY = ("landed_date", "batch")
PREDICTION = "failure_probability"


@pytest.fixture
def registry(environment: Environment) -> Registry:
    return Registry(environment, "small")


@pytest.fixture
def models(registry: Registry, tmp_path: Path) -> list[ModelVersion]:
    """Two, of other weights."""
    return [_keep(registry, tmp_path / str(seed), seed) for seed in (1, 2)]


def _keep(registry: Registry, files: Path, seed: int) -> ModelVersion:
    files.mkdir()
    small.save_network(small.TRAINING, files, seed)
    (files / ENCODING).write_text(small.data_of().encoding.to_json())
    return registry.keep(
        files,
        as_of=NIGHTS.first,
        fingerprint=str(seed),
        family="neural_network",
        recipe="as ever",
        params={},
        curves={},
        pins={},
    )


@pytest.fixture
def by_day(
    spark: SparkSession, registry: Registry, models: list[ModelVersion]
) -> dict[date, Shipped]:
    """A model for each night."""
    shipped = [
        file_scoring.ship(spark, registry, model, "exact", {"model_version": model.version})
        for model in models
    ]
    return dict(zip(NIGHTS, shipped, strict=True))


@pytest.fixture
def asked(environment: Environment, by_day: dict[date, Shipped]) -> Asked:
    return Asked(
        table=environment.table_path("small.scoring"),
        schema=ROWS.schema,
        partition="landed_date",
        by_day=by_day,
        shown=KEY,
        task="binary_classification",
        prediction=PREDICTION,
        stamps={"scoring_version": pa.scalar(7)},
        told_by="landed_date",
        cores=2,
    )


def _write(asked: Asked, rows: pa.Table, **how: Any) -> None:
    write_deltalake(asked.table, rows, partition_by=["landed_date"], mode="overwrite", **how)


def _scored(spark: SparkSession, asked: Asked) -> tuple[pa.Table, Counter[Odd]]:
    files = list(day_files(DeltaTable(asked.table), NIGHTS.__contains__))
    place = Path(asked.table).with_name("told")
    place.mkdir(exist_ok=True)
    odd = file_scoring.write_on_spark(spark, asked, files, str(place))
    days = pa.schema([("landed_date", pa.date32())])
    written = ds.dataset(place, partitioning=ds.partitioning(days, flavor="hive"))
    scored = asked.told.empty_table()
    if written.files:
        scored = written.to_table().select(asked.told.names)
    return scored.sort_by([(name, "ascending") for name in KEY]), odd


def _in_process(
    registry: Registry,
    models: list[ModelVersion],
    rows: pa.Table,
) -> list[float]:
    ordered = rows.sort_by([(name, "ascending") for name in KEY])
    scores: list[float] = []
    for place, model in enumerate(models):
        night = ordered.slice(place * 6000, 6000)
        scores += scoring.load(registry, model).score(night).tolist()
    return scores


@pytest.mark.parametrize("part_bytes", [64_000_000, 40_000])
@pytest.mark.parametrize("groups", [1, 7])
def test_every_split_gives_the_bits_of_one_process(
    spark: SparkSession,
    registry: Registry,
    models: list[ModelVersion],
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    part_bytes: int,
    groups: int,
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", part_bytes)
    monkeypatch.setattr(parts, "TASK_BYTES", part_bytes)
    shuffled = ROWS.take(np.random.default_rng(1).permutation(len(ROWS)))
    _write(asked, shuffled, writer_properties=WriterProperties(max_row_group_size=6000 // groups))
    scored, odd = _scored(spark, asked)
    assert scored[PREDICTION].to_pylist() == _in_process(registry, models, ROWS)
    versions = scored["model_version"].to_pylist()
    assert versions == ["1"] * 6000 + ["2"] * 6000
    assert odd == Counter()
    assert scored.column_names == [*KEY, PREDICTION, "model_version", "scoring_version"]
    assert set(scored["scoring_version"].to_pylist()) == {7}


def test_odd_inputs_are_counted_as_one_process_counts_them(
    spark: SparkSession, asked: Asked
) -> None:
    rows = small.with_column(ROWS, "line", pa.array(["ZZ", None] * 6000))
    _write(asked, rows)
    scored, odd = _scored(spark, asked)
    assert odd == odd_inputs.count(rows, small.data_of().encoding)
    assert odd["line", "unseen"] == 6000
    assert len(scored) == 12_000
    assert scored[PREDICTION].null_count == 0


def test_files_from_before_a_column_lack_its_values(
    spark: SparkSession, registry: Registry, models: list[ModelVersion], asked: Asked
) -> None:
    _write(asked, ROWS.drop_columns(["gappy", "oven"]))
    nothing = small.without_values(ROWS, "gappy", "oven")
    scored, odd = _scored(spark, replace(asked, shown=(*KEY, "oven")))
    assert scored[PREDICTION].to_pylist() == _in_process(registry, models, nothing)
    assert scored["oven"].null_count == len(ROWS)
    assert odd == {("oven", "missing"): 12_000}


def test_a_column_that_the_model_reads_and_the_table_lacks_is_named(
    registry: Registry, models: list[ModelVersion], asked: Asked, tmp_path: Path
) -> None:
    rows = ROWS.drop_columns(["oven"])
    _write(asked, rows)
    files = list(day_files(DeltaTable(asked.table), NIGHTS.__contains__))
    loaded = [scoring.load(registry, model) for model in models]
    scorers = dict(zip(asked.by_day.values(), loaded, strict=True))
    lacking = replace(asked, schema=rows.schema)
    told = "The model reads column 'oven', which the rows do not have"
    with pytest.raises(NightshiftError, match=told):
        file_scoring.write(scorers, lacking, files, str(tmp_path))


def test_no_rows_are_scored_to_none(spark: SparkSession, asked: Asked) -> None:
    _write(asked, ROWS.slice(0, 0))
    scored, odd = _scored(spark, asked)
    assert len(scored) == 0
    assert odd == Counter()


def _told(*days: date | None) -> pa.Table:
    return pa.table(
        {
            "day": pa.array(days, pa.date32()),
            "score": pa.array([0.5] * len(days), pa.float64()),
        }
    )


_PART = Part(day=NIGHTS.first, path="a.parquet", part=0, parts=1)


def _there(place: Path) -> list[str]:
    return sorted(str(file.relative_to(place)) for file in place.rglob("*.parquet"))


def test_a_part_that_is_done_twice_is_there_once(tmp_path: Path) -> None:
    for _ in range(2):
        with file_scoring._Files(str(tmp_path), _PART, "day") as files:
            files.add(_told(NIGHTS.first, NIGHTS.last))
            files.add(_told(NIGHTS.first, None))
    folders = [Path(file).parent.name for file in _there(tmp_path)]
    assert folders == ["day=2013-01-23", "day=2013-01-24", "day=__HIVE_DEFAULT_PARTITION__"]
    # Without the partition, as its files would have its name twice.
    rows = ds.dataset([tmp_path / file for file in _there(tmp_path)]).to_table()
    assert rows.column_names == ["score"]
    assert len(rows) == 4


def test_of_a_part_that_failed_there_is_nothing(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with file_scoring._Files(str(tmp_path), _PART, "day") as files:
            files.add(_told(NIGHTS.first, NIGHTS.last))
            raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        write_and_fail()
    assert _there(tmp_path) == []


def test_a_model_that_came_as_other_bytes_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"what was sent").hexdigest()
    (tmp_path / digest).write_bytes(b"what came")
    monkeypatch.setattr(SparkFiles, "get", lambda name: str(tmp_path / name))
    shipped = Shipped(
        family="linear", variant="exact", files=(("linear.json", digest),), made_by=()
    )
    with pytest.raises(NightshiftError, match=r"linear\.json came to this worker as other bytes"):
        file_scoring._loaded(shipped)
