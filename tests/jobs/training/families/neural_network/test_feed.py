from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import shards
from jobs.training.encoding import Examples
from jobs.training.families.neural_network import feed
from jobs.training.families.neural_network.feed import Shares
from jobs.training.shards import Shards
from pipelines.errors import Refused
from tests.jobs.training.small import job_of

SEED = 1
STEPS = 4


def _dealt(shares: Shares, rank: int) -> np.ndarray:
    """(steps, rows of the rank): positions of the rows that the rank gets."""
    firsts = [shares.first(step, rank) for step in range(shares.steps)]
    return np.stack([np.arange(first, first + shares.rows) for first in firsts])


@pytest.fixture
def rows(tmp_path: Path) -> Shards:
    fit = job_of().fit
    assert isinstance(fit, Examples)
    return shards.write(tmp_path, fit)


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
    dealt = np.stack(
        [_dealt(shares, rank) for rank in range(ranks)],
        axis=1,
    )
    assert dealt.shape == (shares.steps, ranks, shares.rows)
    assert len(np.unique(dealt)) == used
    assert 0 <= dealt.min() <= dealt.max() < rows


@given(rows=st.integers(64, 5000), wanted=st.integers(16, 300))
def test_ranks_that_divide_a_batch_train_on_the_same_rows(rows: int, wanted: int) -> None:
    dealt = []
    for ranks in (1, 2, 4, 8):
        shares = Shares.of(rows, wanted, ranks)
        parts = [_dealt(shares, rank) for rank in range(ranks)]
        dealt.append(np.concatenate(parts, axis=1))
    for other in dealt[1:]:
        np.testing.assert_array_equal(other, dealt[0])


def test_fewer_rows_than_ranks_are_refused() -> None:
    with pytest.raises(Refused, match=r"3 rows are too few for 4 ranks"):
        Shares.of(3, 2048, 4)
    with pytest.raises(Refused, match=r"7 rows .* for 4 ranks with 2 accumulated batches"):
        Shares.of(7, 2048, 4, 2)


def test_each_epoch_has_every_slice_in_an_order_that_all_ranks_share(rows: Shards) -> None:
    shares = Shares.of(len(rows), len(rows) // STEPS, 2)
    assert shares.steps == STEPS
    slices = [feed.slices(rows, shares, rank, SEED) for rank in (0, 1)]
    epochs = [_labels(of_rank, 2 * STEPS) for of_rank in slices]
    dealt = [_labels_at(rows, _dealt(shares, rank)) for rank in (0, 1)]
    pairs = zip(dealt, epochs, strict=True)
    orders = [list(map(part.index, told)) for part, told in pairs]
    assert orders[0] == orders[1]
    first, second = orders[0][:STEPS], orders[0][STEPS:]
    assert sorted(first) == sorted(second) == list(range(STEPS))


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_read_step_by_step_is_what_would_be_held(
    rows: Shards, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = Shares.of(len(rows), 64, 2, parts)
    steps = 2 * shares.steps * parts
    held = _batches(feed.slices(rows, shares, 1, SEED), steps)
    monkeypatch.setattr(feed, "IN_MEMORY_BYTES", 0)
    read = _batches(feed.slices(rows, shares, 1, SEED), steps)
    assert len(held) == steps
    for of_held, of_read in zip(held, read, strict=True):
        assert {name: value.shape for name, value in of_held.items()} == {
            name: value.shape for name, value in of_read.items()
        }
        for name, value in of_held.items():
            np.testing.assert_array_equal(of_read[name], value)


def test_the_parts_of_a_step_are_what_the_rank_would_see_in_one(rows: Shards) -> None:
    in_parts = Shares.of(len(rows), 64, 2, 2)
    whole = replace(in_parts, parts=1)
    parts = _labels(feed.slices(rows, in_parts, 1, SEED), 2 * whole.steps)
    steps = _labels(feed.slices(rows, whole, 1, SEED), whole.steps)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    assert [a + b for a, b in pairs] == steps


@pytest.mark.parametrize("parts", [1, 2])
def test_a_feed_that_goes_on_is_the_rest_of_one_that_began_at_the_start(
    rows: Shards, parts: int
) -> None:
    shares = Shares.of(len(rows), 64, 1, parts)
    epoch = shares.steps * parts
    whole = _labels(feed.slices(rows, shares, 0, SEED), 3 * epoch)
    rest = _labels(feed.slices(rows, shares, 0, SEED, epochs_done=2), epoch)
    assert rest == whole[2 * epoch :]
    assert rest != whole[:epoch]


def test_few_validation_rows_are_one_batch_for_each_rank(rows: Shards) -> None:
    whole = rows.read(0, len(rows))
    for rank in (0, 1):
        ((inputs, label),) = feed.validation(rows, rank, 2)
        np.testing.assert_array_equal(inputs["numeric"], whole.numeric)
        np.testing.assert_array_equal(label, whole.label)


def test_many_validation_rows_are_dealt_to_the_ranks_each_once(
    rows: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WHOLE_ROWS", 0)
    monkeypatch.setattr(feed, "PIECE_ROWS", 50)
    found: list[np.ndarray] = []
    for rank in range(3):
        pieces = list(feed.validation(rows, rank, 3))
        assert max(len(label) for _, label in pieces) == 50
        found += [inputs["numeric"].numpy() for inputs, _ in pieces]
    np.testing.assert_array_equal(
        np.concatenate(found),
        rows.read(0, len(rows)).numeric,
    )


def test_no_thread_that_tunes_a_feed_can_hold_up_the_end_of_a_training(rows: Shards) -> None:
    for dataset in (
        feed.slices(rows, Shares.of(len(rows), 64, 1), 0, SEED),
        feed.validation(rows, 0, 1),
    ):
        assert dataset.options().autotune.enabled is False


def _labels(
    dataset: tf.data.Dataset,
    count: int,
) -> list[tuple[Any, ...]]:
    return [tuple(label.numpy()) for _, label in dataset.take(count)]


def _batches(
    dataset: tf.data.Dataset,
    count: int,
) -> list[dict[str, np.ndarray]]:
    found = []
    for inputs, label in dataset.take(count):
        found.append(
            {
                **{name: part.numpy() for name, part in inputs.items()},
                "label": label,
            }
        )
    return found


def _labels_at(rows: Shards, positions: np.ndarray) -> list[tuple[Any, ...]]:
    labels = rows.read(0, len(rows)).label
    return [tuple(labels[of_step]) for of_step in positions]
