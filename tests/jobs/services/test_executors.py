"""Which executor of Airflow's needs what, told before anything starts."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest

from jobs.services import airflow, executors, lifecycle
from jobs.services.definitions import services
from pipelines.environment import Environment
from pipelines.errors import UsageError

_PASSWORD = "hunter2"
_BROKER = f"redis://:{_PASSWORD}@broker:6379/0"
_DATABASE = "postgresql://airflow:word@db/airflow"


@pytest.fixture
def of_celery(home: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A home whose executor has all that it needs."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", _BROKER)
    monkeypatch.setattr(executors, "distribution", lambda _: None)
    return replace(home, airflow_database=_DATABASE)


def names_of(environment: Environment) -> list[str]:
    return [service.name for service in services(environment)]


@pytest.mark.parametrize(
    ("told", "has_workers"),
    [
        ("LocalExecutor", False),
        ("KubernetesExecutor", False),
        ("CeleryExecutor", True),
        ("LocalExecutor,CeleryExecutor:many", True),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", True),
    ],
)
def test_schedulers_hand_tasks_to_workers_where_celery_is_among_the_executors(
    told: str, has_workers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", told)
    assert executors.has_workers() == has_workers


@pytest.mark.parametrize(
    ("executor", "given", "found"),
    [
        ("CeleryExecutor", None, "32"),
        ("CeleryExecutor", "100", "100"),
        # A local one would run all of them on the scheduler's machine.
        ("LocalExecutor,CeleryExecutor:many", None, None),
        ("LocalExecutor", None, None),
        ("KubernetesExecutor", None, None),
    ],
)
def test_a_scheduler_hands_out_more_tasks_than_one_machine_runs_where_workers_take_them(
    executor: str,
    given: str | None,
    found: str | None,
    home: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    monkeypatch.delenv("AIRFLOW__CORE__PARALLELISM", raising=False)
    if given:
        monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", given)
    airflow.require_own_settings(home)
    assert airflow.variables(home).get("AIRFLOW__CORE__PARALLELISM") == found


def test_a_worker_is_a_service_where_tasks_are_handed_out(
    home: Environment, of_celery: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "worker" in names_of(of_celery)
    assert names_of(replace(of_celery, services="stages,worker")) == ["stages", "worker"]
    monkeypatch.delenv("AIRFLOW__CORE__EXECUTOR")
    assert "worker" not in names_of(home)


def test_a_worker_serves_its_logs_where_the_pages_are_on_another_machine(
    of_celery: Environment,
) -> None:
    for told, is_served in ((None, False), ("stages,worker", True)):
        wanted = services(replace(of_celery, services=told))
        [worker] = [service for service in wanted if service.name == "worker"]
        assert ("--skip-serve-logs" not in worker.command) == is_served
        assert _PASSWORD not in " ".join(worker.command)


def test_what_celery_needs_is_told_all_at_once_and_nothing_starts(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_is_installed(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setattr(executors, "distribution", nothing_is_installed)
    with pytest.raises(UsageError) as refused:
        lifecycle.up(home)
    message = str(refused.value)
    assert message.startswith("AIRFLOW__CORE__EXECUTOR=CeleryExecutor needs ")
    for name in (
        "the package apache-airflow-providers-celery",
        "AIRFLOW__CELERY__BROKER_URL",
        "NIGHTSHIFT_AIRFLOW_DATABASE=postgresql://",
    ):
        assert name in message
    assert not home.home.exists()


def test_pods_as_tasks_need_their_package(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")
    with pytest.raises(UsageError, match="needs the package apache-airflow-providers-cncf-kube"):
        executors.require_all(home)


@pytest.mark.parametrize("how", ["_CMD", "_SECRET"])
def test_a_broker_may_be_told_in_each_way_of_airflows(
    how: str, of_celery: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__CELERY__BROKER_URL")
    monkeypatch.setenv(f"AIRFLOW__CELERY__BROKER_URL{how}", "cat /run/secrets/broker")
    executors.require_all(of_celery)


def test_a_worker_to_which_nobody_hands_tasks_is_refused(home: Environment) -> None:
    with pytest.raises(UsageError, match="name 'scheduler' in its place"):
        lifecycle.up(replace(home, services="stages,worker"))


@pytest.mark.parametrize(
    ("names", "others_are_needed"),
    [
        (None, False),
        ("stages,worker", True),
        ("airflow-api,scheduler,dag-processor,triggerer,worker", False),
        # Of whose tasks somebody else's workers make the tables.
        ("airflow-api,scheduler,dag-processor,triggerer", True),
        ("spark,stages", False),
    ],
)
def test_machines_that_hand_out_tasks_or_take_them_are_parts(
    names: str | None, others_are_needed: bool, of_celery: Environment
) -> None:
    told = replace(of_celery, services=names)
    assert lifecycle.needs_others(told) == others_are_needed
