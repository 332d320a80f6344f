"""Airflow's executor, as far as `up` must know it: where tasks run, and what that needs.

Never imports Airflow.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, distribution

from pipelines.environment import Environment
from pipelines.errors import UsageError

WORKER = "worker"
"""The service that runs the tasks which schedulers hand out."""
_EXECUTOR = "AIRFLOW__CORE__EXECUTOR"
"""Variable of Airflow's: one executor, or several with commas between."""
_NAME = re.compile(r"\w*Executor\b")
"""Before it there may be a module, and after it a short name."""
_CELERY = "CeleryExecutor"
_KUBERNETES = "KubernetesExecutor"
_LOCAL = "LocalExecutor"
_PROVIDERS = {
    _CELERY: "apache-airflow-providers-celery",
    _KUBERNETES: "apache-airflow-providers-cncf-kubernetes",
}
"""The package that an executor is in, where it is not Airflow's own."""
_BROKER = "AIRFLOW__CELERY__BROKER_URL"
_BROKER_IN = (_BROKER, f"{_BROKER}_CMD", f"{_BROKER}_SECRET")
"""A variable of Airflow's holds a value, or how to get it."""
_NAMESPACE = "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE"
_TEMPLATE = "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE"
_IN_CLUSTER = "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER"
OF_CLUSTER = "KUBERNETES_SERVICE_HOST"
"""Variable by which Kubernetes tells each Pod where it is."""
_OVER_PODS = {
    # By default a task fails at once where a quota is used up, or Kubernetes is away. So it waits
    # for about half an hour: Airflow queues it anew after `task_queued_timeout`, twice.
    "AIRFLOW__KUBERNETES_EXECUTOR__TASK_PUBLISH_MAX_RETRIES": "-1",
}
_REMOTE_LOGS = "AIRFLOW__LOGGING__REMOTE_LOGGING"
"""Whether a site has a place of its own for logs, and an Airflow that brings them there."""
_LOGS_OF_PODS = {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "plugins.task_logs.LOGGING"}
_YES = ("true", "t", "1")
"""As Airflow reads it, in capitals or not."""

_OVER_WORKERS = {"AIRFLOW__CORE__PARALLELISM": "32"}
"""What all workers together are handed by a scheduler at once: Airflow's own default. Ours is that
of one machine, whatever the number of workers.

No higher: a task that waits too long at the broker fails in the end.
"""


def told() -> str:
    """The executor that Airflow is told to have; '': none, and it has its local one."""
    return os.environ.get(_EXECUTOR, "")


def as_told() -> str:
    """The setting, as a message names it."""
    return f"{_EXECUTOR}={told()}"


def has_workers() -> bool:
    """Whether schedulers hand tasks to workers of Celery's."""
    return _CELERY in _names()


def has_pods() -> bool:
    """Whether schedulers ask Kubernetes for a Pod for each task."""
    return _KUBERNETES in _names()


def settings() -> dict[str, str]:
    """Variables of Airflow's that follow from the executor, where nobody has set them."""
    found = _OVER_PODS | logs_of_pods() if has_pods() else {}
    # Beside workers a local executor would run as many on the scheduler's own machine.
    if (has_workers() or has_pods()) and _LOCAL not in _names():
        found |= _OVER_WORKERS
    return found


def logs_of_pods() -> dict[str, str]:
    """By what logs of Pods are kept where the pages find them: a Pod is gone with its disk.

    Nothing where a site has a way of its own, which ours would take the place of.
    """
    return {} if _is_yes(os.environ.get(_REMOTE_LOGS, "")) else dict(_LOGS_OF_PODS)


def require_all(environment: Environment) -> None:
    """Refuse an executor that lacks what it needs: its tasks would wait for ever.

    Raises:
        UsageError: it does; the message names all that is missing.
    """
    missing = [
        f"the package {provider}, beside Airflow"
        for name, provider in _PROVIDERS.items()
        if name in _names() and not _is_installed(provider)
    ]
    if has_workers():
        missing += _missing_of_celery(environment)
    if has_pods():
        missing += _missing_of_kubernetes(environment)
    if missing:
        raise UsageError(f"{as_told()} needs {'; '.join(missing)}.")


def require_worker_has_tasks(environment: Environment) -> None:
    """Refuse a worker to which nobody hands tasks.

    Raises:
        UsageError: this machine is told to run one, and the executor is another.
    """
    named = (environment.services or "").split(",")
    if WORKER in named and not has_workers():
        raise UsageError(
            f"NIGHTSHIFT_SERVICES={environment.services} names '{WORKER}', to which schedulers "
            f"hand tasks where {_EXECUTOR}={_CELERY} is set, the same on each machine. Without it "
            "each scheduler runs its own: name 'scheduler' in its place."
        )


def _missing_of_celery(environment: Environment) -> list[str]:
    missing = []
    if not any(os.environ.get(name) for name in _BROKER_IN):
        missing.append(
            f"{_BROKER}, the broker from which workers take tasks, such as "
            "redis://:password@host:6379/0"
        )
    if not environment.airflow_database.startswith("postgresql"):
        variable = Environment.settings()["airflow_database"].variable
        missing.append(
            f"{variable}=postgresql://…, in which workers say what became of a task: one file "
            "cannot be written by all of them"
        )
    return missing


def _missing_of_kubernetes(environment: Environment) -> list[str]:
    """What a machine lacks that runs schedulers; others ask Kubernetes for nothing."""
    if not environment.runs("scheduler"):
        return []
    missing = []
    if not os.environ.get(_NAMESPACE):
        missing.append(f"{_NAMESPACE}, in which the Pods of tasks are made")
    template = os.environ.get(_TEMPLATE, "")
    if not template:
        missing.append(f"{_TEMPLATE}, a file with the template of these Pods")
    elif not os.access(template, os.R_OK):
        missing.append(_unreadable(_TEMPLATE, template))
    if (pod := environment.train_pod) and not os.access(pod, os.R_OK):
        variable = Environment.settings()["train_pod"].variable
        missing.append(_unreadable(variable, str(pod)))
    is_inside = _is_yes(os.environ.get(_IN_CLUSTER, "True"))
    if is_inside and not os.environ.get(OF_CLUSTER):
        missing.append(
            f"a Pod to run in, or {_IN_CLUSTER}=False and a file by which kubectl reaches the "
            "cluster (AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE)"
        )
    return missing


def _unreadable(variable: str, template: str) -> str:
    return f"{variable}={template}, of which there is no file that can be read"


def _is_yes(value: str) -> bool:
    return value.strip().lower() in _YES


def _names() -> list[str]:
    return _NAME.findall(told())


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
