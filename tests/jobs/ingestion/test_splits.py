"""A file that is read in splits gives the lines, and the rows, of one that is read as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from jobs.ingestion import splits
from jobs.ingestion.contents import Drop
from jobs.ingestion.drops import find_drops
from jobs.ingestion.records import records
from pipelines.environment import Environment
from pipelines.feeds import Feed
from pipelines.landing import Stamp
from tests.jobs.toy import READINGS, drop, drop_sensors, readings_in, run_of, run_of_feeds

DAY = "2013-01-01"
FIRST_LINE = 3
ODD = [b"a", b"b,c", b"\r", b"\n", b"\n\n", b"\r\n", b'"', b"\xff", b"\xc3\xa9", b" ", b"\x00"]


def _by_python(content: bytes) -> list[tuple[int, bytes]]:
    """Each line without its end, with its number; none that is blank at the end."""
    found = [line.rstrip(b"\r\n") for line in content.split(b"\n")]
    while found and not found[-1]:
        found.pop()
    return list(enumerate(found, FIRST_LINE))


def _in_splits(
    content: bytes,
    folder: Path,
) -> tuple[splits.CountedLines, list[tuple[int, bytes]]]:
    file = folder / "lines"
    file.write_bytes(content)
    counted = splits.count_lines(BytesIO(content), FIRST_LINE)
    told = Drop(
        path=file,
        source_file="lines",
        day=date(2013, 1, 1),
        layout=(),
        records=counted.records,
        marks=counted.marks,
        stamp=Stamp(len(content), 0),
    )
    found: list[tuple[int, bytes]] = []
    for part in splits._parts(told):
        for batch in splits._lines_of(part):
            lines = batch["value"].cast("binary", safe=False).to_pylist()
            numbers = batch["source_line"].to_pylist()
            found += zip(numbers, (line.rstrip(b"\r\n") for line in lines), strict=True)
    return counted, found


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large, and read in pieces of some bytes."""
    monkeypatch.setattr(splits, "LARGE_BYTES", -1)
    monkeypatch.setattr(splits, "SPLIT_BYTES", 5)
    monkeypatch.setattr(splits, "_PIECE_BYTES", 3)


@pytest.mark.usefixtures("tiny")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from(ODD), max_size=40))
def test_every_line_is_read_once_whole_and_by_its_number(
    pieces: Sequence[bytes], tmp_path: Path
) -> None:
    content = b"".join(pieces)
    counted, found = _in_splits(content, tmp_path)
    assert found == _by_python(content)
    assert counted.records == len(found)


@pytest.mark.usefixtures("tiny")
def test_a_line_that_is_longer_than_a_split_is_whole(tmp_path: Path) -> None:
    content = b"a\n" + b"b" * 50 + b"\nc"
    counted, found = _in_splits(content, tmp_path)
    assert [line for _, line in found] == [b"a", b"b" * 50, b"c"]
    assert len(counted.marks) == 2


def test_a_file_that_is_not_large_has_no_splits() -> None:
    assert splits.count_lines(BytesIO(b"a\nb\n"), 1).marks == ()


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (b"\xef\xbb\xbf", 0),
        (b"\xef\xbb\xbf\r\n\n", 0),
        (b"\xef\xbb\xbfa\n", 1),
        (b"\n\xef\xbb\xbf", 2),
    ],
)
def test_a_byte_order_mark_at_the_beginning_of_a_file_is_no_record(
    content: bytes, records: int
) -> None:
    assert splits.count_lines(BytesIO(content), 1).records == records


LINES = [
    b"1,2013-01-02,0.5,plain",
    b"2,NA,,NA",
    b'3,2013-01-02,.5,"so, ""quoted"""',
    b"4,2013-01-02,1,ends with a return\r",
    b"",
    b"5,2013-01-02,1",
    b'6,2013-01-02,1,"never closed',
    b"7,2013-01-02,1,\xff",
    b"8,2013-01-02,1,caf\xc3\xa9",
    b"8,2013-01-02,1,the same key",
    b"9,2013-01-02,1," + b"long" * 40,
    b"x,2013-01-02,1,no number",
]
RECORDS = [
    b'{"id": 1, "taken": "2013-01-02", "amount": 0.5, "note": "plain"}',
    b'{"id": 2, "note": {"a": 1}}',
    b"",
    b'{"id": 3',
    b'{"id": 4, "note": "caf\xc3\xa9"}\r',
    b'{"id": 4, "note": "the same key"}',
    b'{"id": 5, "note": "\xff"}',
]


@pytest.mark.parametrize(
    ("feed", "name", "header", "lines"),
    [
        (READINGS, f"readings/{DAY}.csv", b"\xef\xbb\xbfid,taken,amount,note\n", LINES),
        (readings_in("json_lines"), f"readings/{DAY}.jsonl", b"", RECORDS),
        (readings_in("json_lines"), f"readings/{DAY}.jsonl", b"\xef\xbb\xbf", RECORDS),
    ],
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n\r\n\n"])
def test_rows_and_reasons_are_those_of_a_file_that_is_read_as_a_whole(
    spark: SparkSession,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    feed: Feed,
    name: str,
    header: bytes,
    lines: list[bytes],
    end: bytes,
) -> None:
    drop(environment, name, header + b"\n".join(lines) + end)
    whole = _rows(spark, environment, feed, splits_at_least=0)
    monkeypatch.setattr(splits, "LARGE_BYTES", -1)
    monkeypatch.setattr(splits, "SPLIT_BYTES", 40)
    monkeypatch.setattr(splits, "_PIECE_BYTES", 16)
    assert _rows(spark, environment, feed, splits_at_least=3) == whole
    assert len(whole) == len(lines)


def _rows(
    spark: SparkSession, environment: Environment, feed: Feed, splits_at_least: int
) -> list[tuple[object, ...]]:
    [found] = find_drops(run_of_feeds(environment, [feed], DAY))[feed.name]
    assert len(found.marks) >= splits_at_least
    rows = records(spark, feed, [found]).orderBy("source_line")
    types = {column.name: column.dataType.simpleString() for column in rows.schema}
    assert types["source_line"] == "int"
    return [tuple(row) for row in rows.collect()]


def test_files_of_both_kinds_are_read_together(
    spark: SparkSession, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_sensors(environment, "1,roof")
    drop(environment, f"readings/{DAY}.csv", b"id,taken,amount,note\n" + b"\n".join(LINES))
    drop(environment, "readings/2013-01-02.csv", b"id,taken,amount,note\n7,NA,1,small\n")
    run = run_of(environment, DAY, "2013-01-02")
    monkeypatch.setattr(splits, "LARGE_BYTES", 100)
    monkeypatch.setattr(splits, "SPLIT_BYTES", 40)
    drops = find_drops(run)["readings"]
    assert [bool(one.marks) for one in drops] == [True, False]
    rows = records(spark, READINGS, drops).orderBy("landed_date", "source_line").collect()
    whole = [replace(one, marks=()) for one in drops]
    assert rows == records(spark, READINGS, whole).orderBy("landed_date", "source_line").collect()
    assert len(rows) == len(LINES) + 1


def test_a_cluster_that_others_run_need_not_have_our_code(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_sensors(environment, "1,roof")
    drop(environment, f"readings/{DAY}.csv", b"id,taken,amount,note\n" + b"\n".join(LINES))
    monkeypatch.setattr(splits, "LARGE_BYTES", 100)
    for address, is_split in ((None, True), ("sc://spark.example:15002", False)):
        there = replace(environment, spark_remote=address)
        (found,) = find_drops(run_of(there, DAY, DAY))["readings"]
        assert bool(found.marks) is is_split


def test_a_gzip_file_is_never_split(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    feed = readings_in("csv_gzip")
    monkeypatch.setattr(splits, "LARGE_BYTES", -1)
    content = gzip.compress(b"id,taken,amount,note\n1,NA,1,a\n")
    drop(environment, f"readings/{DAY}.csv.gz", content)
    (found,) = find_drops(run_of_feeds(environment, [feed], DAY))[feed.name]
    assert (found.records, found.marks) == (1, ())
