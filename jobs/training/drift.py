"""How far what a night holds lies from the nights before it; see docs/decisions/0017.

A column of a night is summed up in a few numbers, and a distance is one between such summaries: so
each row is looked at once, however many nights are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from jobs.training.bends import bent
from jobs.training.encoding import doubles
from jobs.training.metrics import Vector
from pipelines.model import Watch

Matrix = NDArray[np.float64]
Distance = Callable[[Matrix, Matrix], Vector]
"""Of each night of the first (nights, numbers) from all nights of the second together."""
_GRID = (np.arange(50) + 0.5) / 50
"""Quantiles by which a night's numbers are known: of 900 rows more would say no more."""
_FEWEST = 0.75
"""Share of the reference's nights that must be there: the farthest of few nights is not far."""
_COMMON = 0.75
"""Share of the reference's nights that lie off by what is usual."""
NULL_SHARE = "null_share"
"""The statistic of a number that is its share of rows without a value."""
_MISSING = "\0missing"
"""The category of a row without one: no text of a file holds it."""
_DIGITS = 6
_NEAR = 1e-8
"""Of a sum that comes to nothing, the last digits of numbers around 1."""
_NOTHING = 1e-15
"""What is left of numbers around 1 that are taken from each other; no unit is as small."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summaries:
    """A column, night by night."""

    statistic: str
    by_night: Matrix
    """(nights, numbers); a night without a value is NaN."""
    distance: Distance
    most: float = np.inf
    """No distance is larger."""
    categories: tuple[str, ...] = ()
    """Of which the numbers are shares, in order; none: of a number."""

    def missing(self, nights: Matrix) -> Vector:
        """The share of rows of each night without a value; 0 where another statistic tells it."""
        if self.statistic == NULL_SHARE:
            return nights[:, 0]
        if _MISSING in self.categories:
            return nights[:, self.categories.index(_MISSING)]
        return np.zeros(len(nights))


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """How far a night lies off, and what is allowed."""

    value: float
    threshold: float


def summaries_of(
    values: pa.ChunkedArray,
    nights: Sequence[slice],
    bend: float | None = None,
) -> list[Summaries]:
    """What is kept of a column: of numbers the quantiles and the missing, else the categories.

    Args:
        values: A number, a text or a flag for each row.
        nights: The rows of each night.
        bend: Numbers are compared by their logarithm, as the model reads them (`Logarithm`).
    """
    kind = values.type
    is_whole = pa.types.is_integer(kind)
    is_number = is_whole or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return _of_numbers(values, nights, bend) if is_number else [_of_categories(values, nights)]


def joined(parts: Sequence[Summaries]) -> Summaries:
    """Those of nights that follow one another, as if they had been summed up together."""
    categories = sorted({name for part in parts for name in part.categories})
    places = {name: place for place, name in enumerate(categories)}
    by_night: list[Matrix] = []
    for part in parts:
        numbers = part.by_night
        if categories:
            shares = np.zeros((len(numbers), len(categories)))
            shares[:, [places[name] for name in part.categories]] = numbers
            # Of nights without rows none is known, of whatever category.
            is_empty = np.isnan(numbers).any(axis=1) if part.categories else slice(None)
            shares[is_empty] = np.nan
            numbers = shares
        by_night.append(numbers)
    return replace(parts[0], by_night=np.concatenate(by_night), categories=tuple(categories))


def judge(summaries: Summaries, position: int, watch: Watch) -> Judged | None:
    """How far the night lies from its reference, and how far the reference's own nights do.

    Args:
        summaries: Of consecutive nights.
        position: Of the night in them.
        watch: Which nights are the reference, and what is much.

    Returns:
        None where the night has no value, or too few of its reference have.
    """
    # Not the last nights: a change would be compared with itself.
    end = position - (watch.nights - 1)
    past = summaries.by_night[max(0, end - watch.reference_nights) : max(0, end)]
    # Before the first that has a value the column may not have been there.
    has_none = np.append(~(summaries.missing(past) < 1), False)
    past = past[int(np.argmin(has_none)) :]
    # No night lies off one with an infinite value by any number.
    known = past[np.isfinite(past).all(axis=1)]
    night = summaries.by_night[position]
    # Where no night has a row there is no category, and so no number that could be none.
    has_value = len(night) > 0 and not np.isnan(night).any()
    if len(known) < _FEWEST * watch.reference_nights or not has_value:
        return None
    value, *others = summaries.distance(np.vstack([night, known]), known)
    usual = watch.drift_multiple * float(max(others))
    if np.isfinite(summaries.most):
        # One odd night would allow what cannot be: half of all is much, where most nights lie near.
        common = watch.drift_multiple * float(np.quantile(others, _COMMON))
        usual = min(usual, max(common, summaries.most / 2))
    threshold = max(watch.least_drift, usual)
    return Judged(value=_shortened(value), threshold=_shortened(threshold))


def _shortened(number: float) -> float:
    """With so many digits that count: a threshold may be as small as one likes."""
    return float(f"{number:.{_DIGITS}g}")


def differing(own: pa.ChunkedArray, other: pa.ChunkedArray) -> float:
    """Share of rows that differ; two missing values do not, nor do the last digits of numbers."""
    if pa.types.is_floating(own.type) or pa.types.is_floating(other.type):
        numbers = (doubles(own), doubles(other))
        # Of a feature in a small unit every difference would lie near 0. Of one that is 0 but for
        # the last bits of sums, none is.
        near = max(_NOTHING, _NEAR * min(1.0, max(map(_largest, numbers))))
        is_close = np.isclose(*numbers, rtol=1e-6, atol=near, equal_nan=True)
        return float(1 - is_close.mean())
    both_missing = pc.and_(pc.is_null(own), pc.is_null(other))
    is_equal = pc.fill_null(pc.equal(own, other), False)
    return float(1 - pc.mean(pc.or_(is_equal, both_missing)).as_py())


def _largest(numbers: Vector) -> float:
    """The size of the largest that is finite."""
    sizes = np.abs(numbers[np.isfinite(numbers)])
    return float(sizes.max(initial=0.0))


def _of_numbers(
    values: pa.ChunkedArray, nights: Sequence[slice], bend: float | None
) -> list[Summaries]:
    numbers = bent(doubles(values), bend)
    quantiles = np.full((len(nights), len(_GRID)), np.nan)
    missing = np.full((len(nights), 1), np.nan)
    for position, rows in enumerate(nights):
        night = numbers[rows]
        known = night[~np.isnan(night)]
        if len(night):
            missing[position] = 1 - len(known) / len(night)
        if len(known):
            quantiles[position] = _quantiles(known)
    return [
        Summaries(statistic="wasserstein", by_night=quantiles, distance=_wasserstein),
        Summaries(statistic=NULL_SHARE, by_night=missing, distance=_difference, most=1),
    ]


def _of_categories(values: pa.ChunkedArray, nights: Sequence[slice]) -> Summaries:
    texts = pc.fill_null(pc.cast(values, pa.string()), _MISSING)
    # In Arrow: in an array of texts numpy gives each the room of the longest.
    coded = texts.combine_chunks().dictionary_encode()
    # The same rows in another order must give the same sums.
    in_order = pc.array_sort_indices(coded.dictionary)
    places = np.argsort(in_order.to_numpy())
    codes = places[coded.indices.to_numpy()]
    shares = np.full((len(nights), len(places)), np.nan)
    for position, rows in enumerate(nights):
        night = codes[rows]
        if len(night):
            shares[position] = np.bincount(night, minlength=len(places)) / len(night)
    return Summaries(
        statistic="jensen_shannon",
        by_night=shares,
        distance=_jensen_shannon,
        most=1,
        categories=tuple(coded.dictionary.take(in_order).to_pylist()),
    )


def _wasserstein(nights: Matrix, reference: Matrix) -> Vector:
    """In standard deviations of the reference: what it would take to move the numbers there."""
    pooled = _quantiles(reference.ravel())
    # A constant has none, though its mean may be off by its last digit: its own unit counts.
    varies = reference.max() > reference.min()
    with np.errstate(over="ignore"):
        scale = (float(reference.std()) if varies else 0.0) or 1.0
    return np.asarray(np.abs(nights - pooled).mean(axis=1) / scale)


def _quantiles(numbers: Vector) -> Vector:
    """As of `np.quantile`, which takes five times as long over a few hundred numbers."""
    places = _GRID * (len(numbers) - 1)
    return np.interp(places, np.arange(len(numbers)), np.sort(numbers))


def _jensen_shannon(nights: Matrix, reference: Matrix) -> Vector:
    """From 0, the same shares, to 1, no category in common."""
    pooled = np.broadcast_to(reference.mean(axis=0), nights.shape)
    # Of equal shares, but for their last digits, scipy may take the root of less than 0.
    with np.errstate(invalid="ignore"):
        found = jensenshannon(nights, pooled, axis=1, base=2)
    return np.asarray(np.nan_to_num(found, nan=0.0))


def _difference(nights: Matrix, reference: Matrix) -> Vector:
    return np.asarray(np.abs(nights[:, 0] - reference.mean()))
