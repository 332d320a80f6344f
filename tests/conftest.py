"""What heavy tests share: one home and one embedded Spark Connect server for the whole session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.stages import stage
from tests import empty_registry

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.postgres import Postgres

# An example that waits for a busy machine is not a slow one.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_FOLDERS_OF_A_GROUP = 3
"""`tests/jobs/stages` is a group; what lies deeper belongs to it."""
_SAME_LAKE = ("tests/expectations", "tests/object_store")
"""They read `weather_lake` too, which takes a minute to load: one worker loads it once."""
_FIRST = (
    *("tests/bench", "tests/dags", "tests/e2e", "tests"),
    *("tests/jobs/training", "tests/jobs/stages"),
)
"""Groups that are begun first. The last four take ten minutes each: one that is begun late leaves
the other worker without work for minutes."""
SWEEP_EXAMPLES = 60 if os.environ.get("SOAK") else 4
"""Hypothesis examples of a test marked `soak`: a short sample in `make test`, a long sweep in `make
soak`."""
STEP = 1 if os.environ.get("SOAK") else 3
"""How far a test marked `soak` goes at once where something dies at any step."""
OF_INSTALLATIONS = ("NIGHTSHIFT_", "AIRFLOW", "SPARK_", "MLFLOW_")
"""How variables begin that would lead to another installation than a test's own."""
SOAK = [
    pytest.mark.soak,
    pytest.mark.skipif(not os.environ.get("SOAK"), reason="minutes; `make soak` runs it"),
]
"""Marks of tests that `make soak` alone runs."""


class ByFolder(LoadScopeScheduling):
    """Gives each folder of tests to one worker: they share an installation, a server or a lake."""

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(nodeid)


def _group_of(nodeid: str) -> str:
    folders = Path(nodeid.partition("::")[0]).parent.parts
    group = "/".join(folders[:_FOLDERS_OF_A_GROUP])
    return "tests" if group in _SAME_LAKE else group


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups that take long first; within each, and of the others, the order stays."""

    def place(item: pytest.Item) -> int:
        group = _group_of(item.nodeid)
        return _FIRST.index(group) if group in _FIRST else len(_FIRST)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    """See `ByFolder`."""
    return ByFolder(config, log)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def chmod_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the shared server has had `chmod` do, in a process each, a line a call."""
    folder = tmp_path_factory.mktemp("programs")
    calls, program = folder / "calls", folder / "chmod"
    calls.touch()
    true_one = shutil.which("chmod")
    program.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\nexec {true_one} "$@"\n')
    program.chmod(0o755)
    return calls


@pytest.fixture(scope="session")
def shared_environment(
    tmp_path_factory: pytest.TempPathFactory, chmod_calls: Path
) -> Iterator[Environment]:
    """An environment with a home of its own, whose Spark Connect server is up."""
    from jobs.spark.server import running_server

    variables = {
        "NIGHTSHIFT_HOME": str(tmp_path_factory.mktemp("one's home")),
        "NIGHTSHIFT_SPARK_PORT": str(free_port()),
        "NIGHTSHIFT_AIRFLOW_PORT": str(free_port()),
        "NIGHTSHIFT_MLFLOW_PORT": str(free_port()),
    }
    environment = Environment.read({**variables, "NIGHTSHIFT_SPARK_MEMORY": "2g"})
    os.environ.update(variables)
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(chmod_calls.parent), prepend=os.pathsep)
            stack.enter_context(running_server(environment))
        yield environment


@pytest.fixture(scope="session")
def spark(shared_environment: Environment) -> SparkSession:
    """A Spark Connect session on the shared server."""
    from jobs.spark.session import connect

    return connect(shared_environment)


@pytest.fixture
def own_sessions(shared_environment: Environment) -> Iterator[None]:
    """Sessions that the test connects end with it; the shared one outlives them."""
    from jobs.spark import session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_sessions", {})
        yield
        session.disconnect()
    session.connect(shared_environment)


@pytest.fixture
def environment(shared_environment: Environment, tmp_path: Path) -> Environment:
    """The shared server with an empty lake, landing folder and model registry of the test's own."""
    return replace(
        shared_environment,
        lake=str(tmp_path / "lake"),
        landing=tmp_path / "landing",
        mlflow_uri=empty_registry.put_in(tmp_path),
    )


@pytest.fixture
def make_run(environment: Environment) -> Callable[..., Run]:
    """Builds a Run of flights: `make_run("ingest", "2013-01-05")` or with a last day too."""

    def build(
        stage_name: str,
        first: str,
        last: str | None = None,
        **more: object,
    ) -> Run:
        days = Days(date.fromisoformat(first), date.fromisoformat(last or first))
        return Run(pipeline=pipeline("flights"), days=days, environment=environment, **more).at(
            stage(stage_name)
        )  # type: ignore[arg-type]

    return build


@pytest.fixture
def as_at_a_terminal() -> Iterator[None]:
    """Signals count, also where the tests were started in the background or under `nohup`."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, how) for number, how in usual.items()}
    yield
    for number, how in before.items():
        signal.signal(number, how)


@pytest.fixture(scope="session")
def weather_lake(
    shared_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """A lake with some weeks of weather, on the shared server."""
    from jobs.spark.session import plan_for
    from tests import weather

    environment = weather.lake(shared_environment, tmp_path_factory.mktemp("weather"))
    # A load has Spark compile, which no test of a night's rows pays off.
    plan_for(shared_environment, many_rows=False)
    return environment


@pytest.fixture(scope="session")
def weather_with_features(
    weather_lake: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """A copy of the lake, in which the next night has come as far as its training."""
    from jobs.commands.land import land
    from tests import weather

    copied = weather.copied(weather_lake, tmp_path_factory.mktemp("next night"))
    days = Days.of(weather.TOMORROW)
    land(weather.WEATHER, copied, days)
    run = Run(pipeline=weather.WEATHER, days=days, environment=copied)
    weather.make_true(run, weather.DATA)
    return copied


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    from tools.setup.machine import postgres_programs

    if postgres_programs() is None:
        pytest.skip("no PostgreSQL (initdb and postgres) on this machine")
    from tests.postgres import Postgres

    server = Postgres()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(_postgres: Postgres) -> Postgres:
    """A PostgreSQL server that is up, whatever the test before did to it; one for all tests."""
    if not _postgres.is_up:
        _postgres.start()
    return _postgres
