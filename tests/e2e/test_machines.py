"""One platform on three machines: pages here, and on two hosts a scheduler with its stages each.

They share PostgreSQL, an object store and one secret, and nothing of a disk. Minutes: `make soak`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.services import processes
from jobs.services.airflow_api import Airflow
from jobs.services.secrets import secret
from pipelines import places, replay
from pipelines.catalog import pipeline
from pipelines.environment import ROOT, Environment
from tests.conftest import free_port
from tests.e2e.conftest import (
    MINUTES,
    Installation,
    inherited_variables,
    keep_logs,
    processes_of,
)
from tests.hosts import Network, kill_all_in, on_host, two_hosts
from tests.weather import LOADED
from tools.setup.machine import postgres_programs

pytestmark = MINUTES
_NIGHT_SECONDS = 900
_SECONDS = 60
_LOOK_SECONDS = 0.5
_SECRET = "a secret that all machines of the tests share"
_OF_PAGES = "airflow-api,dag-processor,triggerer,mlflow"
_OF_STAGES = "spark,stages,scheduler"
_HASTE = {
    # A host that has lost its power is missed after half a minute instead of five.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
}


@dataclass(frozen=True, kw_only=True)
class OnHost(Installation):
    """The part of the platform on a host."""

    host: str

    def command(self, *arguments: str) -> list[str]:
        """The command line by which it runs there."""
        return on_host(self.host, *super().command(*arguments))


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The platform."""

    pages: Installation
    hosts: dict[str, OnHost]
    """By address."""

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a night of weather, as Airflow's API tells of them."""
        path = f"/dags/weather/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = self.pages.airflow.call("GET", path)["task_instances"]
        return found


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with two_hosts() as made:
        yield made


@pytest.fixture(scope="module")
def shared(network: Network) -> Iterator[dict[str, str]]:
    """What all machines are told: databases, places and the secret."""
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    from tests.postgres import Postgres

    database = Postgres(network.address)
    port = free_port()
    server = [sys.executable, "-m", "tests.object_store.server", str(port), network.address]
    store = subprocess.Popen(server, cwd=ROOT)
    keys = {
        places.ENDPOINT: f"http://{network.address}:{port}",
        "AWS_ACCESS_KEY_ID": "of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
    }
    try:
        database.start()
        until = time.monotonic() + _SECONDS
        while not processes.answers(port, network.address):
            assert time.monotonic() < until, "the object store does not answer"
            time.sleep(0.05)
        names = ("LAKE", "LANDING", "REPORTS", "MODELS", "JOBS")
        yield {
            **keys,
            **{f"NIGHTSHIFT_{name}": f"s3://nights/{name.lower()}" for name in names},
            "NIGHTSHIFT_AIRFLOW_DATABASE": database.create("airflow"),
            "MLFLOW_TRACKING_URI": database.create("mlflow"),
            "NIGHTSHIFT_SECRET": _SECRET,
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "airflow.utils.net.get_host_ip_address",
            **_HASTE,
        }
    finally:
        store.terminate()
        store.wait(timeout=_SECONDS)
        database.remove()


@pytest.fixture(scope="module")
def machines(
    network: Network, shared: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    """All of it up, with some weeks of weather loaded by one host."""
    folder = tmp_path_factory.mktemp("machines")
    port = str(free_port())
    common = {**inherited_variables(), **shared, "NIGHTSHIFT_AIRFLOW_PORT": port}
    pages = _installation(
        common,
        folder / "pages",
        NIGHTSHIFT_SERVICES=_OF_PAGES,
        NIGHTSHIFT_AIRFLOW_HOST="0.0.0.0",  # the hosts reach it by the bridge
        NIGHTSHIFT_MLFLOW_PORT=str(free_port()),
    )
    hosts = {}
    for place, host in enumerate(network.hosts, start=2):
        address = f"{network.address.removesuffix('.1')}.{place}"
        one = _installation(
            common,
            folder / host,
            NIGHTSHIFT_SERVICES=_OF_STAGES,
            NIGHTSHIFT_AIRFLOW_API=f"http://{network.address}:{port}",
            NIGHTSHIFT_SPARK_MEMORY="1g",
            NIGHTSHIFT_SPARK_CORES="1",
        )
        hosts[address] = OnHost(environment=one.environment, variables=one.variables, host=host)
    made = Machines(pages=pages, hosts=hosts)
    everyone: list[Installation] = [pages, *hosts.values()]
    try:
        _make_bucket(shared)
        _let_nothing_be_due(shared, folder)
        # All at once, as after a power cut: they make the tables of two databases together.
        with ThreadPoolExecutor(len(everyone)) as pool:
            list(pool.map(lambda one: one.nightshift("up"), everyone))
        first = next(iter(hosts.values()))
        span = (f"--from={LOADED.first}", f"--to={LOADED.last}")
        last = LOADED.last + timedelta(days=2)
        first.nightshift("land", "weather", span[0], f"--to={last}")
        first.nightshift("run", "weather", *span)
        yield made
    finally:
        for one in everyone:
            keep_logs(one.environment)
            one.nightshift("down")
            assert processes_of(one.environment.home) == []


def _installation(common: dict[str, str], home: Path, **own: str) -> Installation:
    variables = {**common, "NIGHTSHIFT_HOME": str(home), **own}
    return Installation(environment=Environment.read(variables), variables=variables)


def _make_bucket(shared: dict[str, str]) -> None:
    program = "import s3fs; s3fs.S3FileSystem().mkdir('nights')"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **shared}, check=True)


def _let_nothing_be_due(shared: dict[str, str], folder: Path) -> None:
    """Begin all replays in some days, so that no night starts by itself."""
    at_disk = Environment.read({"NIGHTSHIFT_HOME": str(folder / "nobody")})
    began = datetime.now(UTC) + timedelta(days=3)
    for name in ("flights", "weather"):
        one = pipeline(name)
        file = replay.file_of(one, at_disk)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(replay.beginning(one, began).to_json())
    copy = "import s3fs, sys; s3fs.S3FileSystem().put(sys.argv[1], sys.argv[2], recursive=True)"
    source, target = f"{at_disk.landing}/.replay/", f"{shared['NIGHTSHIFT_LANDING']}/.replay/"
    command = [sys.executable, "-c", copy, source, target]
    subprocess.run(command, env={**os.environ, **shared}, check=True)


def test_secrets_are_the_same_on_each_machine(machines: Machines) -> None:
    homes = [machines.pages.environment, *(one.environment for one in machines.hosts.values())]
    for name in ("jwt_secret", "fernet_key", "api_secret_key", "admin_password"):
        assert len({secret(home, name) for home in homes}) == 1


def test_a_night_runs_on_the_hosts_and_its_logs_are_shown_by_the_pages(
    machines: Machines,
) -> None:
    night = LOADED.last + timedelta(days=1)
    airflow = machines.pages.airflow
    run_id = airflow.trigger("weather", {"date": str(night)})
    seconds = airflow.wait("weather", run_id, _NIGHT_SECONDS)
    tasks = machines.tasks(run_id)
    where = {task["task_id"]: task["hostname"] for task in tasks if task["hostname"]}
    print(f"\n{run_id}: {seconds:.1f} s, {where}")
    assert set(where.values()) <= set(machines.hosts)
    for task_id in where:
        assert night.isoformat() in _log(airflow, run_id, task_id)
    assert _predictions(machines, night) > 0


def test_a_host_without_power_in_mid_night_is_replaced_by_the_other(machines: Machines) -> None:
    night = LOADED.last + timedelta(days=2)
    airflow = machines.pages.airflow
    run_id = airflow.trigger("weather", {"date": str(night)})
    lost = _host_of(machines, run_id, "features")
    kill_all_in(machines.hosts[lost].host)
    airflow.wait("weather", run_id, _NIGHT_SECONDS)
    [features] = [one for one in machines.tasks(run_id) if one["task_id"].endswith("features")]
    assert features["hostname"] != lost
    assert features["try_number"] > 1
    assert _predictions(machines, night) > 0
    # It comes back, and has nothing to clear away.
    machines.hosts[lost].nightshift("up")


def _host_of(machines: Machines, run_id: str, stage: str) -> str:
    """The host on which the stage runs, as soon as it does."""
    until = time.monotonic() + _NIGHT_SECONDS
    while time.monotonic() < until:
        for task in machines.tasks(run_id):
            is_running = task["state"] == "running" and task["hostname"]
            if is_running and task["task_id"].endswith(stage):
                return str(task["hostname"])
        time.sleep(_LOOK_SECONDS)
    raise AssertionError(f"{stage} has not begun")


def _log(airflow: Airflow, run_id: str, task_id: str) -> str:
    path = f"/dags/weather/dagRuns/{run_id}/taskInstances/{task_id}/logs/1?full_content=true"
    return str(airflow.call("GET", path)["content"])


def _predictions(machines: Machines, night: date) -> int:
    """How many of them the night has published; all of one revision and one run."""
    [row] = machines.pages.sql(
        f"""SELECT count(*) AS n, count(DISTINCT revision) AS revisions,
                   count(DISTINCT run_id) AS runs
            FROM weather.predictions_history WHERE forecast_date = '{night + timedelta(days=1)}'"""
    )
    assert (row["revisions"], row["runs"]) == (1, 1)
    return int(row["n"])
