"""Which executor of Airflow's needs what, told before anything starts."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

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
        ("KubernetesExecutor", None, "32"),
        ("LocalExecutor,KubernetesExecutor:large", None, None),
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


def _refusal_where_nothing_is_installed(
    home: Environment, executor: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """What `up` says where the executor's package is not there."""

    def nothing_is_installed(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    monkeypatch.setattr(executors, "distribution", nothing_is_installed)
    with pytest.raises(UsageError) as refused:
        lifecycle.up(home)
    return str(refused.value)


def test_what_celery_needs_is_told_all_at_once_and_nothing_starts(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = _refusal_where_nothing_is_installed(home, "CeleryExecutor", monkeypatch)
    assert message.startswith("AIRFLOW__CORE__EXECUTOR=CeleryExecutor needs ")
    for name in (
        "the package apache-airflow-providers-celery",
        "AIRFLOW__CELERY__BROKER_URL",
        "NIGHTSHIFT_AIRFLOW_DATABASE=postgresql://",
    ):
        assert name in message
    assert not home.home.exists()


@pytest.fixture
def of_kubernetes(
    home: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Environment:
    """A home whose executor asks Kubernetes for Pods, and has all that it needs."""
    template = tmp_path / "task.json"
    template.write_text("{}")
    for name, value in {
        "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor",
        "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": "nights",
        "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(template),
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(executors, "distribution", lambda _: None)
    return replace(home, airflow_database=_DATABASE)


def test_tasks_in_pods_need_no_more_than_the_chart_tells(of_kubernetes: Environment) -> None:
    executors.require_all(of_kubernetes)


def test_what_tasks_in_pods_need_is_told_all_at_once(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = _refusal_where_nothing_is_installed(home, "KubernetesExecutor", monkeypatch)
    assert message.startswith("AIRFLOW__CORE__EXECUTOR=KubernetesExecutor needs ")
    for name in (
        "the package apache-airflow-providers-cncf-kubernetes",
        "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE",
        "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE",
        "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER=False",
    ):
        assert name in message
    assert not home.home.exists()


def test_a_template_that_is_not_there_is_named(
    of_kubernetes: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = replace(of_kubernetes, train_pod=Path("/nowhere/train.json"))
    said = "NIGHTSHIFT_TRAIN_POD=/nowhere/train.json, of which there is no file"
    with pytest.raises(UsageError, match=said):
        executors.require_all(lacking)
    # Only schedulers read them.
    executors.require_all(replace(lacking, services="airflow-api,dag-processor"))
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE", "/nowhere/task.json")
    with pytest.raises(UsageError, match="/nowhere/task.json, of which there is no file"):
        executors.require_all(of_kubernetes)


def test_a_scheduler_outside_of_the_cluster_needs_no_pod(
    of_kubernetes: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(UsageError, match="a Pod to run in, or"):
        executors.require_all(of_kubernetes)
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER", "False")
    executors.require_all(of_kubernetes)


def test_who_asks_kubernetes_for_nothing_needs_no_more_than_the_package(
    of_kubernetes: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NAMESPACE", "POD_TEMPLATE_FILE"):
        monkeypatch.delenv(f"AIRFLOW__KUBERNETES_EXECUTOR__{name}")
    executors.require_all(replace(of_kubernetes, services="airflow-api,triggerer"))


def test_logs_of_pods_are_kept_a_full_quota_is_waited_for_and_nobody_is_a_worker(
    of_kubernetes: Environment,
) -> None:
    told = airflow.variables(of_kubernetes)
    assert told["AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"] == "plugins.task_logs.LOGGING"
    assert told["AIRFLOW__KUBERNETES_EXECUTOR__TASK_PUBLISH_MAX_RETRIES"] == "-1"
    assert "worker" not in names_of(of_kubernetes)


@pytest.mark.parametrize(
    ("told", "is_ours"),
    [
        ("True", False),
        ("1", False),
        ("False", True),
    ],
)
def test_logs_that_a_site_brings_elsewhere_itself_are_left_to_it(
    told: str,
    *,
    is_ours: bool,
    of_kubernetes: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", told)
    found = airflow.variables(of_kubernetes)
    assert ("AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS" in found) == is_ours
    assert "AIRFLOW__KUBERNETES_EXECUTOR__TASK_PUBLISH_MAX_RETRIES" in found


def test_what_pods_share_is_asked_for_though_all_services_are_here(
    of_kubernetes: Environment,
) -> None:
    assert lifecycle.needs_others(of_kubernetes)
    assert not lifecycle.needs_others(replace(of_kubernetes, services="spark,stages"))
    said = "KubernetesExecutor is a part of an Airflow.*MLFLOW_TRACKING_URI.*NIGHTSHIFT_LAKE"
    with pytest.raises(UsageError, match=said):
        lifecycle.require_shared(of_kubernetes)


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
