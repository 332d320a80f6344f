"""The embedded server on a real cluster: the same rows, also when an executor dies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bench.spark_cluster import Cluster, cluster
from features import asof
from features.computed import computed
from jobs.lake import tables
from jobs.spark.session import connect
from jobs.stages import features as features_stage
from jobs.stages import predict
from jobs.training import parts
from pipelines.days import Days
from pipelines.environment import Environment
from tests import weather
from tests.jobs.stages import test_predict as few
from tests.jobs.training import small
from tests.jobs.training import test_shards_on_spark as laid_out

_PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def two_executors(
    shared_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with cluster(shared_environment, tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def on_cluster(two_executors: Cluster, tmp_path: Path) -> Environment:
    """With an empty lake and registry of the test's own."""
    return replace(
        two_executors.environment,
        lake=str(tmp_path / "lake"),
        landing=tmp_path / "landing",
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )


@pytest.mark.usefixtures("no_transforms")
def test_two_executors_score_as_one_process_does(
    on_cluster: Environment, two_executors: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_same_scores(on_cluster, monkeypatch)
    assert len(two_executors.executors()) == 2


def require_same_scores(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Score rows in this process and by Spark, and compare them to the bit.

    The environment's lake and registry are empty.
    """
    pipeline = small.SMALL
    small.publish(environment, few.ROWS, "scoring", pipeline=pipeline)
    few._promote(environment, few.NIGHTS.first, pipeline)
    nights = few.NIGHTS
    run = small.run_of(environment, "predict", nights.last, nights.first, pipeline=pipeline)
    staged = []
    for most in (predict.ROWS_IN_PROCESS, 0):
        monkeypatch.setattr(predict, "ROWS_IN_PROCESS", most)
        assert predict.predict(run)["predictions"] == 90
        rows = tables.staged(run, "predictions").drop("predicted_at")
        staged.append(sorted(map(str, rows.collect())))
    assert staged[0] == staged[1]


def test_two_executors_lay_out_the_bytes_of_one_machine(
    on_cluster: Environment, shared_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "TASK_BYTES", 1000)
    spread = laid_out.published(small.run_of(on_cluster, "train"))
    alone = replace(spread, environment=replace(shared_environment, lake=on_cluster.lake))
    np.testing.assert_array_equal(laid_out.judged_words(spread), laid_out.judged_words(alone))


no_transforms = few.no_transforms


def test_an_executor_that_is_killed_costs_no_row(
    on_cluster: Environment, two_executors: Cluster, tmp_path: Path
) -> None:
    session = connect(on_cluster)
    victim, _ = _both(two_executors)
    number = victim.pid
    first, second = tmp_path / "first", tmp_path / "second"

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        is_victim = number in [one.pid for one in psutil.Process().parents()]
        if is_victim and first.exists():
            second.touch()
            # Until it is killed.
            time.sleep(120)
        yield from batches
        if is_victim:
            first.touch()
        deadline = time.monotonic() + 120
        # The other leaves it a second part.
        while not is_victim and not second.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def kill() -> None:
        # It has then done one of its parts and is at the next.
        while not second.exists():
            if is_over.wait(0.05):
                return
        victim.kill()

    rows = session.range(0, 40_000, numPartitions=8).mapInArrow(work, "id long")
    is_over = Event()
    killing = Thread(target=kill)
    killing.start()
    counting = rows.agg(F.count("id"), F.sum("id"))
    try:
        (counted,) = counting.collect()
    finally:
        is_over.set()
        killing.join()
    assert second.exists(), "it was killed while the query ran"
    assert tuple(counted) == (40_000, sum(range(40_000)))
    assert victim not in two_executors.executors()


def test_an_executor_that_is_killed_takes_no_rows_that_were_computed_once(
    on_cluster: Environment, two_executors: Cluster
) -> None:
    session = connect(on_cluster)
    rows = computed(session.range(0, 40_000, numPartitions=8))
    _kill_an_executor(two_executors)
    counting = rows.agg(F.count("id"), F.sum("id"))
    (counted,) = counting.collect()
    assert tuple(counted) == (40_000, sum(range(40_000)))


def _kill_an_executor(cluster: Cluster) -> None:
    """Kill one of the two, and wait for another in its place."""
    victim, _ = _both(cluster)
    victim.kill()
    victim.wait()
    _both(cluster)


def _both(cluster: Cluster) -> list[psutil.Process]:
    """The executors, once there is one a worker."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    wanted = len(cluster.workers)
    while len(executors := cluster.executors()) < wanted:
        assert time.monotonic() < deadline, "a worker has no executor"
        time.sleep(0.1)
    return executors


@pytest.mark.soak
@pytest.mark.skipif("not os.environ.get('SOAK')", reason="minutes; `make soak` runs it")
def test_nights_on_a_cluster_publish_what_nights_on_one_machine_do(
    on_cluster: Environment,
    two_executors: Cluster,
    shared_environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = weather.lake(shared_environment, tmp_path / "alone")
    spread = replace(on_cluster, lake=str(tmp_path / "spread"))
    weather.land(weather.WEATHER, spread, weather.LOADED)
    assert set(weather.perform_all_stages(spread, weather.LOADED, "load")) == {0}

    lost: list[str] = []

    def lose_an_executor() -> None:
        _kill_an_executor(two_executors)
        lost.append("executor")

    def lose_a_worker() -> None:
        if "worker" not in lost:
            _power_off(two_executors.workers[-1])
            lost.append("worker")

    # The worker last: nobody starts it again, and the other does all that is left.
    for day, lose in ((22, lose_an_executor), (23, lose_a_worker)):
        lost.clear()
        night = Days.of(date(2013, 2, day))
        weather.land(weather.WEATHER, alone, night)
        assert set(weather.perform_all_stages(alone, night, "night")) == {0}
        weather.land(weather.WEATHER, spread, night)
        with monkeypatch.context() as patch:
            for module in (features_stage, asof):
                patch.setattr(module, "computed", _computed_then(lose))
            assert set(weather.perform_all_stages(spread, night, "night")) == {0}
        assert len(lost) > 2 or lost == ["worker"], "in the middle of the night"
        for table in weather.WEATHER.tables:
            assert rows_of(alone, table.name) == rows_of(spread, table.name), table.name


def _computed_then(lose: Callable[[], None]) -> Callable[[DataFrame], DataFrame]:
    """Compute rows once, and then have something be lost."""

    def compute(rows: DataFrame) -> DataFrame:
        kept = computed(rows)
        lose()
        return kept

    return compute


def _power_off(worker: subprocess.Popen[bytes]) -> None:
    """Kill it with its executor, as with the machine."""
    children = psutil.Process(worker.pid).children(recursive=True)
    worker.kill()
    for child in children:
        # One may have ended with another.
        with suppress(psutil.NoSuchProcess):
            child.kill()
    worker.wait()


def rows_of(environment: Environment, name: str) -> pa.Table:
    table = next(one for one in weather.WEATHER.tables if one.name == name)
    stored = DeltaTable(environment.table_path(f"weather.{name}")).to_pyarrow_table()
    # Each lake has models of its own: the same, under other ids.
    ids = {"model_run_id"} & set(stored.column_names)
    said = stored.drop_columns([*table.volatile, *ids])
    columns = sorted(said.column_names)
    return said.select(columns).sort_by([(column, "ascending") for column in columns])
