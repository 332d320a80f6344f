from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from jobs.training import quality

PROBABILITIES = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=50)


@given(PROBABILITIES)
def test_losses_are_those_of_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    label, probability = np.array([float(y) for y, _ in pairs]), np.array([p for _, p in pairs])
    measured = quality.measure(label, probability)
    assert measured.log_loss == pytest.approx(
        log_loss(label, np.clip(probability, 1e-7, 1 - 1e-7), labels=[0, 1])
    )
    assert measured.brier == pytest.approx(
        brier_score_loss(label, probability, labels=[0, 1], pos_label=1)
    )
    assert (measured.auc is None) == (len(set(label)) == 1)


def test_a_perfect_order_has_auc_one() -> None:
    assert quality.measure(np.array([0.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3])).auc == 1.0


def test_groups_are_the_distinct_values_with_their_rows() -> None:
    found = [(value, rows.tolist()) for value, rows in quality.groups(np.array(["b", "a", "b"]))]
    assert found == [("a", [False, True, False]), ("b", [True, False, True])]
