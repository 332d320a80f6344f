"""One real installation for all tests here, and only while they run.

A home of its own on free ports, with a quarter loaded in bulk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psutil
import pytest

from jobs.services import processes
from jobs.services.airflow_api import Airflow
from jobs.services.secrets import secret
from pipelines import replay
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError
from tests.conftest import OF_INSTALLATIONS, SOAK, free_port
from tests.e2e import people
from tools.setup.machine import postgres_programs

if TYPE_CHECKING:
    from tests.postgres import Postgres

LOADED = Days(date(2012, 12, 31), date(2013, 3, 31))
"""The quarter of `make demo`: a shorter history may teach too little for the gate, which is then
right to refuse the model."""
NIGHT = date(2013, 4, 1)
_LOAD_SECONDS = 1800
_LONGEST = timedelta(minutes=20)
"""That these tests take from their start on, about."""
MINUTES = [*SOAK, pytest.mark.timeout(3600)]
"""Marks of tests that take so long."""
ARTIFACTS = ROOT / "artifacts" / "e2e"
"""Screenshots and the services' logs of the last session."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """An installation that is up, and what a test asks of it."""

    environment: Environment
    variables: dict[str, str] = field(repr=False)

    def command(self, *arguments: str) -> list[str]:
        """The command line by which a user runs it."""
        return [str(Path(sys.executable).with_name("nightshift")), *arguments]

    def nightshift(self, *arguments: str, timeout: float = 600) -> str:
        """Run the command as a user would; returns what it prints on stdout."""
        ended = subprocess.run(
            self.command(*arguments),
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert ended.returncode == 0, (
            f"nightshift {' '.join(arguments)} ended with {ended.returncode}\n"
            f"{ended.stdout}\n{ended.stderr}"
        )
        return ended.stdout

    def sql(self, statement: str) -> list[dict[str, Any]]:
        """Rows of a SQL statement over the lake."""
        printed = self.nightshift("sql", statement, "--format", "json")
        rows: list[dict[str, Any]] = json.loads(printed)
        return rows

    @property
    def airflow(self) -> Airflow:
        """Airflow's API as the installation's own user."""
        url = f"http://127.0.0.1:{self.environment.airflow_port}"
        password = secret(self.environment, "admin_password")
        return Airflow(url=url, user="admin", password=password)

    def await_scheduled_night(self) -> str:
        """Wait until the night that was due has succeeded; returns the run's id."""
        until = time.monotonic() + _LOAD_SECONDS
        runs: list[dict[str, Any]] = []
        while not runs:
            assert time.monotonic() < until, "the scheduler has made no run"
            time.sleep(1)
            # The DAG is not known before its file was read.
            with suppress(NightshiftError):
                path = "/dags/flights/dagRuns?run_type=scheduled"
                runs = self.airflow.call("GET", path)["dag_runs"]
        run_id = str(runs[0]["dag_run_id"])
        seconds = self.airflow.wait("flights", run_id, _LOAD_SECONDS)
        print(f"\n{run_id}: {seconds:.1f} s for {LOADED} through Airflow")
        return run_id

    def run_night(self, **params: object) -> str:
        """Trigger the DAG, wait until it has succeeded, and return the run's id."""
        airflow = self.airflow
        run_id = airflow.trigger("flights", params)
        seconds = airflow.wait("flights", run_id, timeout_seconds=1800)
        tasks = airflow.tasks("flights", run_id)
        stages = [f"{task.name} {task.seconds or 0:.1f}" for task in tasks]
        print(f"\n{run_id}: {seconds:.1f} s through Airflow ({', '.join(stages)})")
        return run_id


def last_due() -> datetime:
    """When the last scheduled night of flights was due."""
    flights = pipeline("flights")
    minute, hour = map(int, flights.schedule.split()[:2])
    now = datetime.now(ZoneInfo(flights.timezone))
    due = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return due if due <= now else due - timedelta(days=1)


def have_a_night_due(environment: Environment) -> None:
    """Let the last day of LOADED be the one that the last scheduled night is about.

    Its run is made as soon as the scheduler is up. Of the weather no night is due today.
    """
    flights, weather = pipeline("flights"), pipeline("weather")
    now = datetime.now(UTC)
    left = last_due() + timedelta(days=1) - now
    if left < _LONGEST:
        # Else one more night falls due while they run, and makes what they are to make.
        time.sleep(left.total_seconds() + 1)
    due = last_due()
    for one, began, first in (
        # Of what was due before a home was first started there is no night.
        (flights, due - timedelta(minutes=1), LOADED.last),
        (weather, now + timedelta(days=2), None),
    ):
        path = replay.file_of(one, environment)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(replay.beginning(one, began, first).to_json())


def processes_of(home: Path) -> list[str]:
    """The living processes that work for the home, in words."""
    # Whatever home the tests themselves were started with, they end after it.
    others = [process for process in psutil.process_iter() if process.pid != os.getpid()]
    own = [process for process in others if processes.belongs(process, home)]
    return [processes.describe(process) for process in own if processes.is_alive(process)]


@pytest.fixture(scope="package")
def database_server() -> Iterator[Postgres | None]:
    """A PostgreSQL of these tests' own; None where there is none on this machine."""
    if postgres_programs() is None:
        yield None
        return
    from tests.postgres import Postgres

    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="package")
def databases(database_server: Postgres | None) -> dict[str, str]:
    """Settings by which Airflow, MLflow and the warehouse are in a PostgreSQL of their own.

    None where there is no PostgreSQL: then SQLite it is, as on a laptop.
    """
    if database_server is None:
        return {}
    for name in ("airflow", "mlflow", "warehouse"):
        database_server.create(name)
    return {
        "NIGHTSHIFT_AIRFLOW_DATABASE": database_server.url("airflow"),
        "MLFLOW_TRACKING_URI": database_server.url("mlflow"),
        "NIGHTSHIFT_WAREHOUSE_URL": database_server.url("warehouse"),
    }


@pytest.fixture(scope="package")
def installation(
    tmp_path_factory: pytest.TempPathFactory, databases: dict[str, str]
) -> Iterator[Installation]:
    """A real installation: a scheduled night has loaded LOADED, and the files of NIGHT have landed.

    It leaves no process behind.
    """
    home = tmp_path_factory.mktemp("e2e") / "home"
    variables = {
        "NIGHTSHIFT_HOME": str(home),
        "NIGHTSHIFT_SPARK_PORT": str(free_port()),
        "NIGHTSHIFT_AIRFLOW_PORT": str(free_port()),
        "NIGHTSHIFT_MLFLOW_PORT": str(free_port()),
        "NIGHTSHIFT_SPARK_MEMORY": "2g",
        "NIGHTSHIFT_USERS": people.USERS,
        "NIGHTSHIFT_LINEAGE": str(home.with_name("lineage.jsonl")),
        # No file of DAGs changes here: Airflow reads all of them every half minute.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
        **databases,
    }
    made = Installation(
        environment=Environment.read(variables),
        variables={**inherited_variables(), **variables},
    )
    try:
        made.nightshift("land", "flights", "--from", str(LOADED.first), "--to", str(NIGHT))
        have_a_night_due(made.environment)
        made.nightshift("up")
        made.await_scheduled_night()
        yield made
    finally:
        keep_logs(made.environment)
        made.nightshift("down")
        assert processes_of(home) == []


def inherited_variables() -> dict[str, str]:
    """Those of the tests, without any that would lead to another installation."""
    inherited = dict(os.environ)
    for name in os.environ:
        if name.startswith(OF_INSTALLATIONS):
            del inherited[name]
    return inherited


def keep_logs(environment: Environment) -> None:
    """Keep what the services said, for whoever looks into a failure."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    for log in environment.logs.glob("*.log"):
        (ARTIFACTS / log.name).write_bytes(log.read_bytes())


@pytest.fixture(scope="package")
def first_night(installation: Installation) -> str:
    """NIGHT has been run once by Airflow; the id of that run."""
    return installation.run_night(date=str(NIGHT))


@pytest.fixture
def screenshot() -> Callable[[Any, str], None]:
    """Keeps a picture of a browser's page in the artifacts."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)
