from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from jobs.training.families.neural_network import feed
from jobs.training.families.neural_network.feed import Shares
from pipelines.errors import NightshiftError
from tests.jobs.training.small import job_of

SEED = 1
STEPS = 4


@given(
    rows=st.integers(8, 5000),
    wanted=st.integers(1, 300),
    ranks=st.integers(1, 8),
)
def test_ranks_get_equal_shares_of_nearly_all_rows(rows: int, wanted: int, ranks: int) -> None:
    shares = Shares.of(rows, wanted, ranks)
    assert shares.rows >= 1
    assert shares.rows * ranks <= shares.batch
    used = shares.steps * shares.rows * ranks
    # Of each batch less than 8 rows, and less than one a rank, are left out.
    assert rows - shares.steps * (8 + ranks + 1) <= used <= rows
    dealt = np.stack([shares.of_rank(np.arange(rows), rank) for rank in range(ranks)], axis=1)
    assert dealt.shape == (shares.steps, ranks, shares.rows)
    assert len(np.unique(dealt)) == used


@given(
    rows=st.integers(48, 5000),
    wanted=st.integers(1, 300),
    ranks=st.integers(1, 4),
    parts=st.integers(2, 5),
)
def test_the_parts_of_a_step_are_what_the_rank_would_see_in_one(
    rows: int, wanted: int, ranks: int, parts: int
) -> None:
    shares = Shares.of(rows, wanted, ranks, parts)
    dealt = shares.of_rank(np.arange(rows), ranks - 1)
    assert dealt.shape == (shares.steps * parts, shares.rows // parts)
    whole = replace(shares, parts=1).of_rank(np.arange(rows), ranks - 1)
    np.testing.assert_array_equal(dealt.reshape(whole.shape), whole)


@given(rows=st.integers(64, 5000), wanted=st.integers(16, 300))
def test_ranks_that_divide_a_batch_train_on_the_same_rows(rows: int, wanted: int) -> None:
    dealt = []
    for ranks in (1, 2, 4, 8):
        shares = Shares.of(rows, wanted, ranks)
        parts = [shares.of_rank(np.arange(rows), rank) for rank in range(ranks)]
        dealt.append(np.concatenate(parts, axis=1))
    for other in dealt[1:]:
        np.testing.assert_array_equal(other, dealt[0])


def test_fewer_rows_than_ranks_are_refused() -> None:
    with pytest.raises(NightshiftError, match=r"3 rows are too few for 4 ranks"):
        Shares.of(3, 2048, 4)
    with pytest.raises(NightshiftError, match=r"7 rows .* for 4 ranks with 2 accumulated batches"):
        Shares.of(7, 2048, 4, 2)


def test_each_epoch_has_every_slice_in_an_order_that_all_ranks_share() -> None:
    rows = job_of().fit
    shares = Shares.of(len(rows), len(rows) // STEPS, 2)
    assert shares.steps == STEPS
    epochs = [_labels(feed.slices(rows, shares, rank, SEED), 2 * STEPS) for rank in (0, 1)]
    dealt = [list(map(tuple, shares.of_rank(rows.label, rank))) for rank in (0, 1)]
    orders = [[part.index(one) for one in told] for part, told in zip(dealt, epochs, strict=True)]
    assert orders[0] == orders[1]
    first, second = orders[0][:STEPS], orders[0][STEPS:]
    assert sorted(first) == sorted(second) == list(range(STEPS))


def test_the_validation_rows_are_one_batch() -> None:
    rows = job_of().validation
    assert rows is not None
    ((inputs, label),) = feed.whole(rows)
    np.testing.assert_array_equal(inputs["numeric"], rows.numeric)
    np.testing.assert_array_equal(label, rows.label)


def test_no_thread_that_tunes_a_feed_can_hold_up_the_end_of_a_training() -> None:
    rows = job_of().fit
    for dataset in (feed.slices(rows, Shares.of(len(rows), 64, 1), 0, SEED), feed.whole(rows)):
        assert dataset.options().autotune.enabled is False


def _labels(dataset: tf.data.Dataset, count: int) -> list[tuple[Any, ...]]:
    return [tuple(label.numpy()) for _, label in dataset.take(count)]
