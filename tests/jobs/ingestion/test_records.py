"""Each line of a file becomes one good row or one quarantined row with its reason.

Never a wrong row, never none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from operator import itemgetter
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, Row, SparkSession

from jobs.ingestion import records as reading
from jobs.ingestion.contents import Drop
from jobs.ingestion.drops import find_drops
from jobs.ingestion.records import records
from pipelines.environment import Environment
from pipelines.feeds import Column, Feed
from tests.conftest import SWEEP_EXAMPLES
from tests.jobs.toy import HEADER, READINGS, drop, drop_readings, drop_sensors, run_of, run_of_feeds

DAY = "2013-01-01"


@pytest.fixture
def sensed(environment: Environment) -> Environment:
    """The environment with a register of sensors in its landing folder."""
    drop_sensors(environment, "1,roof")
    return environment


def _read(spark: SparkSession, environment: Environment, last: str = DAY) -> list[Row]:
    drops = find_drops(run_of(environment, DAY, last))["readings"]
    return records(spark, READINGS, drops).orderBy("landed_date", "source_line").collect()


def _reasons(spark: SparkSession, environment: Environment) -> dict[int, str | None]:
    return {row["source_line"]: row["reason"] for row in _read(spark, environment)}


def test_values_are_typed_and_every_row_knows_its_file_and_line(
    spark: SparkSession, sensed: Environment
) -> None:
    drop_readings(
        sensed,
        DAY,
        '7,2013-01-02,-1.5e2,"so, ""quoted"""',
        "8,NA,,NA",
        "9, 2013-01-02 , .5 , kept as it is ",
    )
    day, file = date(2013, 1, 1), "toy/readings/2013-01-01.csv"
    assert [tuple(row) for row in _read(spark, sensed)] == [
        (
            7,
            date(2013, 1, 2),
            -150.0,
            'so, "quoted"',
            day,
            file,
            2,
            '7,2013-01-02,-1.5e2,"so, ""quoted"""',
            None,
        ),
        (8, None, None, None, day, file, 3, "8,NA,,NA", None),
        (
            9,
            date(2013, 1, 2),
            0.5,
            " kept as it is ",
            day,
            file,
            4,
            "9, 2013-01-02 , .5 , kept as it is ",
            None,
        ),
    ]


def test_every_bad_line_gets_a_reason_that_names_column_and_value(
    spark: SparkSession, sensed: Environment
) -> None:
    bad = {
        b"abc,2013-01-01,1,a": "id: 'abc' is not an int",
        b"1.5,2013-01-01,1,a": "id: '1.5' is not an int",
        b"99999999999,2013-01-01,1,a": "id: '99999999999' is not an int",
        b",2013-01-01,1,a": "id: no value, but it is required",
        b"NA,2013-01-01,1,a": "id: no value, but it is required",
        b"2,2013-02-29,1,a": "taken: '2013-02-29' is not a date",
        b"3,2013,1,a": "taken: '2013' is not a date",
        b"4,2013-01-01,NaN,a": "amount: 'NaN' is not a double",
        b"5,2013-01-01,1e999,a": "amount: '1e999' is not a double",
        b"6,x,y,a": "taken: 'x' is not a date; amount: 'y' is not a double",
        b"7,2013-01-01,1": "record: 3 fields instead of 4",
        b"8,2013-01-01,1,a,b": "record: 5 fields instead of 4",
        b"9": "record: 1 fields instead of 4",
        b"": "record: blank line between records",
        b'10,2013-01-01,1,"a': (
            "record: a quote is opened and not closed on the line; a record must be one line"
        ),
        b"11,2013-01-01,1,\xff\xfe": "record: not UTF-8 text",
        b"12,2013-01-01,1,a\x00b": "record: control characters",
        b"13,2013-01-01,1,a\rb": "record: control characters",
        b"," * 20_001: "record: 20002 fields",
        b"14,2013-01-01," + b"9" * 500 + b"x,a": f"amount: '{'9' * 80}' is not a double",
    }
    drop(sensed, f"readings/{DAY}.csv", HEADER + b"\n".join([*bad, b"15,2013-01-01,1,good\n"]))
    expected = dict(enumerate([*bad.values(), None], 2))
    assert _reasons(spark, sensed) == expected


def test_a_line_within_a_text_of_several_is_no_row_though_it_looks_like_one(
    spark: SparkSession, sensed: Environment
) -> None:
    not_closed = "record: a quote is opened and not closed on the line; a record must be one line"
    within = "record: within a text that was opened in line 3; a record must be one line"
    for day in (DAY, "2013-01-02"):
        drop_readings(
            sensed,
            day,
            "1,2013-01-01,1,good",
            '2,2013-01-01,1,"12 Main St',
            "3,2013-01-01,1,Paris",
            "",
            'France"',
            "4,2013-01-01,1,good",
        )
    drop_readings(sensed, "2013-01-03", "1,2013-01-01,1,good", "3,2013-01-01,1,Paris")
    blank = "record: blank line between records"
    reasons = [row["reason"] for row in _read(spark, sensed, "2013-01-03")]
    of_text = [None, not_closed, within, blank, not_closed, None]
    assert reasons == [*of_text, *of_text, None, None]


@pytest.mark.parametrize("many", [2_000_000, 0], ids=["few", "many"])
def test_the_first_good_row_of_a_key_is_kept_and_the_others_name_its_line(
    spark: SparkSession,
    sensed: Environment,
    monkeypatch: pytest.MonkeyPatch,
    many: int,
) -> None:
    monkeypatch.setattr(reading, "_MANY", many)
    drop_readings(
        sensed,
        DAY,
        "1,x,1,unreadable",
        "1,2013-01-01,1,first",
        "2,,,",
        "1,2013-01-01,2,second",
        "1,,,third",
    )
    reasons = list(_reasons(spark, sensed).values())
    assert reasons == [
        "taken: 'x' is not a date",
        None,
        None,
        "key: id 1 comes twice, first on line 3",
        "key: id 1 comes twice, first on line 3",
    ]


def test_a_key_of_any_length_that_comes_twice_is_shown_by_its_beginning(
    spark: SparkSession, environment: Environment
) -> None:
    texts = (Column(name="code"), Column(name="note"))
    feed = replace(READINGS, columns=texts, key=("code",))
    long = "k" * 5000
    run = run_of_feeds(environment, [feed], DAY)
    drop(environment, f"readings/{DAY}.csv", f"code,note\n{long},a\n{long},b\n".encode())
    rows = records(spark, feed, find_drops(run)[feed.name])
    (told,) = [row["reason"] for row in rows.collect() if row["reason"]]
    assert told == f"key: code {'k' * 80} comes twice, first on line 2"


def test_few_rows_and_many_have_the_same_duplicates(
    spark: SparkSession, sensed: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(7)
    amounts = ["1", "", "x"]
    for day in (DAY, "2013-01-02"):
        lines = [f"{random.randint(0, 60)},,{random.choice(amounts)},{n}" for n in range(120)]
        drop_readings(sensed, day, *lines)
    few = _read(spark, sensed, "2013-01-02")
    monkeypatch.setattr(reading, "_MANY", 0)
    many = _read(spark, sensed, "2013-01-02")
    assert [_without_good_text(row) for row in few] == [row.asDict() for row in many]
    duplicates = [row for row in few if row["reason"] and "comes twice" in row["reason"]]
    assert 0 < len(duplicates) < sum(row["reason"] is not None for row in few)


def _without_good_text(row: Row) -> dict[str, object]:
    values = row.asDict()
    if values["reason"] is None:
        values["record"] = None
    return values


def test_many_rows_without_duplicates_are_those_that_are_kept(
    spark: SparkSession, sensed: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_MANY", 0)
    # The second row of this key is none that counts.
    drop_readings(sensed, DAY, "1,,1,a", "2,,,b", "1,,x,c")
    kept: list[DataFrame] = []

    def keep(rows: DataFrame) -> DataFrame:
        kept.append(rows)
        return rows

    found = find_drops(run_of(sensed, DAY))["readings"]
    rows = records(spark, READINGS, found, keep)
    # Nothing is read once more.
    of_rows, of_keys = kept
    assert rows is of_rows
    assert of_keys.columns[:2] == ["landed_date", "id"]
    assert "record" not in of_keys.columns


def test_the_same_key_on_two_days_is_no_duplicate(spark: SparkSession, sensed: Environment) -> None:
    drop_readings(sensed, "2013-01-01", "1,,,a")
    drop_readings(sensed, "2013-01-02", "1,,,b")
    assert [
        (str(row["landed_date"]), row["note"], row["reason"])
        for row in _read(spark, sensed, "2013-01-02")
    ] == [
        ("2013-01-01", "a", None),
        ("2013-01-02", "b", None),
    ]


def test_a_record_over_two_lines_ends_in_quarantine_on_both(
    spark: SparkSession, sensed: Environment
) -> None:
    drop_readings(sensed, DAY, '1,,,"one', 'two"', "2,,,whole")
    is_good = [reason is None for reason in _reasons(spark, sensed).values()]
    assert is_good == [False, False, True]


def test_columns_are_read_by_the_header_of_each_file(
    spark: SparkSession, sensed: Environment
) -> None:
    drop_readings(sensed, "2013-01-01", "1,2013-01-01,0.5,a")
    drop(
        sensed,
        "readings/2013-01-02.csv",
        b'\xef\xbb\xbfnote,"amount",taken,id\r\nb,1.5,2013-01-02,2\r\n\r\n',
    )
    assert [tuple(row)[:4] for row in _read(spark, sensed, "2013-01-02")] == [
        (1, date(2013, 1, 1), 0.5, "a"),
        (2, date(2013, 1, 2), 1.5, "b"),
    ]


def test_an_instant_needs_its_zone(spark: SparkSession, sensed: Environment) -> None:
    rows = _read_as(
        spark,
        sensed,
        Column(name="at", type="timestamp"),
        *("2013-03-10T05:00:00Z", "2013-03-10 01:00:00-04:00", "2013-03-10T05:00:00"),
    )
    # What Spark gives is naive, in the session's UTC.
    moment = datetime(2013, 3, 10, 5)  # noqa: DTZ001
    assert [row["at"] for row in rows] == [moment, moment, None]
    assert rows[2]["reason"] == "at: '2013-03-10T05:00:00' is not a timestamp with its zone"


def test_spaces_of_a_null_token_count_where_those_of_a_value_do(
    spark: SparkSession, sensed: Environment
) -> None:
    number = Column(name="at", type="int", null_token=" -9 ")
    rows = _read_as(spark, sensed, number, " -9 ", "-9", "-9.0", "9")
    assert [row["reason"] for row in rows] == [None] * 4
    assert [row["at"] for row in rows] == [None, None, None, 9]
    day = Column(name="at", type="date", null_token="N/A ")
    rows = _read_as(spark, sensed, day, "N/A ", " N/A")
    assert [row["reason"] for row in rows] == [None, None]
    assert [row["at"] for row in rows] == [None, None]
    rows = _read_as(spark, sensed, Column(name="at", null_token="N/A "), "N/A ", "N/A")
    assert [row["at"] for row in rows] == [None, "N/A"]


def test_what_a_program_writes_for_no_day_is_a_null_token(
    spark: SparkSession, sensed: Environment
) -> None:
    none, first, last = "0001-01-01", "1000-01-01", "9999-12-31"
    day = Column(name="at", type="date", null_token=none)
    rows = _read_as(spark, sensed, day, none, "0999-12-31", first, last)
    refused = "at: '0999-12-31' is not a date"
    assert [row["reason"] for row in rows] == [None, refused, None, None]
    days = [row["at"] and str(row["at"]) for row in rows]
    assert days == [None, None, first, last]


def test_an_instant_on_the_minute_needs_no_second(spark: SparkSession, sensed: Environment) -> None:
    rows = _read_as(
        spark,
        sensed,
        Column(name="at", type="timestamp"),
        *("2013-03-10T05:00Z", "2013-03-10 01:00-04:00", "2013-03-10T05:60Z"),
    )
    moment = datetime(2013, 3, 10, 5)  # noqa: DTZ001
    assert [row["at"] for row in rows] == [moment, moment, None]
    assert rows[2]["reason"] == "at: '2013-03-10T05:60Z' is not a timestamp with its zone"


def test_an_instant_finer_than_microseconds_is_told_so(
    spark: SparkSession, sensed: Environment
) -> None:
    finer, none = "2013-03-10T05:00:00.1234567Z", "2013-02-30T05:00:00.123456Z"
    rows = _read_as(spark, sensed, Column(name="at", type="timestamp"), finer, none)
    assert [row["reason"] for row in rows] == [
        f"at: '{finer}' has more than 6 digits after the second",
        f"at: '{none}' is not a timestamp with its zone",
    ]


@pytest.mark.parametrize(
    ("column", "text", "value", "reason"),
    [
        # Both are the same double.
        (
            Column(name="size", type="long", null_token="9007199254740993"),
            "9007199254740992",
            9007199254740992,
            None,
        ),
        (Column(name="size", type="double", null_token="9.96921e36"), "9.96921E+36", None, None),
        (Column(name="size", type="int", null_token="9e39"), "7", 7, None),
        (
            Column(name="size", type="int", null_token="9e39"),
            "8e39",
            None,
            "size: '8e39' is not an int",
        ),
        (
            Column(name="size", type="double", null_token="1e999"),
            "2e999",
            None,
            "size: '2e999' is not a double",
        ),
        (
            Column(name="size", type="double", null_token="-999"),
            "-999d",
            None,
            "size: '-999d' is not a double",
        ),
    ],
)
def test_a_null_token_of_a_number_is_that_number_alone(
    spark: SparkSession,
    sensed: Environment,
    column: Column,
    text: str,
    value: float | None,
    reason: str | None,
) -> None:
    [row] = _read_as(spark, sensed, column, text)
    assert (row["size"], row["reason"]) == (value, reason)


def _read_as(
    spark: SparkSession, environment: Environment, column: Column, *texts: str
) -> list[Row]:
    """The rows of a file with these texts in such a column."""
    feed = replace(READINGS, columns=(READINGS.columns[0], column))
    lines = [f"{line},{text}\n" for line, text in enumerate(texts, 1)]
    drop(environment, f"readings/{DAY}.csv", f"id,{column.name}\n{''.join(lines)}".encode())
    found = _drops_of(environment, feed)
    drops = [replace(one, layout=("id", column.name)) for one in found]
    return records(spark, feed, drops).orderBy("source_line").collect()


def _drops_of(environment: Environment, feed: Feed) -> list[Drop]:
    run = run_of(environment, DAY)
    pipeline = replace(run.pipeline, feeds=(feed,))
    return find_drops(replace(run, pipeline=pipeline))[feed.name]


def test_no_drop_is_an_empty_frame_with_the_same_columns(
    spark: SparkSession, sensed: Environment
) -> None:
    drop_readings(sensed, DAY, "1,2013-01-01,0.5,a")
    [found] = find_drops(run_of(sensed, DAY))["readings"]
    empty = records(spark, READINGS, [])
    full = records(spark, READINGS, [found])
    assert empty.count() == 0
    assert [(field.name, field.dataType) for field in empty.schema] == [
        (field.name, field.dataType) for field in full.schema
    ]


def test_a_landing_folder_whose_name_looks_like_a_pattern_is_read(
    spark: SparkSession, environment: Environment
) -> None:
    odd = replace(environment, landing=environment.landing / "a [b]{c}* ü%20")
    drop_sensors(odd, "1,roof")
    drop_readings(odd, DAY, "1,2013-01-01,0.5,a")
    assert [row["id"] for row in _read(spark, odd)] == [1]


def test_lines_keep_their_numbers_when_a_file_is_read_in_many_splits(
    spark: SparkSession, sensed: Environment
) -> None:
    drop_readings(sensed, DAY, *(f"{n},,,{'x' * (n % 50)}" for n in range(2, 402)))
    with _splits_of(spark, 512):
        rows = _read(spark, sensed)
    assert [(row["source_line"], row["id"], row["reason"]) for row in rows] == [
        (n, n, None) for n in range(2, 402)
    ]


@contextmanager
def _splits_of(spark: SparkSession, size: int) -> Iterator[None]:
    spark.conf.set("spark.sql.files.maxPartitionBytes", str(size))
    try:
        yield
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")


_GOOD = [f"{n},2013-01-0{n % 9 + 1},{n}.25,note {n}".encode() for n in range(1, 9)]
_NASTY = st.sampled_from(
    [
        b'"',
        b'""',
        b",",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        "é".encode(),
        b"NA",
        b" ",
        b"\\",
        b"#",
        b"-",
        b"'",
    ]
)
_MUTATION = st.tuples(
    st.integers(0, 400),
    st.integers(0, 6),
    st.one_of(_NASTY, st.binary(max_size=3)),
)
"""Where, how many bytes are lost there, and what takes their place."""
_Good = tuple[int, date | None, float | None, str | None]
"""A row of the table."""
_MUTATIONS = st.lists(_MUTATION, min_size=1, max_size=4)
_BODIES = st.lists(_MUTATIONS, min_size=40, max_size=60)


def _mutated(mutations: list[tuple[int, int, bytes]]) -> bytes:
    body = b"\n".join(_GOOD) + b"\n"
    for place, lost, inserted in mutations:
        at = place % (len(body) + 1)
        body = body[:at] + inserted + body[at + lost :]
    return body


@pytest.mark.soak
@settings(
    max_examples=SWEEP_EXAMPLES,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(bodies=_BODIES)
def test_whatever_happens_to_the_bytes_no_line_is_lost_and_no_wrong_row_is_made(
    spark: SparkSession, sensed: Environment, bodies: list[list[tuple[int, int, bytes]]]
) -> None:
    first = date(2013, 1, 1)
    days = [first + timedelta(days=n) for n in range(len(bodies))]
    contents = {day: _mutated(mutations) for day, mutations in zip(days, bodies, strict=True)}
    for day, body in contents.items():
        drop(sensed, f"readings/{day}.csv", HEADER + body)
    rows = _read(spark, sensed, str(days[-1]))
    for day, body in contents.items():
        lines = _data_lines(body)
        found = [row for row in rows if row["landed_date"] == day]
        numbers = range(2, len(lines) + 2)
        assert [row["source_line"] for row in found] == list(numbers)
        if b'"' not in body:
            values = itemgetter("id", "taken", "amount", "note")
            good = {row["source_line"]: values(row) for row in found if row["reason"] is None}
            assert good == _good_rows(lines)


def _data_lines(body: bytes) -> list[bytes]:
    lines = [line.rstrip(b"\r") for line in body.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _good_rows(lines: list[bytes]) -> dict[int, _Good]:
    """The rows that a reader in plain Python accepts, by line."""
    rows: dict[int, _Good] = {}
    for number, line in enumerate(lines, 2):
        try:
            row = _parsed(line.decode())
        except ValueError:
            continue
        if row[0] not in {other[0] for other in rows.values()}:
            rows[number] = row
    return rows


def _parsed(line: str) -> tuple[int, date | None, float | None, str | None]:
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line):
        raise ValueError(line)
    identity, taken, amount, note = line.split(",")
    typed = [
        None if text.strip(" ") in ("", "NA") else text.strip(" ")
        for text in (identity, taken, amount)
    ]
    if (
        typed[0] is None
        or not re.fullmatch(r"[+-]?[0-9]+", typed[0])
        or abs(int(typed[0])) >= 2**31
    ):
        raise ValueError(line)
    if typed[1] is not None and not re.fullmatch(r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}", typed[1]):
        raise ValueError(line)
    if typed[2] is not None and not re.fullmatch(
        r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", typed[2]
    ):
        raise ValueError(line)
    when = date.fromisoformat(typed[1]) if typed[1] else None
    return (
        int(typed[0]),
        when,
        float(typed[2]) if typed[2] else None,
        None if note in ("", "NA") else note,
    )
