"""A pipeline of two small feeds, for tests of what every pipeline shares."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.feeds import Column, Feed, Format
from pipelines.model import GroupMean, Training
from pipelines.run import Run
from pipelines.spec import Pipeline
from pipelines.stages import stage

READINGS = Feed(
    name="readings",
    path="readings/{date}.csv",
    columns=(
        Column(name="id", type="int", required=True),
        Column(name="taken", type="date"),
        Column(name="amount", type="double"),
        Column(name="note"),
    ),
    key=("id",),
    null_token="NA",
    max_quarantine_share=0.5,
)
SENSORS = Feed(
    name="sensors",
    path="sensors.csv",
    columns=(
        Column(name="id", type="int", required=True),
        Column(name="place", required=True),
    ),
    key=("id",),
    null_token="NA",
    max_quarantine_share=0.5,
)
TOY = Pipeline(
    name="toy",
    title="Which of tomorrow's readings will be high?",
    owner="tests",
    timezone="America/New_York",
    schedule="30 4 * * *",
    first_day=date(2013, 1, 1),
    last_day=date(2013, 12, 31),
    feeds=(READINGS, SENSORS),
    derived=(),
    entity=("reading_date", "id"),
    event_date="reading_date",
    entity_table="readings",
    training=Training(
        task="binary_classification",
        label="high",
        numeric=("amount",),
        categorical=(),
        baselines=(GroupMean(columns=("id",)),),
    ),
)
HEADER = b"id,taken,amount,note\n"


_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NATIVE: dict[str, Callable[[str], object]] = {
    "int": int,
    "double": lambda text: _refuse_infinity(float(text)),
    "date": date.fromisoformat,
}
_ARROW = {
    "int": pa.int32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "string": pa.string(),
}
Row = Sequence[str | None]
"""The texts of a row of readings; None: no value."""


def readings_in(source_format: Format) -> Feed:
    """The readings as a feed of that format; of CSV it has its usual name."""
    name = "readings" if source_format == "csv" else f"readings_{source_format}"
    path = f"readings/{{date}}.{FILES[source_format].ending}"
    return replace(READINGS, name=name, path=path, format=source_format)


def run_of(
    environment: Environment, first: str, last: str | None = None, stage_name: str = "ingest"
) -> Run:
    """A run of the toy pipeline."""
    days = Days(date.fromisoformat(first), date.fromisoformat(last or first))
    return Run(pipeline=TOY, days=days, environment=environment).at(stage(stage_name))


def run_of_feeds(
    environment: Environment, feeds: Sequence[Feed], first: str, last: str | None = None
) -> Run:
    """A run of the toy pipeline with these feeds in place of its own."""
    run = run_of(environment, first, last)
    pipeline = replace(TOY, feeds=tuple(feeds), entity_table=feeds[0].name)
    return replace(run, pipeline=pipeline)


def drop(environment: Environment, name: str, content: bytes) -> Path:
    """Put a file into the toy's landing folder."""
    path = environment.landing / "toy" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def drop_readings(environment: Environment, day: str, *lines: str) -> Path:
    """Put a day's readings there, under their header."""
    return drop(
        environment, f"readings/{day}.csv", HEADER + "".join(f"{line}\n" for line in lines).encode()
    )


def drop_sensors(environment: Environment, *lines: str) -> Path:
    """Put the register of sensors there."""
    return drop(
        environment, "sensors.csv", ("id,place\n" + "".join(f"{line}\n" for line in lines)).encode()
    )


def write_rows(environment: Environment, feed: Feed, day: str, rows: Sequence[Row]) -> Path:
    """Drop these rows as the day's file of a feed, in the feed's format.

    JSON gets a number where the text is one; Parquet gets a column of its declared type where every
    text of the file is such a value, else a column of strings.
    """
    content = FILES[feed.format].write(feed, rows)
    return drop(environment, feed.path.replace("{date}", day), content)


def _refuse_infinity(number: float) -> float:
    """A text such as 1e999 is no double: it must stay the text that it is."""
    if math.isinf(number):
        raise ValueError(number)
    return number


def _as_csv(feed: Feed, rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in feed.columns])
    writer.writerows(rows)
    return text.getvalue().encode()


def _as_gzip(feed: Feed, rows: Sequence[Row]) -> bytes:
    return gzip.compress(_as_csv(feed, rows))


def _as_json_lines(feed: Feed, rows: Sequence[Row]) -> bytes:
    return "".join(f"{_as_object(feed, row)}\n" for row in rows).encode()


def _as_object(feed: Feed, row: Row) -> str:
    pairs = []
    for column, text in zip(feed.columns, row, strict=True):
        is_number = text is not None and _JSON_NUMBER.fullmatch(text)
        value = text if is_number else json.dumps(text)
        pairs.append(f"{json.dumps(column.name)}: {value}")
    return "{" + ", ".join(pairs) + "}"


def _as_parquet(feed: Feed, rows: Sequence[Row]) -> bytes:
    columns = {}
    for place, column in enumerate(feed.columns):
        columns[column.name] = _arrow_column(column, [row[place] for row in rows])
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _arrow_column(column: Column, texts: list[str | None]) -> pa.Array:
    if column.type not in _NATIVE:
        return pa.array(texts, pa.string())
    native = _NATIVE[column.type]
    try:
        values = [None if text is None else native(text) for text in texts]
        return pa.array(values, _ARROW[column.type])
    except (ValueError, OverflowError, pa.ArrowInvalid):
        return pa.array(texts, pa.string())


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """How tests write a file of a format."""

    ending: str
    write: Callable[[Feed, Sequence[Row]], bytes]
    first_line: int = 1
    """Number of the first record's line, or its place."""


FILES: dict[Format, File] = {
    "csv": File(ending="csv", write=_as_csv, first_line=2),
    "csv_gzip": File(ending="csv.gz", write=_as_gzip, first_line=2),
    "json_lines": File(ending="jsonl", write=_as_json_lines),
    "parquet": File(ending="parquet", write=_as_parquet),
}
