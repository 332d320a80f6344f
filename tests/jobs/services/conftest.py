from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs.services import processes
from pipelines.environment import Environment
from tests.airflow_home import prepare
from tests.e2e import people

BY_FAB = {"NIGHTSHIFT_AUTH": "fab", "NIGHTSHIFT_USERS": people.USERS}
"""Settings by which accounts are in Airflow's database."""


@pytest.fixture
def make_home(tmp_path: Path) -> Iterator[Callable[[str], Environment]]:
    """Makes environments with homes of their own; what they leave running fails the test."""
    made: list[Environment] = []

    def build(name: str) -> Environment:
        variables = {
            "NIGHTSHIFT_HOME": str(tmp_path / name),
            "NIGHTSHIFT_SPARK_PORT": str(processes.free_port()),
            "NIGHTSHIFT_AIRFLOW_PORT": str(processes.free_port()),
            "NIGHTSHIFT_MLFLOW_PORT": str(processes.free_port()),
        }
        environment = Environment.read(variables)
        made.append(environment)
        return environment

    yield build
    left: list[psutil.Process] = []
    for environment in made:
        left += processes.marked(environment.home)
    processes.end(left)
    assert left == []


@pytest.fixture
def home(make_home: Callable[[str], Environment]) -> Environment:
    return make_home("home")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A home whose database Airflow has made, which takes it seconds; for copies."""
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path_factory.mktemp("made"))})
    prepare(environment)
    return environment


@pytest.fixture(scope="session")
def made_by_fab(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The same with accounts in the database: of the admin, of ann and of bob."""
    home = str(tmp_path_factory.mktemp("made by fab"))
    environment = Environment.read({"NIGHTSHIFT_HOME": home, **BY_FAB})
    prepare(environment)
    return environment
