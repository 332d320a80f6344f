"""What work takes is what the system counts: of its process, of those below it, and of Spark's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from jobs import night
from jobs.lake import amounts, ops
from jobs.services import processes, stage_client, usage
from jobs.services.usage import Meter
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError
from pipelines.run import Run
from pipelines.stages import select, stage
from tests.conftest import free_port
from tests.jobs.services.test_stage_server import WORK, server, until

__all__ = ["server"]
_MEGABYTE = 10**6
_BUSY = (
    "import time\n"
    "held = bytearray(300_000_000); held[::4096] = b'x' * len(held[::4096])\n"
    "while time.process_time() < 0.5: sum(range(10_000))"
)


def _spend(seconds: float) -> None:
    """Take so much processor time of this process."""
    until_then = time.process_time() + seconds
    while time.process_time() < until_then:
        sum(range(10_000))


def _once_of_three(is_so: Callable[[], bool]) -> bool:
    """Whether it is so once: a busy machine may charge a process with what another took."""
    return any(is_so() for _ in range(3))


def test_the_processor_time_of_the_process_is_taken_and_not_the_time_that_it_waits(
    home: Environment,
) -> None:
    before = time.process_time()
    meter = Meter(home)
    _spend(0.2)
    time.sleep(0.3)
    taken = meter.read()
    # Which a busy machine may charge with more than that.
    assert 0.2 <= taken.cpu_seconds <= time.process_time() - before
    assert taken.seconds >= 0.5
    assert taken.spark_cpu_seconds is None


def test_memory_is_told_at_its_peak_and_begins_anew(home: Environment) -> None:
    meter = Meter(home)
    before = meter.read().peak_bytes
    held = bytearray(200 * _MEGABYTE)
    held[::4096] = b"x" * len(held[::4096])
    del held
    grown = meter.read().peak_bytes - before
    assert 150 * _MEGABYTE < grown < 250 * _MEGABYTE
    # What was held before counts for nobody else.
    assert Meter(home).read().peak_bytes < before + 100 * _MEGABYTE


_WITH_CHILD = f"""
import subprocess, sys
from jobs.services.usage import Meter
from pipelines.environment import Environment
meter = Meter(Environment.read())
alone = meter.read()
subprocess.run([sys.executable, "-c", {_BUSY!r}], check=True)
taken = meter.read()
print(taken.cpu_seconds - alone.cpu_seconds, taken.peak_bytes - alone.peak_bytes)
"""


def test_children_that_have_ended_count(home: Environment) -> None:
    # In a process of its own, because an earlier child of this one may have been larger.
    command = [sys.executable, "-c", _WITH_CHILD]
    variables = {**os.environ, **home.variables()}
    ended = subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, check=True
    )
    cpu_seconds, peak_bytes = map(float, ended.stdout.split())
    assert cpu_seconds >= 0.5
    assert peak_bytes > 250 * _MEGABYTE


def test_what_the_stage_server_forks_for_the_work_counts(home: Environment, server: object) -> None:
    argument = {"seconds": 0.5, "bytes": 100 * _MEGABYTE}

    def take() -> float:
        meter = Meter(home)
        alone = meter.read()
        ranks = [stage_client.spawn(home, f"{WORK}:take", argument, {}) for _ in range(2)]
        assert [rank.wait() for rank in ranks] == [0, 0]
        taken = meter.read()
        # Both at once.
        assert taken.peak_bytes - alone.peak_bytes > 200 * _MEGABYTE
        seconds = taken.cpu_seconds - alone.cpu_seconds
        assert seconds >= 1.0
        return seconds

    assert _once_of_three(lambda: take() < 2.5)


def test_what_is_forked_one_after_another_counts_as_the_largest(
    home: Environment, server: object
) -> None:
    meter = Meter(home)
    alone = meter.read().peak_bytes
    argument = {"seconds": 0.1, "bytes": 100 * _MEGABYTE}

    def take_two_at_once() -> int:
        ranks = [stage_client.spawn(home, f"{WORK}:take", argument, {}) for _ in range(2)]
        assert [rank.wait() for rank in ranks] == [0, 0]
        return meter.read().peak_bytes - alone

    first = take_two_at_once()
    assert first > 200 * _MEGABYTE
    for _ in range(2):
        assert take_two_at_once() < first + 50 * _MEGABYTE
    cpu = meter.read().cpu_seconds
    assert cpu >= 0.6


def test_a_stage_that_was_killed_has_what_the_stage_server_tells_of_it(
    home: Environment, server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "PERFORM", f"{WORK}:take_and_die")
    days = Days.of(date(2013, 1, 5))
    run = Run(pipeline=pipeline("flights"), days=days, environment=home, run_id="r1")
    amounts.add_read(1, 1)
    code = night.run_night(run, select(["train"]), notify=False)
    assert code == NightshiftError.exit_code
    (row,) = ops.read(home, "costs").to_pylist()
    assert (row["stage"], row["status"], row["rows_read"]) == ("train", "failed", 0)
    assert row["cpu_seconds"] >= 0.5
    assert row["peak_bytes"] > 100 * _MEGABYTE
    assert row["cost"] > 0
    (recorded,) = ops.read(home, "stage_runs").to_pylist()
    assert row["seconds"] == recorded["seconds"]


def test_a_stage_server_that_tells_nothing_counts_for_nothing(home: Environment) -> None:
    before = time.process_time()
    meter = Meter(home)
    for odd in ({}, {"cpu_seconds": None, "peak_bytes": 1}, {"cpu_seconds": 1.0}):
        usage.add_forked(odd, 0.0)
    assert meter.read().cpu_seconds <= time.process_time() - before


_LISTENING = """
import socket, sys, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listening.accept()
    begin = time.process_time()
    while time.process_time() < begin + 0.5: sum(range(10_000))
    connection.close()
"""


def test_the_spark_server_counts_by_itself_when_it_is_the_homes(
    home: Environment, tmp_path: Path
) -> None:
    own = replace(home, spark_port=free_port())
    command = [sys.executable, "-c", _LISTENING, str(own.spark_port)]
    variables = {**os.environ, **own.variables()}

    def has_worked_alone() -> bool:
        meter = Meter(own)
        _ask(own.spark_port)
        taken = meter.read()
        assert taken.spark_cpu_seconds is not None
        assert taken.spark_cpu_seconds > 0.4
        return taken.spark_cpu_seconds < 1.0 and taken.cpu_seconds < 0.4

    with subprocess.Popen(command, env=variables) as process:
        try:
            assert until(lambda: _listens(process.pid))
            assert _once_of_three(has_worked_alone)
            meter = Meter(own)
            other = replace(own, home=tmp_path / "other")
            assert Meter(other).read().spark_cpu_seconds is None
            remote = replace(own, spark_remote="sc://elsewhere:15002")
            assert Meter(remote).read().spark_cpu_seconds is None
        finally:
            process.terminate()
    # One that has gone meanwhile tells nothing.
    assert meter.read().spark_cpu_seconds is None


def test_the_spark_server_is_looked_for_once_as_long_as_it_runs(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(home, spark_port=free_port())
    command = [sys.executable, "-c", _LISTENING, str(own.spark_port)]
    variables = {**os.environ, **own.variables()}
    looked: list[int] = []
    listener = processes.listener

    def counted(port: int) -> psutil.Process | None:
        looked.append(port)
        return listener(port)

    monkeypatch.setattr(processes, "listener", counted)
    # The second time it was started anew.
    for times in (1, 2):
        with subprocess.Popen(command, env=variables) as process:
            try:
                assert until(lambda: _listens(process.pid))
                for _ in range(3):
                    meter = Meter(own)
                assert meter.read().spark_cpu_seconds is not None
                assert len(looked) == times
            finally:
                process.terminate()


def _listens(pid: int) -> bool:
    return bool(psutil.Process(pid).net_connections("inet"))


def _ask(port: int) -> None:
    """Have the server work, and wait until it has."""
    import socket

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)


def test_a_stage_has_ended_no_sooner_than_it_did(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_at: list[datetime] = []

    def slow(_: Environment) -> None:
        # As where many processes have many connections.
        time.sleep(0.2)

    def work(_: Run) -> dict[str, object]:
        done_at.append(ops.now())
        return {}

    monkeypatch.setattr(usage, "_spark_server", slow)
    monkeypatch.setattr(night, "_function", lambda _: work)
    days = Days.of(date(2013, 1, 5))
    run = Run(pipeline=pipeline("flights"), days=days, environment=home, run_id="r1")
    assert night.perform(run.at(stage("monitor")).to_json()) == 0
    (row,) = ops.read(home, "stage_runs").to_pylist()
    ended = row["started_at"] + timedelta(seconds=row["seconds"])
    # `nightshift sql --run` takes what was published later for another attempt's.
    assert ended >= done_at[0]


def test_measuring_takes_no_time_that_anyone_would_notice(home: Environment) -> None:
    began = time.process_time()
    for _ in range(10):
        Meter(home).read()
    assert (time.process_time() - began) / 10 < 0.1


def test_a_client_of_the_stage_server_stays_light() -> None:
    script = "import sys, jobs.services.usage; print('psutil' in sys.modules)"
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["status", "clear_refs"])
def test_a_system_without_proc_is_measured_too(
    home: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(usage, "_OWN", tmp_path / name)
    assert Meter(home).read().peak_bytes > 10 * _MEGABYTE
