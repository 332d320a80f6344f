"""Parts of rows that are merged say what all rows say at once."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.training import column_statistics, encoding
from jobs.training.column_statistics import Bounds, Columns, Learning, Tail
from jobs.training.encoding import Encoding
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.model import Logarithm, Training
from tests.jobs.training.small import (
    FIRST,
    TRAINING,
    TWIN,
    rows_of,
    with_column,
    without_values,
)

FEW = replace(TRAINING, max_categories=1)
BENT = replace(TRAINING, logarithms=(Logarithm(features=("noise",), bend=2.0),))
ROWS = rows_of(Days.of(FIRST), 3000)
ROWS = ROWS.filter(pa.compute.is_valid(ROWS["failed"]))
LISTS = ("means", "variances", "lows", "highs", "label_mean", "label_scale")


def columns_of(rows: pa.Table, training: Training, bounds: Bounds) -> Columns:
    """What one part says, read in two pieces."""
    learning = Learning(training, bounds)
    half = len(rows) // 2
    learning.add(rows.slice(0, half))
    learning.add(rows.slice(half))
    return learning.learned()


def _cut(rows: pa.Table, most: int) -> list[pa.Table]:
    """In parts of so many rows."""
    return [rows.slice(first, most) for first in range(0, len(rows), most)]


def learned(parts: list[pa.Table], training: Training, bounds: Bounds) -> Encoding:
    """By the parts, merged in their order."""
    told = [columns_of(part, training, bounds) for part in parts]
    columns = reduce(lambda one, other: one.merged(other, bounds.rows), told)
    return column_statistics.encoding_of(
        training,
        [columns.numbers[name].told() for name in training.numeric],
        [columns.categories[name] for name in training.categorical],
        columns.label.told(),
    )


def require_alike(one: Encoding, other: Encoding) -> None:
    """The same up to rounding; words and names exactly."""
    first, second = asdict(one), asdict(other)
    for name in LISTS:
        np.testing.assert_allclose(
            first.pop(name),
            second.pop(name),
            rtol=1e-9,
            atol=1e-12,
        )
    assert first == second


@settings(deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(ROWS)), max_size=8),
    seed=st.integers(0, 2**32 - 1),
    training=st.sampled_from([TRAINING, BENT, FEW, TWIN.training]),
)
def test_any_split_says_what_all_rows_say(cuts: list[int], seed: int, training: Training) -> None:
    order = np.random.default_rng(seed).permutation(len(ROWS))
    shuffled = ROWS.take(order)
    ends = [0, *sorted(cuts), len(ROWS)]
    parts = [shuffled.slice(start, end - start) for start, end in itertools.pairwise(ends)]
    bounds = Bounds.of(len(ROWS), len(parts))
    require_alike(learned(parts, training, bounds), encoding.learn(ROWS, training))


@pytest.mark.parametrize("most", [96, 97])
@pytest.mark.parametrize("last", ["AA", None])
def test_more_rare_categories_than_are_listed_are_left_out_alike(
    monkeypatch: pytest.MonkeyPatch, most: int, last: str | None
) -> None:
    lines = ["AA"] * 100 + [f"once-{number}" for number in range(97)] + [last]
    rows = with_column(ROWS.slice(0, len(lines)), "line", pa.array(lines))
    monkeypatch.setattr(encoding, "LISTED", most)
    parts = _cut(rows, 50)
    found = learned(parts, TRAINING, Bounds.of(len(rows), len(parts)))
    assert found.unlisted == (() if most == 97 else ("line",))
    require_alike(found, encoding.learn(rows, TRAINING))


# Their mean is off by the last digit.
@example([[715827883.6064136] * 3])
@settings(deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(st.none(), st.floats(-1e9, 1e9)),
            max_size=40,
        ),
        max_size=6,
    ),
)
def test_any_numbers_say_the_same(parts: list[list[float | None]]) -> None:
    training = replace(TRAINING, numeric=("x",), categorical=("line",))
    tables = [_numbers(values) for values in parts if values]
    if not tables:
        return
    every = pa.concat_tables(tables)
    found = learned(tables, training, Bounds.of(len(every), len(tables)))
    expected = encoding.learn(every, training)
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-9, atol=1e-3)
    np.testing.assert_allclose(found.variances, expected.variances, rtol=1e-6, atol=1e-3)
    assert found.indicators == expected.indicators


def _numbers(values: list[float | None]) -> pa.Table:
    return pa.table(
        {
            "x": pa.array(values, pa.float64()),
            "line": pa.repeat("AA", len(values)),
            "failed": pa.repeat(1.0, len(values)),
        }
    )


def test_numbers_far_from_zero_keep_their_spread() -> None:
    # Seconds since 1970: their squares have no digit left that tells them apart.
    far = with_column(ROWS, "x", pa.array(1.7e9 + ROWS["noise"].to_numpy()))
    parts = _cut(far, 100)
    found = learned(parts, TRAINING, Bounds.of(len(far), len(parts)))
    np.testing.assert_allclose(
        found.variances[0],
        np.var(ROWS["noise"].to_numpy()),
        rtol=1e-6,
    )


@pytest.mark.parametrize("value", [1e200, float("inf")])
def test_numbers_that_nothing_can_scale_are_refused(value: float) -> None:
    rows = with_column(
        ROWS,
        "x",
        pa.array([value] + [0.0] * (len(ROWS) - 1)),
    )
    with pytest.raises(Refused, match=r"have values of x that are no number, infinite, or so"):
        learned([rows], TRAINING, Bounds.of(len(ROWS), 1))


def test_a_label_that_is_no_number_is_refused() -> None:
    label = TRAINING.label
    labels = ROWS[label].to_numpy().astype(np.float64)
    labels[0] = np.nan
    rows = with_column(ROWS, label, pa.array(labels))
    with pytest.raises(Refused, match=f"have values of {label} that are no number"):
        learned([rows], TRAINING, Bounds.of(len(ROWS), 1))


def test_a_large_constant_is_its_own_mean() -> None:
    rows = with_column(ROWS, "x", pa.array([1e17 / 3] * len(ROWS)))
    require_alike(
        learned(
            [rows],
            TRAINING,
            Bounds.of(len(ROWS), 1),
        ),
        encoding.learn(rows, TRAINING),
    )


def test_a_column_without_any_value_is_learned_as_zero() -> None:
    empty = without_values(ROWS, "noise")
    parts = [empty.slice(0, 1000), empty.slice(1000)]
    require_alike(
        learned(
            parts,
            TRAINING,
            Bounds.of(len(empty), 2),
        ),
        encoding.learn(empty, TRAINING),
    )


def test_the_same_parts_in_the_same_order_give_the_same_bits() -> None:
    parts = _cut(ROWS, 500)
    bounds = Bounds.of(len(ROWS), len(parts))
    first, again = (learned(parts, TRAINING, bounds) for _ in range(2))
    other_way = learned(parts[::-1], TRAINING, bounds)
    assert first == again
    # Else this would not tell a fixed order from any.
    assert first != other_way


@settings(deadline=None)
@given(
    parts=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    is_sorted=st.booleans(),
    digits=st.integers(1, 6),
)
def test_thinned_tails_miss_a_place_by_a_hundredth_of_it(
    parts: int, seed: int, is_sorted: bool, digits: int
) -> None:
    values = np.round(np.random.default_rng(seed).normal(size=20_000), digits)
    most_rows = 2000
    # Sorted, the first parts have all that is low.
    shares = np.array_split(np.sort(values) if is_sorted else values, parts)
    tails = [Tail.none().extended(share, most_rows).thinned(20) for share in shares]
    merged = reduce(lambda one, other: one.merged(other, most_rows), tails)
    in_order = np.sort(values)
    for place in (0, 50, 500, 1900):
        found = merged.at(place)
        first = np.searchsorted(in_order, found, side="left")
        last = np.searchsorted(in_order, found, side="right") - 1
        missed = max(first - place, place - last, 0)
        assert missed <= place / 100 + parts


def test_thinned_tails_are_small() -> None:
    tail = Tail.none().extended(
        np.random.default_rng(1).normal(size=200_000),
        100_000,
    )
    assert len(tail.thinned(1000).values) < 1000
    assert tail.thinned(100_000) is tail


def test_tails_are_kept_by_rows_and_not_by_values() -> None:
    tail = Tail.none().extended(
        np.array([3.0, 1, 1, 1, 2]),
        4,
    )
    assert tail.values.tolist() == [1, 2]
    assert tail.rows.tolist() == [3, 1]
    more: Any = tail.extended(np.array([1.0, 9]), 4)
    assert more.values.tolist() == [1]
    assert more.rows.tolist() == [4]
