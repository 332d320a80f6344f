"""A stage's operator: which days it runs, what it calls, and how it ends."""

from __future__ import annotations

import json
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from hypothesis import given, settings
from hypothesis import strategies as st

from dags.callbacks import StageRefused
from dags.nights import Night
from dags.tasks import (
    MaintenanceOperator,
    StageOperator,
    command,
    safe_run_id,
    time_limit,
)
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.flights import PIPELINE
from pipelines.run import Run, new_run_id
from pipelines.stages import STAGES, stage
from tests.dags.conftest import context

RANGE: dict[str, Any] = {"from": "2013-01-01", "to": "2013-01-31"}


def run_stage(name: str = "ingest", **given: Any) -> None:
    operator = StageOperator(pipeline=PIPELINE, stage=stage(name))
    operator.pre_execute(context(**given))
    operator.execute(context(**given))


def calls(stub: Path) -> list[list[str]]:
    return [json.loads(line) for line in stub.read_text().splitlines()]


def test_the_stage_is_run_by_the_command_with_the_run_id_of_airflow(stub: Path) -> None:
    run_stage(
        "train", date="2013-03-01", retrain=True, run_id="manual__2013-03-02T08:30:00+00:00_x1"
    )
    about = ["flights", "--from", "2013-03-01", "--to", "2013-03-01", "--stage", "train"]
    run_id = "--run-id=manual__2013-03-02T08:30:00+00:00_x1"
    assert calls(stub) == [["run", *about, run_id, "--no-notify", "--as-needed", "--retrain"]]


def test_the_log_of_a_stage_begins_with_its_night(
    stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage("train", date="2013-03-01")
    first, *_ = capsys.readouterr().out.splitlines()
    assert "Night of 2013-03-01 " in first


@pytest.mark.parametrize(
    ("exit_code", "retried"),
    [
        (1, False),
        (2, False),
        (3, True),
        (137, True),
    ],
)
def test_a_refusal_and_wrong_usage_are_not_retried_and_faults_are(
    stub: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, retried: bool
) -> None:
    monkeypatch.setenv("STUB_EXIT", str(exit_code))
    with pytest.raises(
        AirflowException,
        match=rf"ingest of 2013-03-01 .*exit code {exit_code}\): Refused: the reason",
    ) as caught:
        run_stage(date="2013-03-01")
    assert isinstance(caught.value, AirflowFailException) is not retried
    assert isinstance(caught.value, StageRefused) is (exit_code == 1)
    assert len(calls(stub)) == 1


def test_killing_the_task_ends_the_command(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_SECONDS", "60")
    operator = StageOperator(pipeline=PIPELINE, stage=stage("ingest"))
    ended: list[BaseException] = []

    def execute() -> None:
        try:
            operator.execute(context(date="2013-03-01"))
        except AirflowException as error:
            ended.append(error)

    task = threading.Thread(target=execute)
    task.start()
    while not stub.exists():
        time.sleep(0.02)
    operator.on_kill()
    task.join(timeout=10)
    assert "exit code -15" in str(ended[0])
    operator.on_kill()  # again, when it is gone: no harm


def test_a_range_may_take_longer_than_a_night() -> None:
    operator = StageOperator(pipeline=PIPELINE, stage=stage("ingest"))
    assert operator.execution_timeout == timedelta(minutes=60)
    operator.pre_execute(context(**RANGE))
    assert operator.execution_timeout == time_limit(stage("ingest"), 31) == timedelta(minutes=120)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=230), st.text(max_size=230))
def test_any_dag_run_id_becomes_a_run_id_of_its_own(one: str, other: str) -> None:
    days = Days.of(date(2013, 3, 1))
    environment = Environment.read({})
    for dag_run_id in filter(None, (one, other)):
        run_id = safe_run_id(dag_run_id)
        Run(pipeline=PIPELINE, days=days, environment=environment, run_id=run_id)
    assert (safe_run_id(one) == safe_run_id(other)) == (one == other)


def test_ordinary_dag_run_ids_are_kept() -> None:
    for dag_run_id in (
        "manual__2026-11-25T00:30:00.123456+00:00_AbC1",
        "scheduled__2013-03-01T09:30:00+00:00",
        new_run_id(),
    ):
        assert safe_run_id(dag_run_id) == dag_run_id


def test_a_hostile_run_id_stays_one_argument() -> None:
    run_id = safe_run_id("--help; rm -rf $(HOME)")
    night = Night(days=Days.of(date(2013, 3, 1)))
    argv = command(PIPELINE, STAGES[0], night, run_id, {})
    assert f"--run-id={run_id}" in argv
    assert run_id.startswith("--help--rm--rf---HOME-~")


def test_maintenance_runs_the_command_and_is_tried_again_after_a_fault(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MaintenanceOperator().execute(context())
    assert calls(stub) == [["maintain"]]
    monkeypatch.setenv("STUB_EXIT", "3")
    with pytest.raises(AirflowException, match="exit code 3") as failed:
        MaintenanceOperator().execute(context())
    assert not isinstance(failed.value, AirflowFailException)
