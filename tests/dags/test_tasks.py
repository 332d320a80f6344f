"""A stage's operator: which days it runs, what it calls, and how it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.utils.types import DagRunType
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dags import callbacks
from dags.callbacks import StageRefused
from dags.nights import Night
from dags.tasks import (
    DeclarationsOperator,
    MaintenanceOperator,
    StageOperator,
    command,
    safe_run_id,
    time_limit,
)
from jobs.__main__ import parser
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.flights import PIPELINE
from pipelines.model import NeuralNetwork
from pipelines.run import Run, is_of_airflow, new_run_id
from pipelines.stages import STAGES, stage
from pipelines.weather import PIPELINE as WEATHER
from tests.dags.conftest import Instance, context, printed_until

RANGE: dict[str, Any] = {"from": "2013-01-01", "to": "2013-01-31"}


def run_stage(name: str = "ingest", **given: Any) -> None:
    operator = StageOperator(pipeline=PIPELINE, stage=stage(name))
    operator.pre_execute(of_run(**given))
    operator.execute(context(**given))


def of_run(**given: Any) -> Any:
    """What Airflow gives a task of a run whose plan is not known."""
    return context(**given) | {"ti": Instance()}


def calls(stub: Path) -> list[list[str]]:
    return [json.loads(line) for line in stub.read_text().splitlines()]


def test_the_stage_is_run_by_the_command_with_the_run_id_of_airflow(stub: Path) -> None:
    run_stage(
        "train", date="2013-03-01", retrain=True, run_id="manual__2013-03-02T08:30:00+00:00_x1"
    )
    about = ["flights", "--from", "2013-03-01", "--to", "2013-03-01", "--stage", "train"]
    run_id = "--run-id=manual__2013-03-02T08:30:00+00:00_x1"
    (argv,) = calls(stub)
    (result,) = [argument for argument in argv if argument.startswith("--result=")]
    argv.remove(result)
    how = ["--no-notify", "--wait-seconds=30", "--as-needed", "--retrain"]
    assert argv == ["run", *about, run_id, *how]


def test_the_log_of_a_stage_begins_with_its_night(
    stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage("train", date="2013-03-01")
    first, *_ = capsys.readouterr().out.splitlines()
    assert "Night of 2013-03-01 " in first


def test_a_stage_that_was_not_asked_for_does_and_tells_nothing(
    stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = StageOperator(pipeline=PIPELINE, stage=stage("check_raw"))
    assert operator.outlets
    operator.execute(context(date="2013-03-01", stages=["train", "features"]))
    assert not stub.exists()
    assert "Nothing to do: this run is of features, train alone." in capsys.readouterr().out
    assert operator.outlets == []
    last = StageOperator(pipeline=PIPELINE, stage=STAGES[-1])
    assert last.on_success_callback
    told = context(date="2013-03-01", stages=["train", "features"])
    last.execute(told | {"ti": Instance()})
    assert not last.on_success_callback


@pytest.mark.parametrize("name", [one.name for one in STAGES])
@pytest.mark.parametrize(
    ("to_tell", "kept"),
    [
        ([], []),
        (["night_done"], [callbacks.last_stage_done]),
        (["alias_moved", "model_promoted"], [callbacks.model_evaluated, callbacks.alias_followed]),
        (["night_done", "drift_found"], [callbacks.night_watched, callbacks.last_stage_done]),
    ],
)
def test_nobody_asks_again_what_a_stage_has_nothing_to_tell_of(
    to_tell: list[str],
    kept: list[Callable[..., None]],
    name: str,
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"tables": {}, "report": None, "message": None, "kept": [], "to_tell": to_tell}
    monkeypatch.setenv("STUB_RESULT", json.dumps(told))
    operator = StageOperator(pipeline=PIPELINE, stage=stage(name))
    declared = operator.on_success_callback
    operator.execute(context(date="2013-03-01") | {"ti": Instance()})
    assert operator.on_success_callback == [one for one in declared if one in kept]


def test_where_a_stage_has_not_looked_all_is_asked(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"tables": {}, "report": None, "message": None, "kept": [], "to_tell": None}
    monkeypatch.setenv("STUB_RESULT", json.dumps(told))
    operator = StageOperator(pipeline=PIPELINE, stage=STAGES[-1])
    operator.execute(context(date="2013-03-01") | {"ti": Instance()})
    assert operator.on_success_callback == [callbacks.night_watched, callbacks.last_stage_done]


@pytest.mark.parametrize("chosen", [None, [], ["train"]])
def test_a_stage_runs_where_it_or_none_was_chosen(stub: Path, chosen: list[str] | None) -> None:
    run_stage("train", date="2013-03-01", stages=chosen)
    (argv,) = calls(stub)
    assert argv[argv.index("--stage") + 1] == "train"


MESSAGE = """flights.weather was refused: 1 expectation(s) failed.
  - flights.weather temp (expect_column_values_to_be_between): 9 of 72 rows.
Report: {report}
Have the source drop good files, or let it through, and run again:
  nightshift waive flights weather"""
CHANGED = {"rows": 914, "version": 3, "days": 1, "first_day": "2013-03-01"}


def told(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    **result: Any,
) -> tuple[StageOperator, Any]:
    """The operator of a stage whose command has written this result, and Airflow's context."""
    written = {"message": None, "report": None, "failures": [], "tables": {}, **result}
    monkeypatch.setenv("STUB_RESULT", json.dumps(written))
    outlet_events = OutletEventAccessors()
    where = context(date="2013-03-01") | {"ti": Instance(), "outlet_events": outlet_events}
    return StageOperator(pipeline=PIPELINE, stage=stage(name)), where


def test_a_failed_task_says_what_happened_and_links_to_its_report(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    monkeypatch.setenv("STUB_EXIT", "1")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080/")
    run = "manual__2013-03-02T08:30:00+00:00"
    report = str(tmp_path / "reports/flights/2013-03-01..2013-03-01" / run / "index.html")
    message = MESSAGE.format(report=report)
    operator, where = told(monkeypatch, "check_raw", message=message, report=report)
    with pytest.raises(StageRefused) as refused:
        operator.execute(where)
    below = "flights/2013-03-01..2013-03-01/manual__2013-03-02T08%3A30%3A00%2B00%3A00/index.html"
    url = f"http://127.0.0.1:8080/nightshift/reports/{below}"
    why = MESSAGE.format(report=url)
    assert str(refused.value) == f"check_raw of 2013-03-01 was refused (exit code 1): {why}"
    (link,) = operator.operator_extra_links
    assert link.get_link(operator, ti_key=where["ti"]) == url
    assert where["ti"].pushed["result"]["message"] == message
    assert f"Report: {url}" in capsys.readouterr().out


def test_a_stage_without_a_report_links_nowhere(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, where = told(monkeypatch, "transform")
    operator.execute(where)
    (link,) = operator.operator_extra_links
    assert link.get_link(operator, ti_key=where["ti"]) == ""


def test_only_tables_that_changed_are_told_as_assets_with_rows_version_and_days(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"flights.weather": CHANGED, "flights.departures": CHANGED}
    operator, where = told(monkeypatch, "check_raw", tables=changed)
    assert len(operator.outlets) == len(PIPELINE.feeds)
    operator.execute(where)
    # Departures are another stage's, which this one did at the same time.
    (weather,) = operator.outlets
    assert weather.name == "flights.weather"
    assert where["outlet_events"][weather].extra == CHANGED
    unchanged, where = told(monkeypatch, "check_raw")
    unchanged.execute(where)
    assert unchanged.outlets == []


@pytest.mark.parametrize("exit_code", [1, 4])
def test_a_correction_that_is_not_accepted_stops_no_night_and_has_its_last_stage_refused(
    exit_code: int, stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUB_EXIT", str(exit_code))
    kept = ["2013-01-08", "2013-01-10..2013-01-11"]
    operator, where = told(monkeypatch, "ingest", message="a bad line", kept=kept)
    operator.execute(where | {"task": operator})
    not_accepted = (
        "New files of 2013-01-08, 2013-01-10..2013-01-11 were not accepted, and what was published "
        "of these days stays in force: a bad line"
    )
    assert where["ti"].pushed["not_accepted"] == not_accepted
    assert not_accepted in capsys.readouterr().out
    _, notified = calls(stub)
    notification = parser().parse_args(notified)
    assert (notification.stage, notification.event) == ("ingest", "stage_refused")
    assert notification.message == not_accepted
    check = StageOperator(pipeline=PIPELINE, stage=stage("check_raw"))
    check.execute(where | {"task": check})
    assert [argv[0] for argv in calls(stub)] == ["run", "notify", "run"], "people know"
    monkeypatch.setenv("STUB_EXIT", "0")
    for stages in (None, ["ingest", "check_raw"]):
        last = StageOperator(pipeline=PIPELINE, stage=STAGES[-1])
        with pytest.raises(StageRefused) as refused:
            last.execute(where | context(date="2013-03-01", stages=stages))
        assert str(refused.value) == f"All else of the night is done. {not_accepted}"
        # Of the reason people know already.
        assert last.on_failure_callback == [callbacks.night_watched]
    other, where = told(monkeypatch, STAGES[-1].name, kept=[])
    other.execute(where)


@pytest.mark.parametrize(
    ("says", "levels"),
    [
        ("ingest 2.6 s", ["info"]),
        ("Warning: nobody was notified\nplain", ["warning", "info"]),
        ("Not landed: 1 file(s)\n  - a.csv", ["warning", "info"]),
        ("plain\nRefused: why\n  - one\n  - two", ["info", "error", "error", "error"]),
        ("Traceback (most recent call last):\n  File\nFault: it", ["error"] * 3),
        ("Fault: it\nWarning: other", ["error", "warning"]),
        ("Usage: no such day", ["error"]),
        ("it says Refused: and Warning: in its midst", ["info"]),
    ],
)
def test_a_line_of_the_command_keeps_its_level(
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    levels: list[str],
) -> None:
    monkeypatch.setenv("STUB_SAYS", says)
    operator = StageOperator(pipeline=PIPELINE, stage=stage("ingest"))
    with capture_logs() as logged:
        operator.execute(context(date="2013-03-01"))
    by_line = {entry["event"]: entry["log_level"] for entry in logged}
    assert [by_line[line] for line in says.splitlines()] == levels


def test_a_line_is_logged_as_soon_as_it_is_printed(
    stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUB_SECONDS", "60")
    operator = StageOperator(pipeline=PIPELINE, stage=stage("ingest"))
    where = context(date="2013-03-01")
    task = threading.Thread(target=lambda: suppressed(operator, where))
    task.start()
    began = time.monotonic()
    seen = printed_until(capsys, "Refused: the reason")
    operator.on_kill()
    task.join(timeout=10)
    assert "Refused: the reason" in seen
    assert time.monotonic() < began + 30


def suppressed(operator: StageOperator, where: Any) -> None:
    with suppress(AirflowException):
        operator.execute(where)


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
    operator.pre_execute(of_run(**RANGE))
    assert operator.execution_timeout == time_limit(stage("ingest"), 31) == timedelta(minutes=120)


def test_nights_that_are_caught_up_may_take_as_long_as_a_range() -> None:
    operator = StageOperator(pipeline=PIPELINE, stage=stage("ingest"))
    of_night = of_run(date="2013-03-01")
    of_night["ti"].xcom_push(key="plan", value={"nights": 31})
    operator.pre_execute(of_night)
    assert operator.execution_timeout == time_limit(stage("ingest"), 31)
    # As a version before has told it.
    of_night["ti"].xcom_push(key="plan", value={"has_work": True})
    operator.pre_execute(of_night)
    assert operator.execution_timeout == timedelta(minutes=60)


def test_a_training_may_take_as_long_as_its_family_declares_for_both_models() -> None:
    family = NeuralNetwork(timeout_seconds=10_800)
    patient = replace(PIPELINE, training=replace(PIPELINE.training, family=family))
    train = StageOperator(pipeline=patient, stage=stage("train"))
    assert train.execution_timeout == timedelta(hours=1 + 2 * 3)
    train.pre_execute(of_run(**RANGE))
    assert train.execution_timeout == timedelta(hours=2 + 2 * 3)
    others = [
        StageOperator(pipeline=patient, stage=stage("ingest")),
        # Of a family that ends by itself.
        StageOperator(pipeline=WEATHER, stage=stage("train")),
    ]
    assert [one.execution_timeout for one in others] == [timedelta(hours=1)] * 2


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=230), st.text(max_size=230))
@example(".", "..")
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


def test_only_ids_that_airflow_has_made_lead_to_it() -> None:
    for kind in DagRunType:
        assert is_of_airflow(kind.generate_run_id(suffix="2013-03-01T09:30:00+00:00_AbC1"))
    for other in (
        new_run_id(),
        "demo_flights_2013-01-01..2013-04-01",
        "my-run-1",
        safe_run_id("manual__my run"),
        safe_run_id(f"scheduled__{'x' * 200}"),
    ):
        assert not is_of_airflow(other), other


def test_a_hostile_run_id_stays_one_argument() -> None:
    run_id = safe_run_id("--help; rm -rf $(HOME)")
    night = Night(days=Days.of(date(2013, 3, 1)))
    argv = command(PIPELINE, STAGES[0], night, run_id, {}, Path("result.json"))
    assert f"--run-id={run_id}" in argv
    assert run_id.startswith("--help--rm--rf---HOME-~")


def test_maintenance_runs_the_command_and_is_tried_again_after_a_fault(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = {**context(), "ti": SimpleNamespace(try_number=3, max_tries=2)}
    MaintenanceOperator().execute(last)
    ((what, result, wait),) = calls(stub)
    assert (what, wait) == ("maintain", "--wait-seconds=30")
    assert result.startswith("--result=")
    monkeypatch.setenv("STUB_EXIT", "3")
    with pytest.raises(AirflowException, match="exit code 3") as failed:
        MaintenanceOperator().execute(last)
    assert not isinstance(failed.value, AirflowFailException)


def test_declarations_are_looked_at_again_while_nobody_can_be_told(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DeclarationsOperator().execute(context())
    assert calls(stub) == [["announce", "--event", "declaration_unreadable"]]
    monkeypatch.setenv("STUB_EXIT", "3")
    with pytest.raises(AirflowException, match=r"Nobody was told \(exit code 3\): Refused: the"):
        DeclarationsOperator().execute(context())


@pytest.mark.parametrize("attempt", [1, 2])
def test_what_maintenance_cannot_clean_is_told_by_its_last_attempt(
    attempt: int, stub: Path
) -> None:
    before = {**context(), "ti": SimpleNamespace(try_number=attempt, max_tries=2)}
    MaintenanceOperator().execute(before)
    ((what, *_, quiet),) = calls(stub)
    assert (what, quiet) == ("maintain", "--no-notify")
