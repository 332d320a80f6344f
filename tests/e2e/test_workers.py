"""Airflow's tasks on workers of Celery's, on two hosts; pages and a scheduler here, another there.

Minutes: `make soak`.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.e2e.conftest import MINUTES
from tests.e2e.machines import (
    NIGHT_SECONDS,
    Machines,
    all_up,
    await_answer,
    log_of_task,
    machines_of,
    places_in,
    predictions_once,
    shared_by_all,
)
from tests.hosts import Network, kill_all_in, two_hosts
from tests.weather import LOADED

pytestmark = MINUTES
_PASSWORD = secrets.token_hex(16)
_OF_PAGES = "airflow-api,scheduler,dag-processor,triggerer,mlflow"
_OF_HOST = "spark,stages,worker"
_TRAINS_IN_BIG = """
def task_policy(task):
    if task.task_id == "train":
        task.queue = "big"
"""
"""What `resources` of a pipeline declares, for a pipeline that declares none: Airflow reads it from
this file, where DAGs are read."""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("workers")
    policy = folder / "policy"
    policy.mkdir()
    (policy / "airflow_local_settings.py").write_text(_TRAINS_IN_BIG)
    with two_hosts() as network, shared_by_all(network) as shared, _broker(network) as url:
        made = machines_of(
            network,
            {
                **shared,
                # On a disk that all see at the same path: an object store of the tests is slow.
                **places_in(str(folder / "of-all")),
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CELERY__BROKER_URL": url,
            },
            folder,
            {"NIGHTSHIFT_SERVICES": _OF_PAGES},
            (
                {"NIGHTSHIFT_SERVICES": f"{_OF_HOST},scheduler"},
                {"NIGHTSHIFT_SERVICES": _OF_HOST, "NIGHTSHIFT_QUEUES": "default,big"},
            ),
        )
        own = made.pages.variables
        own["PYTHONPATH"] = f"{policy}:{own['PYTHONPATH']}" if "PYTHONPATH" in own else str(policy)
        with all_up(made, nights=2):
            yield made


@contextmanager
def _broker(network: Network) -> Iterator[str]:
    """The address of a Redis with a password."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed")
    port = free_port()
    # Its settings go through its input: everyone could read a password in its command line.
    settings = f'bind {network.address}\nport {port}\nsave ""\nrequirepass {_PASSWORD}\n'
    server = subprocess.Popen([program, "-"], stdin=subprocess.PIPE, text=True)
    try:
        assert server.stdin is not None
        server.stdin.write(settings)
        server.stdin.close()
        await_answer(port, network.address)
        yield f"redis://:{_PASSWORD}@{network.address}:{port}/0"
    finally:
        server.terminate()
        server.wait(timeout=60)


def test_workers_share_a_night_and_each_takes_tasks_of_its_queues(machines: Machines) -> None:
    night = _night(1)
    run_id = machines.pages.airflow.trigger("weather", {"date": str(night)})
    seconds = machines.pages.airflow.wait("weather", run_id, NIGHT_SECONDS)
    tasks = machines.tasks(run_id)
    where = {name: task["hostname"] for name, task in tasks.items() if task["hostname"]}
    print(f"\n{run_id}: {seconds:.1f} s, {where}")
    assert set(where.values()) <= set(machines.hosts)
    assert where["train"] == list(machines.hosts)[1]
    for task_id in where:
        assert night.isoformat() in log_of_task(machines.pages.airflow, run_id, task_id)
    assert predictions_once(machines.pages, night) > 0


def test_a_worker_without_power_in_mid_stage_is_replaced(machines: Machines) -> None:
    night = _night(2)
    run_id = machines.pages.airflow.trigger("weather", {"date": str(night)})
    lost = machines.host_of(run_id, "features")
    kill_all_in(machines.hosts[lost].host)
    # Of its queue there may be no other worker.
    machines.hosts[lost].nightshift("up")
    machines.pages.airflow.wait("weather", run_id, NIGHT_SECONDS)
    assert machines.tasks(run_id)["features"]["try_number"] > 1
    assert predictions_once(machines.pages, night) > 0


def test_no_log_of_any_machine_holds_the_password_of_the_broker(machines: Machines) -> None:
    for one in machines.all:
        files = [path for path in one.environment.logs.rglob("*") if path.is_file()]
        assert files
        assert [path for path in files if _PASSWORD in _text(path)] == []


def _night(number: int) -> date:
    return LOADED.last + timedelta(days=number)


def _text(path: Path) -> str:
    return path.read_text(errors="replace")
