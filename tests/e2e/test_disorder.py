"""Nights through Airflow when things go wrong: they are done in the end, and once.

Minutes each: `make soak` runs them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.services.supervision import Supervisor
from pipelines.days import Days
from tests.e2e.conftest import MINUTES, Installation
from tests.postgres import Postgres

pytestmark = MINUTES
_NIGHT_SECONDS = 1500
"""A task whose scheduler was killed is missed after minutes, and tried again after one more."""
_LOOK_SECONDS = 0.5
_AWAY_SECONDS = 30


@pytest.fixture
def next_nights(installation: Installation, first_night: str) -> Callable[[int], Days]:
    """Lands the files of the next nights that have none yet."""

    def land(count: int) -> Days:
        folder = installation.environment.landing / "flights" / "schedule"
        landed = max(date.fromisoformat(path.stem) for path in folder.glob("*.csv"))
        nights = Days(landed + timedelta(days=1), landed + timedelta(days=count))
        span = ("--from", str(nights.first), "--to", str(nights.last))
        installation.nightshift("land", "flights", *span)
        return nights

    return land


def test_backfilled_nights_take_turns_however_many_may_run_at_once(
    installation: Installation, next_nights: Callable[[int], Days]
) -> None:
    nights = next_nights(5)
    asked = {
        "dag_id": "flights",
        "from_date": f"{nights.first}T00:00:00Z",
        "to_date": f"{nights.last + timedelta(days=1)}T00:00:00Z",
        "max_active_runs": 10,
        "reprocess_behavior": "none",
        "run_backwards": False,
        "dag_run_conf": {},
    }
    airflow = installation.airflow
    backfill = airflow.call("POST", "/backfills", asked)["id"]
    await_that(lambda: airflow.call("GET", f"/backfills/{backfill}")["completed_at"] is not None)
    runs = airflow.call("GET", "/dags/flights/dagRuns?run_type=backfill&limit=100")["dag_runs"]
    assert {run["state"] for run in runs} == {"success"}
    made = [made_once(installation, night) for night in nights]
    # Each was scored by what was known on its own night, and by no later one.
    assert made == sorted(made)


def made_once(installation: Installation, night: date) -> str:
    """When the night's predictions were published; they are whole, and of one revision."""
    day = night + timedelta(days=1)
    [row] = installation.sql(
        f"""SELECT count(*) AS n, count(DISTINCT revision) AS revisions, max(run_id) AS run_id,
                   count(DISTINCT run_id) AS runs, CAST(max(predicted_at) AS VARCHAR) AS at,
                   (SELECT count(*) FROM flights.schedule WHERE landed_date = '{night}') AS wanted
            FROM flights.predictions_history WHERE flight_date = '{day}'"""
    )
    assert row["n"] == row["wanted"]
    assert row["revisions"] == 1
    assert row["runs"] == 1
    assert row["wanted"] > 600
    told = installation.nightshift("plan", "flights", "--date", str(night), "--format", "csv")
    states = {line.split(",")[1] for line in told.splitlines()[1:]}
    assert not {"missing", "stale"} & states
    return str(row["at"])


@pytest.mark.parametrize("service", ["scheduler", "airflow-api", "spark", "stages"])
def test_a_night_is_done_once_though_a_service_is_killed_in_the_middle(
    installation: Installation, next_nights: Callable[[int], Days], service: str
) -> None:
    (night,) = next_nights(1)
    airflow = installation.airflow
    run_id = airflow.trigger("flights", {"date": str(night)})
    # The longest of the stages that ask Spark: of a short one the end may be met.
    await_state(installation, run_id, "features", {"running"})
    victim = Supervisor(installation.environment).processes()[service].pid
    assert victim > 0, "it does not run"
    os.kill(victim, signal.SIGKILL)
    await_that(lambda: answers(installation), patience=300)
    installation.airflow.wait("flights", run_id, _NIGHT_SECONDS)
    made_once(installation, night)
    if service in ("spark", "stages"):
        attempts = [one.try_number for one in airflow.tasks("flights", run_id)]
        assert max(attempts) > 1, "no task was doing something there"


def test_a_night_is_done_once_though_its_databases_are_away_in_the_middle(
    installation: Installation,
    next_nights: Callable[[int], Days],
    database_server: Postgres | None,
) -> None:
    if database_server is None:
        pytest.skip("no PostgreSQL (initdb and postgres) on this machine")
    (night,) = next_nights(1)
    run_id = installation.airflow.trigger("flights", {"date": str(night)})
    await_state(installation, run_id, "transform", {"running"})
    database_server.kill()
    try:
        time.sleep(_AWAY_SECONDS)
    finally:
        database_server.start()
    await_that(lambda: answers(installation), patience=300)
    installation.airflow.wait("flights", run_id, _NIGHT_SECONDS)
    made_once(installation, night)


def test_a_task_that_is_ended_leaves_no_process_and_the_night_goes_on_where_it_was(
    installation: Installation, next_nights: Callable[[int], Days]
) -> None:
    (night,) = next_nights(1)
    airflow = installation.airflow
    run_id = airflow.trigger("flights", {"date": str(night)})
    await_state(installation, run_id, "train", {"running"})
    await_that(lambda: len(working_for(run_id)) > 0)
    task = f"/dags/flights/dagRuns/{run_id}/taskInstances/train"
    airflow.call("PATCH", task, {"new_state": "failed"})
    await_that(lambda: working_for(run_id) == [], patience=60)
    # The champion serves on, the run ends red.
    await_that(lambda: airflow.run("flights", run_id)["state"] == "failed")
    made_once(installation, night)


def working_for(run_id: str) -> list[str]:
    """The command lines of processes that do a stage of the run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"--run-id={run_id}" in words:
            found.append(" ".join(words))
    return found


def test_a_night_waits_for_a_late_file_and_goes_on_by_itself(
    installation: Installation, next_nights: Callable[[int], Days]
) -> None:
    (night,) = next_nights(1)
    file = installation.environment.landing / "flights" / "weather" / f"{night}.csv"
    late = held_back(file)
    run_id = installation.airflow.trigger("flights", {"date": str(night)})
    await_state(installation, run_id, "ingest", {"deferred"})
    late.rename(file)
    installation.airflow.wait("flights", run_id, _NIGHT_SECONDS)
    attempts = {one.name: one.try_number for one in installation.airflow.tasks("flights", run_id)}
    assert attempts["ingest"] == 1, "a wait is no attempt"
    made_once(installation, night)


def held_back(file: Path) -> Path:
    return file.rename(file.with_suffix(".late"))


def answers(installation: Installation) -> bool:
    try:
        installation.airflow.call("GET", "/dags/flights")
    except Exception:  # it is down, or on its way up
        return False
    return True


def await_state(installation: Installation, run_id: str, name: str, states: set[str]) -> None:
    def is_there() -> bool:
        tasks = installation.airflow.tasks("flights", run_id)
        return any(one.name == name and one.state in states for one in tasks)

    await_that(is_there)


def await_that(is_so: Callable[[], Any], patience: float = _NIGHT_SECONDS) -> None:
    until = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < until, "it took too long"
        time.sleep(_LOOK_SECONDS)
