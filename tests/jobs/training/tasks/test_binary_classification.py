from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from jobs.training.tasks.binary_classification import BinaryClassification, fit_slope

TASK = BinaryClassification()
LABEL_AND_PROBABILITY = st.tuples(st.booleans(), st.floats(0, 1))
PROBABILITIES = st.lists(LABEL_AND_PROBABILITY, min_size=1, max_size=50)


@given(PROBABILITIES)
def test_losses_are_those_of_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    label = np.array([float(happened) for happened, _ in pairs])
    probability = np.array([foretold for _, foretold in pairs])
    measured = TASK.measure(label, probability)
    assert measured["log_loss"] == pytest.approx(
        log_loss(label, np.clip(probability, 1e-7, 1 - 1e-7), labels=[0, 1])
    )
    assert measured["brier"] == pytest.approx(
        brier_score_loss(label, probability, labels=[0, 1], pos_label=1)
    )
    assert (measured["auc"] is None) == (len(set(label)) == 1)


def test_a_perfect_order_has_auc_one() -> None:
    label = np.array([0.0, 0.0, 1.0])
    measured = TASK.measure(label, np.array([0.1, 0.2, 0.3]))
    assert measured["auc"] == 1.0


@given(st.floats(0.001, 0.999))
def test_a_probability_is_found_again_behind_its_log_odds(probability: float) -> None:
    back = TASK.inverse_link(np.array([TASK.link(probability)]))
    assert back[0] == pytest.approx(probability)


def test_no_log_odds_stand_for_a_certainty() -> None:
    certain = TASK.inverse_link(np.array([-1e4, 1e4]))
    assert 0 < certain[0] < certain[1] < 1


def test_a_certainty_is_published_as_nearly_one_and_what_cannot_be_as_it_is() -> None:
    told = TASK.publishable(np.array([0.0, 0.3, 1.0]))
    np.testing.assert_array_equal(told, [1e-7, 0.3, 1 - 1e-7])
    impossible = np.array([1.5, -0.1, np.nan])
    np.testing.assert_array_equal(TASK.publishable(impossible), impossible)


@given(st.floats(0.55, 1.9), st.floats(0.55, 1.9))
def test_the_slope_that_made_the_labels_is_found_again(slope: float, expected: float) -> None:
    distance = np.linspace(-3, 3, 2001)
    foretold = 1 / (1 + np.exp(-(-1 + slope * distance)))
    trusting = fit_slope(distance, foretold, base=-1.0, trust=1.0)
    assert trusting == pytest.approx(slope, abs=1e-6)
    careful = TASK.calibration_slope(distance, foretold, base=-1.0, expected=expected)
    assert careful is not None
    assert min(slope, expected) - 1e-9 <= careful <= max(slope, expected) + 1e-9


def test_rows_that_tell_little_leave_the_slope_about_where_it_was_expected() -> None:
    distance = np.linspace(-3, 3, 2001)
    foretold = 1 / (1 + np.exp(-(-1 + 1.5 * distance)))
    slopes = [fit_slope(distance, foretold, -1.0, expected, 1e-4) for expected in (0.8, 1.2)]
    assert slopes == pytest.approx([0.8, 1.2], abs=0.01)


def test_models_are_drawn_by_their_calibration_and_their_roc() -> None:
    label = np.array([0.0, 1.0, 1.0, 0.0])
    good = np.array([0.2, 0.7, 0.9, 0.4])
    by_model = {"candidate": good, "group_mean": np.full(4, 0.5)}
    plots = TASK.plots(label, np.zeros(4), by_model)
    assert list(plots) == ["calibration", "roc"]
    legend = plots["roc"].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "candidate (AUC 1.000)",
        "group_mean (AUC 0.500)",
    ]


def test_labels_of_one_kind_are_drawn_without_a_roc() -> None:
    by_model = {"candidate": np.full(4, 0.5)}
    plots = TASK.plots(np.ones(4), np.zeros(4), by_model)
    assert plots["roc"].axes[0].get_legend() is None
