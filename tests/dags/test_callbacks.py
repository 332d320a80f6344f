"""What a task has people told of, and that no callback changes how the task ended."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags import callbacks
from dags.tasks import OUTCOME, MaintenanceOperator, StageOperator, dag_arguments, night
from jobs.__main__ import parser
from pipelines.environment import ROOT
from pipelines.flights import PIPELINE
from pipelines.stages import stage
from tests.dags.conftest import context

BEGAN = datetime(2013, 3, 2, 9, 30, tzinfo=UTC)
CALLBACKS = (
    callbacks.stage_failed,
    callbacks.model_evaluated,
    callbacks.approvals_expired,
    callbacks.alias_followed,
    callbacks.night_watched,
    callbacks.last_stage_done,
    callbacks.maintenance_lost,
)


def ended(name: str, exception: BaseException | None = None, **given: Any) -> Any:
    """What Airflow gives a callback in the process of a task that has ended."""
    operator = StageOperator(pipeline=PIPELINE, stage=stage(name))
    task_instance = SimpleNamespace(start_date=BEGAN)
    chosen = {"date": "2013-03-01", **given}
    return context(**chosen) | {"task": operator, "ti": task_instance, "exception": exception}


def notified(stub: Path) -> list[dict[str, Any]]:
    """The notifications that were asked for, as the real command line reads them."""
    lines = stub.read_text().splitlines()
    return [vars(parser().parse_args(json.loads(line))) for line in lines]


@pytest.mark.parametrize(
    ("exception", "event"),
    [
        (callbacks.StageRefused("ingest of 2013-03-01 was refused"), "stage_refused"),
        (callbacks.FilesMissing("Not landed after 12 h: a.csv."), "feed_missing"),
        (AirflowFailException("ingest of 2013-03-01 was called wrongly"), "stage_failed"),
        (AirflowException("ingest of 2013-03-01 failed"), "stage_failed"),
        (TimeoutError("Timeout, PID: 1"), "stage_failed"),
    ],
)
def test_a_stage_that_ended_badly_is_told_of_with_when_it_began_and_why(
    exception: Exception, event: str, stub: Path
) -> None:
    callbacks.stage_failed(ended("ingest", exception))
    (one,) = notified(stub)
    assert (one["event"], one["pipeline"], one["stage"]) == (event, "flights", "ingest")
    assert (one["first"], one["last"]) == ("2013-03-01", "2013-03-01")
    assert one["run_id"] == "manual__1"
    assert datetime.fromisoformat(one["since"]) == BEGAN
    assert one["message"] == str(exception)


@pytest.mark.parametrize("words", ["", " \n"])
def test_a_stage_that_ended_without_words_is_told_of_too(words: str, stub: Path) -> None:
    callbacks.stage_failed(ended("ingest", AirflowException(words)))
    (one,) = notified(stub)
    assert (one["event"], one["message"]) == (
        "stage_failed",
        "Its error says nothing. Its log may say more.",
    )


def test_a_task_whose_process_was_lost_is_told_of_by_the_dag_processor(stub: Path) -> None:
    lost = ended("ingest")
    del lost["exception"]
    lost["ti"] = SimpleNamespace()
    callbacks.stage_failed(lost)
    (one,) = notified(stub)
    assert (one["event"], one["stage"]) == ("stage_failed", "ingest")
    assert "process of the task was lost" in one["message"]
    age = datetime.now(UTC) - datetime.fromisoformat(one["since"])
    assert age < timedelta(minutes=1), "what earlier attempts recorded is not its reason"


def test_of_a_maintenance_whose_process_was_lost_people_are_told(stub: Path) -> None:
    callbacks.maintenance_lost(context() | {"task": MaintenanceOperator()})
    (one,) = notified(stub)
    assert one["event"] == "maintenance_failed"
    assert "The process of the task was lost" in one["message"]


@pytest.mark.parametrize(
    ("last", "tries", "stage_name"),
    [
        ("plan", 1, "plan"),
        ("train", 1, "train"),
        # Between two stages Airflow names any of those that have not begun.
        ("train", 0, None),
        (OUTCOME, 1, None),
    ],
)
def test_a_run_whose_time_is_up_is_told_of_by_its_dag(
    last: str, tries: int, stage_name: str | None, stub: Path
) -> None:
    with DAG(**dag_arguments(PIPELINE)) as dag:
        night(PIPELINE)
    # As Airflow's DAG processor calls it: `_execute_dag_callbacks`.
    failed = context(date="2013-03-01") | {"dag": dag, "task": dag.get_task(last)}
    failed["ti"] = SimpleNamespace(try_number=tries)
    dag.on_failure_callback(failed | {"reason": "task_failure"})
    assert not stub.exists(), "the task has told of it"
    dag.on_failure_callback(failed | {"reason": "timed_out"})
    (one,) = notified(stub)
    assert (one["event"], one["stage"], one["first"]) == ("stage_failed", stage_name, "2013-03-01")
    assert one["message"].startswith("The run had not ended after 36 h, and Airflow has ended it")


@pytest.mark.parametrize(
    ("callback", "name", "event"),
    [
        (callbacks.model_evaluated, "evaluate", "model_promoted"),
        (callbacks.approvals_expired, "evaluate", "approval_expired"),
        (callbacks.alias_followed, "predict", "alias_moved"),
        (callbacks.night_watched, "monitor", "drift_found"),
        (callbacks.last_stage_done, "monitor", "night_done"),
    ],
)
def test_the_command_is_asked_whether_a_success_is_worth_telling(
    callback: Callable[[Context], None], name: str, event: str, stub: Path
) -> None:
    callback(ended(name))
    (one,) = notified(stub)
    assert (one["event"], one["stage"], one["message"]) == (event, name, None)


def test_the_command_is_asked_about_postgresql_only_where_there_is_one(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NIGHTSHIFT_WAREHOUSE_URL", raising=False)
    callbacks.tables_published(ended("check_predictions"))
    assert not stub.exists() or notified(stub) == []
    monkeypatch.setenv("NIGHTSHIFT_WAREHOUSE_URL", "postgresql://user:s3cret@db/warehouse")
    callbacks.tables_published(ended("check_predictions"))
    (one,) = notified(stub)
    assert (one["event"], one["stage"]) == ("warehouse_failed", "check_predictions")


def test_an_endless_or_odd_reason_is_still_one_argument(stub: Path) -> None:
    callbacks.stage_failed(ended("ingest", AirflowException("--help \0" + "x" * 1_000_000)))
    (one,) = notified(stub)
    assert one["message"].startswith("--help  xxx")
    assert len(one["message"]) == 2000


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_command_that_fails_fails_no_task(
    callback: Callable[[Context], None],
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("STUB_EXIT", "3")
    caplog.set_level(logging.INFO)
    callback(ended("ingest"))
    assert "Refused: the reason" in caplog.messages, "what the command says is in the task's log"
    assert caplog.messages[-1] == "`nightshift notify` ended with exit code 3"


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_command_that_hangs_is_ended_before_airflow_ends_the_task(
    callback: Callable[[Context], None],
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert callbacks._MOST_SECONDS < 20
    monkeypatch.setenv("STUB_SECONDS", "60")
    monkeypatch.setattr(callbacks, "_MOST_SECONDS", 0.5)
    callback(ended("ingest"))
    assert "timed out after 0.5 seconds" in caplog.messages[-1]


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"task": None},
        ended("ingest", date="2031-01-01"),
    ],
)
def test_a_context_that_says_too_little_fails_no_task(
    callback: Callable[[Context], None],
    given: Any,
    stub: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    callback(given)
    assert caplog.messages[-1].startswith("Nobody was notified of ")
    assert not stub.exists()


def test_the_command_has_the_variables_of_the_task(
    stub: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = Path(os.environ["STUB_CALLS"]).with_name("nightshift")
    program.write_text("#!/bin/sh\necho hook $NIGHTSHIFT_WEBHOOK_URL at $PWD\n")
    monkeypatch.setenv("NIGHTSHIFT_WEBHOOK_URL", "https://hooks.example")
    caplog.set_level(logging.INFO)
    callbacks.last_stage_done(ended("monitor"))
    assert caplog.messages[-1] == f"hook https://hooks.example at {ROOT}"
