"""What must hold of labels and predictions, judged by the real gate."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import pytest

from expectations import predictions
from expectations.gate import judge
from expectations.suite import Suite
from pipelines.days import Days
from pipelines.model import GroupMean, LastValue, Training
from pipelines.spec import Pipeline
from tests.jobs.toy import TOY

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DAY = date(2013, 1, 2)
BINARY = replace(
    TOY,
    name="failures",
    entity=("event_date", "id"),
    event_date="event_date",
    prediction="likely",
    training=Training(
        task="binary_classification",
        label="failed",
        numeric=("x",),
        categorical=(),
        baselines=(GroupMean(columns=("id",)),),
    ),
)
NUMBERS = replace(
    BINARY,
    name="weights",
    prediction="expected",
    training=Training(
        task="regression",
        label="weight",
        numeric=("x",),
        categorical=(),
        baselines=(LastValue(feature="x"),),
    ),
)
COLUMNS = ", ".join(f"'m' AS {name}" for name in ("model_name", *predictions.MADE_BY))


def _broken_by(frame: DataFrame, suite: Suite) -> set[str | None]:
    return {check.column for check in judge(frame, suite, "toy.things").failures}


def _suite(pipeline: Pipeline) -> Suite:
    return Suite(
        days=Days.of(DAY),
        day="event_date",
        key=("id",),
        has=(pipeline.prediction, "model_name", *predictions.MADE_BY),
        each_row=predictions.prediction_rows(pipeline),
        measures=predictions.prediction_measures(pipeline),
        each_day=predictions.prediction_days(pipeline),
    )


def _predicted(spark: SparkSession, pipeline: Pipeline, *values: float | None) -> DataFrame:
    rows = [(DAY, number, value) for number, value in enumerate(values)]
    frame = spark.createDataFrame(rows, f"event_date date, id int, {pipeline.prediction} double")
    return frame.selectExpr("*", *COLUMNS.split(", "))


@pytest.mark.parametrize(
    ("pipeline", "values"),
    [
        (BINARY, (0.2, 0.7, 1e-7)),
        # What happens to one of a few thousand.
        (BINARY, (0.0002, 0.0009, 0.0004)),
        (NUMBERS, (-40.0, 0.0, 1e12)),
    ],
)
def test_good_predictions_pass(
    spark: SparkSession, pipeline: Pipeline, values: tuple[float, ...]
) -> None:
    assert _broken_by(_predicted(spark, pipeline, *values), _suite(pipeline)) == set()


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, math.nan, None])
def test_what_is_no_probability_is_refused(spark: SparkSession, value: float | None) -> None:
    frame = _predicted(spark, BINARY, 0.2, 0.7, value)
    assert "likely" in _broken_by(frame, _suite(BINARY))


NO_NUMBERS = [math.nan, math.inf, -math.inf, None]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_finite_number_is_refused(spark: SparkSession, value: float | None) -> None:
    frame = _predicted(spark, NUMBERS, 1.0, 2.0, value)
    assert "expected" in _broken_by(frame, _suite(NUMBERS))


@pytest.mark.parametrize(
    ("pipeline", "spread"), [(BINARY, "probability_spread"), (NUMBERS, "prediction_spread")]
)
def test_a_model_that_says_the_same_of_everything_is_refused(
    spark: SparkSession, pipeline: Pipeline, spread: str
) -> None:
    constant = _predicted(spark, pipeline, 0.5, 0.5, 0.5)
    assert _broken_by(constant, _suite(pipeline)) == {spread}


def test_a_model_that_says_next_to_the_same_of_everything_is_refused(spark: SparkSession) -> None:
    for frame in (
        _predicted(spark, BINARY, 0.5, 0.5005, 0.4995),
        _predicted(spark, BINARY, 0.00040001, 0.0004, 0.00039999),
    ):
        assert _broken_by(frame, _suite(BINARY)) == {"probability_spread"}


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_day_of_what_cannot_be_is_judged(spark: SparkSession, value: float) -> None:
    constant = _predicted(spark, BINARY, value, value)
    assert _broken_by(constant, _suite(BINARY)) == {"likely"}


def test_a_day_of_two_models_is_refused(spark: SparkSession) -> None:
    frame = _predicted(spark, NUMBERS, 1.0, 2.0)
    two = frame.selectExpr("* EXCEPT (model_version)", "CAST(id AS STRING) AS model_version")
    assert _broken_by(two, _suite(NUMBERS)) == {"models"}


def test_a_prediction_that_cannot_be_traced_is_refused(spark: SparkSession) -> None:
    frame = _predicted(spark, NUMBERS, 1.0, 2.0)
    untraced = frame.selectExpr("* EXCEPT (run_id)", "CAST(NULL AS STRING) AS run_id")
    assert _broken_by(untraced, _suite(NUMBERS)) == {"run_id"}


@pytest.mark.parametrize(
    ("pipeline", "label", "good", "bad"),
    [
        (BINARY, "failed", (0.0, 1.0, None), (0.5, 2.0)),
        (NUMBERS, "weight", (-3.5, 0.0, None), (math.nan, math.inf)),
    ],
)
def test_a_label_is_what_the_task_can_learn_or_not_there(
    spark: SparkSession,
    pipeline: Pipeline,
    label: str,
    good: tuple[float | None, ...],
    bad: tuple[float, ...],
) -> None:
    suite = Suite(
        days=Days.of(DAY),
        key=("id",),
        has=(label,),
        each_row=predictions.label_rows(pipeline),
    )
    schema = f"landed_date date, id int, {label} double"
    rows = [(DAY, number, value) for number, value in enumerate(good)]
    assert _broken_by(spark.createDataFrame(rows, schema), suite) == set()
    for value in bad:
        frame = spark.createDataFrame([*rows, (DAY, 9, value)], schema)
        assert _broken_by(frame, suite) == {label}
