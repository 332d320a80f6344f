"""Features as of a moment: for each question the last fact of its key that was true by then."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as arrow
import pyarrow.parquet as pq

from bench.harness import Answer, Case, Peer, Work
from jobs.spark.server import configuration, running_server
from jobs.spark.session import connect, plan_for, settings_of_many_rows
from pipelines.environment import Environment

if TYPE_CHECKING:
    from feast import FeatureStore

_SEED = 20130101
_FACTS = 100_000
_KEYS = 1000
_YEAR_SECONDS = 365 * 86_400
_START = np.datetime64("2013-01-01", "us")


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    names = ["question", "value"]
    own, other = (one.select(names).sort_by("question") for one in (ours, theirs))
    if own["value"].null_count == len(own):
        # Nothing that has found nothing is compared.
        return False
    try:
        return bool(own.equals(other.cast(own.schema)))
    except pa.ArrowInvalid:
        # Values that whole numbers cannot be.
        return False


CASE = Case(
    name="join",
    what="our as-of join behind Feast, on Spark",
    peers=(
        # Three million it has not answered after 26 minutes.
        Peer(name="feast", what="Feast's own Spark store", goal=0.1, largest=300_000),
        Peer(name="polars", what="`join_asof` of polars, in one process"),
        Peer(name="duckdb", what="`ASOF JOIN` of DuckDB, in one process"),
    ),
    sizes=(30_000, 300_000, 3_000_000),
    quick_size=30_000,
    repeats=5,
    same=_same,
)


def prepare(folder: Path, size: int) -> None:
    """A hundred thousand facts of a thousand keys over a year, no two at a time; and questions."""
    draw = np.random.default_rng(_SEED)
    # Feast's own store gives a question several answers where two facts are of one time.
    moments = draw.permutation(_YEAR_SECONDS)[:_FACTS]
    facts = {"event": _times(moments), "value": draw.integers(0, 1_000_000, _FACTS)}
    asked_at = draw.integers(0, _YEAR_SECONDS, size)
    asked: dict[str, Any] = {"question": np.arange(size)}
    # Some keys are frequent, as airports are: the first is a fiftieth of all.
    weights = 1 / (10 + np.arange(_KEYS))
    for columns, count in ((facts, _FACTS), (asked, size)):
        numbers = draw.choice(_KEYS, count, p=weights / weights.sum())
        columns["place"] = np.char.add("place ", numbers.astype(str))
    # Some ask at the very moment of a fact, which counts: by chance hardly one would.
    facts_of = draw.integers(0, _FACTS, size // 10)
    asked_at[: len(facts_of)] = moments[facts_of]
    asked["place"][: len(facts_of)] = facts["place"][facts_of]
    asked["event_timestamp"] = _times(asked_at)
    pq.write_table(pa.table(facts), folder / "facts.parquet")
    pq.write_table(pa.table(asked), folder / "asked.parquet")


def ours(folder: Path) -> Work:
    """As the features stage joins a view."""
    home = Environment.read({"NIGHTSHIFT_HOME": str(folder / "home of ours")})
    with running_server(home, 0) as environment:
        plan_for(environment, many_rows=True)
        session = connect(environment)
        session.read.parquet(str(folder / "facts.parquet")).createOrReplaceTempView("facts")
        store = _store(folder, {"type": "features.asof.AsOfOfflineStore"}, table="facts")

        def work() -> Answer:
            rows = session.read.parquet(str(folder / "asked.parquet"))
            joined = store.get_historical_features(rows, ["facts:value"]).to_spark_df()
            joined.write.mode("overwrite").parquet(str(folder / "ours"))
            return lambda: _written(folder / "ours")

        yield work


def feast(folder: Path) -> Work:
    """With a session of Spark of its own, of the same cores, memory and partitions."""
    from pyspark.sql import SparkSession

    home = Environment.read({"NIGHTSHIFT_HOME": str(folder / "home of feast")})
    kept = ("spark.sql.session.timeZone", "spark.sql.shuffle.partitions", "spark.ui.enabled")
    shared = {**configuration(home), **settings_of_many_rows(home)}
    builder = SparkSession.builder.master(shared["spark.master"])
    for name in kept:
        builder = builder.config(name, shared[name])
    session = builder.config("spark.driver.memory", home.spark_memory).getOrCreate()
    session.read.parquet(str(folder / "asked.parquet")).createOrReplaceTempView("asked")
    path = str(folder / "facts.parquet")
    store = _store(folder, {"type": "spark"}, path=path, file_format="parquet")

    def work() -> Answer:
        rows = store.get_historical_features("SELECT * FROM asked", ["facts:value"])
        rows.to_spark_df().write.mode("overwrite").parquet(str(folder / "feast"))
        return lambda: _written(folder / "feast")

    yield work


def polars(folder: Path) -> Work:
    """Both sides sorted by time, as it demands."""
    import polars as pl

    target = folder / "polars.parquet"

    def work() -> Answer:
        facts = pl.read_parquet(folder / "facts.parquet").sort("event")
        asked = pl.read_parquet(folder / "asked.parquet").sort("event_timestamp")
        joined = asked.join_asof(
            facts,
            left_on="event_timestamp",
            right_on="event",
            by="place",
            check_sortedness=False,
        )
        joined.write_parquet(target)
        return lambda: pq.read_table(target)

    yield work


def duckdb(folder: Path) -> Work:
    """One statement."""
    import duckdb as engine

    target = folder / "duckdb.parquet"
    asked, facts = (f"read_parquet('{folder / name}.parquet')" for name in ("asked", "facts"))
    statement = (
        f"COPY (SELECT a.*, f.value FROM {asked} a ASOF LEFT JOIN {facts} f "
        f"ON a.place = f.place AND a.event_timestamp >= f.event) TO '{target}'"
    )

    def work() -> Answer:
        engine.sql(statement)
        return lambda: pq.read_table(target)

    yield work


def _store(folder: Path, offline: dict[str, Any], **where: str) -> FeatureStore:
    from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
    from feast.types import Int64, String
    from feast.value_type import ValueType

    with warnings.catch_warnings():
        # Feast's Spark sources, and deprecations of its own defaults.
        warnings.simplefilter("ignore")
        place = Entity(name="place", join_keys=["place"], value_type=ValueType.STRING)
        view = FeatureView(
            name="facts",
            entities=[place],
            schema=[
                Field(name="place", dtype=String),
                Field(name="value", dtype=Int64),
            ],
            source=SparkSource(name="facts", timestamp_field="event", **where),
            ttl=timedelta(0),
            online=False,
        )
        config = RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / f"registry of {offline['type']}.db"),
            offline_store=offline,
            online_store=None,
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        store.apply([place, view])
    return store


def _times(seconds: Any) -> pa.Array:
    return pa.array(_START + seconds * 1_000_000, pa.timestamp("us", "UTC"))


def _written(folder: Path) -> pa.Table:
    return arrow.dataset(folder, format="parquet").to_table(columns=["question", "value"])
