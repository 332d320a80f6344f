from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from jobs.training.tasks.regression import Regression

TASK = Regression()
NUMBERS = st.floats(-1000, 1000).map(lambda number: round(number, 3))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=50))
def test_metrics_are_those_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    label, prediction = np.array(pairs).T
    measured = TASK.measure(label, prediction)
    assert measured["rmse"] == pytest.approx(root_mean_squared_error(label, prediction))
    assert measured["mae"] == pytest.approx(mean_absolute_error(label, prediction))
    if len(set(label)) > 1:
        assert measured["r2"] == pytest.approx(r2_score(label, prediction))


def test_the_mean_loss_is_the_square_of_the_headline() -> None:
    label = np.array([1.0, 2.0, 6.0])
    prediction = np.array([2.0, 2.0, 4.0])
    rmse = TASK.measure(label, prediction)["rmse"]
    assert TASK.losses(label, prediction).tolist() == [1.0, 0.0, 4.0]
    assert rmse is not None
    assert rmse**2 == pytest.approx(5 / 3)


def test_a_bias_is_positive_when_too_much_is_predicted() -> None:
    label = np.array([1.0, 2.0])
    assert TASK.measure(label, np.array([3.0, 3.0]))["bias"] == 1.5


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, 32.2])
def test_labels_that_are_all_alike_have_no_r2(value: float) -> None:
    # The mean of such numbers may be off by their last digit.
    label = np.full(100, value)
    assert TASK.measure(label, np.linspace(0, 1, 100))["r2"] is None


def test_what_a_slice_may_lose_grows_with_the_labels_unit() -> None:
    label = np.array([10.0, 20.0, 30.0])
    assert TASK.max_slice_loss(label * 10) == pytest.approx(100 * TASK.max_slice_loss(label))


def test_models_are_drawn_by_their_predictions_and_their_error_of_each_day() -> None:
    label = np.array([1.0, 2.0, 3.0, 4.0])
    day = np.array([1, 1, 2, 2])
    by_model = {
        "candidate": label + 1,
        "usual": np.full(4, 2.5),
        "persistence": label - 1,
    }
    plots = TASK.plots(label, day, by_model)
    assert list(plots) == ["predicted_and_observed", "error_by_day"]
    lines = plots["error_by_day"].axes[0].get_lines()
    errors = {}
    for line in lines[:3]:
        errors[line.get_label()] = np.asarray(line.get_ydata()).tolist()
    assert errors == {
        "candidate": [1, 1],
        "usual": [1, -1],
        "persistence": [-1, -1],
    }
