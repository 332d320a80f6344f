"""Rows of text as the file that a source would drop: one writer for each source format."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError
from pipelines.feeds import Column, Feed, Format

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_JSON_NUMBERS = ("int", "long", "double")
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
"""A number is written as the source wrote it where JSON has such a number, else as text."""


def content(feed: Feed, rows: pd.DataFrame) -> bytes:
    """The file of these rows, in the format of the feed; equal rows give equal bytes.

    Raises:
        UsageError: nothing here writes that format.
    """
    if feed.format not in _WRITERS:
        raise UsageError(
            f"Feed '{feed.name}': no file in format '{feed.format}' is written here. Add a writer "
            f"to jobs/examples/files.py. Written are {', '.join(_WRITERS)}."
        )
    # Rows know more than their file, such as the day on which it is dropped.
    return _WRITERS[feed.format](feed, rows[list(feed.column_names)])


def _csv(feed: Feed, rows: pd.DataFrame) -> bytes:
    text: str = rows.to_csv(index=False, na_rep=feed.null_token, lineterminator="\n")
    return text.encode()


def _csv_gzip(feed: Feed, rows: pd.DataFrame) -> bytes:
    # Without the time of writing, which would make equal rows unequal files.
    return gzip.compress(_csv(feed, rows), mtime=0)


def _json_lines(feed: Feed, rows: pd.DataFrame) -> bytes:
    lines = []
    for row in rows.to_dict("records"):
        values = []
        for column in feed.columns:
            key = json.dumps(column.name)
            values.append(f"{key}: {_json_value(column, row[column.name])}")
        lines.append("{" + ", ".join(values) + "}\n")
    return "".join(lines).encode()


def _json_value(column: Column, value: Any) -> str:
    if _is_missing(value):
        return "null"
    text = str(value)
    is_number = column.type in _JSON_NUMBERS and _JSON_NUMBER.fullmatch(text)
    return text if is_number else json.dumps(text)


def _parquet(feed: Feed, rows: pd.DataFrame) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    arrays = {}
    for column in feed.columns:
        values = [_text_or_none(value) for value in rows[column.name]]
        texts = pa.array(values, pa.string())
        arrays[column.name] = texts.cast(_arrow_type(column))
    file = BytesIO()
    parquet.write_table(pa.table(arrays), file)
    return file.getvalue()


def _text_or_none(value: Any) -> str | None:
    return None if _is_missing(value) else str(value)


def _arrow_type(column: Column) -> pa.DataType:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int": pa.int32(),
        "long": pa.int64(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return types[column.type]


def _is_missing(value: Any) -> bool:
    # A float that is not itself: how pandas keeps a missing value among others.
    return value is None or value != value


_WRITERS: Mapping[Format, Callable[[Feed, pd.DataFrame], bytes]] = {
    "csv": _csv,
    "csv_gzip": _csv_gzip,
    "json_lines": _json_lines,
    "parquet": _parquet,
}
