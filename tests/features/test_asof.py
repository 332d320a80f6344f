"""The point-in-time join against a naive oracle, and each promise on a few rows made by hand."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
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

from features.asof import AsOfOfflineStore, _bounds_of_slices
from pipelines.errors import UsageError
from tests.conftest import SOAK, SWEEP_EXAMPLES

START = datetime(2013, 3, 10, 6, 58, tzinfo=UTC)
"""Two minutes before New York's clocks skip an hour."""
TTL_MINUTES = 3
FactRow = tuple[int, str | None, int | None, int | None, int | None]
"""World, place, minute of the event, minute since which it is known, value."""
Question = tuple[int, str | None, int]
"""World, place, minute."""
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
    """What happened at a place; times are minutes after START."""

    place: str | None
    event: int | None
    known: int | None
    value: int | None

    def in_world(self, world: int) -> FactRow:
        return world, self.place, self.event, self.known, self.value


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


def is_visible(
    fact: Fact,
    place: str | None,
    moment: int,
    *,
    bitemporal: bool,
) -> bool:
    if place is None or fact.place != place:
        return False
    times = [fact.event, fact.known] if bitemporal else [fact.event]
    return all(time is not None and time <= moment for time in times)


def precedence(fact: Fact, *, bitemporal: bool) -> tuple[int, ...]:
    """Sorts facts as they supersede each other."""
    known = fact.known if bitemporal else None
    return (
        fact.event or 0,
        known or 0,
        fact.value is not None,
        fact.value or 0,
    )


def oracle(
    facts: list[Fact],
    place: str | None,
    moment: int,
    *,
    bitemporal: bool,
    ttl: int | None,
) -> int | None:
    """The value that one question must be answered with, by looking at every fact."""
    visible = [fact for fact in facts if is_visible(fact, place, moment, bitemporal=bitemporal)]
    if not visible:
        return None
    latest = max(visible, key=lambda fact: precedence(fact, bitemporal=bitemporal))
    assert latest.event is not None
    if ttl is not None and latest.event < moment - ttl:
        return None
    return latest.value


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
        # Feast calls its Spark sources experimental, once for each.
        warnings.simplefilter("ignore")
        return SparkSource(name=name, timestamp_field="event", **more)


def entity(name: str) -> Entity:
    return Entity(name=name, join_keys=[name], value_type=ValueType.STRING)


WORLD_KEY = entity("world")
PLACE_KEY = entity("place")


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., FeatureStore]:
    """Builds a store of these views whose offline store is ours."""

    def build(*views: FeatureView) -> FeatureStore:
        with warnings.catch_warnings():
            # Feast's deprecations of its own defaults.
            warnings.simplefilter("ignore")
            config = RepoConfig(
                registry=str(tmp_path / "registry.db"),
                offline_store={"type": "features.asof.AsOfOfflineStore"},
                **_SETTINGS,
            )
            made = FeatureStore(config=config)
            made.apply([WORLD_KEY, PLACE_KEY, *views])
        return made

    return build


@pytest.fixture
def both_views(store: Callable[..., FeatureStore]) -> FeatureStore:
    """One view that knows when a fact became known and forgets it, one that does neither."""
    keys = [WORLD_KEY, PLACE_KEY]
    known = source("known_facts", table="facts", created_timestamp_column="known")
    plain = source("plain_facts", table="facts")
    ttl = timedelta(minutes=TTL_MINUTES)
    return store(view("known", known, keys, ttl), view("plain", plain, keys))


@pytest.fixture
def session(spark: SparkSession, request: pytest.FixtureRequest) -> Iterator[SparkSession]:
    """The shared session in some time zone."""
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", request.param)
    yield spark
    spark.conf.set("spark.sql.session.timeZone", before)


def join(
    store: FeatureStore,
    rows: DataFrame,
    *features: str,
    full_feature_names: bool = True,
) -> DataFrame:
    """The rows with the features, as our store answers."""
    retrieval = store.get_historical_features(
        rows,
        list(features),
        full_feature_names=full_feature_names,
    )
    answered: DataFrame = retrieval.to_spark_df()
    return answered


def minutes(answered: DataFrame) -> list[tuple[Any, ...]]:
    """The rows with their times as minutes after START."""
    # As numbers: a collected timestamp would be one of the client's own time zone.
    since = F.unix_micros("event_timestamp") - int(START.timestamp()) * 1_000_000
    minute = (since / 60_000_000).cast("int")
    rows = answered.withColumn("event_timestamp", minute).collect()
    return [tuple(row) for row in rows]


def publish(spark: SparkSession, *facts: FactRow) -> None:
    """The facts as the table that all views of these tests look into."""
    rows = [
        (world, place, at(event), at(known), value, "")
        for world, place, event, known, value in facts
    ]
    spark.createDataFrame(rows, _FACTS).createOrReplaceTempView("facts")


def questions(spark: SparkSession, *asked: Question) -> DataFrame:
    rows = [(world, place, at(minute)) for world, place, minute in asked]
    return spark.createDataFrame(rows, _ROWS)


@pytest.fixture
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For how many the rows are taken: of many each moment is a slice of time."""
    if request.param != "few":
        monkeypatch.setattr("features.asof._DISTINCT_ROWS", 0)
    if request.param == "some":
        # Fewer than there are rows: what some worlds are answered is few, that of others is not.
        monkeypatch.setattr("features.asof._BROADCAST_ROWS", 40)
    if request.param == "many":
        monkeypatch.setattr("features.asof._BROADCAST_ROWS", 0)
        monkeypatch.setattr("features.asof._SLICE_ROWS", 1)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("session", "size"),
    [
        ("America/New_York", "few"),
        # They change no clocks.
        pytest.param("UTC", "few", marks=SOAK),
        pytest.param("Asia/Kolkata", "few", marks=SOAK),
        ("America/New_York", "some"),
        ("America/New_York", "many"),
    ],
    indirect=True,
)
@settings(max_examples=SWEEP_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds=st.lists(WORLD, min_size=60, max_size=120))
def test_every_question_gets_what_a_search_through_all_facts_finds(
    session: SparkSession, size: None, both_views: FeatureStore, worlds: list[World]
) -> None:
    facts: list[FactRow] = []
    asked: list[Question] = []
    for number, world in enumerate(worlds):
        facts += [fact.in_world(number) for fact in world.facts]
        asked += [(number, place, minute) for place, minute in world.asked]
    expected = []
    for number, place, minute in asked:
        own = worlds[number].facts
        known = oracle(own, place, minute, bitemporal=True, ttl=TTL_MINUTES)
        plain = oracle(own, place, minute, bitemporal=False, ttl=None)
        expected.append((number, place, minute, known, plain))
    publish(session, *facts)
    rows = questions(session, *asked)
    answered = join(both_views, rows, "known:value", "plain:value")
    # Counted, not compared as sets: no question may be dropped or multiplied.
    assert Counter(minutes(answered)) == Counter(expected)
    # A view alone is looked up in another way.
    alone = join(both_views, rows, "known:value")
    assert Counter(minutes(alone)) == Counter(row[:4] for row in expected)


@pytest.mark.parametrize(
    ("most", "slices"),
    [
        (100, 1),
        (40, 1),
        (39, 2),
        (10, 4),
        (1, 40),
    ],
)
def test_the_timeline_of_a_key_with_too_many_rows_is_cut_into_equal_slices(
    most: int, slices: int, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.asof._SLICE_ROWS", most)
    minutes_of_one = [(None, at(minute)) for minute in range(40)]
    # Far from those, so that cuts of all rows would not cut these.
    others = [(f"b{minute}", at(minute)) for minute in range(1000, 1080)]
    timeline = spark.createDataFrame([*minutes_of_one, *others], "key string, __at timestamp")
    cuts = _bounds_of_slices(timeline, ["key"])
    assert len(cuts) == slices - 1
    first = START.timestamp() * 1e6
    ends = [first, *cuts, first + 40 * 60e6]
    rows = [(later - earlier) / 60e6 for earlier, later in pairwise(ends)]
    assert max(rows) <= math.ceil(40 / slices) + 1


def ask(
    spark: SparkSession,
    store: FeatureStore,
    facts: list[FactRow],
    asked: list[Question],
    *features: str,
) -> list[Any]:
    publish(spark, *facts)
    answered = join(store, questions(spark, *asked), *features)
    # As text, because None cannot be compared with a number.
    return sorted(minutes(answered), key=str)


def test_a_fact_that_became_known_later_is_not_seen_before(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts: list[FactRow] = [
        (1, "a", 0, 0, 10),
        (1, "a", 1, 4, 11),
    ]
    asked: list[Question] = [
        (1, "a", 3),
        (1, "a", 4),
    ]
    assert ask(spark, both_views, facts, asked, "known:value") == [
        (1, "a", 3, 10),
        (1, "a", 4, 11),
    ]


def test_a_late_fact_about_an_earlier_time_does_not_supersede_a_later_one(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts: list[FactRow] = [
        (1, "a", 2, 2, 10),
        (1, "a", 1, 3, 11),
    ]
    answered = ask(spark, both_views, facts, [(1, "a", 4)], "known:value")
    assert answered == [(1, "a", 4, 10)]


def test_a_correction_supersedes_once_it_is_known(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts: list[FactRow] = [
        (1, "a", 1, 1, 10),
        (1, "a", 1, 3, 5),
    ]
    asked: list[Question] = [
        (1, "a", 2),
        (1, "a", 3),
    ]
    assert ask(spark, both_views, facts, asked, "known:value") == [
        (1, "a", 2, 10),
        (1, "a", 3, 5),
    ]


def test_a_fact_exactly_as_old_as_the_time_to_live_still_counts(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts: list[FactRow] = [(1, "a", 0, 0, 7)]
    asked: list[Question] = [
        (1, "a", TTL_MINUTES),
        (1, "a", TTL_MINUTES + 1),
    ]
    assert ask(spark, both_views, facts, asked, "known:value") == [
        (1, "a", 3, 7),
        (1, "a", 4, None),
    ]


def test_equal_rows_stay_as_many_as_they_are(spark: SparkSession, both_views: FeatureStore) -> None:
    facts: list[FactRow] = [(1, "a", 0, 0, 7)] * 2
    asked: list[Question] = [(1, "a", 1)] * 3
    answered = ask(spark, both_views, facts, asked, "known:value", "plain:value")
    assert answered == [(1, "a", 1, 7, 7)] * 3


def test_keys_of_two_columns_are_not_run_together(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts: list[FactRow] = [(1, "2a", 0, 0, 7)]
    # Written without a separator, both keys would be "12a".
    asked: list[Question] = [
        (12, "a", 1),
        (1, "2a", 1),
    ]
    assert ask(spark, both_views, facts, asked, "plain:value") == [
        (1, "2a", 1, 7),
        (12, "a", 1, None),
    ]


def test_no_entity_rows_give_no_rows_with_all_columns(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    publish(spark, (1, "a", 0, 0, 7))
    answered = join(both_views, questions(spark), "known:value", "plain:value")
    assert answered.columns == ["world", "place", "event_timestamp", "known__value", "plain__value"]
    assert answered.collect() == []


def test_an_alias_joins_the_same_view_by_another_key(
    spark: SparkSession, store: Callable[..., FeatureStore]
) -> None:
    facts: list[FactRow] = [
        (1, "a", 0, 0, 7),
        (1, "b", 1, 1, 8),
    ]
    publish(spark, *facts)
    rows = spark.createDataFrame(
        [("a", "b", at(2)), ("b", None, at(0))],
        "home string, away string, event_timestamp timestamp",
    )
    places = view("places", source("places", table="facts"), [PLACE_KEY])
    features = [
        places.with_name(name).with_join_key_map({"place": name}) for name in ("home", "away")
    ]
    made = store(places)
    made.apply([FeatureService(name="game", features=features)])
    service = made.get_feature_service("game")
    retrieval = made.get_historical_features(rows, service, full_feature_names=True)
    assert sorted(minutes(retrieval.to_spark_df()), key=str) == [
        ("a", "b", 2, 7, 8),
        ("b", None, 0, None, None),
    ]


def test_the_name_of_a_key_may_have_any_signs(
    spark: SparkSession, store: Callable[..., FeatureStore]
) -> None:
    publish(spark, (1, "a", 0, 0, 7))
    asked = spark.createDataFrame([("a", at(2))], "place string, event_timestamp timestamp")
    odd = "pla`ce.of"
    places = view("places", source("places", table="facts"), [PLACE_KEY])
    made = store(places)
    feature = places.with_join_key_map({"place": odd})
    made.apply([FeatureService(name="game", features=[feature])])
    service = made.get_feature_service("game")
    rows = asked.withColumnRenamed("place", odd)
    retrieval = made.get_historical_features(rows, service, full_feature_names=True)
    assert minutes(retrieval.to_spark_df()) == [("a", 2, 7)]


def test_pandas_rows_are_taken_too(spark: SparkSession, both_views: FeatureStore) -> None:
    publish(spark, (1, "a", 0, 0, 7))
    rows = pd.DataFrame({"world": [1], "place": ["a"]})
    rows["event_timestamp"] = pd.to_datetime([at(1)])
    answered = both_views.get_historical_features(rows, ["known:value"]).to_df()
    assert answered[["world", "place", "value"]].to_dict("records") == [
        {"world": 1, "place": "a", "value": 7}
    ]


def test_only_the_partitions_that_can_matter_are_read(
    spark: SparkSession, store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    lake = tmp_path / "facts"
    write_daily_facts(spark, lake)
    # Without their files, to read another day fails.
    for partition in lake.glob("landed_date=*"):
        day = partition.name.removeprefix("landed_date=")
        if not "2013-03-08" <= day <= "2013-03-11":
            remove_files(partition)
    query = f"SELECT * FROM delta.`{lake}`"
    daily = source("daily", query=query, date_partition_column="landed_date")
    asked = datetime(2013, 3, 10, 1, tzinfo=UTC)
    rows = spark.createDataFrame([("a", asked)], "place string, event_timestamp timestamp")
    made = store(view("daily", daily, [PLACE_KEY], timedelta(hours=22)))
    answered = join(made, rows, "daily:value").collect()
    assert [row["daily__value"] for row in answered] == [9]


def write_daily_facts(spark: SparkSession, lake: Path) -> None:
    """A fact at the end of each of 20 days, which is also its value and its partition."""
    facts = []
    for number in range(1, 21):
        day = date(2013, 3, number)
        event = datetime(2013, 3, number, 23, tzinfo=UTC)
        facts.append(("a", event, number, day))
    schema = "place string, event timestamp, value long, landed_date date"
    # One file a partition.
    written = spark.createDataFrame(facts, schema).repartition("landed_date")
    written.write.format("delta").partitionBy("landed_date").save(str(lake))


def remove_files(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def test_a_missing_join_key_is_named(spark: SparkSession, both_views: FeatureStore) -> None:
    publish(spark)
    rows = spark.createDataFrame([(1, at(0))], "world int, event_timestamp timestamp")
    with pytest.raises(UsageError, match=r"lack \['place'\], join keys of feature view 'known'"):
        join(both_views, rows, "known:value")


def test_a_column_that_the_source_lacks_is_told_with_its_view(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    facts = spark.createDataFrame([("a", 1)], "place string, value long")
    facts.createOrReplaceTempView("facts")
    rows = spark.createDataFrame([(1, "a", at(0))], _ROWS)
    with pytest.raises(UsageError, match="Feature view known cannot be looked up.*UNRESOLVED"):
        join(both_views, rows, "known:value")


def test_a_feature_that_is_a_column_already_is_refused(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    publish(spark)
    rows = spark.createDataFrame([(1, "a", at(0), 1)], f"{_ROWS}, value int")
    with pytest.raises(UsageError, match=r"\['value'\] of feature view 'known' are already there"):
        join(both_views, rows, "known:value", full_feature_names=False)


def test_rows_without_a_time_are_refused(spark: SparkSession, both_views: FeatureStore) -> None:
    rows = spark.createDataFrame([(1, "a")], "world int, place string")
    with pytest.raises(UsageError, match="need their time in a column 'event_timestamp'"):
        join(both_views, rows, "known:value")


def test_rows_whose_time_is_no_instant_are_not_looked_up_as_of_another_column(
    spark: SparkSession, both_views: FeatureStore
) -> None:
    given = [(1, "a", at(0).date(), at(2))]
    kinds = "world int, place string, event_timestamp date, seen_at timestamp"
    rows = spark.createDataFrame(given, kinds)
    told = r"'event_timestamp' of type timestamp\. Timestamps found: \['seen_at'\]"
    with pytest.raises(UsageError, match=told):
        join(both_views, rows, "known:value")


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
