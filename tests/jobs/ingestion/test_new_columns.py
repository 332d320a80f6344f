"""A column that the source has begun to write is refused, ignored or added, as its feed says."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from jobs.ingestion.drops import find_drops
from jobs.ingestion.json_lines import JsonLines
from jobs.lake import tables
from jobs.lake.locations import path
from jobs.lake.publications import in_force
from jobs.lake.sql import query
from jobs.stages.ingest import ingest
from pipelines.environment import Environment
from pipelines.errors import Refused
from pipelines.feeds import Feed, Format, NewColumns
from pipelines.run import Run
from tests.conftest import SOAK
from tests.jobs.toy import Row, drop, readings_in, run_of_feeds, write_rows

FORMATS: tuple[Format, ...] = get_args(Format)
SAMPLE = [
    "csv",
    "parquet",
    pytest.param("csv_gzip", marks=SOAK),
    pytest.param("json_lines", marks=SOAK),
]
"""Formats of nights as a whole: that of one row is a matter of seconds in each."""
FIRST, SECOND, THIRD = "2013-01-01", "2013-01-02", "2013-01-03"
_ROWS: list[Row] = [
    ("1", FIRST, "0.5", "a"),
    ("2", FIRST, "1.5", "b"),
]
_WITH_EXTRA: list[Row] = [
    ("3", FIRST, "2.5", "c", "x 1"),
    ("4", FIRST, "3.5", "d", "NA"),
]


def feed_with(policy: NewColumns, source_format: Format = "csv") -> Feed:
    return replace(readings_in(source_format), new_columns=policy)


def write(
    environment: Environment,
    feed: Feed,
    day: str,
    rows: Sequence[Row],
    new: Sequence[str] = ("extra",),
) -> None:
    """Drop a file that has these columns beside the declared ones."""
    write_rows(environment, feed.with_new(new), day, rows)


def night(
    environment: Environment, feed: Feed, first: str, last: str | None = None
) -> tuple[Run, dict[str, Any]]:
    """Ingest and publish the feed, as a night does."""
    run = run_of_feeds(environment, [feed], first, last)
    metrics: dict[str, Any] = ingest(run)
    tables.publish(run, feed.name)
    return run, metrics


def read_by_all(
    run: Run,
    feed: Feed,
    column: str,
) -> list[tuple[object, ...]]:
    """The id and a column of every row: the same by Spark, by SQL without a JVM and by delta-rs."""
    in_order = tables.read(run, feed.name).select("id", column).orderBy("id")
    by_spark = [tuple(row) for row in in_order.collect()]
    _, by_duckdb = query(run.environment, f"SELECT id, {column} FROM toy.{feed.name} ORDER BY id")
    whole = DeltaTable(path(run, feed.name)).to_pyarrow_table().sort_by("id")
    by_delta = [(row["id"], row[column]) for row in whole.to_pylist()]
    assert by_spark == by_duckdb == by_delta
    return by_spark


@pytest.mark.parametrize("source_format", FORMATS)
def test_an_added_column_is_text_after_the_declared_ones_and_null_on_older_days(
    spark: SparkSession, environment: Environment, source_format: Format
) -> None:
    feed = feed_with("add", source_format)
    write_rows(environment, feed, FIRST, _ROWS)
    write(environment, feed, SECOND, _WITH_EXTRA)
    write_rows(environment, feed, THIRD, [("5", FIRST, "4.5", "e")])
    for day in (FIRST, SECOND, THIRD):
        run, metrics = night(environment, feed, day)
        assert metrics["rows_quarantined"] == 0
    assert read_by_all(run, feed, "extra") == [
        (1, None),
        (2, None),
        # What stands for a missing value in the feed does so here.
        (3, "x 1"),
        (4, None),
        (5, None),
    ]


@pytest.mark.parametrize("source_format", SAMPLE)
def test_a_range_of_days_gives_what_its_nights_give_and_running_again_changes_nothing(
    spark: SparkSession, environment: Environment, tmp_path: Path, source_format: Format
) -> None:
    feed = feed_with("add", source_format)
    bulk = replace(environment, lake=str(tmp_path / "bulk"))
    for one in (environment, bulk):
        write_rows(one, feed, FIRST, _ROWS)
        write(one, feed, SECOND, _WITH_EXTRA)
    whole, _ = night(bulk, feed, FIRST, SECOND)
    for day in (FIRST, SECOND):
        run, _ = night(environment, feed, day)
    read = [read_by_all(one, feed, "extra") for one in (run, whole)]
    assert read[0] == read[1]
    said = [in_force(one, feed.name) for one in (run, whole)]
    checksums = [{day: one.checksum for day, one in known.items()} for known in said]
    assert checksums[0] == checksums[1]
    # A day without the column says the same as in a range with one: its night changes nothing.
    night(bulk, feed, FIRST)
    assert in_force(whole, feed.name) == said[1]


def test_a_day_whose_file_gets_a_column_says_something_else(
    spark: SparkSession, environment: Environment
) -> None:
    feed = feed_with("add")
    said = []
    for new in ((), ("extra",), ("other",)):
        rows = [(*row, "x") if new else row for row in _ROWS]
        write(environment, feed, FIRST, rows, new)
        run, _ = night(environment, feed, FIRST)
        said.append(in_force(run, feed.name)[date.fromisoformat(FIRST)].checksum)
    assert len(set(said)) == 3
    assert read_by_all(run, feed, "extra") == [(1, None), (2, None)]
    assert read_by_all(run, feed, "other") == [(1, "x"), (2, "x")]


@pytest.mark.parametrize("source_format", FORMATS)
def test_an_ignored_column_is_not_read(
    spark: SparkSession, environment: Environment, source_format: Format
) -> None:
    feed = feed_with("ignore", source_format)
    # Not even its name counts.
    rows = [(*row, "1", "2") for row in _ROWS]
    write_rows(environment, feed.with_new(["odd name"]).with_new(["Reason2"]), FIRST, rows)
    run, metrics = night(environment, feed, FIRST)
    assert (metrics["rows_staged"], metrics["rows_quarantined"]) == (2, 0)
    names = [*feed.column_names, "landed_date", "source_file", "source_line"]
    assert sorted(tables.read(run, feed.name).columns) == sorted(names)


@pytest.mark.parametrize("source_format", ["csv", "csv_gzip", "parquet"])
def test_ignored_columns_may_have_one_name_or_none(
    spark: SparkSession, environment: Environment, source_format: Format
) -> None:
    feed = feed_with("ignore", source_format)
    named = ("stand_in_1", "stand_in_2", "stand_in_3", "stand_in_4")
    rows = [(*row, "1", "2", "3", "4") for row in _ROWS]
    write(environment, feed, FIRST, rows, named)
    renamed = dict(zip(named, ("", "", "X", "x"), strict=True))
    _rename(_first_file(environment, feed), source_format, renamed)
    _, metrics = night(environment, feed, FIRST)
    assert (metrics["rows_staged"], metrics["rows_quarantined"]) == (2, 0)


def test_an_ignored_column_is_not_named_as_a_declared_one(environment: Environment) -> None:
    feed = feed_with("ignore")
    for name, why in (("note", "'note' comes twice"), ("Note", "'note', 'Note' differ only")):
        write(environment, feed, FIRST, _WITH_EXTRA)
        _rename(_first_file(environment, feed), "csv", {"extra": name})
        with pytest.raises(Refused, match=why):
            find_drops(run_of_feeds(environment, [feed], FIRST))


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([[1, 2]], pa.list_(pa.int64()), {}),
        (["a"], pa.string(), {"compression": {"extra": "BROTLI"}}),
        (
            [0.5],
            pa.float64(),
            {"use_dictionary": False, "column_encoding": {"extra": "BYTE_STREAM_SPLIT"}},
        ),
        # Beyond what microseconds hold.
        ([2**62], pa.timestamp("ms"), {}),
    ],
)
def test_an_ignored_column_of_parquet_may_be_of_any_type(
    spark: SparkSession,
    environment: Environment,
    values: list[object],
    kind: pa.DataType,
    stored: dict[str, Any],
) -> None:
    feed = feed_with("ignore", "parquet")
    columns = {
        # Ahead of the others, so that the places of those are others in what is read.
        "extra": pa.array(values, kind),
        "id": pa.array([1], pa.int32()),
        "taken": pa.array([date(2013, 1, 1)]),
        "amount": [0.5],
        "note": ["a"],
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **stored)
    drop(environment, feed.path.replace("{date}", FIRST), buffer.getvalue())
    _, metrics = night(environment, feed, FIRST)
    assert metrics["rows_staged"] == 1


@pytest.mark.parametrize("source_format", ["csv", "csv_gzip", "parquet"])
def test_by_default_the_file_is_refused_by_name_and_column(
    environment: Environment, source_format: Format
) -> None:
    feed = readings_in(source_format)
    write(environment, feed, FIRST, _WITH_EXTRA)
    with pytest.raises(Refused, match=rf"{FIRST}\.\S+: column 'extra' is not declared"):
        find_drops(run_of_feeds(environment, [feed], FIRST))


def test_by_default_a_row_of_json_lines_is_quarantined_with_the_column(
    spark: SparkSession, environment: Environment
) -> None:
    feed = replace(readings_in("json_lines"), max_quarantine_share=1)
    write(environment, feed, FIRST, _WITH_EXTRA)
    run, metrics = night(environment, feed, FIRST)
    assert metrics["rows_quarantined"] == 2
    reasons = tables.read(run, f"{feed.name}_quarantine").select("reason").distinct().collect()
    assert [tuple(row) for row in reasons] == [("record: 'extra' is not declared",)]


@pytest.mark.parametrize("source_format", FORMATS)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("reason", "column 'reason' is not declared, and cannot be added. A column must not be"),
        ("Source_File", "column 'Source_File' is not declared, and cannot be added. A column must"),
        ("_hidden", "column '_hidden' is not declared, and cannot be added. .* begin with '_'"),
        ("a.b", r"column 'a\.b' is not declared, and cannot be added. .* hold '\.'"),
        ("*", r"column '\*' is not declared, and cannot be added. .* stands for all columns"),
        ("two words", "column 'two words' is not declared, and cannot be added: a name has"),
        ("x" * 129, "column 'x+' is not declared, and cannot be added: a name has at most 128"),
        ("NOTE", "column 'note', 'NOTE' differ only in case: rename one of them"),
    ],
)
def test_a_name_that_no_table_can_have_is_refused_by_file_and_column(
    environment: Environment, source_format: Format, name: str, why: str
) -> None:
    # As the source writes it: a declaration would refuse it at once.
    feed = feed_with("add", source_format)
    write(environment, feed, FIRST, _WITH_EXTRA, ["stand_in"])
    _rename(_first_file(environment, feed), source_format, {"stand_in": name})
    with pytest.raises(Refused, match=rf"toy/readings/{FIRST}\.\S+: {why}"):
        find_drops(run_of_feeds(environment, [feed], FIRST))


def _first_file(environment: Environment, feed: Feed) -> Path:
    return environment.landing / "toy" / feed.path.replace("{date}", FIRST)


def _rename(file: Path, source_format: Format, names: Mapping[str, str]) -> None:
    """Have columns of a file be called otherwise, in ways that its writer would refuse."""
    if source_format == "parquet":
        table = pq.read_table(file, partitioning=None)
        renamed = [names.get(name, name) for name in table.column_names]
        pq.write_table(table.rename_columns(renamed), file)
        return
    is_gzip = source_format == "csv_gzip"
    content = gzip.decompress(file.read_bytes()) if is_gzip else file.read_bytes()
    for name, other in names.items():
        content = content.replace(name.encode(), other.encode())
    file.write_bytes(gzip.compress(content) if is_gzip else content)


def test_a_twin_of_a_column_of_another_day_is_refused_by_file_and_column(
    spark: SparkSession, environment: Environment
) -> None:
    feed = feed_with("add")
    write(environment, feed, FIRST, _WITH_EXTRA)
    write(environment, feed, SECOND, _WITH_EXTRA, ["Extra"])
    # In one range, and after a night has published the other name.
    twin = rf"readings/{SECOND}\.csv: column 'Extra' .* differs only in case from 'extra'"
    with pytest.raises(Refused, match=twin):
        ingest(run_of_feeds(environment, [feed], FIRST, SECOND))
    night(environment, feed, FIRST)
    with pytest.raises(Refused, match=twin):
        ingest(run_of_feeds(environment, [feed], SECOND))


def test_a_column_that_is_no_longer_declared_is_not_mixed_with_text(
    spark: SparkSession, environment: Environment
) -> None:
    feed = feed_with("add")
    write_rows(environment, feed, FIRST, _ROWS)
    night(environment, feed, FIRST)
    without = replace(feed, columns=tuple(one for one in feed.columns if one.name != "amount"))
    write_rows(environment, feed, SECOND, _ROWS)
    with pytest.raises(Refused, match=r"column 'amount' .* the table has it .* as double"):
        ingest(run_of_feeds(environment, [without], SECOND))


def test_a_broken_line_of_json_adds_no_column(
    spark: SparkSession, environment: Environment
) -> None:
    feed = replace(feed_with("add", "json_lines"), max_quarantine_share=1)
    good = '{"id": 1, "taken": null, "amount": 1e2, "note": "a", "extra": 1.50}'
    long = f'{{"id": {"1" * 5000}, "taken": null, "amount": 1, "note": "b"}}'
    lines = [good, long, '{"id": 2, "odd": [1]}', '{"worse": 1', "[1]", "7", "[" * 100_000]
    drop(
        environment,
        feed.path.replace("{date}", FIRST),
        "\n".join(lines).encode(),
    )
    run, metrics = night(environment, feed, FIRST)
    assert (metrics["rows_staged"], metrics["rows_quarantined"]) == (1, 6)
    # As it is written: a number keeps its zero.
    assert read_by_all(run, feed, "extra") == [(1, "1.50")]
    assert not {"odd", "worse"} & set(tables.read(run, feed.name).columns)


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": 1, "new": NaN}',
        b'{"id": 1, "new": 1, "new": 2}',
        b'{"id": 1, "new": "\\ud800"}',
        b'{"id": 1, "\\ud800": 1}',
        b'{"id": 1, "new": "\xed\xa0\x80"}',
        # A byte order mark begins a file, as of one that was put together of two.
        b'\xef\xbb\xbf{"id": 1, "new": 1}',
    ],
)
def test_what_python_takes_for_json_and_is_none_adds_no_column(tmp_path: Path, line: bytes) -> None:
    feed = feed_with("add", "json_lines")
    path = tmp_path / "a.jsonl"
    good = b'\xef\xbb\xbf{"id": 1, "extra": "\\ud83d\\ude00 \\\\ud800"}\n'
    path.write_bytes(good + line + b"\nnull\n7\n{}\n")
    assert JsonLines().contents(path, feed).named_by_records == ("extra",)


def test_a_reference_file_with_a_new_column_is_a_new_snapshot(
    spark: SparkSession, environment: Environment
) -> None:
    daily = readings_in("csv")
    register = replace(feed_with("add"), name="register", path="register.csv")
    for day in (FIRST, SECOND, THIRD):
        write_rows(environment, daily, day, _ROWS)

    def unchanged(day: str) -> int:
        run = run_of_feeds(environment, [daily, register], day)
        metrics: dict[str, Any] = ingest(run)
        found: int = metrics["feeds"]["register"]["unchanged"]
        if not found:
            tables.publish(run, "register")
        return found

    write_rows(environment, register, FIRST, _ROWS)
    assert unchanged(FIRST) == 0
    write(environment, register, FIRST, [(*row, "x") for row in _ROWS])
    assert unchanged(SECOND) == 0
    assert unchanged(THIRD) == 2
    # Taken back by the source.
    write_rows(environment, register, FIRST, _ROWS)
    assert unchanged(THIRD) == 0
