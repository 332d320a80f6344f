"""A feed's declaration refuses what could not be read, and says what would be right."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any, get_args

import pytest

from pipelines.errors import UsageError
from pipelines.feeds import PROVENANCE, Column, Feed, Format

_FEED = Feed(
    name="readings",
    path="readings/{date}.csv",
    columns=(Column(name="id"),),
    key=("id",),
)
_DAY = date(2013, 1, 1)


def _refusal(**changes: Any) -> str:
    with pytest.raises(UsageError) as refused:
        replace(_FEED, **changes)
    return str(refused.value)


def _column_refusal(**fields: Any) -> str:
    with pytest.raises(UsageError) as refused:
        Column(**fields)
    return str(refused.value)


def test_a_path_with_a_date_is_a_drop_a_day_and_one_without_a_reference_file() -> None:
    assert not _FEED.is_reference
    assert _FEED.file(_DAY) == "readings/2013-01-01.csv"
    register = replace(_FEED, path="sensors.csv")
    assert register.is_reference
    assert register.file(None) == "sensors.csv"


def test_the_key_is_required_beside_what_is_declared_so() -> None:
    columns = (
        Column(name="id"),
        Column(name="a", required=True),
        Column(name="b"),
    )
    assert replace(_FEED, columns=columns).required == {"id", "a"}


def test_a_column_has_the_feeds_null_token_or_its_own() -> None:
    columns = (
        Column(name="id"),
        Column(name="a", null_token="-"),
        Column(name="b", null_token=""),
    )
    feed = replace(_FEED, columns=columns, null_token="NA")
    assert [feed.null_token_of(column) for column in columns] == ["NA", "-", ""]


def test_a_marker_is_a_file_of_the_same_day_that_feeds_may_share() -> None:
    assert _FEED.marker_file(_DAY) is None
    assert replace(_FEED, marker="{date}.done").marker_file(_DAY) == "2013-01-01.done"
    register = replace(_FEED, path="sensors.csv", marker="_SUCCESS")
    assert register.marker_file(None) == "_SUCCESS"


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        ("done", "marker 'done' and path 'readings/{date}.csv' must both hold '{date}'"),
        ("readings/{date}.csv", "marker 'readings/{date}.csv' is the file itself"),
        ("", "marker '' must be relative"),
        ("../{date}.done", "marker '../{date}.done' must be relative"),
        ("{date}/{date}.done", "marker '{date}/{date}.done' may hold '{date}' once"),
    ],
)
def test_a_marker_that_could_not_tell_a_file_from_another_is_refused(
    marker: str, problem: str
) -> None:
    assert problem in _refusal(marker=marker)


@pytest.mark.parametrize(
    "path",
    [
        "{date}/{date}.csv",
        "{date:%Y%m%d}.csv",
        "{date!r}.csv",
        "{day}.csv",
        "{}.csv",
        "{0}.csv",
        "{date.year}.csv",
        "{{date}}.csv",
        "{date}}.csv",
        "{date.csv",
        "a{b}c.csv",
    ],
)
def test_a_path_holds_the_date_once_plainly_and_nothing_else_in_braces(path: str) -> None:
    assert _refusal(path=path) == (
        f"Feed 'readings': path '{path}' may hold '{{date}}' once, and nothing else in braces: "
        "the day is written YYYY-MM-DD."
    )


@pytest.mark.parametrize(
    "path", ["", "/readings/{date}.csv", "readings//{date}.csv", "../{date}.csv", "./a.csv", "a/"]
)
def test_a_path_is_relative_and_stays_below_the_landing_folder(path: str) -> None:
    assert "must be relative, without '.', '..' or '//'" in _refusal(path=path)


@pytest.mark.parametrize("path", ["readings/_{date}.csv", ".sensors.csv"])
def test_a_file_that_spark_takes_for_a_hidden_one_is_refused(path: str) -> None:
    assert "must not begin with '_' or '.'" in _refusal(path=path)
    assert replace(_FEED, path="_in/{date}.csv").file(_DAY) == "_in/2013-01-01.csv"


@pytest.mark.parametrize("source_format", ["csv", "json_lines"])
@pytest.mark.parametrize("ending", [".gz", ".GZ", ".bz2", ".deflate", ".lz4", ".snappy", ".zst"])
def test_a_text_file_that_ends_like_a_compressed_one_is_refused(
    source_format: Format, ending: str
) -> None:
    message = _refusal(path="{date}.csv" + ending, format=source_format)
    assert f"its format is '{source_format}'. For gzipped CSV declare format='csv_gzip'" in message


def test_a_gzipped_feed_must_end_so_and_parquet_may_end_as_it_likes() -> None:
    message = _refusal(format="csv_gzip")
    assert "must end with '.gz', but is 'readings/{date}.csv'" in message
    assert replace(_FEED, format="csv_gzip", path="{date}.csv.gz").file(_DAY).endswith(".csv.gz")
    assert replace(_FEED, format="parquet", path="{date}.snappy").file(_DAY).endswith(".snappy")


def test_an_unknown_format_names_those_that_are_known() -> None:
    message = _refusal(format="xml")
    assert f"no format 'xml'. Known: {', '.join(get_args(Format))}." in message


@pytest.mark.parametrize("name", [*PROVENANCE, "record", "reason", "Source_File"])
def test_a_column_must_not_have_the_name_of_one_that_every_row_gets(name: str) -> None:
    assert f"A column must not be named '{name}'" in _column_refusal(name=name)


@pytest.mark.parametrize("name", ["", "_id", "a.b", "a`b"])
def test_a_column_name_that_spark_could_mistake_is_refused(name: str) -> None:
    assert "must not be empty, begin with '_' or hold '.' or '`'" in _column_refusal(name=name)


def test_a_column_named_as_all_columns_is_refused() -> None:
    message = "Column '*': in Spark that name stands for all columns."
    assert message in _column_refusal(name="*")
    assert Column(name="a*").name == "a*"


def test_an_unknown_type_names_those_that_are_known() -> None:
    message = _column_refusal(name="id", type="float")
    assert "no type 'float'. Known: string, int, long, double" in message


@pytest.mark.parametrize("twice", ["id", "ID"])
def test_a_column_declared_twice_is_refused_whatever_its_case(twice: str) -> None:
    message = _refusal(columns=(Column(name="id"), Column(name=twice)))
    assert message.startswith("Feed 'readings' declares a column twice")


@pytest.mark.parametrize("key", [(), ("id", "other")])
def test_a_key_must_be_among_the_columns(key: tuple[str, ...]) -> None:
    assert "are not among its columns ['id']" in _refusal(key=key)


@pytest.mark.parametrize(
    "given",
    [
        {"is_optional": True},
        {"first_day": date(2013, 1, 2)},
        {"last_day": date(2013, 1, 2)},
    ],
)
def test_a_reference_feed_has_a_file_on_every_day(given: dict[str, Any]) -> None:
    message = _refusal(path="sensors.csv", **given)
    assert "path 'sensors.csv' holds no '{date}', so it is a reference feed" in message
    assert "has one file on every day" in message


def test_another_word_in_braces_is_refused_as_such_also_of_an_optional_feed() -> None:
    assert "may hold '{date}' once" in _refusal(path="{day}.csv", is_optional=True)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_lies_between_nought_and_one(share: float) -> None:
    assert "must be from 0 to 1" in _refusal(max_quarantine_share=share)


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0, "0.0%"),
        (5e-7, "0.00005%"),
        (0.29, "29.0%"),
        (1 / 3, "33.3333%"),
        (1, "100.0%"),
    ],
)
def test_a_share_is_told_without_a_power_of_ten(share: float, told: str) -> None:
    assert replace(_FEED, max_quarantine_share=share).share_allowed == told


def test_a_policy_for_new_columns_that_nobody_knows_is_refused() -> None:
    problem = "Feed 'readings': new_columns must be one of refuse, ignore, add, but is 'drop'."
    assert _refusal(new_columns="drop") == problem
