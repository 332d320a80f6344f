r"""JSON lines: UTF-8, one flat object a line.

A value is taken by its literal text, as if it stood in a CSV file: 1.50 stays 1.50 in a text
column. Spark's own parser would make 1.5 of it, 1e3 a thousand, and take what is no JSON ('x',
trailing garbage). A flat object needs no parser: a regular expression is its whole grammar, and
Spark's parser is left what it does well, the escapes inside a string.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.ingestion.contents import Contents, Drop
from jobs.ingestion.provenance import numbered_lines
from jobs.ingestion.splits import count_lines
from jobs.ingestion.text import beginning, has_control_characters, line_problem
from pipelines.feeds import PROVENANCE
from pipelines.places import opened

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

    from pipelines.feeds import Feed

# Every repetition is possessive ('*+'): Java would run out of stack on a long line otherwise.
_SPACE = r"[ \t]*+"
_PLAIN = r'[^"\\\x00-\x1f]*+'
_SURROGATES = r"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# Half a pair of surrogates is no character: Spark would make a question mark of it.
_ESCAPE = rf'\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{{4}}|{_SURROGATES})'
_INSIDE = rf"{_PLAIN}(?:{_ESCAPE}{_PLAIN})*+"
_STRING = f'"{_INSIDE}"'
# Strict, as JSON is: no zero in front, no '+', no NaN.
_NUMBER = r"-?(?:0|[1-9]\d*+)(?:\.\d++)?+(?:[eE][+-]?\d++)?+"
_VALUE = f"(?:{_STRING}|{_NUMBER}|true|false|null)"
_PAIR = rf"{_SPACE}{_STRING}{_SPACE}:{_SPACE}{_VALUE}{_SPACE}"
_KEY_AND_VALUE = rf"{_STRING}{_SPACE}:{_SPACE}({_VALUE})"
# Its end is left open: text behind a whole object is another fault than a broken object.
_OBJECT = rf"\A{_SPACE}\{{(?:{_PAIR}(?:,{_PAIR})*+|{_SPACE})\}}{_SPACE}"
# What comes before the first fault, so that a reason can begin with that.
_GOOD_PART = rf"\A{_SPACE}\{{(?:{_PAIR},)*+"
_NESTED = rf'{_GOOD_PART}{_SPACE}"({_INSIDE})"{_SPACE}:{_SPACE}[\[{{]'


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonLines:
    """Files of JSON lines. They have no header: a layout is the columns that are added."""

    def contents(self, path: Path, feed: Feed) -> Contents:
        """The number of lines, without blank ones at the end; an empty file has no rows."""
        new = _new_keys(path, feed) if feed.new_columns == "add" else ()
        with opened(path) as file:
            lines = count_lines(file, first_line=1)
        return Contents(
            columns=None,
            named_by_records=new,
            layout=new,
            records=lines.records,
            marks=lines.marks,
        )

    def records(self, spark: SparkSession, feed: Feed, drops: Sequence[Drop]) -> DataFrame:
        """Every line."""
        lines = numbered_lines(spark, feed, drops, first_line=1)
        # One projection after the other: each is used several times by the next, and Spark would
        # not share them inside one.
        checked = lines.withColumn("_broken", _problem())
        is_good = F.col("_broken").isNull()
        read = checked.withColumns(
            {
                "_keys": F.when(is_good, F.json_object_keys("record")),
                "_values": F.when(is_good, _values()),
            }
        )
        texts = [_value_of(F.lit(name)).alias(name) for name in feed.column_names]
        broken = F.coalesce("_broken", _unread(), _odd_keys(feed), _odd_value())
        return read.select(*texts, broken.alias("_broken"), "record", *PROVENANCE)


def _new_keys(path: Path, feed: Feed) -> tuple[str, ...]:
    """Keys of flat objects that are not declared, sorted.

    Python reads the whole file for that: some 100 MB a second.
    """
    declared = frozenset(feed.column_names)
    found: dict[str, None] = {}
    with opened(path) as file:
        # Some programs begin a file with a byte order mark.
        first = file.readline().removeprefix(BOM_UTF8)
        for line in chain([first], file):
            found.update(dict.fromkeys(_flat_object(line).keys() - declared))
    return tuple(sorted(found))


def _flat_object(line: bytes) -> dict[str, object]:
    """The object of a line; an empty one where there is none, which Spark will complain about."""
    try:
        pairs = _DECODER.decode(line.decode())
        if b"\\u" in line:
            # Half a pair of surrogates is no character, and cannot be encoded.
            json.dumps(pairs, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {}
    if not isinstance(pairs, tuple):
        return {}
    told = dict(pairs)
    is_flat = not any(map(_is_nested, told.values()))
    return told if is_flat and len(told) == len(pairs) else {}


def _refuse_constant(name: str) -> None:
    """Refuse NaN and the infinities, which Python takes and JSON has not."""
    raise ValueError(name)


_DECODER = json.JSONDecoder(
    # Numbers stay texts: nobody needs their values, and Python refuses very long ones.
    parse_int=str,
    parse_float=str,
    parse_constant=_refuse_constant,
    # A key that comes twice is seen.
    object_pairs_hook=tuple,
)


def _is_nested(value: object) -> bool:
    return isinstance(value, tuple | list)


def _problem() -> Expression:
    """Why a line is no flat JSON object; null when it is one."""
    record = F.col("record")
    nested = beginning(F.regexp_extract(record, _NESTED, 1))
    rest = F.regexp_extract(record, rf"(?s){_GOOD_PART}(?:{_PAIR})?+(.*)", 1)
    invalid = F.concat(F.lit("record: not valid JSON from '"), beginning(rest), F.lit("' on"))
    return (
        line_problem()
        .when(record.rlike(rf"{_OBJECT}\z"), F.lit(None))
        .when(record.rlike(_OBJECT), "record: text after the JSON object")
        .when(record.rlike(r"\A[ \t]*+[^{]"), "record: not a JSON object")
        .when(record.rlike(_NESTED), F.concat(nested, F.lit(": a nested value")))
        .when(rest == "", "record: the JSON object is not closed")
        .otherwise(invalid)
    )


def _values() -> Expression:
    """The texts of the object's values in the order of its keys; null for a null."""
    literals = F.regexp_extract_all("record", F.lit(_KEY_AND_VALUE), 1)
    as_strings = F.array_join(F.transform(literals, _as_string), ",")
    # What the strings mean: their escapes resolved.
    array = F.concat(F.lit("["), as_strings, F.lit("]"))
    return F.from_json(array, "array<string>")


def _as_string(literal: Expression) -> Expression:
    # In quotes a number or a boolean is a string of its own literal; a null must stay one.
    is_string = literal.startswith('"') | (literal == "null")
    quoted = F.concat(F.lit('"'), literal, F.lit('"'))
    return F.when(is_string, literal).otherwise(quoted)


def _unread() -> Expression:
    """What Spark's parser has not read of an object, because of its limits for a number or text."""
    is_unread = F.col("_keys").isNull() | F.col("_values").isNull()
    too_long = "record: a number or a text in it is too long to be read"
    return F.when(F.col("_broken").isNull() & is_unread, too_long)


def _value_of(key: Expression) -> Expression:
    return F.get("_values", _place("_keys", key))


def _place(array: str | Expression, value: Expression) -> Expression:
    """0-based place of the value in the array; -1, where no array has anything, without it."""
    return (F.array_position(array, value) - 1).cast("int")


def _odd_keys(feed: Feed) -> Expression:
    """What is wrong with the keys of an object."""
    keys = F.col("_keys")
    declared = F.array(*map(F.lit, feed.column_names))
    is_ignored = F.lit(feed.new_columns == "ignore")
    unknown = F.when(~is_ignored, F.array_except(keys, declared))
    # array_position counts from 1 and finds the first: an index at or above it is a repetition.
    twice = F.filter(keys, lambda key, place: F.array_position(keys, key) <= place)
    has_repetition = F.size(keys) > F.size(F.array_distinct(keys))
    return F.coalesce(
        _first(unknown, "is not declared"),
        # Looked for only where there is one: this is slow.
        F.when(has_repetition, _first(twice, "comes twice")),
    )


def _first(keys: Expression, what: str) -> Expression:
    key = F.get(keys, F.lit(0))
    return F.concat(F.lit("record: '"), beginning(key), F.lit(f"' {what}"))


def _odd_value() -> Expression:
    """Which value holds what no text may."""
    is_odd = F.transform("_values", has_control_characters)
    key = F.get("_keys", _place(is_odd, F.lit(True)))
    # Only an escape can hide one: this is slow.
    has_escape = F.contains("record", F.lit("\\"))
    return F.when(has_escape, F.concat(key, F.lit(": control characters")))
