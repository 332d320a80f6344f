"""No row is scored at a moment at which more is known than its own night could know."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from types import ModuleType

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.lake import tables
from jobs.lake.knowledge import Knowledge
from jobs.lake.publications import Origin
from jobs.stages import features
from jobs.stages.moments import refusing_late_moments
from jobs.stages.transform import transform
from jobs.transforms.columns import scoring_moment
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.features import Feature, FeatureView
from pipelines.run import Run
from pipelines.spec import Table
from pipelines.stages import stage
from tests.jobs.toy import TOY

STATE = Table(
    name="state",
    made_by="transform",
    reads=("readings",),
    key=("id",),
)
LAST = FeatureView(
    name="last",
    table="readings",
    keys={"id": "id"},
    event="CAST(taken AS TIMESTAMP)",
    features=(Feature(name="last_amount", column="amount"),),
)
PIPELINE = replace(
    TOY,
    derived=(STATE,),
    entity_table="state",
    views=(LAST,),
    training=replace(TOY.training, numeric=("last_amount",)),
)
DAYS = Days(date(2013, 1, 1), date(2013, 1, 3))
TOO_LATE = (
    r"event_timestamp is 2013-01-0[3-6] 05:00:00 \(UTC\) in a row whose landed_date is "
    r"2013-01-0[1-3], but it must lie before the end of the day after that"
)


def state(readings: DataFrame, days: Days) -> DataFrame:
    """Each sensor, scored at the end of the day that is foretold."""
    about = F.date_add("landed_date", 1).alias("reading_date")
    told = readings.select("landed_date", about, "id")
    late = scoring_moment(TOY.timezone, "reading_date")
    return told.withColumn("event_timestamp", late)


def labels(readings: DataFrame) -> DataFrame:
    """High from 10 on."""
    high = (F.col("amount") >= 10).cast("int").alias("high")
    return readings.select("landed_date", F.col("taken").alias("reading_date"), "id", high)


@pytest.fixture(autouse=True)
def module() -> Iterator[None]:
    """As `jobs/transforms/toy.py` would be."""
    made = ModuleType("jobs.transforms.toy")
    made.state, made.labels = state, labels  # type: ignore[attr-defined]
    sys.modules[made.__name__] = made
    yield
    del sys.modules[made.__name__]


def _run(environment: Environment, name: str, days: Days = DAYS) -> Run:
    return Run(pipeline=PIPELINE, days=days, environment=environment).at(stage(name))


def _publish(environment: Environment, made_by: str, table: str, rows: DataFrame) -> None:
    run = _run(environment, made_by)
    tables.stage_rows(run, table, rows, origin=Origin())
    tables.publish(run, table)


def _publish_readings(spark: SparkSession, environment: Environment) -> None:
    """A reading a day, the day's number."""
    rows = [(1, day, float(day.day), day) for day in DAYS]
    frame = spark.createDataFrame(rows, "id int, taken date, amount double, landed_date date")
    _publish(environment, "ingest", "readings", frame)


def _publish_unseen(environment: Environment, change: Callable[[DataFrame], DataFrame]) -> None:
    """Rows of `state` whose moments no transform has looked at."""
    readings = tables.read(_run(environment, "transform"), "readings", DAYS)
    _publish(environment, "transform", "state", change(state(readings, DAYS)))


def _asked(spark: SparkSession, hours: str) -> DataFrame:
    """A row of each of the days, scored so many hours after the end of its night."""
    about = "date_add(landed_date, 1) AS reading_date"
    rows = spark.createDataFrame([(day, 1) for day in DAYS], "landed_date date, id int")
    moment = scoring_moment(TOY.timezone) + F.expr(f"INTERVAL '{hours}' HOUR TO SECOND")
    return rows.selectExpr("*", about).withColumn("event_timestamp", moment)


@pytest.mark.parametrize("hours", ["0:00:00", "4:00:00", "23:59:59.999999"])
def test_a_moment_before_the_end_of_the_next_day_stays(spark: SparkSession, hours: str) -> None:
    asked = _asked(spark, hours)
    assert refusing_late_moments(asked, PIPELINE).collect() == asked.collect()


@pytest.mark.parametrize("hours", ["24:00:00", "48:00:00"])
def test_a_moment_from_the_end_of_the_next_day_on_is_refused(
    spark: SparkSession, hours: str
) -> None:
    with pytest.raises(PySparkException, match=TOO_LATE):
        refusing_late_moments(_asked(spark, hours), PIPELINE).collect()


def test_a_row_without_a_moment_is_refused(spark: SparkSession) -> None:
    no_moment = F.lit(None).cast("timestamp")
    asked = _asked(spark, "0:00:00").withColumn("event_timestamp", no_moment)
    told = "event_timestamp is missing in a row whose landed_date is 2013-01-0[1-3], but it must"
    with pytest.raises(PySparkException, match=told):
        refusing_late_moments(asked, PIPELINE).collect()


@pytest.mark.parametrize("kind", ["date", "timestamp_ntz", "string"])
def test_rows_whose_moment_is_no_instant_are_refused_beside_another_column_that_is_one(
    spark: SparkSession, environment: Environment, kind: str
) -> None:
    _publish_readings(spark, environment)

    def changed(given: DataFrame) -> DataFrame:
        seen = given.withColumnRenamed("event_timestamp", "seen_at")
        return seen.withColumn("event_timestamp", F.col("seen_at").cast(kind))

    _publish_unseen(environment, changed)
    run = _run(environment, "features")
    told = f"^toy.state gave event_timestamp as {kind}, which must be a timestamp: .* in a feed"
    with pytest.raises(UsageError, match=told):
        features.features(run)
    assert not tables.is_staged(run, "training")


def test_a_transform_that_gives_a_moment_too_late_is_told_and_nothing_is_staged(
    spark: SparkSession, environment: Environment
) -> None:
    _publish_readings(spark, environment)
    run = _run(environment, "transform")
    whose = "^toy.state cannot be made as `state` of jobs/transforms/toy.py says: "
    with pytest.raises(UsageError, match=f"{whose}{TOO_LATE}"):
        transform(run)
    assert not tables.is_staged(run, "state")


def test_rows_of_an_entity_table_that_no_transform_has_looked_at_are_refused_too(
    spark: SparkSession, environment: Environment
) -> None:
    _publish_readings(spark, environment)
    _publish_unseen(environment, lambda given: given)
    run = _run(environment, "features")
    with pytest.raises(UsageError, match=f"^toy.state must give landed_date, .*: {TOO_LATE}"):
        features.features(run)
    assert not tables.is_staged(run, "training")


def test_a_night_made_anew_alone_is_refused_for_the_evening_before_and_told_from_where_to_begin(
    spark: SparkSession, environment: Environment
) -> None:
    _publish_readings(spark, environment)
    is_old = F.col("landed_date") == F.lit(DAYS.first)
    moment = F.when(is_old, F.col("event_timestamp")).otherwise(scoring_moment(TOY.timezone))
    _publish_unseen(environment, lambda given: given.withColumn("event_timestamp", moment))
    run = _run(environment, "features", Days(date(2013, 1, 2), DAYS.last))
    why = "landed_date is 2013-01-01, .* by --restate, from its first night on"
    with pytest.raises(UsageError, match=why):
        features.features(run)


def test_one_pass_gives_what_nights_give_where_the_moment_lies_in_the_morning_after(
    spark: SparkSession, environment: Environment
) -> None:
    _publish_readings(spark, environment)
    found = []
    for days in (DAYS, *(Days.of(day) for day in DAYS)):
        run = _run(environment, "features", days)
        asked = refusing_late_moments(_asked(spark, "4:00:00"), PIPELINE)
        of_days = asked.where(F.col("landed_date").between(days.first, days.last))
        rows = features._joined(run, of_days, days, Knowledge(run)).sort("landed_date")
        found.append([row["last_amount"] for row in rows.collect()])
    together, *nights = found
    assert together == [amount for night in nights for amount in night] == [1.0, 2.0, 3.0]
