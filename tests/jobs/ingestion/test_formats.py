"""The same rows are the same, staged and quarantined, whatever the format of their files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from jobs.ingestion.drops import find_drops
from jobs.ingestion.formats import FORMATS
from jobs.ingestion.records import records
from jobs.lake import tables
from jobs.stages.ingest import ingest
from pipelines.environment import Environment
from pipelines.feeds import Column, Feed, Format
from pipelines.run import Run
from pipelines.spec import QUARANTINE_SUFFIX
from tests.conftest import SWEEP_EXAMPLES
from tests.jobs import toy

_DAYS = ("2013-01-01", "2013-01-02")
_FEEDS = [replace(toy.readings_in(name), max_quarantine_share=1) for name in get_args(Format)]
_ROWS: list[toy.Row] = [
    ("7", "2013-01-02", "-1.5e2", 'so, "quoted" \\ é😀'),
    ("8", "NA", None, "NA"),
    ("8", None, "1", "the same key"),
    ("x", "2013-02-29", "NaN", "three wrong values"),
    (None, None, None, "no key"),
    ("99999999999", None, None, "too large"),
    ("9", "2013", "1e999", " spaces stay "),
    ("10", "0999-12-31", "-0.0", None),
]


def test_every_format_that_can_be_declared_has_an_implementation() -> None:
    assert set(FORMATS) == set(get_args(Format))


def test_the_rows_of_every_format_are_staged_and_quarantined_alike(
    spark: SparkSession, environment: Environment
) -> None:
    run = _ingested(environment, [_ROWS, _ROWS[:1]])
    good, bad = _outcome(run, _FEEDS[0])
    values = [row[1:3] for row in good]
    assert values == [(7, "2013-01-02"), (8, None), (7, "2013-01-02")]
    assert [row[2] for row in bad] == [
        "key: id 8 comes twice, first on record 2",
        "id: 'x' is not an int; taken: '2013-02-29' is not a date; amount: 'NaN' is not a double",
        "id: no value, but it is required",
        "id: '99999999999' is not an int",
        "taken: '2013' is not a date; amount: '1e999' is not a double",
        "taken: '0999-12-31' is not a date",
    ]
    for feed in _FEEDS[1:]:
        assert _outcome(run, feed) == (good, bad)


_ODD_IDS = st.sampled_from(["x", "1.0", "+3", "NA", " 2", None])
_IDS = st.one_of(st.integers(0, 4).map(str), _ODD_IDS)
_ODD_DAYS = st.sampled_from(["NA", "2013-1-1", "2013-02-30", "today", None])
_TAKEN = st.one_of(st.dates().map(str), _ODD_DAYS)
_AMOUNTS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(["NaN", "1e999", ".5", "5.", "1,5", "NA", None]),
)
_PUNCTUATION = ['"', ",", "\\"]
_LIKE_JSON = ["null", "{}", "[1]", "1.50", "true", '{"a": 1}']
_NOTES = st.one_of(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=6),
    st.sampled_from([*_PUNCTUATION, *_LIKE_JSON, "NA", None]),
)
_Rows = list[tuple[Any, ...]]
_ROW = st.tuples(_IDS, _TAKEN, _AMOUNTS, _NOTES)
_EXAMPLES = SWEEP_EXAMPLES // 3 + 1
"""Fewer than other sweeps have: an example is a run of the whole stage over eight files."""
_FIRST_FILE = st.lists(_ROW, min_size=6, max_size=30)
_SECOND_FILE = st.lists(_ROW, max_size=5)
_FILES = st.tuples(_FIRST_FILE, _SECOND_FILE)


@pytest.mark.soak
@settings(
    max_examples=_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(files=_FILES)
def test_no_row_is_lost_and_none_differs_between_the_formats(
    spark: SparkSession, environment: Environment, files: Sequence[Sequence[toy.Row]]
) -> None:
    run = _ingested(environment, files)
    expected = _outcome(run, _FEEDS[0])
    for feed in _FEEDS[1:]:
        assert _outcome(run, feed) == expected


def _ingested(environment: Environment, files: Sequence[Sequence[toy.Row]]) -> Run:
    """A run that ingested a file of these rows for each day, in every format."""
    for feed in _FEEDS:
        for day, rows in zip(_DAYS, files, strict=True):
            toy.write_rows(environment, feed, day, rows)
    run = toy.run_of_feeds(environment, _FEEDS, *_DAYS)
    metrics: Any = ingest(run)
    for feed in _FEEDS:
        counts = metrics["feeds"][feed.name]
        assert counts["in_files"] == sum(len(rows) for rows in files)
        assert counts["in_files"] == counts["staged"] + counts["quarantined"]
    return run


def _outcome(run: Run, feed: Feed) -> tuple[_Rows, _Rows]:
    """The staged and the quarantined rows, each with its number among the records of its file."""
    header_lines = toy.FILES[feed.format].first_line - 1
    good = []
    for row in tables.staged(run, feed.name).orderBy("landed_date", "source_line").collect():
        taken = str(row["taken"]) if row["taken"] else None
        values = (row["id"], taken, repr(row["amount"]))
        place = (str(row["landed_date"]), row["source_line"] - header_lines)
        good.append((place, *values, row["note"]))
    bad = []
    quarantine = tables.read(run, feed.name + QUARANTINE_SUFFIX)
    for row in quarantine.orderBy("landed_date", "source_line").collect():
        place = (str(row["landed_date"]), row["source_line"] - header_lines)
        bad.append((*place, _by_record(row["reason"], header_lines)))
    return good, bad


def _by_record(reason: str, header_lines: int) -> str:
    """The reason, with another row's line as the number of its record."""
    return re.sub(
        r"on line (\d+)$", lambda found: f"on record {int(found[1]) - header_lines}", reason
    )


@pytest.mark.parametrize("source_format", get_args(Format))
def test_a_column_may_have_a_null_token_of_its_own(
    spark: SparkSession, environment: Environment, source_format: Format
) -> None:
    columns = (
        Column(name="id", type="int"),
        Column(name="note", null_token="-"),
        Column(name="place", null_token=""),
        Column(name="size", type="int"),
    )
    feed = replace(toy.readings_in(source_format), columns=columns)
    rows = [
        ("1", "-", "-", "NA"),
        ("2", "NA", "NA", None),
        ("3", None, "", " NA "),
    ]
    toy.write_rows(environment, feed, _DAYS[0], rows)
    assert _read(spark, environment, feed) == [
        (1, None, "-", None, None),
        (2, "NA", "NA", None, None),
        (3, None, None, None, None),
    ]


@pytest.mark.parametrize("source_format", get_args(Format))
def test_the_number_of_the_null_token_is_no_value_however_it_is_written(
    spark: SparkSession, environment: Environment, source_format: Format
) -> None:
    columns = (
        Column(name="id", type="int"),
        Column(name="size", type="int"),
        Column(name="weight", type="double"),
        Column(name="code"),
    )
    feed = replace(toy.readings_in(source_format), columns=columns, null_token="-999")
    rows = [
        ("1", "-999", "-999.0", "-999.0"),
        ("2", "-999.0", "-9.99e2", "-999"),
        ("3", "-998", "-999.5", "-0999"),
        ("4", "999", "-999", "-9.99e2"),
    ]
    toy.write_rows(environment, feed, _DAYS[0], rows)
    assert _read(spark, environment, feed) == [
        (1, None, None, "-999.0", None),
        (2, None, None, None, None),
        (3, -998, -999.5, "-0999", None),
        (4, 999, None, "-9.99e2", None),
    ]


@pytest.mark.parametrize("source_format", get_args(Format))
def test_blanks_are_no_value_where_one_is_required(
    spark: SparkSession, environment: Environment, source_format: Format
) -> None:
    columns = (
        Column(name="id"),
        Column(name="place", required=True),
        Column(name="note"),
    )
    feed = replace(toy.readings_in(source_format), columns=columns)
    rows = [
        ("1", " ", "a"),
        ("2", "\t\u00a0\u3000", "b"),
        (" \t", "roof", "c"),
        ("\u00a0 3", " roof\t", "\t\u00a0 "),
    ]
    toy.write_rows(environment, feed, _DAYS[0], rows)
    blank = "{}: nothing but blanks, but it is required".format
    read = _read(spark, environment, feed)
    reasons = [row[3] for row in read]
    assert reasons == [blank("place"), blank("place"), blank("id"), None]
    assert read[-1][:3] == rows[-1]


@pytest.mark.parametrize("source_format", get_args(Format))
def test_a_drop_without_rows_is_a_drop(
    spark: SparkSession, environment: Environment, source_format: Format
) -> None:
    feed = toy.readings_in(source_format)
    toy.write_rows(environment, feed, _DAYS[0], [])
    assert _read(spark, environment, feed) == []


@pytest.mark.parametrize("source_format", get_args(Format))
def test_the_day_is_read_from_a_path_of_any_characters(
    spark: SparkSession, environment: Environment, source_format: Format
) -> None:
    path = f"day={{date}}/a+b (2000-01-01) ü%20&'!/{{}}~x.{toy.FILES[source_format].ending}"
    feed = replace(toy.readings_in(source_format), path=path.replace("{}", "1"))
    toy.write_rows(environment, feed, _DAYS[0], _ROWS[:1])
    toy.write_rows(environment, feed, _DAYS[1], _ROWS[:1])
    drops = find_drops(toy.run_of_feeds(environment, [feed], *_DAYS))[feed.name]
    rows = records(spark, feed, drops).orderBy("landed_date").collect()
    assert [str(row["landed_date"]) for row in rows] == list(_DAYS)
    assert [row["source_file"] for row in rows] == [drop.source_file for drop in drops]


def _read(
    spark: SparkSession,
    environment: Environment,
    feed: Feed,
) -> list[tuple[Any, ...]]:
    """The values and the reason of every record of the first day."""
    drops = find_drops(toy.run_of_feeds(environment, [feed], _DAYS[0]))[feed.name]
    rows = records(spark, feed, drops).orderBy("source_line")
    names = [column.name for column in feed.columns]
    return [tuple(row) for row in rows.select(*names, "reason").collect()]
