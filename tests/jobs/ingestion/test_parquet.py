"""A row of Parquet meets the rules of a CSV line; a file that Spark cannot read is refused."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row, SparkSession

from jobs.ingestion import parquet
from jobs.ingestion.contents import Unfit
from jobs.ingestion.drops import find_drops
from jobs.ingestion.parquet import Parquet
from jobs.ingestion.records import records
from pipelines.environment import Environment
from pipelines.errors import Refused
from pipelines.feeds import Column, Feed, Type
from tests.jobs.toy import readings_in, run_of_feeds

_DAY, _NEXT_DAY = "2013-01-01", "2013-01-02"
_FEED = readings_in("parquet")
_MIDNIGHT = datetime(2013, 3, 10, 5, tzinfo=UTC)


def _feed_of(kind: Type) -> Feed:
    """Readings of an id and a value of that type."""
    columns = (Column(name="id", type="int"), Column(name="value", type=kind))
    return replace(_FEED, columns=columns)


def _drop(
    environment: Environment,
    day: str,
    columns: Mapping[str, Any],
    **options: Any,
) -> None:
    path = environment.landing / f"toy/readings/{day}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)


def _read(
    spark: SparkSession,
    environment: Environment,
    feed: Feed,
    last: str = _DAY,
) -> list[Row]:
    drops = find_drops(run_of_feeds(environment, [feed], _DAY, last))[feed.name]
    rows = records(spark, feed, drops).orderBy("landed_date", "source_line").collect()
    assert len(rows) == sum(drop.records for drop in drops)
    return rows


def _ids(values: pa.Array) -> pa.Array:
    return pa.array(range(len(values)), pa.int32())


def _no_utf8(content: bytes) -> pa.Array:
    """One string of these bytes, which Arrow does not look at."""
    ends = pa.py_buffer(struct.pack("2i", 0, len(content)))
    return pa.StringArray.from_buffers(1, ends, pa.py_buffer(content))


_INTS = [1, None, -5]
_LONGEST = [2**63 - 1, -(2**63)]
_BOOLEANS = [True, False, None]
_TEXTS = ["a", "NA", "", None]
_DECIMALS = [Decimal("0.10"), Decimal(0)]
_DATES = [date(2013, 2, 28), date(1000, 1, 1)]
_SOON_AFTER = _MIDNIGHT.replace(microsecond=123456)
_LAST_INT = pa.array([2**31 - 1], pa.int32())
_LAST_LONG = pa.array([2**63 - 1], pa.int64())
_LAST_DATE = _LAST_INT.cast(pa.date32())
"""Far beyond what Python's own dates reach, like the next one."""
_LAST_INSTANT = _LAST_LONG.cast(pa.timestamp("us", "UTC"))
_MAP = pa.map_(pa.string(), pa.int32())
_CODES = pa.dictionary(pa.int32(), pa.string())
_DOUBLES = [0.1, 1e300, -0.0, 5e-324, 1.7976931348623157e308, None]


@pytest.mark.parametrize(
    ("kind", "stored", "values", "expected"),
    [
        ("int", pa.int8(), _INTS, _INTS),
        ("int", pa.int64(), _INTS, _INTS),
        ("int", pa.uint16(), [4_000], [4_000]),
        ("long", pa.int64(), _LONGEST, _LONGEST),
        ("long", pa.uint32(), [4_294_967_295], [4_294_967_295]),
        ("long", pa.uint64(), [7], [7]),
        ("double", pa.int32(), _INTS, [1.0, None, -5.0]),
        ("double", pa.float64(), _DOUBLES, _DOUBLES),
        ("double", pa.float32(), [0.1], [0.1]),
        ("double", pa.decimal128(38, 18), _DECIMALS, [0.1, 0.0]),
        ("int", pa.decimal128(10, 0), [Decimal(5)], [5]),
        ("boolean", pa.bool_(), _BOOLEANS, _BOOLEANS),
        ("string", pa.string(), _TEXTS, ["a", None, None, None]),
        ("string", pa.large_string(), ["two\nlines"], ["two\nlines"]),
        ("string", pa.string_view(), ["longer than twelve"], ["longer than twelve"]),
        ("string", _CODES, ["a", "b", "a"], ["a", "b", "a"]),
        ("string", pa.float64(), [1.5], ["1.5"]),
        ("string", pa.decimal128(5, 2), [Decimal("1.50")], ["1.50"]),
        ("string", pa.null(), [None, None], [None, None]),
        ("date", pa.null(), [None], [None]),
        ("date", pa.date32(), _DATES, ["2013-02-28", "1000-01-01"]),
        ("timestamp", pa.timestamp("ms", "UTC"), [_MIDNIGHT], ["2013-03-10 05:00:00"]),
        (
            "timestamp",
            pa.timestamp("us", "Asia/Tokyo"),
            [_SOON_AFTER],
            ["2013-03-10 05:00:00.123456"],
        ),
        ("timestamp", pa.string(), ["2013-03-10 01:00:00-04:00"], ["2013-03-10 05:00:00"]),
    ],
)
def test_a_native_value_becomes_the_declared_one_exactly(
    spark: SparkSession,
    environment: Environment,
    kind: Type,
    stored: pa.DataType,
    values: list[Any],
    expected: list[Any],
) -> None:
    natives = pa.array(values, stored)
    _drop(environment, _DAY, {"id": _ids(natives), "value": natives})
    rows = _read(spark, environment, _feed_of(kind))
    assert [row["reason"] for row in rows] == [None] * len(expected)
    found = [row["value"] for row in rows]
    if kind in ("date", "timestamp"):
        found = [None if value is None else str(value) for value in found]
    # repr tells 0.0 from -0.0, and 1 from 1.0 and True.
    assert list(map(repr, found)) == list(map(repr, expected))


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("double", pa.array([math.nan]), "value: 'NaN' is not a double"),
        ("double", pa.array([-math.inf]), "value: '-Infinity' is not a double"),
        ("int", pa.array([1.0]), "value: '1.0' is not an int"),
        ("int", pa.array([2**31], pa.int64()), "value: '2147483648' is not an int"),
        ("int", pa.array([True]), "value: 'true' is not an int"),
        ("long", pa.array([2**64 - 1], pa.uint64()), "value: '18446744073709551615' is not a long"),
        ("date", pa.array([_MIDNIGHT]), "value: '2013-03-10T05:00:00.000000Z' is not a date"),
        ("date", pa.array([date(999, 1, 1)]), "value: '0999-01-01' is not a date"),
        ("date", _LAST_DATE, "value: '+5881580-07-11'"),
        (
            "timestamp",
            pa.array([datetime(2013, 3, 10, 5)]),  # noqa: DTZ001 - that it has no zone is the point
            "value: '2013-03-10 05:00:00' is not a timestamp with its zone",
        ),
        (
            "timestamp",
            _LAST_INSTANT,
            "value: '+294247-01-10T04:00:54.775807Z' is not a timestamp with its zone",
        ),
        ("string", pa.array(["a\0b"]), "value: control characters"),
        ("string", _no_utf8(b"\xff\xfe"), "value: not UTF-8 text"),
    ],
)
def test_a_value_that_a_csv_line_could_not_have_is_quarantined(
    spark: SparkSession, environment: Environment, kind: Type, value: pa.Array, reason: str
) -> None:
    _drop(environment, _DAY, {"id": _ids(value), "value": value})
    [row] = _read(spark, environment, _feed_of(kind))
    assert row["reason"].startswith(reason)


def test_a_row_is_known_by_its_number_and_quarantined_as_json(
    spark: SparkSession, environment: Environment
) -> None:
    numbers = range(1, 8)
    notes = [f"n{number}" for number in numbers]
    ids = [1, 2, 3, None, 2, 6, 7]
    columns = {
        "note": pa.array(notes),
        "taken": pa.array([date(2013, 1, day) for day in numbers]),
        "id": pa.array(ids, pa.int64()),
        "amount": pa.array([0.5] * 7),
    }
    _drop(environment, _DAY, columns, row_group_size=2)
    rows = _read(spark, environment, _FEED)
    assert [row["source_line"] for row in rows] == list(numbers)
    assert [row["note"] for row in rows] == notes
    assert {row["source_file"] for row in rows} == {"toy/readings/2013-01-01.parquet"}
    assert {row["source_line"]: row["reason"] for row in rows if row["reason"]} == {
        4: "id: no value, but it is required",
        5: "key: id 2 comes twice, first on line 2",
    }
    assert rows[3]["record"] == '{"note":"n4","taken":"2013-01-04","id":null,"amount":0.5}'


def test_files_of_one_range_may_differ_in_types_and_order_of_columns(
    spark: SparkSession, environment: Environment
) -> None:
    numbers = {"id": [1], "value": [1.5]}
    texts = {"value": ["2.5"], "id": ["2"]}
    _drop(environment, _DAY, numbers)
    _drop(environment, _NEXT_DAY, texts)
    rows = _read(spark, environment, _feed_of("double"), _NEXT_DAY)
    told = itemgetter("landed_date", "id", "value")
    assert list(map(told, rows)) == [
        (date(2013, 1, 1), 1, 1.5),
        (date(2013, 1, 2), 2, 2.5),
    ]


def test_the_old_timestamps_of_spark_are_instants_and_those_of_others_have_no_zone(
    spark: SparkSession, environment: Environment
) -> None:
    naive = [_MIDNIGHT.replace(tzinfo=None)]
    columns = {"id": [1], "value": pa.array(naive, pa.timestamp("us"))}
    feed = _feed_of("timestamp")
    options = {"use_deprecated_int96_timestamps": True}
    _drop(environment, _DAY, columns, **options)
    with pytest.raises(Refused, match=r"column 'value' \(timestamp\[ns\]\) has a type that"):
        _read(spark, environment, feed)
    path = environment.landing / f"toy/readings/{_DAY}.parquet"
    told_by_spark = {"org.apache.spark.version": "3.5.0"}
    by_spark = pa.table(columns).replace_schema_metadata(told_by_spark)
    pq.write_table(by_spark, path, **options)
    [row] = _read(spark, environment, feed)
    assert (str(row["value"]), row["reason"]) == ("2013-03-10 05:00:00", None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (pa.array([[1]]), "list<"),
        (pa.array([{"a": 1}]), "struct<a: int64>"),
        (pa.array([[("a", 1)]], _MAP), "map<"),
        (pa.array([1], pa.timestamp("ns", "UTC")), "timestamp[ns, tz=UTC]"),
        (pa.array([1], pa.time64("us")), "time64[us]"),
        (pa.array([1], pa.duration("us")), "duration[us]"),
        (pa.array([b"a"]), "binary"),
        (pa.array([b"a" * 16], pa.binary(16)), "fixed_size_binary[16]"),
        (pa.array([1.0], pa.float16()), "halffloat"),
        (pa.array([Decimal(1)], pa.decimal256(50, 2)), "decimal256(50, 2)"),
    ],
)
def test_a_type_that_no_rule_reads_is_refused_by_column_with_the_way_out(
    tmp_path: Path, value: pa.Array, shown: str
) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": [1], "odd": value, "odd too": value})
    pq.write_table(table, path)
    with pytest.raises(Unfit) as unfit:
        Parquet().contents(path, _FEED)
    assert f"column 'odd' ({shown}" in str(unfit.value)
    assert f"'odd too' ({shown}" in str(unfit.value)
    assert "has a type that cannot be ingested: have it written as a number" in str(unfit.value)


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"compression": "brotli"}, "BROTLI"),
        ({"use_byte_stream_split": True, "use_dictionary": False}, "BYTE_STREAM_SPLIT"),
    ],
)
def test_a_file_stored_as_spark_cannot_read_is_refused(
    tmp_path: Path, options: dict[str, Any], stored: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"amount": [0.5]}), path, **options)
    with pytest.raises(Unfit, match=f"column 'amount' is stored as {stored}, which Spark cannot"):
        Parquet().contents(path, _FEED)


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4"])
def test_the_other_codecs_are_read(
    spark: SparkSession, environment: Environment, codec: str
) -> None:
    text = "a" * 500
    columns = {"id": [1], "value": [text]}
    _drop(environment, _DAY, columns, compression=codec)
    [row] = _read(spark, environment, _feed_of("string"))
    assert row["value"] == text


def _damaged_in_the_footer(whole: bytes) -> bytes:
    (length,) = struct.unpack("<I", whole[-8:-4])
    footer = len(whole) - 8 - length
    return whole[:footer] + bytes(50) + whole[footer + 50 :]


def _damaged_in_the_middle(whole: bytes) -> bytes:
    return whole[:1000] + b"\xff" * 500 + whole[1500:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"id,taken\n1,2013-01-01\n",
        lambda whole: whole[:-20],
        lambda whole: whole[: len(whole) // 2],
        _damaged_in_the_footer,
        _damaged_in_the_middle,
    ],
)
def test_a_damaged_file_is_unfit_wherever_it_is_damaged(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "a.parquet"
    notes = [str(n) for n in range(5_000)]
    pq.write_table(pa.table({"note": notes}), path)
    whole = path.read_bytes()
    assert Parquet().contents(path, _FEED).records == 5_000
    path.write_bytes(damage(whole))
    with pytest.raises(Unfit, match="the Parquet file is damaged: .{8}"):
        Parquet().contents(path, _FEED)


def test_what_a_store_says_of_a_file_says_nothing_of_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As s3fs tells it: without a number.
    for error in (FileNotFoundError("bucket/a.parquet"), PermissionError("bucket/a.parquet")):

        def refused(_: Path, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr(parquet, "opened", refused)
        with pytest.raises(type(error)):
            Parquet().contents(tmp_path / "a.parquet", _FEED)


def test_a_time_beyond_microseconds_refuses_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    forever = _LAST_LONG.cast(pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"until": forever}), path)
    with pytest.raises(Unfit, match="out of bounds timestamp"):
        Parquet().contents(path, _FEED)


def test_a_time_that_comes_twice_is_told_as_any_other_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    # Of a resolution that is looked through for times that do not fit.
    coarse = pa.array([0], pa.timestamp("ms", "UTC"))
    twice = pa.Table.from_arrays([coarse, coarse], names=["taken", "taken"])
    pq.write_table(twice, path)
    assert Parquet().contents(path, _FEED).columns == ("taken", "taken")


def test_columns_other_than_declared_are_refused_as_those_of_csv(
    environment: Environment,
) -> None:
    wrong = pa.Table.from_arrays(
        [pa.array([1])] * 4, names=["id", "note", "note", "__index_level_0__"]
    )
    path = environment.landing / f"toy/readings/{_DAY}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(wrong, path)
    with pytest.raises(Refused) as refused:
        find_drops(run_of_feeds(environment, [_FEED], _DAY))
    assert (
        f"toy/readings/{_DAY}.parquet: column 'taken', 'amount' is missing; "
        "column '__index_level_0__' is not declared; column 'note' comes twice"
    ) in str(refused.value)
