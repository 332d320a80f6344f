"""Several machines that are one platform: pages here, and two hosts, which are network namespaces.

They share PostgreSQL, an object store and one secret, and nothing of a disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.services import processes
from jobs.services.airflow_api import Airflow
from pipelines import places, replay
from pipelines.catalog import pipeline
from pipelines.environment import ROOT, Environment
from tests.conftest import free_port
from tests.e2e.conftest import Installation, inherited_variables, keep_logs, processes_of
from tests.hosts import Network, on_host
from tests.weather import LOADED
from tools.setup.machine import postgres_programs

NIGHT_SECONDS = 900
_SECONDS = 60
_LOOK_SECONDS = 0.5
_PLACES = ("LAKE", "LANDING", "REPORTS", "MODELS", "JOBS")
_SECRET = "a secret that all machines of the tests share"
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

    @property
    def all(self) -> list[Installation]:
        """Each machine."""
        return [self.pages, *self.hosts.values()]

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The tasks of a night of weather by name, as Airflow's API tells of them."""
        path = f"/dags/weather/dagRuns/{run_id}/taskInstances"
        found = self.pages.airflow.call("GET", path)["task_instances"]
        return {task["task_id"]: task for task in found}

    def host_of(self, run_id: str, stage: str) -> str:
        """The address of the host on which the stage runs, as soon as it does."""
        until = time.monotonic() + NIGHT_SECONDS
        while time.monotonic() < until:
            task = self.tasks(run_id).get(stage, {})
            if task.get("state") == "running" and task["hostname"]:
                return str(task["hostname"])
            time.sleep(_LOOK_SECONDS)
        raise AssertionError(f"{stage} has not begun")


def predictions_once(pages: Installation, night: date) -> int:
    """How many of them a night of weather has published; all of one revision and one run."""
    [row] = pages.sql(
        f"""SELECT count(*) AS n, count(DISTINCT revision) AS revisions,
                   count(DISTINCT run_id) AS runs FROM weather.predictions_history
            WHERE forecast_date = '{night + timedelta(days=1)}'"""
    )
    assert (row["revisions"], row["runs"]) == (1, 1)
    return int(row["n"])


@contextmanager
def shared_by_all(network: Network) -> Iterator[dict[str, str]]:
    """What all machines are told, but for places: databases and the secret."""
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    from tests.postgres import Postgres

    database = Postgres(network.address)
    try:
        database.start()
        yield {
            "NIGHTSHIFT_AIRFLOW_DATABASE": database.create("airflow"),
            "MLFLOW_TRACKING_URI": database.create("mlflow"),
            "NIGHTSHIFT_SECRET": _SECRET,
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "airflow.utils.net.get_host_ip_address",
            **_HASTE,
        }
    finally:
        database.remove()


@contextmanager
def places_in_a_store(network: Network) -> Iterator[dict[str, str]]:
    """All places, in an object store that all machines reach."""
    port = free_port()
    server = [sys.executable, "-m", "tests.object_store.server", str(port), network.address]
    store = subprocess.Popen(server, cwd=ROOT)
    keys = {
        places.ENDPOINT: f"http://{network.address}:{port}",
        "AWS_ACCESS_KEY_ID": "of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
    }
    try:
        await_answer(port, network.address)
        _make_bucket(keys)
        yield {**keys, **places_in("s3://nights")}
    finally:
        store.terminate()
        store.wait(timeout=_SECONDS)


def places_in(top: str) -> dict[str, str]:
    """All places, below a folder or a URL."""
    return {f"NIGHTSHIFT_{name}": f"{top}/{name.lower()}" for name in _PLACES}


def await_answer(port: int, address: str) -> None:
    """Return when something listens there."""
    until = time.monotonic() + _SECONDS
    while not processes.answers(port, address):
        assert time.monotonic() < until, f"nothing answers at {address}:{port}"
        time.sleep(0.05)


def machines_of(
    network: Network,
    shared: dict[str, str],
    folder: Path,
    of_pages: dict[str, str],
    of_hosts: tuple[dict[str, str], dict[str, str]],
) -> Machines:
    """All of it, not up yet.

    Args:
        network: Where the hosts are.
        shared: What all are told.
        folder: In which each has its home.
        of_pages: What the machine of the pages is told beside.
        of_hosts: What each host is told beside.
    """
    port = str(free_port())
    common = {**inherited_variables(), **shared, "NIGHTSHIFT_AIRFLOW_PORT": port}
    pages = _installation(
        common,
        folder / "pages",
        NIGHTSHIFT_AIRFLOW_HOST="0.0.0.0",  # the hosts reach it by the bridge
        NIGHTSHIFT_MLFLOW_PORT=str(free_port()),
        **of_pages,
    )
    hosts = {}
    for place, (host, own) in enumerate(
        zip(network.hosts, of_hosts, strict=True),
        start=2,
    ):
        address = f"{network.address.removesuffix('.1')}.{place}"
        one = _installation(
            common,
            folder / host,
            NIGHTSHIFT_AIRFLOW_API=f"http://{network.address}:{port}",
            NIGHTSHIFT_SPARK_MEMORY="1g",
            NIGHTSHIFT_SPARK_CORES="1",
            **own,
        )
        hosts[address] = OnHost(environment=one.environment, variables=one.variables, host=host)
    return Machines(pages=pages, hosts=hosts)


@contextmanager
def all_up(machines: Machines, nights: int) -> Iterator[None]:
    """All of it up, with some weeks of weather loaded by one host, for the time of the block.

    Args:
        machines: All of it.
        nights: Of so many nights after these weeks the files land too.
    """
    first = next(iter(machines.hosts.values()))
    try:
        let_nothing_be_due(first.variables, machines.pages.environment.home.parent)
        # All at once, as after a power cut: they make the tables of two databases together.
        with ThreadPoolExecutor(len(machines.all)) as pool:
            list(pool.map(lambda one: one.nightshift("up"), machines.all))
        span = (f"--from={LOADED.first}", f"--to={LOADED.last}")
        last = LOADED.last + timedelta(days=nights)
        first.nightshift("land", "weather", span[0], f"--to={last}")
        first.nightshift("run", "weather", *span)
        yield
    finally:
        for one in machines.all:
            keep_logs(one.environment)
            one.nightshift("down")
            assert processes_of(one.environment.home) == []


def log_of_task(airflow: Airflow, run_id: str, task_id: str) -> str:
    """What the pages show of the first attempt of a task of weather."""
    path = f"/dags/weather/dagRuns/{run_id}/taskInstances/{task_id}/logs/1?full_content=true"
    return str(airflow.call("GET", path)["content"])


def _installation(common: dict[str, str], home: Path, **own: str) -> Installation:
    variables = {**common, "NIGHTSHIFT_HOME": str(home), **own}
    return Installation(environment=Environment.read(variables), variables=variables)


def _make_bucket(shared: dict[str, str]) -> None:
    program = "import s3fs; s3fs.S3FileSystem().mkdir('nights')"
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **shared},
        check=True,
    )


def let_nothing_be_due(shared: dict[str, str], folder: Path) -> None:
    """Begin all replays in some days, so that no night starts by itself."""
    at_disk = Environment.read({"NIGHTSHIFT_HOME": str(folder / "nobody")})
    began = datetime.now(UTC) + timedelta(days=3)
    for name in ("flights", "weather"):
        one = pipeline(name)
        file = replay.file_of(one, at_disk)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(replay.beginning(one, began).to_json())
    source, target = at_disk.landing / ".replay", f"{shared['NIGHTSHIFT_LANDING']}/.replay"
    if not places.is_url(target):
        shutil.copytree(source, target)
        return
    copy = "import s3fs, sys; s3fs.S3FileSystem().put(sys.argv[1], sys.argv[2], recursive=True)"
    command = [sys.executable, "-c", copy, f"{source}/", f"{target}/"]
    subprocess.run(command, env={**os.environ, **shared}, check=True)
