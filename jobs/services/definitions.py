"""The services of the platform, as data: what each runs, where it listens, and when it is well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobs.services import airflow, processes, stage_client
from jobs.services.die_with_parent import dying_with_parent
from pipelines.environment import Environment


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


def services(environment: Environment) -> tuple[Service, ...]:
    """The services that this environment needs.

    A cluster's Spark takes the place of our own.
    """
    spark = () if environment.spark_remote else (_spark(environment),)
    stages = (_stages(),) if sys.platform.startswith("linux") else ()
    return (
        *spark,
        *stages,
        _airflow_api(environment),
        *(_airflow(name) for name in airflow.COMPONENTS),
    )


def _spark(environment: Environment) -> Service:
    return Service(
        name="spark",
        command=(sys.executable, "-m", "jobs.spark.server"),
        port=environment.spark_port,
        port_variable="NIGHTSHIFT_SPARK_PORT",
        is_well=lambda health, _: processes.answers(health.environment.spark_port),
    )


def _stages() -> Service:
    return Service(
        name="stages",
        command=tuple(dying_with_parent([sys.executable, "-m", "jobs.services.stage_server"])),
        is_well=lambda health, _: stage_client.available(health.environment),
    )


def _airflow_api(environment: Environment) -> Service:
    return Service(
        name="airflow-api",
        command=tuple(dying_with_parent(airflow.program("api-server"))),
        port=environment.airflow_port,
        port_variable="NIGHTSHIFT_AIRFLOW_PORT",
        needs_database=True,
        is_well=lambda health, _: (
            (health.airflow.get("metadatabase") or {}).get("status") == "healthy"
        ),
    )


def _airflow(name: str) -> Service:
    # Without --skip-serve-logs these two serve their logs on all interfaces; here they share the
    # API server's disk.
    silent = ("--skip-serve-logs",) if name in {"scheduler", "triggerer"} else ()
    return Service(
        name=name,
        command=tuple(dying_with_parent(airflow.program(name, *silent))),
        needs_database=True,
        is_well=lambda health, since: airflow.is_healthy(health.airflow, name, since),
    )
