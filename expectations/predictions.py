"""What must hold of labels and predictions by the task of the model.

For the suites of `<pipeline>.training` and `<pipeline>.predictions`, beside what the pipeline
itself knows of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation

from expectations.suite import all_present, one_of
from pipelines.model import Task
from pipelines.spec import Pipeline

MADE_BY = ("model_version", "model_run_id", "run_id", "predicted_at", "scoring_version")
"""Columns by which a prediction is traced to what made it."""
_LARGEST = sys.float_info.max
"""Spark orders infinity and NaN above every number, so a bound tells them apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Values:
    """What the predictions of a task are."""

    noun: str
    least: float
    most: float
    """Neither bound is a value that a prediction may have."""
    says: str
    spread: str
    """SQL of a day's spread, of `{0}`: the prediction."""
    least_spread: float
    """Below it the model says the same of everything."""


_TASKS: Mapping[Task, _Values] = {
    "binary_classification": _Values(
        noun="probability",
        least=0,
        most=1,
        says="The probability lies between 0 and 1, and is neither.",
        # As a share of the largest that probabilities of their mean can have: of what is rare all
        # are small.
        spread="stddev({0}) / nullif(sqrt(avg({0}) * (1 - avg({0}))), 0)",
        least_spread=0.002,
    ),
    "regression": _Values(
        noun="prediction",
        least=-_LARGEST,
        most=_LARGEST,
        says="The prediction is a finite number.",
        spread="stddev({0})",
        # In the unit of the label, of which nothing is known here: only a constant is refused.
        least_spread=sys.float_info.min,
    ),
}


def label_rows(pipeline: Pipeline) -> tuple[Expectation, ...]:
    """What each row of the training table must hold: no label, or one that the task can learn."""
    label = pipeline.training.label
    if pipeline.training.task == "binary_classification":
        return (one_of(label, [0, 1]),)
    return (_strictly_between(label, -_LARGEST, _LARGEST, f"{label} is a finite number."),)


def prediction_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Columns that the predictions must have, beside their key and partition."""
    return (*pipeline.carried, pipeline.prediction, "model_name", *MADE_BY, "code_version")


def prediction_rows(pipeline: Pipeline) -> tuple[Expectation, ...]:
    """What each row of the predictions must hold: a value of the task, and what made it."""
    values = _TASKS[pipeline.training.task]
    return (
        *all_present([pipeline.prediction, *MADE_BY]),
        _strictly_between(pipeline.prediction, values.least, values.most, values.says),
    )


def prediction_measures(pipeline: Pipeline) -> dict[str, str]:
    """Measures of a day of predictions.

    `probability_mean` and `probability_spread` (0: all are alike, 1: all are 0 or 1) of a binary
    task, `prediction_mean` and `prediction_spread` (the standard deviation) of a regression;
    `models`, how many made them.
    """
    values = _TASKS[pipeline.training.task]
    prediction = f"`{pipeline.prediction}`"
    return {
        f"{values.noun}_mean": f"avg({prediction})",
        f"{values.noun}_spread": values.spread.format(prediction),
        "models": "count(DISTINCT model_name, model_version)",
    }


def prediction_days(pipeline: Pipeline) -> tuple[Expectation, ...]:
    """What each day of the predictions must hold, of those measures."""
    values = _TASKS[pipeline.training.task]
    spread = gxe.ExpectColumnValuesToBeBetween(
        column=f"{values.noun}_spread",
        min_value=values.least_spread,
        description="The model tells one row from another.",
    )
    return (spread, one_of("models", [1], says="One model scored the day."))


def _strictly_between(column: str, least: float, most: float, says: str) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=column,
        min_value=least,
        max_value=most,
        strict_min=True,
        strict_max=True,
        description=says,
    )
