"""The first task of a night: what will be done and why, and the end of a night that is nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    DownstreamTasksSkipped,
    TaskDeferred,
)

from dags import callbacks
from dags.tasks import OUTCOME, PlanOperator, dag_arguments, night
from jobs.__main__ import parser
from pipelines.days import Days, parse_day
from pipelines.events import Event
from pipelines.flights import PIPELINE
from pipelines.stages import STAGES
from tests.dags.conftest import Instance, context

ROWS = [{"what": "train", "state": "due", "nights": 1, "days": "2013-03-01", "reason": "new rows"}]
DUE = {"has_work": True, "summary": "to do:\n- train: due 2013-03-01 (new rows)", "rows": ROWS}
CURRENT = {"has_work": False, "summary": "nothing to do, all is current.", "rows": []}


@pytest.fixture
def plan() -> PlanOperator:
    with DAG(**dag_arguments(PIPELINE)) as dag:
        night(PIPELINE)
    task = dag.task_dict["plan"]
    assert isinstance(task, PlanOperator)
    return task


def run(
    plan: PlanOperator, planned: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **given: Any
) -> Instance:
    monkeypatch.setenv("STUB_RESULT", json.dumps(planned))
    instance = Instance()
    plan.execute(context(**given) | {"ti": instance})
    return instance


def test_a_night_with_work_goes_on_and_its_plan_is_handed_on(
    plan: PlanOperator, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = run(plan, DUE, monkeypatch, date="2013-03-01", retrain=True, run_id="manual__1")
    assert instance.pushed == {"plan": {"night": "Night of 2013-03-01", **DUE}}
    (argv,) = map(json.loads, stub.read_text().splitlines())
    asked = parser().parse_args(argv)
    assert (asked.pipeline, asked.first, asked.last) == ("flights", "2013-03-01", "2013-03-01")
    assert asked.retrain
    assert asked.note_run == "manual__1"


def test_a_night_with_nothing_to_do_ends_with_its_plan(
    plan: PlanOperator,
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(DownstreamTasksSkipped) as ended:
        run(plan, CURRENT, monkeypatch, date="2013-03-01")
    names = [stage.name for stage in STAGES]
    assert sorted(ended.value.tasks) == sorted([*names, OUTCOME])
    lines = capsys.readouterr().out.splitlines()
    begins = [line for line in lines if "Night of 2013-03-01 " in line]
    ends = [line for line in lines if "Night of 2013-03-01: nothing to do, all is current." in line]
    assert len(begins) == len(ends) == 1


def test_a_night_that_nobody_asked_for_and_that_is_not_due_ends_without_a_command(
    plan: PlanOperator, stub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "unbegun"))
    start = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    with pytest.raises(DownstreamTasksSkipped):
        run(plan, DUE, monkeypatch, run_type="scheduled", interval_start=start)
    assert not stub.exists()


@pytest.mark.parametrize(
    ("exit_code", "is_retried"),
    [(2, False), (3, True)],
)
def test_a_plan_that_fails_fails_the_night_with_its_message(
    plan: PlanOperator,
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    exit_code: int,
    is_retried: bool,
) -> None:
    monkeypatch.setenv("STUB_EXIT", str(exit_code))
    with pytest.raises(AirflowException, match=r"plan of 2013-03-01 .*: Refused: the reason") as e:
        run(plan, DUE, monkeypatch, date="2013-03-01")
    assert isinstance(e.value, AirflowFailException) is not is_retried


def test_people_are_told_of_a_plan_that_failed_by_a_command_that_is_accepted(
    plan: PlanOperator, stub: Path
) -> None:
    argv = plan.notify_command(context(date="2013-03-01"), Event.STAGE_FAILED)
    told = parser().parse_args([*argv[1:], "--message=why"])
    assert told.pipeline == "flights"
    assert told.first == "2013-03-01"
    assert told.stage == "plan"


def test_people_are_told_of_a_form_that_contradicts_itself(plan: PlanOperator, stub: Path) -> None:
    odd = context(date="2013-03-01", **{"from": "2013-03-01"}) | {
        "ti": Instance(),
        "task": plan,
    }
    with pytest.raises(AirflowFailException, match="Give either 'date' for one night") as failed:
        plan.execute(odd)
    callbacks.stage_failed(odd | {"exception": failed.value})
    (argv,) = map(json.loads, stub.read_text().splitlines())
    told = parser().parse_args(argv)
    assert argv[0] == "notify"
    assert told.event == "stage_refused"
    assert told.stage == "plan"
    assert told.message == str(failed.value)
    PIPELINE.require_days(Days(parse_day(told.first), parse_day(told.last)))


def test_a_configuration_that_names_no_param_is_refused_and_no_other_night_runs(
    plan: PlanOperator, stub: Path
) -> None:
    with pytest.raises(AirflowFailException, match=r"named 'dates'\. Did you mean 'date'\? "):
        plan.execute(context(dates="2013-03-01"))
    assert not stub.exists()


def test_what_airflows_own_trigger_adds_to_a_configuration_is_no_param_of_ours(
    plan: PlanOperator, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(plan, DUE, monkeypatch, date="2013-03-01", openlineage={"parentRunId": "1"})
    assert stub.exists()


class Backfilled(Instance):
    """A task of a night of a backfill, of whose earlier nights one runs, or none."""

    def __init__(self, running: str | None) -> None:
        super().__init__()
        self.running = running

    def get_previous_dagrun(self, state: str) -> Any:
        assert state == "running"
        return SimpleNamespace(run_id=self.running) if self.running else None


def test_a_night_of_a_backfill_waits_for_the_night_before_and_then_goes_on(
    plan: PlanOperator, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_RESULT", json.dumps(DUE))
    start = datetime(2013, 3, 2, 9, 30, tzinfo=UTC)
    instance = Backfilled("backfill__2013-03-01")
    where = context(run_type="backfill", interval_start=start) | {"ti": instance}
    with pytest.raises(TaskDeferred) as asked:
        plan.execute(where)
    assert not stub.exists(), "nothing is planned on what the night before will change"
    trigger = asked.value.trigger
    assert (trigger.dag_id, trigger.run_id) == ("flights", "backfill__2013-03-01")
    instance.running = None
    getattr(plan, asked.value.method_name)(where, event="it has ended")
    assert instance.pushed["plan"]["night"] == "Night of 2013-03-02"


def test_a_night_that_a_person_triggers_waits_for_no_backfill(
    plan: PlanOperator, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_RESULT", json.dumps(DUE))
    instance = Backfilled("backfill__2013-03-01")
    plan.execute(context(date="2013-03-09") | {"ti": instance})
    assert "plan" in instance.pushed
