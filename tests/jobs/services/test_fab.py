"""Who may do what where users are in Airflow's database; beside `tests/e2e/test_people.py`."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.services import airflow
from jobs.services.accounts import accounts
from pipelines.environment import Environment
from tests.conftest import free_port
from tests.e2e import people
from tests.e2e.conftest import inherited_variables
from tests.jobs.services.conftest import BY_FAB

_START_SECONDS = 300


@pytest.fixture
def with_fab(made_by_fab: Environment, tmp_path: Path) -> Iterator[Environment]:
    """An API server alone, whose users are in Airflow's database."""
    # With the passwords, which are those in the database.
    home = shutil.copytree(made_by_fab.home, tmp_path / "home")
    given = {
        "NIGHTSHIFT_HOME": str(home),
        "NIGHTSHIFT_AIRFLOW_PORT": str(free_port()),
        **BY_FAB,
    }
    environment = Environment.read(given)
    variables = {**inherited_variables(), **airflow.every_variable(environment)}
    with (environment.logs / "api.log").open("wb") as log:
        server = subprocess.Popen(
            airflow.program("api-server"), env=variables, stdout=log, stderr=log
        )
    try:
        _await_health(environment, server)
        # Airflow knows a DAG when it has parsed it once.
        parse = airflow.program("dags", "reserialize")
        subprocess.run(parse, env=variables, check=True, capture_output=True)
        yield environment
    finally:
        server.terminate()
        server.wait(60)


def _await_health(environment: Environment, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while not airflow.health(environment):
        log = (environment.logs / "api.log").read_text(errors="replace")
        assert server.poll() is None, log
        assert time.monotonic() < until, log
        time.sleep(0.5)


def test_where_people_keep_users_in_airflows_database_roles_mean_the_same(
    with_fab: Environment,
) -> None:
    somebody = people.signed_in(with_fab)
    assert {name: one.may() for name, one in somebody.items()} == people.ABLE
    nobody = people.Person(url=somebody["ann"].url)
    assert nobody.may() == []
    files = with_fab.logs.rglob("*.log")
    logs = "".join(path.read_text(errors="replace") for path in files)
    assert not any(one.password in logs for one in accounts(with_fab))
