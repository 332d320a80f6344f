"""Rows that do not fit into memory, laid out for a training by Spark's Python workers.

Each worker reads shares of the files itself, twice: first to learn of the columns, then to encode
the rows. Only then rows go through Spark, as bytes, to the worker that writes their shard. The
process of the stage gets what is known of each column, and how many rows each shard has
(docs/decisions/0024).

What the shards say depends on the files of the snapshot and on the seed alone. A row is drawn a
number by the day of its file, the file's and the share's place among those of the day, and its
place in the share; the numbers give the order of all rows. So neither the number of tasks nor that
of shards changes it, and a task that Spark has done twice writes the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.training import column_statistics, encoding, parts, shards
from jobs.training.column_statistics import (
    Bounds,
    Category,
    Columns,
    Learning,
    Moments,
    Number,
    NumberTold,
    Tail,
)
from jobs.training.encoding import Encoding
from jobs.training.parts import Part, Source
from jobs.training.shards import Shards
from jobs.training.told_anew import ToldAnew
from jobs.version import source_hash
from pipelines import places
from pipelines.model import Training

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from jobs.lake.data_files import DayFile

_NUMBER, _CATEGORY, _LABEL = "number", "category", "label"
"""Kinds of columns."""
_SHARE_COLUMNS = f"number int, of_day int, {parts.COLUMNS}"
_PIECES = pa.schema(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("share", pa.int32()),
        ("count", pa.int64()),
        ("missing", pa.int64()),
        ("mean", pa.float64()),
        ("squares", pa.float64()),
        ("lowest", pa.binary()),
        ("lowest_rows", pa.binary()),
        ("highest", pa.binary()),
        ("highest_rows", pa.binary()),
        ("values", pa.list_(pa.string())),
        ("rows", pa.list_(pa.int64())),
    ]
)
"""What a share tells of a column."""
_TOLD = pa.schema(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("count", pa.int64()),
        ("missing", pa.int64()),
        ("mean", pa.float64()),
        ("variance", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("values", pa.list_(pa.string())),
        ("rows", pa.list_(pa.int64())),
    ]
)
"""What all shares tell of a column."""
_DEALT = pa.schema(
    [
        ("shard", pa.int32()),
        ("share", pa.int32()),
        ("first", pa.int64()),
        ("drawn", pa.binary()),
        ("words", pa.binary()),
    ]
)
"""Rows of a share that go to one shard; `first` is the place in the share from which on they
were read."""
_WRITTEN = pa.schema(
    [
        ("shard", pa.int32()),
        ("rows", pa.int64()),
    ]
)
_Grouped = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Rows of one use, such as those to fit on, where they lie."""

    source: Source
    files: tuple[DayFile, ...]
    training: Training
    """Which of their columns are read."""
    cores: int
    """Of Spark, to which they are shared out."""
    told_anew: ToldAnew
    """Rows that do not count, because a later one tells the same outcome anew."""

    @property
    def rows(self) -> int:
        """With those that do not count, or have no label."""
        return sum(file.rows for file in self.files)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)

    @property
    def shares(self) -> list[_Share]:
        """Of the files, in their one order."""
        found: list[_Share] = []
        of_day: Counter[date] = Counter()
        for file in sorted(self.files, key=lambda file: (file.day, file.path)):
            for part in parts.parts_of(file):
                share = _Share(
                    number=len(found),
                    of_day=of_day[part.day],
                    part=part,
                )
                found.append(share)
                of_day[part.day] += 1
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Share:
    """What a worker reads at a time."""

    number: int
    """Among all; what is told of them is merged in this order."""
    of_day: int
    """Number among those of its day. Not the file's name, which is another each time that the same
    rows are written."""
    part: Part

    @classmethod
    def of(cls, dealt: dict[str, Any]) -> _Share:
        """As Spark hands it to a worker."""
        number, of_day = dealt.pop("number"), dealt.pop("of_day")
        return cls(number=number, of_day=of_day, part=Part(**dealt))

    def drawing(self, seed: int) -> np.random.PCG64:
        """What draws the numbers of its rows, one after the other."""
        entropy = [seed, self.part.day.toordinal(), self.of_day]
        # Of generators numpy may change what they draw; of bits it keeps it.
        return np.random.PCG64(np.random.SeedSequence(entropy))


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """What the rows of a window tell."""

    rows: int
    """That have a label."""
    encoding: Encoding | None
    """None: of no rows."""


def learn(session: SparkSession, window: Window) -> Learned:
    """What `encoding.learn` says of the labelled rows, up to rounding.

    Raises:
        NightshiftError: the table lacks a column that the model reads.
    """
    training = window.training
    for name in (*training.features, training.label):
        encoding.existing(window.source.schema.empty_table(), name)
    shares = window.shares
    if not shares:
        return Learned(rows=0, encoding=None)
    bounds = Bounds.of(window.rows, len(shares))
    pieces = _dealt(session, window, shares).mapInArrow(_Learn(window, bounds), _sql(_PIECES))
    merged = pieces.groupBy("kind", "name").applyInArrow(_merging(bounds), _sql(_TOLD))
    told = {}
    for row in merged.collect():
        told[row["kind"], row["name"]] = row.asDict()
    label = _number_told(told[_LABEL, training.label])
    if not label.count:
        return Learned(rows=0, encoding=None)
    learned = column_statistics.encoding_of(
        training,
        [_number_told(told[_NUMBER, name]) for name in training.numeric],
        [_category_told(told[_CATEGORY, name]) for name in training.categorical],
        label,
    )
    return Learned(rows=label.count, encoding=learned)


def lay_out(
    session: SparkSession, window: Window, learned: Encoding, rows: int, folder: Path
) -> Shards:
    """Write the labelled rows into shards, in an order that is drawn.

    Args:
        session: Of the Spark whose workers do it.
        window: The rows.
        learned: By which they are encoded.
        rows: How many they are, or a few more.
        folder: New, and seen by the workers.
    """
    shares = window.shares
    columns = len(learned.columns)
    count = max(1, -(-rows // shards.rows_of_file(columns)))
    written = [0] * count
    if shares:
        deal = _Deal(window, learned, count)
        dealt = _dealt(session, window, shares).mapInArrow(deal, _sql(_DEALT))
        writing = _writing(str(folder), columns + 1)
        told = dealt.groupBy("shard").applyInArrow(writing, _sql(_WRITTEN))
        for shard, rows_of_it in told.collect():
            written[shard] = rows_of_it
    return shards.conclude(
        Shards(
            folder=folder,
            rows=tuple(written),
            numeric=len(learned.numeric),
            categorical=len(learned.categorical),
        )
    )


def _dealt(session: SparkSession, window: Window, shares: Collection[_Share]) -> DataFrame:
    rows = [(share.number, share.of_day, *astuple(share.part)) for share in shares]
    return parts.deal(session, rows, _SHARE_COLUMNS, window.size, window.cores)


def _shares_in(batches: Iterator[pa.RecordBatch]) -> Iterator[_Share]:
    for batch in batches:
        yield from map(_Share.of, batch.to_pylist())


def _chosen(window: Window, share: _Share, rows: pa.Table) -> NDArray[np.bool_]:
    """Those that have a label, and that no later drop tells anew."""
    label = rows[window.training.label]
    is_labelled: NDArray[np.bool_] = pc.is_valid(label).to_numpy()
    return is_labelled & window.told_anew.is_last(rows, share.part.day)


def _read(window: Window, share: _Share) -> Iterator[pa.Table]:
    training = window.training
    keys = window.told_anew.columns_of(share.part.day)
    columns = (*training.features, training.label, *keys)
    return parts.read(window.source, share.part, columns)


@dataclass(frozen=True)
class _Learn:
    """Tells of the columns of each share; Spark sends it to its workers."""

    window: Window
    bounds: Bounds
    code: str = field(default_factory=source_hash)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts.require_code(self.code)
        training = self.window.training
        for share in _shares_in(batches):
            learning = Learning(training, self.bounds)
            for rows in _read(self.window, share):
                learning.add(rows.filter(pa.array(_chosen(self.window, share, rows))))
            yield _pieces(share, training, learning.learned())


def _pieces(share: _Share, training: Training, columns: Columns) -> pa.RecordBatch:
    told = [_piece_of_number(_NUMBER, name, number) for name, number in columns.numbers.items()]
    told.append(_piece_of_number(_LABEL, training.label, columns.label))
    for name, category in columns.categories.items():
        # Sorted: the same rows give the same bytes.
        values = sorted(category.rows)
        told.append(
            {
                "kind": _CATEGORY,
                "name": name,
                "missing": category.missing,
                "values": values,
                "rows": [category.rows[value] for value in values],
            }
        )
    for piece in told:
        piece["share"] = share.number
    return pa.RecordBatch.from_pylist(told, _PIECES)


def _piece_of_number(kind: str, name: str, number: Number) -> dict[str, Any]:
    moments = number.moments
    return {
        "kind": kind,
        "name": name,
        "count": int(moments.count[0]),
        "missing": int(moments.missing[0]),
        "mean": float(moments.mean[0]),
        "squares": float(moments.squares[0]),
        "lowest": number.lowest.values.tobytes(),
        "lowest_rows": number.lowest.rows.tobytes(),
        "highest": number.highest.values.tobytes(),
        "highest_rows": number.highest.rows.tobytes(),
    }


def _merging(bounds: Bounds) -> _Grouped:
    """What merges all that is told of one column; Spark sends it to its workers."""

    def merge(pieces: pa.Table) -> pa.Table:
        # Spark gives them in any order, and sums of floats depend on it.
        in_order = pieces.sort_by("share").to_pylist()
        first = in_order[0]
        told: dict[str, Any] = {"kind": first["kind"], "name": first["name"]}
        if first["kind"] == _CATEGORY:
            told |= _merged_category(in_order)
        else:
            told |= _merged_number(in_order, bounds)
        return pa.Table.from_pylist([told], _TOLD)

    return merge


def _merged_number(
    pieces: Sequence[dict[str, Any]],
    bounds: Bounds,
) -> dict[str, Any]:
    number = _number_of(pieces[0])
    for piece in pieces[1:]:
        number = number.merged(_number_of(piece), bounds.rows)
    told = number.told()
    return {
        "count": told.count,
        "missing": told.missing,
        "mean": told.mean,
        "variance": told.variance,
        "low": told.low,
        "high": told.high,
    }


def _number_of(piece: dict[str, Any]) -> Number:
    moments = Moments(
        count=np.array([piece["count"]], np.int64),
        missing=np.array([piece["missing"]], np.int64),
        mean=np.array([piece["mean"]], np.float64),
        squares=np.array([piece["squares"]], np.float64),
    )
    lowest, highest = (
        Tail(
            values=np.frombuffer(piece[end], np.float64),
            rows=np.frombuffer(piece[f"{end}_rows"], np.int64),
        )
        for end in ("lowest", "highest")
    )
    return Number(moments=moments, lowest=lowest, highest=highest)


def _merged_category(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows: Counter[str] = Counter()
    for piece in pieces:
        for value, count in zip(piece["values"], piece["rows"], strict=True):
            rows[value] += count
    return {
        "missing": sum(piece["missing"] for piece in pieces),
        "values": list(rows),
        "rows": list(rows.values()),
    }


def _number_told(told: dict[str, Any]) -> NumberTold:
    names = ("count", "missing", "mean", "variance", "low", "high")
    return NumberTold(**{name: told[name] for name in names})


def _category_told(told: dict[str, Any]) -> Category:
    rows = Counter(dict(zip(told["values"], told["rows"], strict=True)))
    return Category(rows=rows, missing=told["missing"])


@dataclass(frozen=True)
class _Deal:
    """Encodes the rows of each share, and deals them to shards; Spark sends it to its workers."""

    window: Window
    encoding: Encoding
    shards: int
    code: str = field(default_factory=source_hash)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts.require_code(self.code)
        training = self.window.training
        for share in _shares_in(batches):
            drawing = share.drawing(training.seed)
            first = 0
            for rows in _read(self.window, share):
                drawn = drawing.random_raw(len(rows))
                is_chosen = _chosen(self.window, share, rows)
                chosen = rows.filter(pa.array(is_chosen))
                examples = encoding.encode(chosen, self.encoding, training.label)
                words = shards.words_of(examples)
                yield self._dealt(share, first, drawn[is_chosen], words)
                first += len(rows)

    def _dealt(
        self,
        share: _Share,
        first: int,
        drawn: NDArray[np.uint64],
        words: NDArray[np.int32],
    ) -> pa.RecordBatch:
        of_shard = shard_of(drawn, self.shards)
        # Stable: within a shard rows stay in the order of their places.
        order = np.argsort(of_shard, kind="stable")
        found, starts = np.unique(of_shard[order], return_index=True)
        numbers: list[bytes] = []
        rows: list[bytes] = []
        for chosen in np.split(order, starts[1:]) if len(found) else []:
            numbers.append(drawn[chosen].tobytes())
            rows.append(words[chosen].tobytes())
        columns = [
            pa.array(found, pa.int32()),
            pa.array([share.number] * len(found), pa.int32()),
            pa.array([first] * len(found), pa.int64()),
            pa.array(numbers, pa.binary()),
            pa.array(rows, pa.binary()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=_DEALT)


def shard_of(drawn: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """The shard of each row: the numbers that may be drawn, cut into so many equal spans."""
    half = np.uint64(32)
    shard: NDArray[np.uint64] = ((drawn >> half) * np.uint64(count)) >> half
    return shard


def _writing(folder: str, width: int) -> _Grouped:
    """What writes the rows of one shard; Spark sends it to its workers."""

    def write(dealt: pa.Table) -> pa.Table:
        shard = dealt["shard"][0].as_py()
        in_order = dealt.sort_by([("share", "ascending"), ("first", "ascending")])
        drawn = np.frombuffer(_joined(in_order["drawn"]), np.uint64)
        words = np.frombuffer(_joined(in_order["words"]), np.int32)
        rows = words.reshape(-1, width)
        # Stable: two rows of one number stay in the order of their shares.
        order = np.argsort(drawn, kind="stable")
        shards.write_words(places.place(folder), shard, rows[order])
        return pa.Table.from_pylist([{"shard": shard, "rows": len(rows)}], _WRITTEN)

    return write


def _joined(pieces: pa.ChunkedArray) -> bytes:
    return b"".join(piece.as_buffer() for piece in pieces)


def _sql(schema: pa.Schema) -> Any:
    """The schema as Spark has it."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)
