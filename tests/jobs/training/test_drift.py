"""What a drift of known size measures, and that calm nights are left alone."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from jobs.training import drift
from jobs.training.drift import Judged
from pipelines.model import Watch

WATCH = Watch()
NIGHTS, PER_NIGHT = 40, 400
CUTS = [slice(night * PER_NIGHT, (night + 1) * PER_NIGHT) for night in range(NIGHTS)]
LAST = CUTS[-1]


def numbers(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(10, 2, NIGHTS * PER_NIGHT)


def judged(
    values: np.ndarray,
    statistic: str,
    night: int = NIGHTS - 1,
) -> Judged | None:
    column = pa.chunked_array([pa.array(values, from_pandas=True)])
    by_name = {one.statistic: one for one in drift.summaries_of(column, CUTS)}
    return drift.judge(by_name[statistic], night, WATCH)


@pytest.mark.parametrize("shift", [0.3, 0.5, 1.0])
def test_a_shift_of_numbers_is_measured_in_standard_deviations(shift: float) -> None:
    values = numbers()
    values[LAST] += 2 * shift
    found = judged(values, "wasserstein")
    assert found and found.value == pytest.approx(shift, abs=0.1)
    assert found.threshold < 0.3


def test_the_distance_is_that_of_scipy() -> None:
    values = numbers()
    values[LAST] = values[LAST] * 1.5 + 1
    reference = values[: CUTS[NIGHTS - WATCH.nights - 1].stop][-28 * PER_NIGHT :]
    exact = wasserstein_distance(values[LAST], reference) / reference.std()
    found = judged(values, "wasserstein")
    assert found and found.value == pytest.approx(exact, rel=0.05)


def test_a_category_whose_share_doubles_is_found() -> None:
    draw = np.random.default_rng(0)
    values = draw.choice(
        ["a", "b", "c"],
        NIGHTS * PER_NIGHT,
        p=[0.6, 0.25, 0.15],
    )
    calm = judged(values, "jensen_shannon")
    values[LAST] = draw.choice(
        ["a", "b", "c"],
        PER_NIGHT,
        p=[0.5, 0.2, 0.3],
    )
    found = judged(values, "jensen_shannon")
    assert calm and calm.value < calm.threshold
    assert found and found.value > found.threshold


def test_missing_values_that_appear_are_found_by_their_share() -> None:
    values = numbers()
    values[LAST][:80] = np.nan
    found = judged(values, "null_share")
    assert found == Judged(value=0.2, threshold=0.1)


def test_a_number_that_is_gone_wholly_is_found_though_it_was_gone_for_a_night_before() -> None:
    values = numbers()
    values[CUTS[10]] = np.nan
    values[CUTS[10].start] = 10.0
    found = judged(values, "null_share")
    assert found and found.threshold < 1
    values[LAST] = np.nan
    gone = judged(values, "null_share")
    assert gone and gone.value > gone.threshold


def test_a_number_that_is_gone_every_second_night_is_allowed_to_be() -> None:
    values = numbers()
    for night in CUTS[::2]:
        values[night] = np.nan
    for night in (NIGHTS - 2, NIGHTS - 1):
        found = judged(values, "null_share", night=night)
        assert found and found.value == pytest.approx(0.5, abs=0.02)
        assert found.value < found.threshold


@pytest.mark.parametrize("is_text", [False, True], ids=["number", "category"])
def test_nights_before_a_column_was_there_are_no_reference_of_it(is_text: bool) -> None:
    values = numbers().round().astype("U" if is_text else float).astype(object)
    values[: CUTS[-5].start] = None
    values[CUTS[0]] = values[-1]
    statistic = "jensen_shannon" if is_text else "null_share"
    # The first night is none of the reference.
    assert judged(values, statistic) is None
    values[CUTS[8].start : LAST.start] = values[-1]
    values[LAST] = None
    found = judged(values, statistic)
    assert found and found.value == 1 > found.threshold


def test_a_missing_category_is_one_more_category() -> None:
    values = np.full(NIGHTS * PER_NIGHT, "a", object)
    values[LAST][:200] = None
    found = judged(values, "jensen_shannon")
    assert found and found.value > 0.4


def test_a_missing_category_is_another_than_an_empty_one() -> None:
    values = np.full(NIGHTS * PER_NIGHT, None, object)
    values[:-PER_NIGHT:PER_NIGHT] = "a"
    values[LAST] = ""
    found = judged(values, "jensen_shannon")
    assert found and found.value > 0.9


def test_a_logarithm_is_compared_as_the_model_reads_it() -> None:
    column = pa.chunked_array([pa.array(np.exp(numbers()))])
    plain, _ = drift.summaries_of(column, CUTS, None)
    bent, _ = drift.summaries_of(column, CUTS, 1.0)
    np.testing.assert_allclose(bent.by_night, np.log1p(plain.by_night), rtol=0.01)


def test_a_constant_is_compared_in_its_own_unit() -> None:
    values = np.ones(NIGHTS * PER_NIGHT)
    assert judged(values, "wasserstein") == Judged(value=0.0, threshold=0.1)
    values[LAST] = 3
    assert judged(values, "wasserstein") == Judged(value=2.0, threshold=0.1)


@pytest.mark.parametrize("constant", [0.5, 0.3, 1_000_000.1])
def test_a_constant_whose_mean_is_off_by_its_last_digit_is_one_all_the_same(
    constant: float,
) -> None:
    values = np.full(NIGHTS * PER_NIGHT, constant)
    values[LAST] += 0.01
    found = judged(values, "wasserstein")
    assert found is not None
    assert found.value == pytest.approx(0.01)


@pytest.mark.parametrize("categories", range(2, 40))
def test_shares_that_never_change_are_no_distance(categories: int) -> None:
    night = [str(number) for number in range(categories)]
    column = pa.chunked_array([pa.array(night * NIGHTS)])
    cuts = [slice(one * categories, (one + 1) * categories) for one in range(NIGHTS)]
    by_name = {one.statistic: one for one in drift.summaries_of(column, cuts)}
    found = drift.judge(by_name["jensen_shannon"], NIGHTS - 1, WATCH)
    assert found is not None
    assert 0 <= found.value <= 1e-7


def test_an_infinite_value_is_far_off_and_blinds_no_later_night() -> None:
    values = numbers()
    values[LAST][:50] = np.inf
    found = judged(values, "wasserstein")
    assert found and found.value == np.inf
    values = numbers()
    values[CUTS[10]][:50] = np.inf
    calm = judged(values, "wasserstein")
    assert calm and calm.value < calm.threshold
    values[LAST] += 2
    found = judged(values, "wasserstein")
    assert found and found.value > found.threshold


@pytest.mark.parametrize(
    "kind",
    [pa.int64(), pa.decimal128(30, 2)],
)
def test_any_kind_of_number_is_compared_as_one(kind: pa.DataType) -> None:
    largest = 2**62 if kind == pa.int64() else 1000
    values = np.random.default_rng(0).integers(0, largest, NIGHTS * PER_NIGHT)
    values[LAST] = largest
    column = pa.chunked_array([pa.array(values).cast(kind)])
    moved, missing = drift.summaries_of(column, CUTS)
    assert (moved.statistic, missing.statistic) == ("wasserstein", "null_share")
    found = drift.judge(moved, NIGHTS - 1, WATCH)
    assert found and found.value > 5 * found.threshold


def test_the_last_nights_are_no_part_of_the_reference() -> None:
    values = numbers()
    values[CUTS[NIGHTS - WATCH.nights].start :] += 1
    found = judged(values, "wasserstein")
    assert found and found.value == pytest.approx(0.5, abs=0.1)


def test_with_few_nights_or_an_empty_one_nothing_is_told() -> None:
    values = numbers()
    fewest = WATCH.nights - 1 + 21
    assert judged(values, "wasserstein", night=fewest - 1) is None
    assert judged(values, "wasserstein", night=fewest) is not None
    column = pa.chunked_array([pa.array(values)])
    cuts = [*CUTS[:-1], slice(LAST.start, LAST.start)]
    assert drift.judge(drift.summaries_of(column, cuts)[0], NIGHTS - 1, WATCH) is None


def test_of_nights_without_any_row_nothing_is_told() -> None:
    nothing = [slice(0, 0)] * NIGHTS
    for kind in (pa.string(), pa.bool_(), pa.float64()):
        column = pa.chunked_array([], kind)
        for summaries in drift.summaries_of(column, nothing):
            twice = drift.joined([summaries, summaries])
            assert drift.judge(summaries, NIGHTS - 1, WATCH) is None
            assert drift.judge(twice, 2 * NIGHTS - 1, WATCH) is None


def test_nights_that_differ_from_one_another_are_allowed_to() -> None:
    shared = np.repeat(
        np.random.default_rng(1).normal(0, 3, NIGHTS),
        PER_NIGHT,
    )
    found = judged(numbers() + shared, "wasserstein")
    assert found and found.threshold > 1


def test_a_threshold_may_be_as_small_as_one_likes() -> None:
    values = np.zeros(NIGHTS * PER_NIGHT)
    values[LAST] = 1e-8
    column = pa.chunked_array([pa.array(values)])
    moved = drift.summaries_of(column, CUTS)[0]
    found = drift.judge(moved, NIGHTS - 1, replace(WATCH, least_drift=1e-7))
    assert found == Judged(value=1e-8, threshold=1e-7)


@given(
    seed=st.integers(0, 2**32 - 1),
    shared=st.floats(0, 3),
    tail=st.booleans(),
)
@settings(max_examples=30, derandomize=True)
def test_calm_nights_stay_calm(seed: int, shared: float, tail: bool) -> None:
    """Whatever the rows of a night have in common, 5 of 7 nights are hardly ever over."""
    nights, rows = 120, 60
    draw = np.random.default_rng(seed)
    values = draw.normal(size=nights * rows) + np.repeat(
        draw.normal(0, shared, nights),
        rows,
    )
    if tail:
        values = np.exp(values)
    cuts = [slice(night * rows, (night + 1) * rows) for night in range(nights)]
    column = pa.chunked_array([pa.array(values)])
    watch = replace(WATCH, least_drift=0.01)
    (summaries, _) = drift.summaries_of(column, cuts)
    found = [drift.judge(summaries, night, watch) for night in range(nights)]
    over = [one is not None and one.value > one.threshold for one in found]
    weeks = [over[end - 7 : end] for end in range(7, nights)]
    assert max(map(sum, weeks)) < WATCH.min_nights
    assert sum(over) < 0.05 * nights


def test_spans_that_are_summed_up_one_after_another_are_joined() -> None:
    draw = np.random.default_rng(0)
    # The first span lacks a category, the second has no row in its last night, the third has none.
    first = draw.choice(["b", "c"], 20)
    then = draw.choice(["a", "b"], 10)
    lines = pa.chunked_array([first, then])
    counts = pa.chunked_array([draw.normal(size=30)])
    cuts = [slice(begin, begin + 5) for begin in range(0, 30, 5)]
    cuts += [slice(30, 30)] * 2
    spans = [slice(0, 4), slice(4, 7), slice(7, 8)]
    for column in (lines, counts):
        whole = drift.summaries_of(column, cuts)
        parts = []
        for span in spans:
            own = cuts[span]
            begin = own[0].start
            moved = [slice(one.start - begin, one.stop - begin) for one in own]
            rows = column.slice(begin, own[-1].stop - begin)
            parts.append(drift.summaries_of(rows, moved))
        for one, of_spans in zip(whole, zip(*parts, strict=True), strict=True):
            joined = drift.joined(of_spans)
            assert joined.categories == one.categories
            np.testing.assert_array_equal(joined.by_night, one.by_night)


def test_rows_that_differ_are_counted() -> None:
    def column(*values: object) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array(values)])

    close = column(1.0 + 1e-12, None, 2.0)
    assert drift.differing(column(1.0, None, 2.0), close) == 0
    half = column(1.0, 1.0, 2.5, 3.0)
    assert drift.differing(column(1.0, None, 2.0, 3.0), half) == 0.5
    assert drift.differing(column("a", None), column("a", None)) == 0
    assert drift.differing(column("a", None), column("b", "c")) == 1
    assert drift.differing(column(1, 2), column(1, 3)) == 0.5
    tiny = column(1e-12, 2e-12, None, 0.0)
    assert drift.differing(tiny, column(1e-12, 3e-12, None, 0.0)) == 0.25
    assert drift.differing(tiny, column(1e-12 + 1e-24, 2e-12, None, 1e-24)) == 0
    assert drift.differing(column(0.0, 5.0), column(1e-16, float("inf"))) == 0.5
    # What is left of numbers around 1 that are taken from each other.
    rounded = column(0.0, 1e-17, -2e-16)
    assert drift.differing(column(0.0, 0.0, 0.0), rounded) == 0


def test_a_long_text_among_many_rows_takes_no_more_memory_than_it_has() -> None:
    values = np.full(NIGHTS * PER_NIGHT, "north", object)
    values[0] = "x" * 100_000
    values[LAST] = "south"
    tracemalloc.start()
    found = judged(values, "jensen_shannon")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found and found.value > 0.9
    assert most < 50_000_000
