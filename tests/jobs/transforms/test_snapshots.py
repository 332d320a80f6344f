"""Which snapshot of a reference table a day sees."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from jobs.transforms.snapshots import latest_by_day
from pipelines.days import Days


def test_each_day_sees_the_latest_snapshot_landed_by_then_and_no_row_of_another(
    spark: SparkSession,
) -> None:
    landed = [
        ("2013-01-02", "a", 1),
        ("2013-01-02", "b", 1),
        ("2013-01-04", "a", 2),
        ("2013-01-09", "a", 3),
    ]
    values = [(date.fromisoformat(day), key, value) for day, key, value in landed]
    snapshots = spark.createDataFrame(values, "landed_date date, key string, value int")
    days = Days(date(2013, 1, 1), date(2013, 1, 5))
    latest = latest_by_day(snapshots, days).select("landed_date", "key", "value")
    rows = latest.orderBy("landed_date", "key").collect()
    assert [(str(day), key, value) for day, key, value in rows] == [
        ("2013-01-02", "a", 1),
        ("2013-01-02", "b", 1),
        ("2013-01-03", "a", 1),
        ("2013-01-03", "b", 1),
        ("2013-01-04", "a", 2),
        ("2013-01-05", "a", 2),
    ]


def test_a_reference_table_may_have_a_column_day(spark: SparkSession) -> None:
    day = date(2013, 1, 2)
    snapshots = spark.createDataFrame([(day, "monday")], "landed_date date, day string")
    latest = latest_by_day(snapshots, Days.of(day))
    assert latest.select("landed_date", "day").collect() == [(day, "monday")]
