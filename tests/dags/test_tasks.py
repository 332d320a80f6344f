"""A stage's operator: which days it runs, what it calls, and how it ends."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from hypothesis import given, settings
from hypothesis import strategies as st

from dags.callbacks import StageRefused
from dags.tasks import (
    MaintenanceOperator,
    StageOperator,
    chosen_days,
    command,
    run_days,
    safe_run_id,
    time_limit,
)
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
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


@pytest.mark.parametrize(
    ("params", "days"),
    [
        ({}, None),
        ({"date": None, "from": "", "to": None}, None),
        ({"date": "2013-02-28"}, Days.of(date(2013, 2, 28))),
        (
            {"from": "2012-12-31", "to": "2013-03-31"},
            Days(date(2012, 12, 31), date(2013, 3, 31)),
        ),
    ],
)
def test_params_choose_the_days(params: dict[str, str], days: Days | None) -> None:
    assert chosen_days(params) == days


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"from": "2013-01-01"}, "both 'from' and 'to' for a range; given: from 2013-01-01"),
        ({"to": "2013-01-01"}, "given: to 2013-01-01"),
        (
            {"date": "2013-01-01", "from": "2013-01-01", "to": "2013-01-02"},
            "either 'date' for one night",
        ),
        ({"date": "2013-02-30"}, "'2013-02-30' is not a date"),
        ({"from": "2013-01-02", "to": "2013-01-01"}, "first day must not be after its last"),
    ],
)
def test_params_that_make_no_sense_fail_without_a_retry(
    params: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_days(params)
    with pytest.raises(AirflowFailException, match=message):
        run_stage(**params)


@pytest.mark.parametrize(
    ("interval_start", "day"),
    [
        # 04:30 EST.
        ("2013-03-09T09:30Z", "2013-03-09"),
        # 04:30 EDT: the clock has changed.
        ("2013-03-10T08:30Z", "2013-03-10"),
        # Still the day before in New York.
        ("2013-04-02T03:30Z", "2013-04-01"),
    ],
)
def test_without_params_the_night_is_the_local_day_that_the_data_interval_begins_on(
    interval_start: str, day: str
) -> None:
    start = datetime.fromisoformat(interval_start)
    scheduled = context(run_type="scheduled", interval_start=start)
    assert run_days(PIPELINE, scheduled) == Days.of(date.fromisoformat(day))


def test_a_run_without_logical_date_processes_the_day_before_its_moment() -> None:
    triggered = context(run_after=datetime(2013, 4, 2, 8, 30, tzinfo=UTC))
    assert run_days(PIPELINE, triggered) == Days.of(date(2013, 4, 1))


def test_a_schedule_past_the_archive_skips_and_a_person_past_it_is_told() -> None:
    today = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    with pytest.raises(
        AirflowSkipException,
        match="Nothing to do for 2026-11-24: the feeds of 'flights' end on 2013-12-31",
    ):
        run_stage(run_type="scheduled", interval_start=today)
    with pytest.raises(
        AirflowFailException,
        match="no data for 2026-11-24: its feeds cover the days from 2012-12-31 to 2013-12-31",
    ):
        run_stage(run_type="manual", interval_start=today)
    with pytest.raises(AirflowFailException, match="no data for 2014-01-01"):
        run_stage(run_type="scheduled", date="2014-01-01")


def test_a_live_feed_is_never_skipped() -> None:
    live = replace(PIPELINE, last_day=None)
    today = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    scheduled = context(run_type="scheduled", interval_start=today)
    assert run_days(live, scheduled) == Days.of(today.date())


def test_the_stage_is_run_by_the_command_with_the_run_id_of_airflow(stub: Path) -> None:
    run_stage(
        "train", date="2013-03-01", retrain=True, run_id="manual__2013-03-02T08:30:00+00:00_x1"
    )
    about = ["flights", "--from", "2013-03-01", "--to", "2013-03-01", "--stage", "train"]
    run_id = "--run-id=manual__2013-03-02T08:30:00+00:00_x1"
    assert calls(stub) == [["run", *about, run_id, "--no-notify", "--as-needed", "--retrain"]]


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
    days = Days.of(date(2013, 3, 1))
    argv = command(PIPELINE, STAGES[0], days, run_id, {})
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
