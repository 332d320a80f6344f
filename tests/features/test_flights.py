"""The definitions of flights give exactly the features that the pipeline declares."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

from feast import FeatureService, FeatureView
from pyspark.sql import SparkSession

from features import flights
from features.sources import day_end
from pipelines.environment import Environment
from pipelines.flights import PIPELINE

ENVIRONMENT = Environment.read(
    {"NIGHTSHIFT_HOME": "/home-of-tests", "NIGHTSHIFT_LAKE": "s3a://bucket/lake"}
)


def _service() -> FeatureService:
    (found,) = [one for one in flights.definitions(ENVIRONMENT) if isinstance(one, FeatureService)]
    return found


def _joined() -> list[str]:
    return [
        f"{view.name_to_use()}__{feature.name}"
        for view in _service().feature_view_projections
        for feature in view.features
    ]


def test_the_service_gives_every_declared_numeric_feature_and_no_other(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [], "flight_date date, " + ", ".join(f"{name} double" for name in _joined())
    )
    finished = flights.finish(rows)
    assert sorted(finished.drop("flight_date").columns) == sorted(PIPELINE.training.numeric)
    assert {kind for name, kind in finished.dtypes if name != "flight_date"} == {"bigint", "double"}


def test_an_unknown_plane_and_an_unseen_key_are_zeros_where_counted_and_nulls_elsewhere(
    spark: SparkSession,
) -> None:
    schema = "flight_date date, " + ", ".join(f"{name} double" for name in _joined())
    (row,) = flights.finish(
        spark.createDataFrame([(date(2013, 1, 1), *[None] * len(_joined()))], schema)
    ).collect()
    zeros = sorted(name for name, value in row.asDict().items() if value == 0)
    counts = [f"{grain}_n_{w}" for grain in ("co", "dest", "route", "tail", "oh") for w in (7, 28)]
    assert zeros == sorted([*counts, "plane_known"])
    assert all(
        value is None for name, value in row.asDict().items() if name not in {*zeros, "flight_date"}
    )


def test_the_planes_age_is_counted_to_the_year_of_the_flight(spark: SparkSession) -> None:
    schema = "flight_date date, " + ", ".join(f"{name} double" for name in _joined())
    values = [1999.0 if name == "plane__year" else None for name in _joined()]
    (row,) = flights.finish(spark.createDataFrame([(date(2014, 1, 1), *values)], schema)).collect()
    assert row["plane_age"] == 15


def test_facts_of_the_day_before_the_scoring_day_are_too_old_even_when_the_clocks_change() -> None:
    daily = [
        one
        for one in flights.definitions(ENVIRONMENT)
        if isinstance(one, FeatureView) and one.name in {"rolling", "weather_daily"}
    ]
    assert [view.ttl.total_seconds() < 23 * 3600 for view in daily] == [True, True]


def test_a_lake_at_an_address_is_read_there() -> None:
    (rolling,) = [
        one
        for one in flights.definitions(ENVIRONMENT)
        if isinstance(one, FeatureView) and one.name == "rolling"
    ]
    assert "FROM delta.`s3a://bucket/lake/flights/rolling`" in rolling.batch_source.query


def test_a_local_day_ends_at_local_midnight(spark: SparkSession) -> None:
    days = spark.createDataFrame(
        [(date(2013, 3, 9),), (date(2013, 3, 10),), (date(2013, 11, 3),)], "day date"
    )
    found = days.selectExpr(f"unix_seconds({day_end('day', PIPELINE.timezone)}) AS s").collect()
    expected = [
        datetime(2013, 3, 10, 5, tzinfo=UTC),
        datetime(2013, 3, 11, 4, tzinfo=UTC),
        datetime(2013, 11, 4, 5, tzinfo=UTC),
    ]
    assert [datetime.fromtimestamp(row["s"], UTC) for row in found] == expected


def test_feasts_own_command_finds_a_store_file() -> None:
    import yaml  # type: ignore[import-untyped]

    settings = yaml.safe_load(Path(flights.__file__).with_name("feature_store.yaml").read_text())
    assert settings["offline_store"]["type"] == "features.asof.AsOfOfflineStore"
    assert settings["project"] == PIPELINE.name
