"""A line is one flat JSON object, or is quarantined with the reason why it is none."""

from __future__ import annotations

from codecs import BOM_UTF8
from dataclasses import replace
from operator import itemgetter

import pytest
from pyspark.sql import Row, SparkSession

from jobs.ingestion.drops import find_drops
from jobs.ingestion.records import records
from pipelines.environment import Environment
from pipelines.feeds import Column, Feed
from tests.jobs.toy import drop, readings_in, run_of_feeds

_DAY = "2013-01-01"
_FEED = readings_in("json_lines")
_COLUMNS = (Column(name="id", type="int"), Column(name="note"))
_TEXTS = replace(_FEED, columns=_COLUMNS, null_token="")


def _read(
    spark: SparkSession, environment: Environment, content: bytes, feed: Feed = _FEED
) -> list[Row]:
    drop(environment, f"readings/{_DAY}.jsonl", content)
    [found] = find_drops(run_of_feeds(environment, [feed], _DAY))[feed.name]
    rows = records(spark, feed, [found]).orderBy("source_line").collect()
    assert len(rows) == found.records
    return rows


def test_every_line_that_is_no_flat_object_gets_a_reason(
    spark: SparkSession, environment: Environment
) -> None:
    bad = {
        b'{"id": 1, "note": {"a": 1}}': "note: a nested value",
        b'{"id": 2, "note": [ ]}': "note: a nested value",
        b'{"id": 3, "x": 1, "y": 2}': "record: 'x' is not declared",
        b'{"id": 4, "ID": 4}': "record: 'ID' is not declared",
        b'{"id": 5, "id": 6}': "record: 'id' comes twice",
        b'{"id": 6, "note": null, "note": null}': "record: 'note' comes twice",
        b'{"\\u0069d": 6, "id": 6}': "record: 'id' comes twice",
        b'{"a\\"b\\u00e9": 1, "id": 6}': "record: 'a\"bé' is not declared",
        b'{"id": 7} x': "record: text after the JSON object",
        b'{"id": 8}{"id": 9}': "record: text after the JSON object",
        b'[{"id": 9}]': "record: not a JSON object",
        b"10": "record: not a JSON object",
        b"null": "record: not a JSON object",
        b'{"id": 12': "record: the JSON object is not closed",
        b'{"id": 13,}': "record: not valid JSON from '}' on",
        b"{'id': 14}": "record: not valid JSON from ''id': 14}' on",
        b"{id: 15}": "record: not valid JSON from 'id: 15}' on",
        b'{"id": 016}': "record: not valid JSON from '16}' on",
        b'{"id": 17, "amount": NaN}': "record: not valid JSON from ' \"amount\": NaN}' on",
        b'{"id": 18, "note": tru}': "record: not valid JSON from ' \"note\": tru}' on",
        b'{"id": 19, "note": "\\ud800"}': (
            'record: not valid JSON from \' "note": "\\ud800"}\' on'
        ),
        b'{"id": 20, "note": "\\u0000"}': "note: control characters",
        b'{"id": 21, "note": "a\x01b"}': "record: control characters",
        b'{"id": 22, "note": "\xff"}': "record: not UTF-8 text",
        b"": "record: blank line between records",
        b'{"id": true}': "id: 'true' is not an int",
        b'{"id": 1.0}': "id: '1.0' is not an int",
        b'{"id": 123456789012345678901234567890}': (
            "id: '123456789012345678901234567890' is not an int"
        ),
        b'{"id": ""}': "id: no value, but it is required",
        b'{"note": "a"}': "id: no value, but it is required",
        b"{}": "id: no value, but it is required",
        b'{"id": 30, "amount": 1e999, "taken": 20130101}': (
            "taken: '20130101' is not a date; amount: '1e999' is not a double"
        ),
    }
    rows = _read(spark, environment, b"\n".join([*bad, b'{"id": 99}\n']))
    found = {row["source_line"]: row["reason"] for row in rows}
    # The line after the bad ones is good.
    reasons = [*bad.values(), None]
    assert found == dict(enumerate(reasons, 1))
    assert rows[0]["record"] == '{"id": 1, "note": {"a": 1}}'


def test_what_is_too_long_for_a_parser_is_told_so(
    spark: SparkSession, environment: Environment
) -> None:
    long = {
        "number": '{"id": 1, "note": ' + "1" * 1001 + "}",
        "key": f'{{"id": 2, "{"k" * 50_001}": 1}}',
    }
    rows = _read(spark, environment, "\n".join(long.values()).encode())
    too_long = "record: a number or a text in it is too long to be read"
    assert [row["reason"] for row in rows] == [too_long, too_long]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1.50", "1.50"),
        ("1e3", "1e3"),
        ("-0", "-0"),
        ("0.1000000000000000055", "0.1000000000000000055"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ("null", None),
        ('""', None),
        ('"null"', "null"),
        ('"{}"', "{}"),
        (r'"\u00e9\ud83d\ude00"', "é😀"),
        ('"é😀\u2028"', "é😀\u2028"),
        (r'"a\"b\\c\/d"', 'a"b\\c/d'),
        (r'"two\nlines\tand a tab"', "two\nlines\tand a tab"),
        (r'"\\ud800"', r"\ud800"),
        ('" :1,{\\"id\\":2},"', ' :1,{"id":2},'),
        ('"' + "x" * 200_000 + '"', "x" * 200_000),
        ('"' + r"\n" * 200_000 + '"', "\n" * 200_000),
    ],
)
def test_a_value_is_taken_by_its_literal_text(
    spark: SparkSession, environment: Environment, value: str, text: str | None
) -> None:
    line = f'{{"note":{value},"id":"1"}}\n'
    [row] = _read(spark, environment, line.encode(), _TEXTS)
    assert (row["id"], row["note"], row["reason"]) == (1, text, None)


def test_a_value_must_be_the_whole_text_line_breaks_too(
    spark: SparkSession, environment: Environment
) -> None:
    [row] = _read(spark, environment, b'{"id": "1\\n"}\n', _TEXTS)
    assert row["reason"] == "id: '1\n' is not an int"


def test_missing_keys_any_order_crlf_a_byte_order_mark_and_space_are_no_obstacle(
    spark: SparkSession, environment: Environment
) -> None:
    content = (
        b'\xef\xbb\xbf{"id":1}\r\n'
        b'\t{ "note" : "a\\r" ,\t"id" : 2 }  \r\n'
        b'{"amount":-1.5e2,"taken":"2013-01-02","id":3,"note":"NA"}\r\n'
        b"\r\n\r\n"
    )
    rows = _read(spark, environment, content)
    values = itemgetter("source_line", "id", "note", "reason")
    assert list(map(values, rows)) == [
        (1, 1, None, None),
        (2, 2, "a\r", None),
        (3, 3, None, None),
    ]
    third = rows[2]
    assert (str(third["taken"]), third["amount"]) == ("2013-01-02", -150.0)


def test_an_empty_file_is_a_drop_without_rows(
    spark: SparkSession, environment: Environment
) -> None:
    assert _read(spark, environment, b"") == []
    assert _read(spark, environment, b"\n\r\n") == []
    # As some programs write an empty file.
    for mark in (BOM_UTF8, BOM_UTF8 + b"\r\n"):
        assert _read(spark, environment, mark) == []


def test_lines_keep_their_numbers_when_a_file_is_read_in_many_splits(
    spark: SparkSession, environment: Environment
) -> None:
    lines = [f'{{"id": {n}, "note": "{"x" * (n % 50)}"}}\n' for n in range(1, 301)]
    spark.conf.set("spark.sql.files.maxPartitionBytes", "512")
    try:
        rows = _read(spark, environment, "".join(lines).encode())
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
    numbers = list(range(1, 301))
    assert [row["source_line"] for row in rows] == numbers
    assert [row["id"] for row in rows] == numbers
