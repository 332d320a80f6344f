"""What an encoding must know of columns, learned part by part: the parts can be merged.

Merged in one fixed order the same parts give the same bits. Up to rounding they say what
`encoding.learn` says of all rows at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.training import encoding
from jobs.training.encoding import TAILS, Encoding
from pipelines.model import Training

_Floats = NDArray[np.float64]
_VALUES = 2_000_000
"""Of all parts together: 32 MB for each end of a column, on the worker that merges it."""
_FEWEST_VALUES = 2000
_TOGETHER = 100
"""One of so many rows may be missed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Count, mean and spread of values; of several columns at once, or of one."""

    count: NDArray[np.int64]
    """Of values that are there."""
    missing: NDArray[np.int64]
    mean: _Floats
    """0 where there are no values."""
    squares: _Floats
    """Sum of the squared differences from the mean."""

    # What overflows is refused in the end.
    @classmethod
    @np.errstate(over="ignore", invalid="ignore")
    def of(cls, values: _Floats, counted: NDArray[np.bool_]) -> Moments:
        """Of the columns of (rows, columns), where they count."""
        count = counted.sum(axis=0)
        divisor = np.maximum(count, 1)
        mean = np.sum(values, axis=0, where=counted) / divisor
        squares = np.sum(np.square(values - mean), axis=0, where=counted)
        return cls(count=count, missing=len(values) - count, mean=mean, squares=squares)

    @classmethod
    def none(cls, columns: int) -> Moments:
        """Of no rows."""
        nothing = np.zeros((0, columns))
        return cls.of(nothing, nothing == 0)

    @np.errstate(over="ignore", invalid="ignore")
    def merged(self, other: Moments) -> Moments:
        """Of the rows of both (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        return Moments(
            count=count,
            missing=self.missing + other.missing,
            mean=self.mean + apart * share,
            squares=self.squares + other.squares + np.square(apart) * self.count * share,
        )

    def column(self, position: int) -> Moments:
        """Of one of the columns."""
        chosen = slice(position, position + 1)
        return Moments(
            count=self.count[chosen],
            missing=self.missing[chosen],
            mean=self.mean[chosen],
            squares=self.squares[chosen],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tail:
    """The lowest values of a column, ascending, each once with how many rows have it."""

    values: _Floats
    rows: NDArray[np.int64]

    @classmethod
    def none(cls) -> Tail:
        """Of no rows."""
        return cls(values=np.empty(0), rows=np.empty(0, np.int64))

    def extended(self, values: _Floats, most_rows: int) -> Tail:
        """With these values, of which none is missing; the lowest `most_rows` are kept."""
        if len(self.values) and int(self.rows.sum()) >= most_rows:
            values = values[values < self.values[-1]]
        if len(values) > most_rows:
            values = np.partition(values, most_rows - 1)[:most_rows]
        found, rows = np.unique(values, return_counts=True)
        return self.merged(Tail(values=found, rows=rows), most_rows)

    def merged(self, other: Tail, most_rows: int) -> Tail:
        """Of the rows of both, the lowest `most_rows`."""
        if not len(other.values):
            return self
        values, places = np.unique(np.r_[self.values, other.values], return_inverse=True)
        rows = np.zeros(len(values), np.int64)
        np.add.at(rows, places, np.r_[self.rows, other.rows])
        # Rows before each value: what begins beyond the bound is none of the lowest.
        is_kept = np.cumsum(rows) - rows < most_rows
        return Tail(values=values[is_kept], rows=rows[is_kept])

    def thinned(self, most_values: int) -> Tail:
        """The same where it has no more values; else neighbours count as the middle one of them.

        They are no more rows than a hundredth of those below them, so that a place is missed by no
        more than a hundredth of it. Of several tails that are merged, this is true of the whole.
        """
        if len(self.values) <= most_values:
            return self
        ends = np.cumsum(self.rows)
        firsts: list[int] = []
        first = 0
        while first < len(ends):
            firsts.append(first)
            below = ends[first] - self.rows[first]
            after = np.searchsorted(ends, below + below // _TOGETHER, side="right")
            first = max(first + 1, int(after))
        starts = np.array(firsts)
        lasts = np.r_[starts[1:], len(ends)] - 1
        middles = (starts + lasts) // 2
        return Tail(
            values=self.values[middles],
            rows=np.add.reduceat(self.rows, starts),
        )

    def at(self, place: int) -> float:
        """The value of the row at that place, from 0 on."""
        found = np.searchsorted(np.cumsum(self.rows), place, side="right")
        return float(self.values[found])


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How much is kept of the values at the ends of a column."""

    rows: int
    """Lowest and highest rows, between which the quantiles surely lie."""
    values: int
    """Different values of each end that a part tells."""

    @classmethod
    def of(cls, rows: int, parts: int) -> Bounds:
        """For so many rows in so many parts.

        Quantiles are exact as long as a part has no more than `values` values among its lowest
        `rows`. Beyond, the one of 0.001 lies between those of 0.00099 and 0.00101.
        """
        share = max(TAILS[0], 1 - TAILS[1])
        wanted = math.floor(share * rows) + 3
        return cls(rows=wanted, values=max(_FEWEST_VALUES, _VALUES // max(1, parts)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """What is known of a numeric column, or of the label."""

    moments: Moments
    """Of one column."""
    lowest: Tail
    highest: Tail
    """Of the negated values."""

    def merged(self, other: Number, most_rows: int) -> Number:
        """Of the rows of both."""
        return Number(
            moments=self.moments.merged(other.moments),
            lowest=self.lowest.merged(other.lowest, most_rows),
            highest=self.highest.merged(other.highest, most_rows),
        )

    def told(self) -> NumberTold:
        """What an encoding takes of it."""
        moments = self.moments
        count = int(moments.count[0])
        low = high = 0.0
        if count and len(self.lowest.values):
            low, high = (self._quantile(share, count) for share in TAILS)
        mean = float(moments.mean[0])
        variance = float(moments.squares[0]) / max(count, 1)
        if self._is_constant:
            # The mean of equal numbers may be off by their last digit, which of large ones is much.
            mean = float(self.lowest.values[0])
            variance = 0.0
        return NumberTold(
            count=count,
            missing=int(moments.missing[0]),
            mean=mean,
            variance=variance,
            low=low,
            high=high,
        )

    @property
    def _is_constant(self) -> bool:
        # Of labels no ends are kept.
        lowest, highest = self.lowest.values, self.highest.values
        return len(lowest) > 0 and lowest[0] == -highest[0]

    def _quantile(self, share: float, count: int) -> float:
        """As numpy takes it between two values."""
        exactly = (count - 1) * share
        before = math.floor(exactly)
        after = min(before + 1, count - 1)
        lower, upper = (self._value(place, count) for place in (before, after))
        part = exactly - before
        apart = upper - lower
        return upper - apart * (1 - part) if part >= 0.5 else lower + apart * part

    def _value(self, place: int, count: int) -> float:
        from_above = count - 1 - place
        return self.lowest.at(place) if place < from_above else -self.highest.at(from_above)


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberTold:
    """What an encoding takes of a numeric column."""

    count: int
    """Of values that are there."""
    missing: int
    mean: float
    variance: float
    low: float
    """The quantiles of `TAILS`."""
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """What is known of a categorical column."""

    rows: Counter[str] = field(default_factory=Counter)
    """By value."""
    missing: int = 0

    def merged(self, other: Category) -> Category:
        """Of the rows of both."""
        return Category(rows=self.rows + other.rows, missing=self.missing + other.missing)


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """What is known of all columns, by name."""

    numbers: Mapping[str, Number]
    categories: Mapping[str, Category]
    label: Number

    def merged(self, other: Columns, most_rows: int) -> Columns:
        """Of the rows of both."""
        return Columns(
            numbers={
                name: one.merged(other.numbers[name], most_rows)
                for name, one in self.numbers.items()
            },
            categories={
                name: one.merged(other.categories[name]) for name, one in self.categories.items()
            },
            label=self.label.merged(other.label, most_rows),
        )


class Learning:
    """Learns from the rows of one part, some at a time."""

    def __init__(self, training: Training, bounds: Bounds) -> None:
        """Begin without rows."""
        self._training = training
        self._bounds = bounds
        self._moments = Moments.none(len(training.numeric))
        self._label = Moments.none(1)
        self._lowest = [Tail.none() for _ in training.numeric]
        self._highest = [Tail.none() for _ in training.numeric]
        self._categories = {name: Category() for name in training.categorical}

    def add(self, rows: pa.Table) -> None:
        """Learn from these labelled rows, too."""
        training = self._training
        numeric = encoding.numbers(rows, training.numeric, np.float64, training.bends)
        is_there = ~np.isnan(numeric)
        self._moments = self._moments.merged(Moments.of(numeric, is_there))
        for position in range(len(training.numeric)):
            values = numeric[is_there[:, position], position]
            kept = self._bounds.rows
            self._lowest[position] = self._lowest[position].extended(values, kept)
            self._highest[position] = self._highest[position].extended(-values, kept)
        labels = encoding.numbers(rows, (training.label,), np.float64, {})
        # A label that is no number makes the mean none, as everywhere else.
        every = np.ones_like(labels, np.bool_)
        self._label = self._label.merged(Moments.of(labels, every))
        for name, known in self._categories.items():
            values = encoding.texts(rows, name)
            counted = Category(rows=Counter(encoding.counts_of(values)), missing=values.null_count)
            self._categories[name] = known.merged(counted)

    def learned(self) -> Columns:
        """What the rows told."""
        most = self._bounds.values
        numbers: dict[str, Number] = {}
        for position, name in enumerate(self._training.numeric):
            numbers[name] = Number(
                moments=self._moments.column(position),
                lowest=self._lowest[position].thinned(most),
                highest=self._highest[position].thinned(most),
            )
        return Columns(
            numbers=numbers,
            categories=dict(self._categories),
            label=Number(
                moments=self._label,
                lowest=Tail.none(),
                highest=Tail.none(),
            ),
        )


def encoding_of(
    training: Training,
    numbers: Sequence[NumberTold],
    categories: Sequence[Category],
    label: NumberTold,
) -> Encoding:
    """The encoding that follows from all rows.

    Args:
        training: What is learned.
        numbers: Of its numeric columns, in their order.
        categories: Of its categorical columns, in their order.
        label: Of the labels.

    Raises:
        Refused: see `encoding.require_in_range`.
    """
    named = zip(training.numeric, numbers, strict=True)
    gaps = [name for name, one in named if one.missing > 0]
    known: dict[str, tuple[str, ...]] = {}
    counts: dict[str, Mapping[str, int]] = {}
    missing: dict[str, int] = {}
    for name, one in zip(training.categorical, categories, strict=True):
        counts[name], missing[name] = one.rows, one.missing
        known[name] = encoding.vocabulary(one.rows, training.max_categories)
    unknown, unlisted = encoding.not_learned(counts, known, missing)
    learned = Encoding(
        numeric=training.numeric,
        vocabularies=known,
        means=tuple(one.mean for one in numbers),
        # 1 where all values are alike: numbers are divided by the deviation.
        variances=tuple(one.variance or 1.0 for one in numbers),
        lows=tuple(_in_deviations(one, one.low) for one in numbers),
        highs=tuple(_in_deviations(one, one.high) for one in numbers),
        indicators=tuple(gaps),
        label_mean=label.mean,
        label_scale=math.sqrt(label.variance) or 1.0,
        bends=training.bends,
        shared=training.shared,
        unknown=unknown,
        unlisted=unlisted,
    )
    encoding.require_in_range(learned, training.label)
    return learned


def _in_deviations(told: NumberTold, value: float) -> float:
    deviation = math.sqrt(told.variance) if told.variance > 0 else 1.0
    return (value - told.mean) / deviation
