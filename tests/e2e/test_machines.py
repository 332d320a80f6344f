"""One platform on three machines: pages here, and on two hosts a scheduler with its stages each.

Minutes: `make soak`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from jobs.services.secrets import secret
from tests.e2e.conftest import MINUTES
from tests.e2e.machines import (
    NIGHT_SECONDS,
    Machines,
    all_up,
    log_of_task,
    machines_of,
    places_in_a_store,
    predictions_once,
    shared_by_all,
)
from tests.hosts import kill_all_in, two_hosts
from tests.weather import LOADED

pytestmark = MINUTES
_OF_PAGES = {"NIGHTSHIFT_SERVICES": "airflow-api,dag-processor,triggerer,mlflow"}
_OF_HOST = {"NIGHTSHIFT_SERVICES": "spark,stages,scheduler"}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    with (
        two_hosts() as network,
        shared_by_all(network) as shared,
        places_in_a_store(network) as store,
    ):
        made = machines_of(network, {**shared, **store}, folder, _OF_PAGES, (_OF_HOST, _OF_HOST))
        with all_up(made, nights=2):
            yield made


def test_secrets_are_the_same_on_each_machine(machines: Machines) -> None:
    homes = [one.environment for one in machines.all]
    for name in ("jwt_secret", "fernet_key", "api_secret_key", "admin_password"):
        assert len({secret(home, name) for home in homes}) == 1


def test_a_night_runs_on_the_hosts_and_its_logs_are_shown_by_the_pages(
    machines: Machines,
) -> None:
    night = LOADED.last + timedelta(days=1)
    airflow = machines.pages.airflow
    run_id = airflow.trigger("weather", {"date": str(night)})
    seconds = airflow.wait("weather", run_id, NIGHT_SECONDS)
    tasks = machines.tasks(run_id)
    where = {name: task["hostname"] for name, task in tasks.items() if task["hostname"]}
    print(f"\n{run_id}: {seconds:.1f} s, {where}")
    assert set(where.values()) <= set(machines.hosts)
    for task_id in where:
        assert night.isoformat() in log_of_task(airflow, run_id, task_id)
    assert predictions_once(machines.pages, night) > 0


def test_a_host_without_power_in_mid_night_is_replaced_by_the_other(machines: Machines) -> None:
    night = LOADED.last + timedelta(days=2)
    airflow = machines.pages.airflow
    run_id = airflow.trigger("weather", {"date": str(night)})
    lost = machines.host_of(run_id, "features")
    kill_all_in(machines.hosts[lost].host)
    airflow.wait("weather", run_id, NIGHT_SECONDS)
    features = machines.tasks(run_id)["features"]
    assert features["hostname"] != lost
    assert features["try_number"] > 1
    assert predictions_once(machines.pages, night) > 0
    # It comes back, and has nothing to clear away.
    machines.hosts[lost].nightshift("up")
