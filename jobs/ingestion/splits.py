"""Large files of lines, read in splits by Spark's Python workers.

Numbering the lines of a file by a window takes all of them through one task. Of a large file it is
noted, while its lines are counted, where some of them begin, and which lines they are: so each task
numbers its own split.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from io import BufferedIOBase, BufferedReader
from itertools import chain

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from jobs.ingestion.contents import Drop, Mark
from pipelines.places import opened, place

LARGE_BYTES = 256_000_000
"""A smaller file takes Spark less time as a whole than splits take to be dealt out."""
SPLIT_BYTES = 64_000_000
_PIECE_BYTES = 4_000_000
"""Read at once: a worker holds a few times as much."""
_NEWLINE = 10
_UNIT = "day date, path string, first_byte long, next_byte long, first_line long, last_line long"
_LINES = "value string, landed_date date, source_line int"
_LINES_SCHEMA = pa.schema(
    {"value": pa.string(), "landed_date": pa.date32(), "source_line": pa.int32()}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedLines:
    """What was found out about the lines of a file."""

    records: int
    """Lines without blank ones at the end."""
    marks: tuple[Mark, ...]
    """The first line, and one in each `SPLIT_BYTES`; none of a file that is not large."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Lines of a file that one task reads."""

    day: date
    path: str
    first_byte: int
    next_byte: int
    """Where the next part begins, or the end of the file."""
    first_line: int
    last_line: int
    """Of the file: those behind it are blank."""


def count_lines(
    file: BufferedIOBase, first_line: int, see: Callable[[bytes], None] = lambda piece: None
) -> CountedLines:
    """Count the lines from here to the end of the file, without blank ones at the end.

    Args:
        file: Open for reading.
        first_line: Number of the line that begins here.
        see: Given all bytes that are read, one piece after the other.
    """
    first_byte = position = file.tell()
    marks = [Mark(first_byte, first_line)]
    before = 0
    records = 0
    while piece := file.read(_PIECE_BYTES):
        see(piece)
        filled = piece.rstrip(b"\r\n")
        if position == 0 and piece.startswith(BOM_UTF8):
            # Spark leaves it out too, of a file that it reads as a whole.
            marks = [Mark(len(BOM_UTF8), first_line)]
            filled = filled.removeprefix(BOM_UTF8)
        if filled:
            records = before + filled.count(b"\n") + 1
        newline = piece.find(b"\n")
        if newline >= 0 and position >= marks[-1].byte + SPLIT_BYTES:
            marks.append(Mark(position + newline + 1, first_line + before + 1))
        before += piece.count(b"\n")
        position += len(piece)
    is_large = position - first_byte > LARGE_BYTES
    return CountedLines(records=records, marks=tuple(marks) if is_large else ())


def lines(spark: SparkSession, drops: Sequence[Drop]) -> DataFrame:
    """The lines of large files, numbered: `value`, with what ends it, `landed_date`, `source_line`.

    Blank lines at the end of a file are left out.
    """
    parts = list(map(astuple, chain.from_iterable(map(_parts, drops))))
    # Without a column Spark deals them out one by one, the same number to each task.
    dealt = spark.createDataFrame(parts, _UNIT).repartition(len(parts))
    return dealt.mapInArrow(_read, _LINES)


def _parts(drop: Drop) -> Iterator[_Part]:
    last_line = drop.marks[0].line + drop.records - 1
    ends = [mark.byte for mark in drop.marks[1:]]
    ends.append(drop.stamp.size)
    for mark, end in zip(drop.marks, ends, strict=True):
        path = str(drop.path)
        yield _Part(drop.day, path, mark.byte, end, mark.line, last_line)


def _read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The lines of the parts that a task was dealt."""
    for batch in batches:
        for unit in batch.to_pylist():
            yield from _lines_of(_Part(**unit))


def _lines_of(part: _Part) -> Iterator[pa.RecordBatch]:
    line = part.first_line
    with opened(place(part.path)) as file:
        file.seek(part.first_byte)
        for text in _whole_lines(file, part.next_byte - part.first_byte):
            found = _cut(text)[: max(0, part.last_line - line + 1)]
            first, line = line, line + len(found)
            numbers = pa.array(np.arange(first, line), pa.int32())
            days = pa.repeat(pa.scalar(part.day), len(found))
            yield pa.record_batch([found, days, numbers], schema=_LINES_SCHEMA)


def _whole_lines(file: BufferedReader, wanted: int) -> Iterator[bytes]:
    """So many bytes from here on, in pieces that end with a line."""
    rest = b""
    while wanted > 0 and (piece := file.read(min(_PIECE_BYTES, wanted))):
        wanted -= len(piece)
        text = rest + piece
        end = text.rfind(b"\n") + 1
        rest = text[end:]
        if end:
            yield text[:end]
    if rest:
        # The last line of a file need not end.
        yield rest


def _cut(text: bytes) -> pa.StringArray:
    """The lines of the text, each with what ends it; without a copy."""
    newlines = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE) + 1
    is_open = not text.endswith(b"\n")
    ends = np.append(newlines, len(text)) if is_open else newlines
    bounds = np.concatenate([[0], ends]).astype(np.int32)
    return pa.StringArray.from_buffers(
        len(ends),
        pa.py_buffer(bounds),
        pa.py_buffer(text),
    )
