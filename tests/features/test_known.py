"""What a night may see, in zones on both sides of UTC, when files of later days are there too."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from features import store
from pipelines.environment import Environment
from pipelines.features import Feature, FeatureView, day_end, known_since
from pipelines.feeds import Column
from pipelines.spec import Pipeline
from tests.jobs.toy import READINGS, SENSORS, TOY

NIGHT = date(2013, 6, 10)


def _of_readings(zone: str, event: str) -> Pipeline:
    """A pipeline with the last reading as its one feature."""
    last = Feature(name="last_amount", column="amount", doc="")
    view = FeatureView(
        name="last",
        table="readings",
        keys={"id": "id"},
        features=(last,),
        event=event,
        max_age_hours=48,
    )
    numeric = ("last_amount",)
    training = replace(TOY.training, numeric=numeric)
    taken_at = Column(name="taken_at", type="timestamp")
    feed = replace(READINGS, columns=(*READINGS.columns, taken_at))
    of_zone = replace(TOY, timezone=zone, feeds=(feed, SENSORS))
    return replace(of_zone, views=(view,), training=training)


def _seen(
    pipeline: Pipeline,
    environment: Environment,
    spark: SparkSession,
    *landed: date,
) -> object:
    """The feature of NIGHT, where readings of these days have landed, each with its day's number.

    The instant of a reading is the beginning of its local day.
    """
    zone = ZoneInfo(pipeline.timezone)
    begins = [datetime.combine(day, time(), zone).astimezone(UTC) for day in landed]
    readings = {
        "landed_date": pa.array(landed),
        "id": pa.array([1] * len(landed), pa.int32()),
        "amount": pa.array([float(day.day) for day in landed]),
        "taken_at": pa.array(begins, pa.timestamp("us", "UTC")),
    }
    where = environment.table_path("toy.readings")
    write_deltalake(where, pa.table(readings), partition_by=["landed_date"])
    moment = F.expr(day_end("landed_date", pipeline.timezone))
    rows = spark.createDataFrame([(NIGHT, 1)], "landed_date date, id int")
    asked = rows.withColumn("event_timestamp", moment)
    (found,) = store.historical(pipeline, environment, asked).collect()
    return found["last_amount"]


@pytest.mark.parametrize("event", ["landed_date", "taken_at"])
@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Pago_Pago", "Pacific/Auckland"])
def test_no_fact_of_a_later_days_file_is_seen_also_when_all_files_are_there(
    spark: SparkSession,
    environment: Environment,
    zone: str,
    event: str,
) -> None:
    pipeline = _of_readings(zone, event)
    days = [NIGHT - timedelta(days=1), NIGHT, NIGHT + timedelta(days=1)]
    assert _seen(pipeline, environment, spark, *days) == NIGHT.day


def test_a_fact_that_lands_on_the_day_before_it_holds_is_found_in_every_zone(
    spark: SparkSession, environment: Environment
) -> None:
    # Of a night that ends at 11:00 UTC: of the last hour of the 10th, in a file of the 9th.
    pipeline = _of_readings("Pacific/Pago_Pago", "taken_at + INTERVAL 47 HOURS")
    view = replace(pipeline.views[0], max_age_hours=6)
    pipeline = replace(pipeline, views=(view,))
    assert _seen(pipeline, environment, spark, NIGHT - timedelta(days=1)) == NIGHT.day - 1


def test_a_view_that_says_when_a_fact_is_known_is_taken_at_its_word() -> None:
    zone = "Asia/Kolkata"
    landed = day_end("landed_date", zone)
    (view,) = _of_readings(zone, "taken_at").views
    assert known_since(view, zone) == landed
    assert known_since(replace(view, event=landed), zone) is None
    assert known_since(replace(view, created="taken_at"), zone) == "taken_at"
