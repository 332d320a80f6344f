"""Everything elsewhere at once: tables in a store, Spark on a cluster, models in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bench.spark_cluster import Cluster, cluster
from jobs.commands.land import land
from jobs.lake import sql
from pipelines.days import Days
from pipelines.environment import Environment
from tests import weather
from tests.object_store.conftest import ObjectStore, in_bucket
from tests.object_store.test_night import run_weather
from tests.postgres import Postgres
from tests.weather import CONTENT, LOADED, PREDICTIONS, WEATHER

_NEXT = Days.of(LOADED.last + timedelta(days=1))
_NIGHTS = (_NEXT, _NEXT.shifted(1))
_QUALITY = """
    SELECT as_of, event, model_version, rival_version, metrics, reason FROM ops.model_events
    WHERE pipeline = 'weather' ORDER BY ALL"""


@pytest.fixture
def on_cluster(
    _spark_at_store: Environment, _store: ObjectStore, tmp_path: Path
) -> Iterator[Cluster]:
    """Two executors, and all places in a bucket."""
    with cluster(_spark_at_store, tmp_path / "cluster") as made:
        yield replace(made, environment=in_bucket(made.environment, _store.new_bucket(), tmp_path))


@pytest.mark.soak
@pytest.mark.skipif("not os.environ.get('SOAK')", reason="minutes; `make soak` runs it")
def test_two_nights_say_and_decide_what_they_do_on_one_machine(
    on_cluster: Cluster, postgres: Postgres, weather_lake: Environment, tmp_path: Path
) -> None:
    alone = weather.copied(weather_lake, tmp_path)
    for night in _NIGHTS:
        land(WEATHER, alone, night)
        assert set(weather.perform_all_stages(alone, night, f"night-{night}")) == {0}
    spread = replace(on_cluster.environment, mlflow_uri=postgres.database("models"))
    for days in (LOADED, *_NIGHTS):
        land(WEATHER, spread, days)
        done = run_weather(spread, days)
        assert done.returncode == 0, done.stderr
        assert on_cluster.executors(), "the cluster computed it"
    for asked in (CONTENT, PREDICTIONS, _QUALITY):
        there = sql.query(spread, asked)
        assert there[1]
        assert there == sql.query(alone, asked)
