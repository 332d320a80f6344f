"""Encoded rows in files, in a fixed order: what does not fit into memory is read piece by piece.

A file is a matrix of 4-byte words, little-endian, a row after the other: the numeric columns, the
categorical ones, and the label. So any rows are one range of bytes, on a disk and in a store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.training.encoding import SAMPLE_ROWS, Examples
from pipelines import places
from pipelines.errors import NightshiftError

SHARD_ROWS = 262_144
"""Of a file, at most: some 100 MB with the columns of flights."""
SHARD_BYTES = 128 * 1024 * 1024
"""Of a file, about: who writes one holds it some five times over."""
_WORD = np.dtype("<i4")
INDEX = "shards.json"
"""File of a folder of shards that is written when all others are there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shards:
    """Rows that lie in the files of a folder. Made by `write`, found again by `find`."""

    folder: Path
    """On a disk or in a store."""
    rows: tuple[int, ...]
    """Of each file, in the order in which they are read."""
    numeric: int
    """Columns."""
    categorical: int
    """Columns."""

    def __len__(self) -> int:
        return sum(self.rows)

    @property
    def row_bytes(self) -> int:
        """Of a row."""
        return self.width * _WORD.itemsize

    @property
    def width(self) -> int:
        """Words of a row."""
        return self.numeric + self.categorical + 1

    def words(self, first: int, count: int) -> NDArray[np.int32]:
        """So many rows from that one on, as (rows, words of a row).

        Raises:
            NightshiftError: a file is shorter than was told.
        """
        read = bytearray()
        for number, skipped, wanted in self._ranges(first, count):
            read += self._bytes(number, skipped, wanted)
        return np.frombuffer(read, _WORD).reshape(count, self.width)

    def read(self, first: int, count: int) -> Examples:
        """So many rows from that one on."""
        return self.examples(self.words(first, count))

    def examples(self, words: NDArray[np.int32]) -> Examples:
        """What the words say."""
        last_numeric = self.numeric
        return Examples(
            numeric=np.ascontiguousarray(words[:, :last_numeric]).view(np.float32),
            categorical=np.ascontiguousarray(words[:, last_numeric:-1]),
            label=np.ascontiguousarray(words[:, -1]).view(np.float32),
        )

    def sample(self) -> Examples:
        """The first of them."""
        return self.read(0, min(SAMPLE_ROWS, len(self)))

    def _ranges(
        self,
        first: int,
        count: int,
    ) -> Iterator[tuple[int, int, int]]:
        """Number of each file that has some of these rows, rows before them in it, and how many."""
        ends = accumulate(self.rows)
        for number, (rows, end) in enumerate(zip(self.rows, ends, strict=True)):
            begin = end - rows
            start, stop = max(first, begin), min(first + count, end)
            if start < stop:
                yield number, start - begin, stop - start

    def _bytes(self, number: int, skipped: int, rows: int) -> bytes:
        file = self.folder / _name(number)
        wanted = rows * self.row_bytes
        read = places.read_range(file, skipped * self.row_bytes, wanted)
        if len(read) != wanted:
            raise NightshiftError(
                f"{file} has {len(read)} of the {wanted} bytes from row {skipped} on that it was "
                "written with: it was cut short. Train again (--retrain)."
            )
        return read


def pieces(
    rows: Examples | Shards, at_once: int, first: int = 0, count: int | None = None
) -> Iterator[Examples]:
    """The rows in their order, at most so many at a time.

    Args:
        rows: In memory or in files.
        at_once: How many.
        first: The first of them.
        count: How many from there on; None: all.
    """
    end = len(rows) if count is None else first + count
    for start in range(first, end, at_once):
        yield rows.read(start, min(at_once, end - start))


def rows_of_file(columns: int) -> int:
    """How many rows a file has: `SHARD_ROWS`, or fewer where they are wider than `SHARD_BYTES`.

    Args:
        columns: That a model reads.
    """
    row_bytes = (columns + 1) * _WORD.itemsize
    return max(1, min(SHARD_ROWS, SHARD_BYTES // row_bytes))


def write(folder: Path, examples: Examples) -> Shards:
    """Lay the rows out in files of `rows_of_file`."""
    numeric, categorical = examples.numeric.shape[1], examples.categorical.shape[1]
    most = rows_of_file(numeric + categorical)
    rows: list[int] = []
    for number, first in enumerate(range(0, len(examples), most)):
        part = examples.take(np.arange(first, min(first + most, len(examples))))
        write_file(folder, number, part)
        rows.append(len(part))
    return conclude(
        Shards(folder=folder, rows=tuple(rows), numeric=numeric, categorical=categorical)
    )


def write_file(folder: Path, number: int, examples: Examples) -> None:
    """Write the file of that number, whole or not at all."""
    write_words(folder, number, words_of(examples))


def write_words(folder: Path, number: int, words: NDArray[np.int32]) -> None:
    """The same of rows that are words already."""
    places.write_whole(folder / _name(number), words.tobytes())


def words_of(examples: Examples) -> NDArray[np.int32]:
    """The rows as files hold them: (rows, words of a row)."""
    return np.concatenate(
        [
            np.ascontiguousarray(examples.numeric, np.float32).view(_WORD),
            np.ascontiguousarray(examples.categorical, _WORD),
            np.ascontiguousarray(examples.label, np.float32).view(_WORD)[:, None],
        ],
        axis=1,
    )


def conclude(shards: Shards) -> Shards:
    """Write down what the files hold, when all are there; gives the same."""
    told = {"rows": shards.rows, "numeric": shards.numeric, "categorical": shards.categorical}
    places.write_whole(shards.folder / INDEX, json.dumps(told).encode())
    return shards


def find(folder: Path) -> Shards:
    """The rows that were laid out in the folder."""
    told = json.loads((folder / INDEX).read_text())
    return Shards(
        folder=folder,
        rows=tuple(told["rows"]),
        numeric=told["numeric"],
        categorical=told["categorical"],
    )


def _name(number: int) -> str:
    return f"shard-{number:05}"
