"""`nightshift task`: by variables alone the Pod of a task gets what a machine of ours has."""

from __future__ import annotations

import os
from dataclasses import replace
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
    """One that was never up."""
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / "home")})


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a process becomes."""
    found: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *told: found.extend(told))
    return found


def test_a_pod_runs_what_airflow_says_with_the_secrets_and_variables_of_the_platform(
    home: Environment, became: list[Any]
) -> None:
    of_pod = replace(home, secret="a secret of all machines", airflow_api="http://night:8080")
    task.become(of_pod, _WORDS)
    program, words, variables = became
    assert (program, words) == ("python", _WORDS)
    assert variables["AIRFLOW_CONFIG"].endswith("airflow.cfg")
    api = variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert api == "http://night:8080/execution/"
    for name in ("jwt_secret", "fernet_key", "airflow_passwords.json"):
        assert (of_pod.secrets / name).stat().st_mode & 0o777 == 0o600


def test_maintenance_in_a_pod_cleans_the_database_that_the_pod_did_not_make(
    home: Environment, became: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(home, airflow_database="postgresql://airflow:word@db/airflow")
    task.become(elsewhere, _WORDS)
    asked: list[Any] = []

    def ask(command: list[str], **_: object) -> Any:
        asked.append(command)
        raise InterruptedError

    monkeypatch.setattr(airflow.subprocess, "run", ask)
    rule = Rule(before=datetime.now(UTC), is_dry=True)
    with pytest.raises(InterruptedError):
        airflow.clean_database(elsewhere, rule)
    assert "clean" in asked[0]


def test_without_words_of_airflows_it_says_whose_it_is(home: Environment) -> None:
    with pytest.raises(UsageError, match="is for Airflow's KubernetesExecutor"):
        task.become(home, [])
