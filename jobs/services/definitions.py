"""The services of the platform, as data: what each runs, where it listens, and when it is well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jobs.services import airflow, celery_worker, executors, processes, stage_client
from jobs.services.die_with_parent import dying_with_parent
from pipelines.environment import Environment

JDBC = "jdbc"
"""The service that runs only where it is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """What is known at one moment, asked once for all services."""

    environment: Environment
    airflow: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def ask(cls, environment: Environment) -> Health:
        """The health of now."""
        return cls(environment=environment, airflow=airflow.health(environment))


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One process that `up` keeps running."""

    name: str
    command: tuple[str, ...]
    is_well: Callable[[Health, float], bool]
    """Given the health and when the process began (seconds since 1970)."""
    port: int | None = None
    port_variable: str = ""
    """The variable by which a user chooses another port."""
    needs_database: bool = False
    """Started only when Airflow's database is ready."""
    is_warmed_up: bool = False
    """The first work of a start goes through it."""


def has_airflow(wanted: Iterable[Service]) -> bool:
    """Whether some of the services work on Airflow's database."""
    return any(service.needs_database for service in wanted)


def services(environment: Environment) -> tuple[Service, ...]:
    """The services that this environment needs, and that this machine is to run.

    A cluster's Spark takes the place of our own.
    """
    return tuple(one for one in _needed(environment) if environment.runs(one.name))


def as_started(environment: Environment, known: Container[str]) -> Environment:
    """The settings with what the running platform's start was asked for, and no variable tells.

    Args:
        environment: As the variables tell them.
        known: Names of the services that its supervisor runs.
    """
    return environment.with_jdbc() if JDBC in known else environment


def _needed(environment: Environment) -> Iterator[Service]:
    if environment.spark_remote is None:
        yield _spark(environment)
    # The stage server forks, and asks Linux for process descriptors and its clients' user ids.
    if sys.platform.startswith("linux"):
        yield _stages()
    yield _airflow_api(environment)
    for name in airflow.COMPONENTS:
        yield _airflow(name, environment)
    if executors.has_workers():
        yield _worker(environment)
    # A server of others has pages of its own.
    if environment.keeps_models:
        yield _mlflow(environment)
    if environment.jdbc_port:
        yield _jdbc(environment.jdbc_port)


def _spark(environment: Environment) -> Service:
    # Not by `dying_with_parent`: its own process asks for a kill, which Java cannot put off.
    return Service(
        name="spark",
        command=(sys.executable, "-m", "jobs.spark.server"),
        port=environment.spark_port,
        port_variable="NIGHTSHIFT_SPARK_PORT",
        is_well=lambda health, _: processes.answers(health.environment.spark_port),
        is_warmed_up=True,
    )


def _stages() -> Service:
    program = [sys.executable, "-m", "jobs.services.stage_server"]
    return Service(
        name="stages",
        command=tuple(dying_with_parent(program)),
        is_well=lambda health, _: stage_client.available(health.environment),
        is_warmed_up=True,
    )


def _mlflow(environment: Environment) -> Service:
    program = [sys.executable, "-m", "jobs.training.mlflow_ui"]
    return Service(
        name="mlflow",
        command=tuple(dying_with_parent(program)),
        port=environment.mlflow_port,
        port_variable="NIGHTSHIFT_MLFLOW_PORT",
        # It listens only when all of it is there.
        is_well=lambda health, _: processes.answers(health.environment.mlflow_port),
    )


def _jdbc(port: int) -> Service:
    program = [sys.executable, "-m", "jobs.jdbc.server"]
    return Service(
        name=JDBC,
        command=tuple(dying_with_parent(program)),
        port=port,
        port_variable="NIGHTSHIFT_JDBC_PORT",
        # It listens only when the tables are there.
        is_well=lambda *_: processes.answers(port),
    )


def _airflow_api(environment: Environment) -> Service:
    return Service(
        name="airflow-api",
        command=tuple(dying_with_parent(airflow.program("api-server"))),
        port=environment.airflow_port,
        port_variable="NIGHTSHIFT_AIRFLOW_PORT",
        needs_database=True,
        is_well=_reaches_database,
    )


def _reaches_database(health: Health, _since: float) -> bool:
    database = health.airflow.get("metadatabase") or {}
    return bool(database.get("status") == "healthy")


def _worker(environment: Environment) -> Service:
    program = [sys.executable, "-m", "jobs.services.celery_worker", *_log_options(environment)]
    return Service(
        name=executors.WORKER,
        command=tuple(dying_with_parent(program)),
        needs_database=True,
        is_well=lambda health, since: celery_worker.beats(health.environment, since),
    )


def _log_options(environment: Environment) -> tuple[str, ...]:
    # Without --skip-serve-logs it serves its logs on all interfaces, to who has signed with
    # Airflow's secret. Where all is on one machine the only API server shares its disk.
    return ("--skip-serve-logs",) if environment.services is None else ()


def _airflow(name: str, environment: Environment) -> Service:
    has_logs = name in {"scheduler", "triggerer"}
    options = _log_options(environment) if has_logs else ()
    program = [*_program(name), *options]
    return Service(
        name=name,
        command=tuple(dying_with_parent(program)),
        needs_database=True,
        is_well=lambda health, since: airflow.is_healthy(health.airflow, name, since),
    )


def _program(name: str) -> list[str]:
    if name == "scheduler":
        return [sys.executable, "-m", "dags.scheduler"]
    return airflow.program(name)
