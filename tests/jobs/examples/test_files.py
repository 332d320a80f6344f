"""A drop holds the same rows in each format, and equal rows are equal bytes."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from io import BytesIO

import pandas as pd
import pytest
from pyarrow import parquet

from jobs.examples import files
from jobs.examples.files import content
from pipelines.errors import UsageError
from pipelines.feeds import Column, Feed

FEED = Feed(
    name="trips",
    path="trips/{date}.csv",
    columns=(
        Column(name="id", type="int", required=True),
        Column(name="at", type="timestamp"),
        Column(name="fare", type="double"),
        Column(name="note"),
    ),
    key=("id",),
    null_token="NA",
)
ROWS = pd.DataFrame(
    {
        "id": ["1", "007"],
        "at": ["2013-01-01T05:00:00Z", None],
        "fare": ["1.50", None],
        "note": ['a "b", c', "ü\n"],
        "drop_date": ["", ""],
    }
)
CSV = 'id,at,fare,note\n1,2013-01-01T05:00:00Z,1.50,"a ""b"", c"\n007,NA,NA,"ü\n"\n'


def test_csv_is_written_to_the_letter_with_the_feeds_own_word_for_nothing() -> None:
    assert content(FEED, ROWS).decode() == CSV


def test_gzipped_csv_is_the_same_text_and_the_same_bytes_each_time() -> None:
    zipped = replace(FEED, format="csv_gzip", path="trips/{date}.csv.gz")
    assert gzip.decompress(content(zipped, ROWS)).decode() == CSV
    assert content(zipped, ROWS) == content(zipped, ROWS)


def test_json_lines_keep_a_numbers_text_where_json_has_such_a_number() -> None:
    lines = content(replace(FEED, format="json_lines"), ROWS).decode().splitlines()
    assert lines[0] == (
        '{"id": 1, "at": "2013-01-01T05:00:00Z", "fare": 1.50, "note": "a \\"b\\", c"}'
    )
    assert json.loads(lines[1]) == {
        "id": "007",
        "at": None,
        "fare": None,
        "note": "ü\n",
    }


def test_parquet_has_the_declared_types() -> None:
    table = parquet.read_table(BytesIO(content(replace(FEED, format="parquet"), ROWS)))
    assert [str(kind) for kind in table.schema.types] == [
        "int32",
        "timestamp[us, tz=UTC]",
        "double",
        "string",
    ]
    assert table["id"].to_pylist() == [1, 7]
    assert table["fare"].to_pylist() == [1.5, None]


@pytest.mark.parametrize("form", ["csv", "json_lines", "parquet"])
def test_a_drop_without_rows_is_a_file_all_the_same(form: str) -> None:
    feed = replace(FEED, format=form)  # type: ignore[arg-type]
    no_rows = ROWS.iloc[:0]
    assert content(feed, no_rows) == content(feed, no_rows)


def test_a_format_that_nothing_writes_is_told_with_what_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(files._WRITERS, "parquet")  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="'trips': no file in format 'parquet'.*csv, csv_gzip"):
        content(replace(FEED, format="parquet"), ROWS)
