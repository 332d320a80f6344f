"""The point-in-time join against a naive oracle, and each promise on a few rows made by hand."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import (
    BatchFeatureView,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    RepoConfig,
)
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.types import Int64, String
from feast.value_type import ValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.asof import AsOfOfflineStore
from pipelines.errors import UsageError
from tests.conftest import SWEEP_EXAMPLES

START = datetime(2013, 3, 10, 6, 58, tzinfo=UTC)
"""Two minutes before New York's clocks skip an hour."""
TTL_MINUTES = 3
_FACTS = "world int, place string, event timestamp, known timestamp, value long, note string"
_ROWS = "world int, place string, event_timestamp timestamp"
_SETTINGS = {
    "project": "tests",
    "provider": "local",
    "online_store": None,
    "entity_key_serialization_version": 3,
}


@dataclass(frozen=True, kw_only=True)
class Fact:
    place: str | None
    event: int | None
    known: int | None
    value: int | None


@dataclass(frozen=True, kw_only=True)
class World:
    """Facts and questions that share no key with another world.

    Many of them are answered by one Spark job.
    """

    facts: list[Fact]
    asked: list[tuple[str | None, int]]


MINUTE = st.integers(0, 6)
PLACE = st.sampled_from(["a", "ab", None])
FACT = st.builds(
    Fact,
    place=PLACE,
    event=st.none() | MINUTE,
    known=st.none() | MINUTE,
    value=st.none() | st.integers(0, 2),
)
WORLD = st.builds(
    World,
    facts=st.lists(FACT, max_size=8),
    asked=st.lists(st.tuples(PLACE, MINUTE), min_size=1, max_size=5),
)


def at(minute: int | None) -> datetime | None:
    return None if minute is None else START + timedelta(minutes=minute)


def oracle(
    facts: list[Fact], place: str | None, moment: int, *, bitemporal: bool, ttl: int | None
) -> int | None:
    """The value that one question must be answered with, by looking at every fact."""
    mine = [
        f
        for f in facts
        if place is not None and f.place == place and f.event is not None and f.event <= moment
    ]
    if bitemporal:
        mine = [f for f in mine if f.known is not None and f.known <= moment]
    order = [
        (f.event, f.known if bitemporal else 0, f.value is not None, f.value or 0) for f in mine
    ]
    if not order or (ttl is not None and max(order)[0] < moment - ttl):  # type: ignore[operator]
        return None
    _, _, known, value = max(order)
    return value if known else None


def view(
    name: str,
    source: SparkSource,
    entities: list[Entity],
    ttl: timedelta | None = None,
    *columns: str,
) -> FeatureView:
    keys = [Field(name=entity.join_key, dtype=String) for entity in entities]
    features = [Field(name=column, dtype=Int64) for column in columns or ("value",)]
    return FeatureView(
        name=name,
        entities=entities,
        schema=[*keys, *features],
        source=source,
        ttl=ttl or timedelta(0),
        online=False,
    )


def source(name: str, **more: Any) -> SparkSource:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SparkSource(name=name, timestamp_field="event", **more)


WORLD_KEY, PLACE_KEY = (
    Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in ("world", "place")
)


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., FeatureStore]:
    """Builds a store of these views whose offline store is ours."""

    def build(*views: FeatureView) -> FeatureStore:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            offline = {"type": "features.asof.AsOfOfflineStore"}
            made = FeatureStore(
                config=RepoConfig(
                    registry=str(tmp_path / "registry.db"), offline_store=offline, **_SETTINGS
                )
            )
            made.apply([WORLD_KEY, PLACE_KEY, *views])
        return made

    return build


@pytest.fixture
def both_views(store: Callable[..., FeatureStore]) -> FeatureStore:
    """One view that knows when a fact became known and forgets it, one that does neither."""
    keys = [WORLD_KEY, PLACE_KEY]
    known = source("known_facts", table="facts", created_timestamp_column="known")
    plain = source("plain_facts", table="facts")
    return store(
        view("known", known, keys, timedelta(minutes=TTL_MINUTES)), view("plain", plain, keys)
    )


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def session(spark: SparkSession, request: pytest.FixtureRequest) -> Iterator[SparkSession]:
    """The shared session in some time zone."""
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", request.param)
    yield spark
    spark.conf.set("spark.sql.session.timeZone", before)


def joined(
    store: FeatureStore, rows: DataFrame, *features: str, full_feature_names: bool = True
) -> DataFrame:
    found: DataFrame = store.get_historical_features(
        rows, list(features), full_feature_names=full_feature_names
    ).to_spark_df()
    return found


def minutes(found: DataFrame) -> list[tuple[Any, ...]]:
    """The rows with their times as minutes after START."""
    minute = (F.unix_micros("event_timestamp") - int(START.timestamp()) * 1_000_000) / 60_000_000
    return [tuple(row) for row in found.withColumn("event_timestamp", minute.cast("int")).collect()]


@pytest.mark.soak
@settings(max_examples=SWEEP_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds=st.lists(WORLD, min_size=60, max_size=120))
def test_every_question_gets_what_a_search_through_all_facts_finds(
    session: SparkSession, both_views: FeatureStore, worlds: list[World]
) -> None:
    facts = [
        (i, f.place, at(f.event), at(f.known), f.value, "")
        for i, world in enumerate(worlds)
        for f in world.facts
    ]
    asked = [(i, place, minute) for i, world in enumerate(worlds) for place, minute in world.asked]
    session.createDataFrame(facts, _FACTS).createOrReplaceTempView("facts")
    rows = session.createDataFrame([(i, place, at(minute)) for i, place, minute in asked], _ROWS)
    expected = [
        (
            *(i, place, minute),
            oracle(worlds[i].facts, place, minute, bitemporal=True, ttl=TTL_MINUTES),
            oracle(worlds[i].facts, place, minute, bitemporal=False, ttl=None),
        )
        for i, place, minute in asked
    ]
    assert Counter(minutes(joined(both_views, rows, "known:value", "plain:value"))) == Counter(
        expected
    )


def ask(
    spark: SparkSession,
    store: FeatureStore,
    facts: list[tuple[Any, ...]],
    asked: list[tuple[Any, ...]],
    *features: str,
) -> list[Any]:
    spark.createDataFrame(
        [(w, p, at(e), at(k), v, "") for w, p, e, k, v in facts], _FACTS
    ).createOrReplaceTempView("facts")
    rows = spark.createDataFrame([(w, p, at(minute)) for w, p, minute in asked], _ROWS)
    return sorted(minutes(joined(store, rows, *features)), key=str)


def test_a_fact_that_became_known_later_is_not_seen_before(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts = [(1, "a", 0, 0, 10), (1, "a", 1, 4, 11)]
    assert ask(spark, both_views, facts, [(1, "a", 3), (1, "a", 4)], "known:value") == [
        (1, "a", 3, 10),
        (1, "a", 4, 11),
    ]


def test_a_late_fact_about_an_earlier_time_does_not_supersede_a_later_one(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts = [(1, "a", 2, 2, 10), (1, "a", 1, 3, 11)]
    assert ask(spark, both_views, facts, [(1, "a", 4)], "known:value") == [(1, "a", 4, 10)]


def test_a_correction_supersedes_once_it_is_known(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts = [(1, "a", 1, 1, 10), (1, "a", 1, 3, 5)]
    assert ask(spark, both_views, facts, [(1, "a", 2), (1, "a", 3)], "known:value") == [
        (1, "a", 2, 10),
        (1, "a", 3, 5),
    ]


def test_a_fact_exactly_as_old_as_the_time_to_live_still_counts(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    asked = [(1, "a", TTL_MINUTES), (1, "a", TTL_MINUTES + 1)]
    assert ask(spark, both_views, [(1, "a", 0, 0, 7)], asked, "known:value") == [
        (1, "a", 3, 7),
        (1, "a", 4, None),
    ]


def test_equal_rows_stay_as_many_as_they_are(spark: SparkSession, both_views: FeatureStore) -> None:
    facts = [(1, "a", 0, 0, 7), (1, "a", 0, 0, 7)]
    assert (
        ask(spark, both_views, facts, [(1, "a", 1)] * 3, "known:value", "plain:value")
        == [(1, "a", 1, 7, 7)] * 3
    )


def test_keys_of_two_columns_are_not_run_together(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    assert ask(
        spark, both_views, [(1, "2a", 0, 0, 7)], [(12, "a", 1), (1, "2a", 1)], "plain:value"
    ) == [
        (1, "2a", 1, 7),
        (12, "a", 1, None),
    ]


def test_no_entity_rows_give_no_rows_with_all_columns(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    spark.createDataFrame([(1, "a", at(0), at(0), 7, "")], _FACTS).createOrReplaceTempView("facts")
    found = joined(both_views, spark.createDataFrame([], _ROWS), "known:value", "plain:value")
    assert found.columns == ["world", "place", "event_timestamp", "known__value", "plain__value"]
    assert found.collect() == []


def test_an_alias_joins_the_same_view_by_another_key(
    spark: SparkSession, store: Callable[..., FeatureStore]
) -> None:
    places = view("places", source("places", table="facts"), [PLACE_KEY])
    spark.createDataFrame(
        [(1, "a", at(0), at(0), 7, ""), (1, "b", at(1), at(1), 8, "")], _FACTS
    ).createOrReplaceTempView("facts")
    rows = spark.createDataFrame(
        [("a", "b", at(2)), ("b", None, at(0))],
        "home string, away string, event_timestamp timestamp",
    )
    features = [
        places.with_name(name).with_join_key_map({"place": name}) for name in ("home", "away")
    ]
    made = store(places)
    made.apply([FeatureService(name="game", features=features)])
    found = made.get_historical_features(
        rows, made.get_feature_service("game"), full_feature_names=True
    ).to_spark_df()
    assert sorted(minutes(found), key=str) == [("a", "b", 2, 7, 8), ("b", None, 0, None, None)]


def test_pandas_rows_are_taken_too(spark: SparkSession, both_views: FeatureStore) -> None:
    spark.createDataFrame([(1, "a", at(0), at(0), 7, "")], _FACTS).createOrReplaceTempView("facts")
    rows = pd.DataFrame({"world": [1], "place": ["a"], "event_timestamp": pd.to_datetime([at(1)])})
    found = both_views.get_historical_features(rows, ["known:value"]).to_df()
    assert found[["world", "place", "value"]].to_dict("records") == [
        {"world": 1, "place": "a", "value": 7}
    ]


def test_only_the_partitions_that_can_matter_are_read(
    spark: SparkSession, store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    lake, days = tmp_path / "facts", [date(2013, 3, 1) + timedelta(days=i) for i in range(20)]
    facts = [("a", datetime(d.year, d.month, d.day, 23, tzinfo=UTC), d.day, d) for d in days]
    written = spark.createDataFrame(
        facts, "place string, event timestamp, value long, landed_date date"
    )
    written.repartition("landed_date").write.format("delta").partitionBy("landed_date").save(
        str(lake)
    )
    for partition in lake.glob("landed_date=*"):
        if not "2013-03-08" <= partition.name.removeprefix("landed_date=") <= "2013-03-11":
            for file in partition.iterdir():
                file.unlink()  # to read it would fail
    daily = source(
        "daily", query=f"SELECT * FROM delta.`{lake}`", date_partition_column="landed_date"
    )
    rows = spark.createDataFrame(
        [("a", datetime(2013, 3, 10, 1, tzinfo=UTC))], "place string, event_timestamp timestamp"
    )
    found = joined(
        store(view("daily", daily, [PLACE_KEY], timedelta(hours=22))), rows, "daily:value"
    ).collect()
    assert [row["daily__value"] for row in found] == [9]


def test_a_missing_join_key_is_named(spark: SparkSession, both_views: FeatureStore) -> None:
    spark.createDataFrame([], _FACTS).createOrReplaceTempView("facts")
    with pytest.raises(UsageError, match=r"lack \['place'\], join keys of feature view 'known'"):
        joined(
            both_views,
            spark.createDataFrame([(1, at(0))], "world int, event_timestamp timestamp"),
            "known:value",
        )


def test_a_feature_that_is_a_column_already_is_refused(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    spark.createDataFrame([], _FACTS).createOrReplaceTempView("facts")
    rows = spark.createDataFrame([(1, "a", at(0), 1)], f"{_ROWS}, value int")
    with pytest.raises(UsageError, match=r"\['value'\] of feature view 'known' are already there"):
        joined(both_views, rows, "known:value", full_feature_names=False)


def test_rows_without_a_time_are_refused(spark: SparkSession, both_views: FeatureStore) -> None:
    with pytest.raises(UsageError, match="need their time in a column 'event_timestamp'"):
        joined(
            both_views, spark.createDataFrame([(1, "a")], "world int, place string"), "known:value"
        )


def test_a_range_of_dates_is_refused(both_views: FeatureStore) -> None:
    with pytest.raises(UsageError, match="needs entity rows"):
        both_views.get_historical_features(
            features=["known:value"], start_date=START, end_date=START
        )


def test_a_batch_feature_view_is_refused(spark: SparkSession) -> None:
    transformed = BatchFeatureView(
        name="b",
        entities=[PLACE_KEY],
        source=source("s", table="facts"),
        schema=[Field(name="x", dtype=Int64)],
    )
    with pytest.raises(UsageError, match="'b' must be a plain FeatureView"):
        AsOfOfflineStore.get_historical_features(
            None, [transformed], [], spark.range(1), None, "tests"
        )
