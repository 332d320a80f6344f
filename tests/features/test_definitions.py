"""Feast's definitions follow from the pipeline's, and give exactly its features."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from feast import FeatureService, FeatureView
from pyspark.sql import Row, SparkSession

from features import definitions
from pipelines.environment import Environment
from pipelines.features import day_end
from pipelines.flights import PIPELINE, ROLLING

ENVIRONMENT = Environment.read(
    {"NIGHTSHIFT_HOME": "/home-of-tests", "NIGHTSHIFT_LAKE": "s3://bucket/lake"}
)


def _views() -> dict[str, FeatureView]:
    made = definitions.definitions(PIPELINE, ENVIRONMENT)
    return {one.name: one for one in made if isinstance(one, FeatureView)}


def _joined() -> list[str]:
    """What Feast calls each column that it looks up."""
    made = definitions.definitions(PIPELINE, ENVIRONMENT)
    (service,) = [one for one in made if isinstance(one, FeatureService)]
    names = []
    for view in service.feature_view_projections:
        names += [f"{view.name_to_use()}__{feature.name}" for feature in view.features]
    return names


def _joined_schema() -> str:
    columns = [f"{name} double" for name in _joined()]
    return ", ".join(["flight_date date", *columns])


def _finished(spark: SparkSession, flight_date: date, **known: float) -> Row:
    """The features of one joined row on which only these values are known."""
    values: list[Any] = [known.get(name) for name in _joined()]
    rows = spark.createDataFrame([(flight_date, *values)], _joined_schema())
    (row,) = definitions.finished(rows, PIPELINE).collect()
    return row


def test_every_declared_feature_is_given_and_no_other(spark: SparkSession) -> None:
    row = _finished(spark, date(2013, 1, 1)).asDict()
    assert sorted(row) == sorted([*PIPELINE.training.numeric, "flight_date"])


def test_features_have_the_types_that_they_are_declared_with(spark: SparkSession) -> None:
    joined = spark.createDataFrame([], _joined_schema())
    types = dict(definitions.finished(joined, PIPELINE).dtypes)
    whole = {feature.name for feature in PIPELINE.features if feature.is_whole}
    assert {name for name, kind in types.items() if kind == "bigint"} == whole
    assert {name for name, kind in types.items() if kind == "double"} == (
        set(PIPELINE.training.numeric) - whole
    )


def test_what_is_unknown_is_zero_where_it_is_counted_and_null_elsewhere(
    spark: SparkSession,
) -> None:
    row = _finished(spark, date(2013, 1, 1)).asDict()
    counted = {"plane_known"}
    for name in ("co", "dest", "oh", "route", "tail", "coh", "flight"):
        counted |= {f"{name}_n_7", f"{name}_n_28"}
    counted |= {f"{name}_n_1" for name in ("co", "dest", "oh")}
    others = set(row) - counted - {"flight_date"}
    assert {name for name, value in row.items() if value == 0} == counted
    assert {row[name] for name in others} == {None}


def test_the_planes_age_is_counted_to_the_year_of_the_flight(spark: SparkSession) -> None:
    assert _finished(spark, date(2014, 1, 1), plane__year=1999.0)["plane_age"] == 15


def test_entity_rows_get_the_constant_keys_of_every_view(spark: SparkSession) -> None:
    rows = definitions.with_constants(spark.range(1), PIPELINE)
    constants = {f"__{grain.name}_grain" for grain in ROLLING.grains}
    assert set(rows.columns) == {"id", *constants}


def test_facts_of_the_day_before_the_scoring_day_are_too_old_even_when_the_clocks_change() -> None:
    daily = [_views()[name] for name in ("co", "ap", "weather_daily", "departure")]
    assert [view.ttl.total_seconds() < 23 * 3600 for view in daily] == [True] * 4


def test_views_over_one_table_ask_it_the_same_so_that_one_pass_answers_them() -> None:
    grains = {_views()[grain.name].batch_source.query for grain in ROLLING.grains}
    assert len(grains) == 1


def test_a_lake_at_an_address_is_read_there() -> None:
    assert "FROM delta.`s3://bucket/lake/flights/rolling`" in _views()["co"].batch_source.query


def test_a_local_day_ends_at_local_midnight(spark: SparkSession) -> None:
    # The clocks change on 10 March and 3 November.
    expected = {
        date(2013, 3, 9): datetime(2013, 3, 10, 5, tzinfo=UTC),
        date(2013, 3, 10): datetime(2013, 3, 11, 4, tzinfo=UTC),
        date(2013, 11, 3): datetime(2013, 11, 4, 5, tzinfo=UTC),
    }
    days = spark.createDataFrame([(day,) for day in expected], "day date")
    end = f"unix_seconds({day_end('day', PIPELINE.timezone)}) AS seconds"
    rows = days.selectExpr("day", end).collect()
    assert {row["day"]: datetime.fromtimestamp(row["seconds"], UTC) for row in rows} == expected


def test_a_pipeline_without_views_has_its_rows_as_they_are(spark: SparkSession) -> None:
    bare = replace(PIPELINE, views=())
    assert definitions.finished(spark.range(2), bare).columns == ["id"]
    assert definitions.with_constants(spark.range(2), bare).columns == ["id"]
