"""Rows by the files that a table's log names are the rows that Delta itself reads."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import DataFrame, SparkSession

from jobs.lake import frames
from jobs.lake.data_files import DayFile, day_files
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.places import place

Read = Callable[[str], DataFrame]
_EVERY_TYPE = """
    CAST(id AS tinyint) AS tiny, CAST(id AS smallint) AS small, CAST(id AS int) AS whole, id,
    CAST(id / 3 AS float) AS single, id / 7 AS double, CAST(id / 9 AS decimal(20, 6)) AS exact,
    IF(id % 3 = 0, NULL, id % 2 = 0) AS flag, CONCAT('é ', id) AS `words.a``b`,
    CAST(CONCAT('x', id) AS binary) AS bytes, DATE '0001-01-01' + CAST(id AS int) AS early,
    TIMESTAMP '2013-03-31 01:30:00' + MAKE_INTERVAL(0, 0, 0, 0, id) AS instant,
    ARRAY(id, NULL) AS several, MAP('k', id) AS by_key,
    STRUCT(id AS b, CAST(NULL AS int) AS d) AS parts,
    DATE '2013-01-01' + CAST(id % 3 AS int) AS day
"""


@pytest.fixture
def read(environment: Environment) -> Read:
    """All rows of a table, as a night reads them."""

    def by_files(place: str) -> DataFrame:
        table = DeltaTable(place)
        return frames.of_table(environment, place, table, _all_files(table))

    return by_files


def _all_files(table: DeltaTable) -> list[DayFile]:
    return list(day_files(table, lambda _: True))


def _is_read_by_delta(rows: DataFrame, capsys: pytest.CaptureFixture[str]) -> bool:
    rows.explain("formatted")
    return "DeltaFileIndex" in capsys.readouterr().out


def _rows(rows: DataFrame) -> list[str]:
    return sorted(map(repr, rows.collect()))


def _write(rows: DataFrame, place: str, **options: str) -> None:
    writer = rows.write.format("delta").partitionBy("day").mode("append")
    writer.options(**options).save(place)


@pytest.mark.parametrize("name", ["table", "a b", "[x]", "{a,b}", "w*?", "day=2012-12-31", "é'"])
def test_the_rows_are_those_of_delta_wherever_the_table_lies(
    spark: SparkSession,
    read: Read,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    place = str(tmp_path / name / "table")
    _write(spark.sql(f"SELECT {_EVERY_TYPE} FROM range(20)"), place)
    rows, by_delta = read(place), spark.read.format("delta").load(place)
    assert rows.schema == by_delta.schema
    assert _rows(rows) == _rows(by_delta)
    assert not _is_read_by_delta(rows, capsys)
    assert _is_read_by_delta(by_delta, capsys)


def _added(place: str, *days: str, **configuration: str) -> None:
    """A row more of each of the days, in one commit."""
    landed = [date.fromisoformat(day) for day in days]
    ids = pa.array(range(len(days)), pa.int64())
    rows = pa.table({"id": ids, "day": landed})
    write_deltalake(
        place,
        rows,
        partition_by=["day"],
        mode="append",
        configuration=configuration or None,
    )


def test_only_wanted_days_are_looked_at(environment: Environment, tmp_path: Path) -> None:
    place = str(tmp_path / "table")
    _added(place, "2013-01-01", "2013-01-02", "2013-01-03")
    table = DeltaTable(place)
    wanted = list(day_files(table, lambda day: day > date(2013, 1, 1)))
    rows = frames.of_table(environment, place, table, wanted)
    assert {str(row["day"]) for row in rows.collect()} == {"2013-01-02", "2013-01-03"}
    nothing = frames.of_table(environment, place, table, [])
    assert nothing.schema == rows.schema
    assert nothing.collect() == []


def test_a_column_is_null_in_files_that_are_older_than_it(
    spark: SparkSession, read: Read, tmp_path: Path
) -> None:
    place = str(tmp_path / "table")
    _added(place, "2013-01-01")
    newer = spark.sql("SELECT 7L AS id, DATE '2013-01-02' AS day, 'x' AS later")
    _write(newer, place, mergeSchema="true")
    found = read(place).orderBy("day").collect()
    assert [row["id"] for row in found] == [0, 7]
    assert [row["later"] for row in found] == [None, "x"]


def test_rows_that_are_marked_as_deleted_are_not_read(
    spark: SparkSession, read: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "table")
    rows = spark.sql("SELECT id, DATE '2013-01-01' AS day FROM range(10)")
    _write(rows.coalesce(1), place, **{"delta.enableDeletionVectors": "true"})
    spark.sql(f"DELETE FROM delta.`{place}` WHERE id < 9")
    left = read(place)
    assert [row["id"] for row in left.collect()] == [9]
    assert _is_read_by_delta(left, capsys)


def test_columns_may_have_other_names_in_files(
    spark: SparkSession, read: Read, tmp_path: Path
) -> None:
    place = str(tmp_path / "table")
    rows = spark.sql("SELECT 5L AS `a, b`, DATE '2013-01-01' AS day")
    _write(rows, place, **{"delta.columnMapping.mode": "name"})
    assert [row["a, b"] for row in read(place).collect()] == [5]


def test_files_may_lie_in_folders_that_tell_no_day(
    spark: SparkSession, read: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "table")
    rows = spark.sql("SELECT 5L AS id, DATE '2013-01-01' AS day")
    _write(rows, place, **{"delta.randomizeFilePrefixes": "true"})
    found = read(place)
    [row] = found.collect()
    assert row["id"] == 5
    assert row["day"] == date(2013, 1, 1)
    assert _is_read_by_delta(found, capsys)


def test_a_file_that_spark_takes_for_hidden_is_read(read: Read, tmp_path: Path) -> None:
    place = tmp_path / "table"
    _added(str(place), "2013-01-01", "2013-01-02")
    (file,) = (place / "day=2013-01-01").glob("*.parquet")
    file.rename(file.with_name(f"_{file.name}"))
    log = place / "_delta_log" / "00000000000000000000.json"
    log.write_text(log.read_text().replace(file.name, f"_{file.name}"))
    assert read(str(place)).count() == 2


def test_files_of_another_table_are_read_where_the_log_names_them(
    spark: SparkSession, read: Read, tmp_path: Path
) -> None:
    place, copy = str(tmp_path / "table"), str(tmp_path / "copy")
    _added(place, "2013-01-01", "2013-01-02")
    spark.sql(f"CREATE TABLE delta.`{copy}` SHALLOW CLONE delta.`{place}`")
    assert read(copy).count() == 2


@pytest.mark.parametrize(
    "elsewhere",
    [{}, {"spark_remote": "sc://elsewhere"}, {"landing": place("s3://bucket/landing")}],
)
def test_very_many_files_and_what_is_elsewhere_are_left_to_delta(
    spark: SparkSession,
    environment: Environment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: dict[str, Any],
) -> None:
    table = str(tmp_path / "table")
    _added(table, "2013-01-01", "2013-01-02")
    monkeypatch.setattr(frames, "connect", lambda _: spark)
    monkeypatch.setattr(frames, "_FEW_FILES", 2 if elsewhere else 1)
    asked = replace(environment, **elsewhere)
    there = DeltaTable(table)
    rows = frames.of_table(asked, table, there, _all_files(there))
    assert _is_read_by_delta(rows, capsys)
    assert rows.count() == 2


@pytest.mark.parametrize("few", [0, 9])
def test_a_version_that_is_asked_for_is_read_though_there_is_a_newer_one(
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    place = str(tmp_path / "table")
    _added(place, "2013-01-01")
    table = DeltaTable(place)
    _added(place, "2013-01-02")
    monkeypatch.setattr(frames, "_FEW_FILES", few)
    rows = frames.of_table(environment, place, table, _all_files(table), table.version())
    assert rows.count() == 1


def test_delta_reads_a_version_that_was_replaced_more_than_30_days_ago(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "table"
    thirty_days = {"delta.deletedFileRetentionDuration": "interval 30 days"}
    _added(str(place), "2013-01-01", **thirty_days)
    _added(str(place), "2013-01-02")
    _age(place, days=31)
    table = DeltaTable(str(place))
    _added(str(place), "2013-01-03")
    monkeypatch.setattr(frames, "_FEW_FILES", 0)
    for version, count in ((0, 1), (1, 2)):
        rows = frames.of_table(environment, str(place), table, _all_files(table), version)
        assert rows.count() == count


def _age(table: Path, days: int) -> None:
    """Have all commits of a table be so many days older."""
    then = time.time() - days * 86_400
    for commit in (table / "_delta_log").glob("*.json"):
        told = re.sub(r'"timestamp":\d+', f'"timestamp":{then * 1_000:.0f}', commit.read_text())
        commit.write_text(told)
        os.utime(commit, (then, then))


def test_a_file_that_was_deleted_is_told_with_its_table_and_its_days(
    spark: SparkSession, read: Read, tmp_path: Path
) -> None:
    place = tmp_path / "table"
    _write(spark.sql(f"SELECT {_EVERY_TYPE} FROM range(20)").repartition(1), str(place))
    (gone,) = (place / "day=2013-01-02").glob("*.parquet")
    gone.unlink()
    told = rf"{place} has lost 1 of its data files, such as day=2013-01-02/{gone.name}, with rows"
    with pytest.raises(NightshiftError, match=rf"{told} of 2013-01-02: .* Put them back"):
        read(str(place))
