from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from jobs.lake import ops
from jobs.training import metrics
from jobs.training.tasks import TASKS, LearningTask, task_of
from pipelines.errors import NightshiftError

LABEL = np.array([0.0, 1.0, 1.0])
PREDICTION = np.array([0.2, 0.7, 0.9])


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_summary_has_a_column_in_the_table_of_live_quality_for_each_value(
    task: LearningTask,
) -> None:
    summary = metrics.summary(task, LABEL, PREDICTION)
    assert list(summary) == ["rows", *task.metrics, "mean_prediction", "label_mean"]
    assert set(summary) < set(ops.SCHEMAS["live_quality"].names)


def test_a_summary_is_rounded_for_people() -> None:
    summary = metrics.summary(task_of("regression"), LABEL, PREDICTION)
    assert summary["mae"] == pytest.approx(0.2)
    assert summary["label_mean"] == 0.666667


def test_metrics_of_labels_in_a_small_unit_keep_digits_that_count() -> None:
    task, unit = task_of("regression"), 1e-6
    exact = task.measure(unit * LABEL, unit * PREDICTION)
    summary = metrics.summary(task, unit * LABEL, unit * PREDICTION)
    for name in ("rmse", "mae", "bias"):
        assert summary[name] == pytest.approx(exact[name], rel=1e-3)
    variance = np.var(unit * LABEL)
    assert task.label_variance(summary) == pytest.approx(variance, rel=1e-2)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (123456.7890123, 123456.789012),
        (-0.71234567, -0.712346),
        (0.00123456, 0.001235),
        (0.000123456, 0.0001235),
        (-1.23456e-9, -1.235e-9),
        (0.0, 0.0),
        # The last digits of a sum that comes to nothing.
        (3e-17, 0.0),
        (-math.inf, -math.inf),
    ],
)
def test_six_decimals_are_told_and_of_a_small_value_four_digits(value: float, told: float) -> None:
    assert metrics.shortened(value) == told


def test_a_value_that_cannot_be_told_stays_unknown() -> None:
    one_kind = np.ones(3)
    summary = metrics.summary(task_of("binary_classification"), one_kind, PREDICTION)
    assert summary["auc"] is None
    assert summary["label_mean"] == 1.0


def test_a_headline_is_the_metric_by_which_models_are_told_apart() -> None:
    task = task_of("regression")
    expected = task.measure(LABEL, PREDICTION)["rmse"]
    assert metrics.headline(task, LABEL, PREDICTION) == expected


def test_numbers_that_came_apart_are_refused_by_name() -> None:
    metrics.require_finite(loss=[0.5, 0.4], weights=np.zeros((2, 2)))
    with pytest.raises(NightshiftError, match=r"its loss and weights are not finite"):
        metrics.require_finite(
            loss=[0.5, np.nan],
            curve=[1.0],
            weights=np.array([np.inf]),
        )


def test_groups_are_the_distinct_values_with_their_rows() -> None:
    texts = np.array(["b", "a", "b"])
    for values in (texts, texts.astype(object)):
        groups = {value: rows.tolist() for value, rows in metrics.groups(values)}
        assert list(groups) == ["a", "b"]
        assert groups == {"a": [False, True, False], "b": [True, False, True]}


def test_texts_that_end_with_a_zero_are_groups_of_their_own() -> None:
    values = metrics.slice_values(pa.chunked_array([["a\0", "a", None, "a\0"]]))
    groups = {value: rows.tolist() for value, rows in metrics.groups(values)}
    assert groups == {
        "(none)": [False, False, True, False],
        "a": [False, True, False, False],
        "a\0": [True, False, False, True],
    }


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (pa.array(["a", None, "None"]), ["a", "(none)", "None"]),
        # A gap renames no other value.
        (
            pa.array([1, None, 2], pa.int32()),
            ["1", "(none)", "2"],
        ),
        (pa.array([True, None, False]), ["true", "(none)", "false"]),
    ],
)
def test_rows_without_a_value_are_a_slice_of_their_own(values: pa.Array, told: list[str]) -> None:
    assert metrics.slice_values(pa.chunked_array([values])).tolist() == told


def test_a_long_value_among_many_rows_takes_no_more_memory_than_it_has() -> None:
    values = pa.chunked_array([["a"] * 10_000, ["b" * 100_000]])
    tracemalloc.start()
    found = metrics.groups(metrics.slice_values(values))
    sizes = [int(rows.sum()) for _, rows in found]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sizes == [10_000, 1]
    assert most < 10_000_000


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("binary_classification", [0.0, 0.5, 1.0], None),
        ("regression", [-1e300, 0.0], None),
        (
            "binary_classification",
            [0.5, -0.1, 1.1, math.nan, math.inf],
            "4 of 5 predictions are no probability from 0 to 1",
        ),
        ("regression", [0.5, math.nan, -math.inf], "2 of 3 predictions are no finite number"),
    ],
)
def test_predictions_that_are_none_are_counted(
    name: str, values: list[float], told: str | None
) -> None:
    assert metrics.impossible(task_of(name), np.array(values)) == told
