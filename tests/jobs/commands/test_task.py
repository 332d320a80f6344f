"""`nightshift task`: by variables alone the Pod of a task gets what a machine of ours has."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.commands import task
from jobs.services import airflow
from jobs.services.leftovers import Rule
from pipelines.environment import Environment
from pipelines.errors import UsageError

_WORDS = ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", "{}"]


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    """One that was never up, and is told what all machines share."""
    places = ("LAKE", "LANDING", "REPORTS", "MODELS", "JOBS")
    told = {f"NIGHTSHIFT_{name}": str(tmp_path / "shared" / name) for name in places}
    return Environment.read(
        {
            **told,
            "NIGHTSHIFT_HOME": str(tmp_path / "home"),
            "NIGHTSHIFT_AIRFLOW_DATABASE": "postgresql://airflow:word@db/airflow",
            "MLFLOW_TRACKING_URI": "http://models:5000",
            "NIGHTSHIFT_SECRET": "a secret of all machines of the platform",
            "NIGHTSHIFT_AIRFLOW_API": "http://night:8080",
        }
    )


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a process becomes."""
    found: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *told: found.extend(told))
    return found


def test_a_pod_runs_what_airflow_says_with_the_secrets_and_variables_of_the_platform(
    home: Environment, became: list[Any]
) -> None:
    task.become(home, _WORDS)
    program, words, variables = became
    assert (program, words) == ("python", _WORDS)
    assert variables["AIRFLOW_CONFIG"].endswith("airflow.cfg")
    api = variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert api == "http://night:8080/execution/"
    for name in ("jwt_secret", "fernet_key", "airflow_passwords.json"):
        assert (home.secrets / name).stat().st_mode & 0o777 == 0o600


def test_maintenance_in_a_pod_cleans_the_database_that_the_pod_did_not_make(
    home: Environment, became: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task.become(home, _WORDS)
    asked: list[Any] = []

    def ask(command: list[str], **_: object) -> Any:
        asked.append(command)
        raise InterruptedError

    monkeypatch.setattr(airflow.subprocess, "run", ask)
    rule = Rule(before=datetime.now(UTC), is_dry=True)
    with pytest.raises(InterruptedError):
        airflow.clean_database(home, rule)
    assert "clean" in asked[0]


def test_a_pod_that_shares_nothing_is_refused_with_all_that_is_missing(
    tmp_path: Path, became: list[Any]
) -> None:
    alone = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / "home")})
    with pytest.raises(UsageError, match="The Pod of a task keeps nothing") as refused:
        task.become(alone, _WORDS)
    message = str(refused.value)
    for place in ("LAKE", "LANDING", "REPORTS", "MODELS", "JOBS"):
        assert f"NIGHTSHIFT_{place} (" in message
    for name in ("NIGHTSHIFT_AIRFLOW_DATABASE", "MLFLOW_TRACKING_URI", "NIGHTSHIFT_SECRET"):
        assert f"{name} (" in message
    assert "NIGHTSHIFT_AIRFLOW_API (" in message
    assert not became
    assert not alone.home.exists()


@pytest.mark.parametrize("executor", [None, "LocalExecutor", "KubernetesExecutor"])
def test_its_log_is_kept_whatever_executor_the_pod_is_told_of(
    executor: str | None,
    home: Environment,
    became: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if executor:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    task.become(home, _WORDS)
    assert became[2]["AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"] == "plugins.task_logs.LOGGING"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AIRFLOW__LOGGING__REMOTE_LOGGING", "True"),
        ("AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS", "ours.LOGGING"),
    ],
)
def test_a_site_that_keeps_logs_itself_is_left_to(
    variable: str,
    value: str,
    home: Environment,
    became: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    task.become(home, _WORDS)
    told = became[2].get("AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS")
    assert told != "plugins.task_logs.LOGGING"


def test_without_words_of_airflows_it_says_whose_it_is(home: Environment) -> None:
    with pytest.raises(UsageError, match="is for Airflow's KubernetesExecutor"):
        task.become(home, [])
