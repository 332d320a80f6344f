"""What a night that was made late knew, through Spark: it sees it itself, and nobody before others.

The view looks back three days, so that nights after the late one could see its row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from types import ModuleType

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.lake import tables
from jobs.lake.knowledge import Knowledge
from jobs.lake.publications import Origin
from jobs.stages import features
from jobs.stages.transform import transform
from jobs.transforms.columns import scoring_moment
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.features import Feature, FeatureView
from pipelines.run import Run
from pipelines.spec import Table
from pipelines.stages import stage
from tests.jobs.toy import TOY

WINDOW_DAYS = 3
SUMS = Table(
    name="sums",
    made_by="transform",
    reads=("readings",),
    window_days=WINDOW_DAYS,
    key=("id",),
)
RECENT = FeatureView(
    name="recent",
    table="sums",
    keys={"id": "id"},
    features=(Feature(name="total"),),
    max_age_hours=24 * WINDOW_DAYS,
    past_days=WINDOW_DAYS,
)
PIPELINE = replace(
    TOY,
    derived=(SUMS,),
    views=(RECENT,),
    training=replace(TOY.training, numeric=("total",)),
)
OLD, NEW, GONE = 1, 2, 3
"""A sensor of every day, one that was read on the late fourth alone, and one on the first two."""
Amounts = dict[int, list[int]]
"""Day of January -> ids that were read; a reading of the day d is 10 to the power of d."""


def sums(readings: DataFrame, days: Days) -> DataFrame:
    """Of each night and id the amounts of three days."""
    until = F.date_add("landed_date", WINDOW_DAYS - 1)
    counted_on = F.explode(F.sequence("landed_date", until))
    each = readings.select(counted_on.alias("night"), "id", "amount")
    first, last = F.lit(days.first), F.lit(days.last)
    inside = each.where(F.col("night").between(first, last))
    totals = inside.groupBy("night", "id").agg(F.sum("amount").alias("total"))
    named = totals.withColumnRenamed("night", "landed_date")
    return named.withColumn("event_timestamp", scoring_moment(TOY.timezone))


@pytest.fixture
def module() -> Iterator[None]:
    """As `jobs/transforms/toy.py` would be."""
    made = ModuleType("jobs.transforms.toy")
    made.sums = sums  # type: ignore[attr-defined]
    sys.modules[made.__name__] = made
    yield
    del sys.modules[made.__name__]


def run_of(environment: Environment, name: str, first: int, last: int) -> Run:
    days = Days(date(2013, 1, first), date(2013, 1, last))
    return Run(pipeline=PIPELINE, days=days, environment=environment).at(stage(name))


def read_on(
    spark: SparkSession, environment: Environment, amounts: Amounts, known: int | None = None
) -> None:
    """Publish readings, known from their own days or from the one that is given."""
    run = run_of(environment, "ingest", min(amounts), max(amounts))
    rows = []
    for day, ids in amounts.items():
        rows += [(one, 10.0**day, date(2013, 1, day)) for one in ids]
    frame = spark.createDataFrame(rows, "id int, amount double, landed_date date")
    late = dict.fromkeys(run.days, date(2013, 1, known)) if known else {}
    days = [date(2013, 1, day) for day in amounts]
    tables.stage_rows(run, "readings", frame, days, Origin(known=late))
    tables.publish(run, "readings")


def sum_up(environment: Environment, first: int, last: int) -> None:
    run = run_of(environment, "transform", first, last)
    transform(run)
    tables.publish(run, "sums")


def seen_on(
    spark: SparkSession, environment: Environment, first: int, last: int
) -> dict[tuple[int, int], float | None]:
    """Day and id -> the feature, as of the end of that day."""
    run = run_of(environment, "features", first, last)
    asked = [(day, one) for day in run.days for one in (OLD, NEW, GONE)]
    rows = spark.createDataFrame(asked, "landed_date date, id int")
    entities = rows.withColumn("event_timestamp", scoring_moment(TOY.timezone))
    found = features._joined(run, entities, run.days, Knowledge(run)).collect()
    return {(row["landed_date"].day, row["id"]): row["total"] for row in found}


@pytest.mark.usefixtures("module")
def test_a_view_that_looks_back_over_a_late_night_sees_it_when_it_was_known(
    spark: SparkSession, environment: Environment
) -> None:
    both = [OLD, GONE]
    read_on(spark, environment, {1: both, 2: both})
    read_on(spark, environment, {3: [OLD]})
    read_on(spark, environment, {5: [OLD]})
    sum_up(environment, 1, 3)
    sum_up(environment, 5, 5)
    read_on(spark, environment, {4: [OLD, NEW]}, known=6)
    read_on(spark, environment, {6: [OLD]})
    sum_up(environment, 4, 4)
    sum_up(environment, 6, 6)
    expected = {
        # The late night sees its own row, of which its own readings came too late.
        (4, OLD): 1_100.0,
        (4, NEW): None,
        (4, GONE): 100.0,
        # The next one sees none of it: of the sensor that is gone it sees the row of the third.
        (5, OLD): 101_000.0,
        (5, NEW): None,
        (5, GONE): 110.0,
        # By then it is known.
        (6, OLD): 1_110_000.0,
        (6, NEW): 10_000.0,
        (6, GONE): 100.0,
    }
    assert seen_on(spark, environment, 4, 6) == expected
    night_by_night = {}
    for day in (4, 5, 6):
        night_by_night |= seen_on(spark, environment, day, day)
    assert night_by_night == expected
