from __future__ import annotations

import numpy as np
import tensorflow as tf

from jobs.training.families.neural_network.dropout import SharedDropout

NUMBERS = tf.ones((64, 50))


def _dropped(
    rank: int,
    ranks: int,
    rows: int,
    seed: int = 1,
    share: float = 0.3,
) -> np.ndarray:
    layer = SharedDropout(share, seed, rank, ranks)
    return np.asarray(layer(NUMBERS[:rows], training=True))


def test_ranks_leave_out_of_their_slices_what_one_leaves_out_of_the_batch() -> None:
    whole = _dropped(0, 1, 64)
    for ranks in (2, 4):
        rows = 64 // ranks
        parts = [_dropped(rank, ranks, rows) for rank in range(ranks)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_mean_of_the_numbers_stays_and_a_share_of_them_is_left_out() -> None:
    layer = SharedDropout(0.3, 1, 0, 1)
    dropped = [layer(NUMBERS, training=True) for _ in range(20)]
    steps = np.stack([np.asarray(one) for one in dropped])
    assert abs(np.mean(steps == 0) - 0.3) < 0.01
    np.testing.assert_allclose(np.mean(steps), 1, atol=0.01)


def test_each_step_and_each_layer_leaves_out_others() -> None:
    layer = SharedDropout(0.3, 1, 0, 1)
    first = np.asarray(layer(NUMBERS, training=True))
    second = np.asarray(layer(NUMBERS, training=True))
    assert (first != second).any()
    assert (_dropped(0, 1, 64, seed=2) != first).any()


def test_scoring_leaves_nothing_out() -> None:
    np.testing.assert_array_equal(SharedDropout(0.3, 1, 0, 1)(NUMBERS), NUMBERS)


def test_however_large_the_share_is_something_is_left() -> None:
    dropped = _dropped(0, 1, 64, share=0.999)
    assert 0 < np.mean(dropped != 0) < 0.02
