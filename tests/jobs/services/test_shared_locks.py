"""Machines that share a registry of models take turns; each is a home of its own here."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from jobs.services import shared_locks
from pipelines.environment import ROOT, Environment
from pipelines.errors import AwaitsTurn, NightshiftError
from tests.postgres import Postgres

_HOLDER = """
import sys
from jobs.services import shared_locks
from pipelines.environment import Environment
with shared_locks.hold(Environment.read(), sys.argv[1], waiting="It is taken."):
    print("held", flush=True)
    sys.stdin.read()
"""
_SECONDS = 20
_WAITS = 1.0
"""Longer than a process that need not wait takes to have the lock."""
Machine = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def registry(postgres: Postgres) -> str:
    """The address of a registry that machines share."""
    return postgres.database("locks")


@pytest.fixture
def machine(registry: str, tmp_path: Path) -> Iterator[Machine]:
    """Starts a process that takes a lock: `machine("one", "pipeline.toy")`."""
    started: list[subprocess.Popen[str]] = []

    def start(
        home: str, lock: str, tracking: str = registry, airflow: str = "sqlite:////srv/airflow.db"
    ) -> subprocess.Popen[str]:
        with (tmp_path / f"{home}.err").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", _HOLDER, lock],
                env={
                    "NIGHTSHIFT_HOME": str(tmp_path / home),
                    "MLFLOW_TRACKING_URI": tracking,
                    "NIGHTSHIFT_AIRFLOW_DATABASE": airflow,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _has_it(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


def _release(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=_SECONDS)
    assert process.returncode == 0


def test_of_two_machines_one_waits_and_is_told(machine: Machine, tmp_path: Path) -> None:
    first = machine("one", "pipeline.toy")
    _has_it(first)
    second = machine("two", "pipeline.toy")
    deadline = time.monotonic() + _SECONDS
    while "It is taken." not in (tmp_path / "two.err").read_text():
        assert time.monotonic() < deadline and second.poll() is None
        time.sleep(0.05)
    _release(first)
    _has_it(second)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seconds", [0.2, 0])
def test_who_waits_for_a_machine_no_longer_than_it_is_to_is_told(
    machine: Machine, registry: str, tmp_path: Path, seconds: float
) -> None:
    _has_it(machine("one", "pipeline.toy"))
    settings = {"NIGHTSHIFT_HOME": str(tmp_path / "two"), "MLFLOW_TRACKING_URI": registry}
    environment = Environment.read(settings)
    with (
        pytest.raises(AwaitsTurn, match=rf"'pipeline.toy' was not free within {seconds} s\."),
        shared_locks.hold(environment, "pipeline.toy", most_seconds=seconds),
    ):
        raise AssertionError("it is held twice")


@pytest.mark.timeout(60)
def test_who_waits_for_a_machine_is_told_which_and_what_runs_there(
    machine: Machine,
    registry: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A PostgreSQL that is slow to answer would be told of too.
    monkeypatch.setattr(shared_locks, "_SOON_SECONDS", 600)
    _has_it(machine("one", "pipeline.other"))
    first = machine("one", "pipeline.toy")
    _has_it(first)
    settings = {"NIGHTSHIFT_HOME": str(tmp_path / "two"), "MLFLOW_TRACKING_URI": registry}
    environment = Environment.read(settings)

    def told_of(**told: str) -> str:
        hold = shared_locks.hold(environment, "pipeline.toy", most_seconds=0.1, **told)
        with pytest.raises(AwaitsTurn) as late, hold:
            raise AssertionError("it is held twice")
        return str(late.value)

    held = f"The lock is held by process {first.pid} on {socket.gethostname()}."
    assert told_of(waiting="It is taken.").endswith(f" s. {held}")
    assert capsys.readouterr().err == f"It is taken. {held}\n"
    _release(first)
    long = "run scheduled__2026-11-26T11:00:00+00:00, which came\nat 11:00 UTC " + "x" * 100
    with shared_locks.hold_at(environment, "mlflow_uri", "pipeline.toy", holder=long):
        assert told_of().endswith(f" The lock is held by {' '.join(long.split())}.")


def test_a_postgresql_that_does_not_answer_soon_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shared_locks, "_SOON_SECONDS", 0.2)
    monkeypatch.setitem(shared_locks._CONNECTION, "connect_timeout", 2)
    # It takes connections, and nobody is there.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = {"MLFLOW_TRACKING_URI": f"postgresql+psycopg2://me:T0K3N@{host}/mlflow"}
        environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path), **settings})
        lock = shared_locks.hold(environment, "pipeline.toy")
        with pytest.raises(NightshiftError, match="could not be had from PostgreSQL"), lock:
            raise AssertionError("nobody gave it")
    waiting = "Waiting for the PostgreSQL of MLFLOW_TRACKING_URI"
    assert capsys.readouterr().err == f"{waiting}, at {host}, to answer.\n"


def test_nothing_is_said_of_a_postgresql_that_answers(
    registry: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # So that it is none of a busy machine either.
    monkeypatch.setattr(shared_locks, "_SOON_SECONDS", 600)
    settings = {"NIGHTSHIFT_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": registry}
    with shared_locks.hold(Environment.read(settings), "pipeline.toy"):
        timers = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
        assert [one for one in timers if one.function is print] == [], "it would be told later"
    assert capsys.readouterr().err == ""


def test_nothing_is_said_of_a_postgresql_after_it_has_answered(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_saying = threading.Event()
    order: list[str] = []

    def say(*_: object, **options: object) -> None:
        is_saying.set()
        time.sleep(0.5)
        order.append("Waiting")

    connect = psycopg.connect

    def answer_meanwhile(*given: Any, **options: Any) -> Any:
        assert is_saying.wait(_SECONDS)
        return connect(*given, **options)

    monkeypatch.setattr(shared_locks, "_SOON_SECONDS", 0)
    monkeypatch.setattr(shared_locks, "print", say, raising=False)
    monkeypatch.setattr(psycopg, "connect", answer_meanwhile)
    settings = {"NIGHTSHIFT_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": registry}
    with shared_locks.hold(Environment.read(settings), "pipeline.toy"):
        order.append("answered")
    assert order == ["Waiting", "answered"]


@pytest.mark.parametrize("mlflow", ["https://mlflow.internal", "mysql://u:p@db/mlflow"])
def test_where_mlflow_is_no_postgresql_machines_wait_by_that_of_airflow(
    machine: Machine, registry: str, tmp_path: Path, mlflow: str
) -> None:
    _has_it(machine("one", "pipeline.toy", mlflow, registry))
    second = machine("two", "pipeline.toy", mlflow, registry)
    deadline = time.monotonic() + _SECONDS
    while "It is taken." not in (tmp_path / "two.err").read_text():
        assert time.monotonic() < deadline and second.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("mlflow", "airflow", "told"),
    [
        ("https://mlflow.internal", "sqlite:////srv/airflow.db", "neither MLFLOW_TRACKING_URI nor"),
        ("https://mlflow.internal", "postgresql://db/airflow", ""),
        ("postgresql://db/mlflow", "sqlite:////srv/airflow.db", ""),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/airflow.db", ""),
    ],
)
def test_machines_that_take_no_turns_are_told(mlflow: str, airflow: str, told: str) -> None:
    settings = {"MLFLOW_TRACKING_URI": mlflow, "NIGHTSHIFT_AIRFLOW_DATABASE": airflow}
    why = shared_locks.why_no_turns(Environment.read(settings))
    assert why.startswith(told)
    assert bool(why) == bool(told)


def test_another_lock_and_another_registry_are_free(machine: Machine, postgres: Postgres) -> None:
    _has_it(machine("one", "pipeline.toy"))
    _has_it(machine("two", "pipeline.other"))
    _has_it(machine("three", "pipeline.toy", postgres.create("other_locks")))


def test_a_machine_that_dies_leaves_no_lock(machine: Machine) -> None:
    first = machine("one", "pipeline.toy")
    _has_it(first)
    first.kill()
    _has_it(machine("two", "pipeline.toy"))


def test_in_one_home_processes_take_turns_too(machine: Machine) -> None:
    _has_it(machine("one", "pipeline.toy"))
    second = machine("one", "pipeline.toy")
    time.sleep(_WAITS)
    assert second.poll() is None
    assert second.stdout is not None
    second.kill()
    assert second.stdout.read() == ""


def test_a_database_that_is_away_is_told_without_its_password(
    postgres: Postgres, registry: str, tmp_path: Path
) -> None:
    environment = Environment.read(
        {"NIGHTSHIFT_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": registry}
    )
    postgres.stop()
    with (
        pytest.raises(NightshiftError, match=r"lock 'pipeline.toy' .*MLFLOW_TRACKING_URI") as away,
        shared_locks.hold(environment, "pipeline.toy"),
    ):
        pass
    password = urlsplit(registry).password
    assert password and password not in str(away.value)


def test_a_registry_on_this_machine_needs_no_database(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    with shared_locks.hold(environment, "pipeline.toy"):
        assert (tmp_path / "run" / "locks" / "pipeline.toy").exists()
