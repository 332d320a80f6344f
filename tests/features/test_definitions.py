"""Feast's definitions follow from the pipeline's, and give exactly its features."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from deltalake import write_deltalake
from feast import FeatureService, FeatureView
from pyspark.sql import Row, SparkSession

from features import definitions, store
from pipelines import features as declared
from pipelines.environment import Environment
from pipelines.features import Feature, day_end
from pipelines.flights import PIPELINE, ROLLING
from pipelines.rolling import DailySum, Grain, Rolling, Statistic, rolling_views
from pipelines.spec import Pipeline, Table
from tests.jobs.toy import TOY

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


def _of_views(*views: declared.FeatureView) -> Pipeline:
    """A pipeline whose views look into a table named past."""
    past = Table(name="past", made_by="transform", key=("id",))
    training = replace(TOY.training, numeric=declared.names(views))
    return replace(TOY, derived=(past,), views=views, training=training)


def _historical(
    spark: SparkSession,
    environment: Environment,
    pipeline: Pipeline,
    facts: str,
    asked: str,
) -> Row:
    """The features of one row of the night of 10 June, as that ends: 04:00 of the 11th in UTC.

    Facts and row are said as Spark's `SELECT` says them.
    """
    landed = spark.sql(f"SELECT DATE '2013-06-10' AS landed_date, * FROM ({facts})")
    place = environment.table_path("toy.past")
    write_deltalake(place, landed.toArrow(), partition_by=["landed_date"])
    moment = "TIMESTAMP '2013-06-11 04:00:00Z' AS event_timestamp"
    row = spark.sql(f"SELECT DATE '2013-06-10' AS landed_date, {moment}, {asked}")
    (found,) = store.historical(pipeline, environment, row).collect()
    return found


def test_a_sum_over_a_window_is_whole_where_the_table_has_whole_numbers_and_no_decimals(
    spark: SparkSession, environment: Environment
) -> None:
    rolling = Rolling(
        sums=(
            DailySum(name="n", sql="count(1)"),
            DailySum(name="items", sql="sum(items)"),
            DailySum(name="paid", sql="sum(CAST(amount AS DECIMAL(9, 2)))"),
        ),
        statistics=(
            Statistic(name="n", amount="n"),
            Statistic(name="items", amount="items"),
            Statistic(name="paid", amount="paid", least=0),
        ),
        grains=(
            Grain(
                name="shop",
                columns=("id",),
                windows=(1,),
                statistics=("n", "items", "paid"),
            ),
        ),
    )
    views = rolling_views(rolling, table="past", max_age_hours=22)
    facts = """
        SELECT 'shop' AS grain, '1' AS key, TIMESTAMP '2013-06-11 04:00:00Z' AS event_timestamp,
            3L AS n_1, 7L AS items_1, CAST(12.75 AS DECIMAL(19, 2)) AS paid_1
    """
    pipeline = _of_views(*views)
    known = _historical(spark, environment, pipeline, facts, "'1' AS shop_key")
    found = [known[f"shop_{name}_1"] for name in ("n", "items", "paid")]
    assert found == [3, 7, 12.75]
    assert list(map(type, found)) == [int, int, float]


def test_a_sum_of_decimals_that_nobody_knows_is_zero(
    spark: SparkSession, environment: Environment
) -> None:
    paid = Feature(name="paid", column="paid_1", is_whole=None, when_unknown=0)
    view = declared.FeatureView(
        name="shop",
        table="past",
        keys={"key": "key"},
        features=(paid,),
    )
    facts = """
        SELECT '1' AS key, TIMESTAMP '2013-06-11 04:00:00Z' AS event_timestamp,
            CAST(12.75 AS DECIMAL(19, 2)) AS paid_1
    """
    known = _historical(spark, environment, _of_views(view), facts, "'2' AS key")
    assert (known["paid"], type(known["paid"])) == (0, float)


def test_the_times_of_a_fact_and_its_day_may_be_features(
    spark: SparkSession, environment: Environment
) -> None:
    since = "(unix_seconds(event_timestamp) - unix_seconds(value)) / 3600"
    view = declared.FeatureView(
        name="evening",
        table="past",
        keys={"id": "id"},
        features=(
            Feature(name="hours_since", column="event_timestamp", finish=since),
            Feature(name="hours_made", column="created_timestamp", finish=since),
            Feature(name="days", column="landed_date", finish="datediff(landed_date, value) + 1"),
        ),
    )
    facts = """
        SELECT 1 AS id, TIMESTAMP '2013-06-10 20:00:00Z' AS event_timestamp,
            TIMESTAMP '2013-06-10 22:00:00Z' AS created_timestamp
    """
    known = _historical(spark, environment, _of_views(view), facts, "1 AS id")
    assert (known["hours_since"], known["hours_made"], known["days"]) == (8, 6, 1)


def test_a_key_may_be_a_feature(spark: SparkSession, environment: Environment) -> None:
    view = declared.FeatureView(
        name="evening",
        table="past",
        keys={"hour": "hour_of_day"},
        features=(Feature(name="last_hour", column="hour"), Feature(name="heat")),
    )
    facts = """
        SELECT 7 AS hour, 61.5D AS heat, TIMESTAMP '2013-06-10 11:00:00Z' AS event_timestamp
    """
    known = _historical(spark, environment, _of_views(view), facts, "7 AS hour_of_day")
    assert (known["last_hour"], known["heat"]) == (7, 61.5)


def test_two_keys_may_be_looked_up_by_one_column_beside_another_view(
    spark: SparkSession, environment: Environment
) -> None:
    within = declared.FeatureView(
        name="within",
        table="past",
        keys={"origin": "airport", "dest": "airport"},
        features=(Feature(name="flights_within", column="flights"),),
    )
    of_day = declared.FeatureView(
        name="of_day",
        table="past",
        keys={"dest": "airport", "id": "id"},
        features=(Feature(name="flights_of_day", column="flights"),),
    )
    facts = """
        SELECT *, TIMESTAMP '2013-06-10 11:00:00Z' AS event_timestamp
        FROM VALUES (1, 'JFK', 'JFK', 4), (2, 'JFK', 'LGA', 5), (3, 'LGA', 'JFK', 6)
            AS (id, origin, dest, flights)
    """
    pipeline = _of_views(within, of_day)
    known = _historical(spark, environment, pipeline, facts, "'JFK' AS airport, 3 AS id")
    assert (known["flights_within"], known["flights_of_day"]) == (4, 6)
