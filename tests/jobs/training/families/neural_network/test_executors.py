"""Ranks on the executors of a real cluster of Spark: a master and two workers of a core each."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyspark
import pytest

from bench.spark_cluster import Cluster, cluster
from jobs.spark.session import connect
from jobs.training.families.neural_network import MODEL, NeuralNetworkFamily, executors, job, wanted
from jobs.training.families.neural_network.executors import OnExecutors
from jobs.training.families.neural_network.launch import RankLost, launch
from jobs.training.families.neural_network.network import load
from jobs.training.families.neural_network.rendezvous import LOOPBACK
from jobs.training.families.neural_network.wanted import End, Line
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from tests.jobs.training.families.neural_network.losing import train_and_lose
from tests.jobs.training.small import NETWORK, data_of, job_of

DROPPING = replace(NETWORK, dropout=0.3, ranks=2)
ENDLESS = replace(NETWORK, epochs=100_000)


@pytest.fixture(scope="module")
def two_executors(
    shared_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with cluster(shared_environment, tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def spread(two_executors: Cluster, tmp_path: Path) -> Environment:
    """An environment that trains on both executors."""
    return replace(
        two_executors.environment,
        rank_executors="on",
        rendezvous_address=LOOPBACK,
        jobs=tmp_path / "jobs",
    )


def test_two_executors_train_the_model_of_two_ranks_on_one_machine(
    ranked: Environment, spread: Environment, tmp_path: Path
) -> None:
    folders = [tmp_path / "here", tmp_path / "spread"]
    weights = []
    for environment, folder in zip((ranked, spread), folders, strict=True):
        folder.mkdir()
        fit = NeuralNetworkFamily().fit(data_of(), DROPPING, environment, folder)
        weights.append((load(folder / MODEL).get_weights(), fit.curves))
    (here, curves_here), (there, curves_there) = weights
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert curves_here == curves_there
    assert not list(spread.jobs.iterdir())


def test_an_executor_that_is_lost_costs_only_the_steps_since_the_last_checkpoint(
    two_executors: Cluster,
    spread: Environment,
    ranked: Environment,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def lose() -> None:
        executor, _ = two_executors.executors()
        executor.kill()

    work = train_and_lose(spread, tmp_path, capfd, "task-0, task-1", lose)
    outcome = job.read_outcome(tmp_path)
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    job.write(undisturbed, replace(work, checkpoint=undisturbed / "checkpoint"))
    launch(ranked, undisturbed, 2, timeout_seconds=240)
    assert outcome.history["loss"] == job.read_outcome(undisturbed).history["loss"]


def test_ranks_end_and_leave_spark_free_when_time_is_up(
    spread: Environment, tmp_path: Path
) -> None:
    job.write(tmp_path, job_of(ENDLESS))
    with pytest.raises(NightshiftError, match=r"ended after 15 s: ranks \[0, 1\] still ran"):
        launch(spread, tmp_path, 2, timeout_seconds=15)
    _await_none()
    numbers = connect(spread).range(0, 8, numPartitions=2)
    assert numbers.count() == 8


def test_ranks_on_an_executor_that_hangs_are_given_up_and_spark_is_told(
    two_executors: Cluster,
    spread: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "_GONE_SECONDS", 2)
    job.write(tmp_path, replace(job_of(ENDLESS), checkpoint=tmp_path / "checkpoint"))
    stopped: list[psutil.Process] = []

    def stop() -> None:
        if _ranks() and not stopped:
            executor, _ = two_executors.executors()
            stopped.append(executor)
            executor.suspend()

    try:
        with pytest.raises(NightshiftError, match=r"ended after 20 s"):
            launch(spread, tmp_path, 2, timeout_seconds=20, meanwhile=stop)
        assert stopped
        _await_none()
        # What Spark still had to do for it would be named.
        assert not connect(spread).interruptAll()
    finally:
        for one in stopped:
            one.resume()


def _ranks() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(word.endswith("neural_network.on_executor") for word in command):
            found.append(process)
    return found


def _await_none() -> None:
    """One that had not come yet, and imports TensorFlow, ends with its task or hears it soon."""
    deadline = time.monotonic() + 30
    while left := _ranks():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_what_a_rank_has_said_last_is_told(spread: Environment, tmp_path: Path) -> None:
    unseen = tmp_path / "unseen"
    told = rf"It said last: This host does not see {unseen / 'settings.json'}: it is not there"
    with pytest.raises(NightshiftError, match=told):
        launch(spread, unseen, 2, timeout_seconds=100)


def test_a_rank_without_a_core_is_told_and_given_up(
    spread: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(executors, "_PATIENCE_SECONDS", 1)
    monkeypatch.setattr(executors, "_START_SECONDS", 5)
    job.write(tmp_path, job_of())
    # One rank more than there are cores, whatever the setting says.
    more = replace(spread, spark_cores=3)
    with pytest.raises(RankLost, match="within 5 s no core of the executors was free for it, or"):
        launch(more, tmp_path, 3, timeout_seconds=60)
    told = "waits: no core of the executors was free for it, or none reaches 127.0.0.1."
    assert told in capfd.readouterr().err
    _await_none()


def test_ranks_of_whom_not_all_get_a_core_are_started_again_as_those_that_do(
    spread: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(executors, "_START_SECONDS", 5)
    monkeypatch.setattr(executors, "_REPLACED_SECONDS", 10)
    count = executors._count_that_come

    def count_in_peace(*of_it: Any) -> int:
        # The next ones have time to begin.
        monkeypatch.setattr(executors, "_START_SECONDS", 60)
        return count(*of_it)

    monkeypatch.setattr(executors, "_count_that_come", count_in_peace)
    job.write(tmp_path, job_of())
    # One rank more than there are cores, whatever the setting says.
    more = replace(spread, spark_cores=3)
    launch(more, tmp_path, 3, timeout_seconds=120, restarts=1)
    assert job.read_outcome(tmp_path).ranks == 2
    assert "They are started again, on task-0, task-1." in capfd.readouterr().err


def test_what_spark_says_of_its_query_is_told(
    spread: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        raise RuntimeError("no such thing on this executor")
        yield from batches

    monkeypatch.setattr(executors, "_BeRanks", lambda **_: fails)
    job.write(tmp_path, job_of())
    with pytest.raises(RankLost, match="It said last: .*no such thing on this executor"):
        launch(spread, tmp_path, 2, timeout_seconds=60)


def test_a_cluster_that_is_away_is_told_and_waited_for_no_longer_than_ranks_are(
    spread: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_START_SECONDS", 3)
    monkeypatch.setattr(executors, "_GONE_SECONDS", 1)
    free = threading.Event()

    def wait(environment: Environment) -> None:
        free.wait(60)
        raise NightshiftError("too late")

    monkeypatch.setattr(executors, "connect", wait)
    job.write(tmp_path, job_of())
    with pytest.raises(RankLost, match="within 3 s no core of the executors was free for it"):
        launch(spread, tmp_path, 2, timeout_seconds=60)
    free.set()


def test_a_rank_that_cannot_begin_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_MODULE", "jobs.no_such_module")
    begin = executors._BeRanks(folder=str(tmp_path), port=1, variables={})
    with pytest.raises(NightshiftError, match=r"did not begin: .*No module named jobs\.no_such"):
        begin._be(0)


def test_an_executor_that_does_not_reach_the_stage_says_so(
    spread: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another port than that of the line: nobody listens there.
    made = executors._BeRanks
    monkeypatch.setattr(executors, "_BeRanks", lambda **given: made(**{**given, "port": 1}))
    job.write(tmp_path, job_of())
    told = r"It said last: This host does not reach 127\.0\.0\.1:1, .*: Connection refused.*port\.$"
    with pytest.raises(RankLost, match=told):
        launch(spread, tmp_path, 2, timeout_seconds=100)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"spark_master": None}, "needs a Spark cluster .*: NIGHTSHIFT_SPARK_MASTER"),
        ({"spark_remote": "sc://host:15002"}, "needs a Spark cluster .*no SPARK_REMOTE"),
        ({"rendezvous_address": None}, "needs NIGHTSHIFT_RENDEZVOUS_ADDRESS"),
    ],
)
def test_what_executors_lack_is_told(
    spread: Environment, setting: dict[str, str | None], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        OnExecutors(replace(spread, **setting))  # type: ignore[arg-type]


def test_more_ranks_than_cores_are_refused(spread: Environment) -> None:
    with pytest.raises(UsageError, match=r"3 ranks .* takes 2 cores of the cluster.*NIGHTSHIFT_RA"):
        OnExecutors(spread).hosts(3)


def test_a_task_to_which_spark_gives_gpus_shows_them_to_its_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not executors._own_gpus()
    task = SimpleNamespace(resources=lambda: {"gpu": SimpleNamespace(addresses=["3", "5"])})
    monkeypatch.setattr(pyspark.TaskContext, "get", lambda: task)
    assert executors._own_gpus() == {"CUDA_VISIBLE_DEVICES": "3,5"}


def test_a_rank_tells_its_end_by_its_line_and_one_that_is_gone_is_lost() -> None:
    line = Line(LOOPBACK, 2)
    ends = [socket.create_connection((LOOPBACK, line.port)) for _ in range(2)]
    for number, one in enumerate(ends):
        one.sendall(b"%d" % number)
        assert _soon(line, number)
    assert all(one.recv(1) == wanted.ALL_THERE for one in ends)
    assert line.end_of(0) is None
    assert line.there == 2
    wanted.tell_end(ends[0], End(1, "“no”"))
    for one in ends:
        one.close()
    assert line.end_of(0) == End(1, "“no”")
    assert line.end_of(1) == End(wanted.LOST, "")
    assert (line.held, line.there) == (2, 0)
    line.close()


def test_ranks_that_have_come_stay_until_they_were_counted() -> None:
    line = Line(LOOPBACK, 2)
    comes = executors._Come(address=LOOPBACK, port=line.port)
    tasks = []
    for number in range(2):
        batches = iter([pa.RecordBatch.from_pydict({"id": [number]})])
        tasks.append(threading.Thread(target=list, args=(comes(batches),)))
    for task in tasks:
        task.start()
    assert all(_soon(line, number) for number in range(2))
    # The stage looks late, as where cores are few.
    time.sleep(0.5)
    assert line.there == 2
    line.close()
    for task in tasks:
        task.join(10)
    assert not any(task.is_alive() for task in tasks)


def _soon(line: Line, number: int) -> bool:
    deadline = time.monotonic() + 10
    while not line.is_held(number) and time.monotonic() < deadline:
        time.sleep(0.01)
    return line.is_held(number)


def test_a_worker_that_is_gone_for_good_leaves_the_training_to_the_others(
    two_executors: Cluster,
    spread: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The last one: it leaves half of the cluster that all tests here share."""
    monkeypatch.setattr(executors, "_REPLACED_SECONDS", 10)

    def lose() -> None:
        executor, _ = two_executors.executors()
        two_executors.workers[0].kill()
        executor.kill()

    train_and_lose(spread, tmp_path, capfd, "task-0", lose)
    assert job.read_outcome(tmp_path).ranks == 1
