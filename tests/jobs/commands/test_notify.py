"""`nightshift notify` tells what a run has recorded, and nothing that it has not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.commands.notify import parse_instant
from jobs.notifications import channels
from pipelines.catalog import pipeline
from pipelines.days import Days, parse_day
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.model import Promotion
from pipelines.run import Run
from tests.jobs.records import (
    NIGHT,
    move_alias,
    night_rows,
    publish_predictions,
    record,
    settle,
    stage_row,
)

pytestmark = pytest.mark.usefixtures("patient_tellers")
SECRET = "https://hooks.example/T0K3N"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    return Run(
        pipeline=pipeline("flights"),
        days=Days.of(parse_day("2013-01-05")),
        environment=Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}),
        run_id="manual__1",
    )


def notify(run: Run, event: str, *more: str) -> int:
    """Run the command as a scheduler would."""
    about = ["flights", "--date", str(run.days), f"--run-id={run.run_id}"]
    return main(["notify", *about, "--event", event, *more])


def sent(run: Run) -> list[dict[str, str]]:
    """What was told, by the channel `log`."""
    file = run.environment.logs / "notifications.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("event", ["stage_refused", "stage_failed"])
def test_a_stage_is_told_of_with_the_reason_that_it_recorded(event: str, run: Run) -> None:
    record(run, stage_row(run, "train", status="failed", error="Spark is away"))
    assert notify(run, event, "--stage", "train", "--message=it failed") == 0
    (message,) = sent(run)
    assert (message["event"], message["stage"]) == (event, "train")
    assert message["message"] == "Spark is away"
    assert message["run_id"] == "manual__1"


def test_a_run_that_was_asked_for_nonsense_is_told_of_as_that_and_as_of_no_night(run: Run) -> None:
    why = "No param of this DAG named 'day'. Known: date."
    for _ in range(2):
        assert notify(run, "stage_refused", "--stage", "plan", f"--message={why}") == 0
    (message,) = sent(run)
    assert (message["stage"], message["days"], message["message"]) == ("plan", "", why)
    port = Environment.read().airflow_port
    page = f"http://127.0.0.1:{port}/dags/flights/runs/manual__1"
    assert message["text"] == f"flights: plan was refused. {why} {page}"
    record(run, *night_rows(run))
    assert notify(run, "night_done") == 0
    assert sent(run)[-1]["message"].splitlines()[1:] == [f"  - stage_refused plan: {why}"]


def test_a_reason_that_is_no_utf8_is_told_once_too(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        # As Python has a byte of an argument that is no UTF-8.
        assert notify(run, "stage_failed", "--stage", "train", "--message=caf\udce9") == 0
    (message,) = sent(run)
    assert message["message"] == r"caf\udce9"
    assert "People know of it already" in capsys.readouterr().err


def test_a_plan_that_failed_is_told_of_with_its_night(run: Run) -> None:
    record(run, stage_row(run, "ingest", status="failed", error="of an earlier attempt"))
    assert notify(run, "stage_failed", "--stage", "plan", "--message=The lake is away.") == 0
    (message,) = sent(run)
    assert (message["stage"], message["message"]) == ("plan", "The lake is away.")
    assert message["text"].startswith("flights 2013-01-05: plan failed. The lake is away.")


def test_a_night_that_failed_between_two_stages_is_told_of_as_the_night(run: Run) -> None:
    assert notify(run, "stage_failed", "--message=The run had not ended after 36 h.") == 0
    (message,) = sent(run)
    assert message["stage"] is None
    says = "flights 2013-01-05: the night failed. The run had not ended after 36 h."
    assert message["text"].startswith(says)
    record(run, *night_rows(run))
    assert notify(run, "night_done") == 0
    assert sent(run)[-1]["event"] == "recovered"


def test_a_stage_that_recorded_no_reason_since_it_began_has_the_one_given(run: Run) -> None:
    record(run, stage_row(run, "train", status="failed", error="an earlier attempt's"))
    since = "--since=2013-01-06T12:00:00+00:00"
    assert notify(run, "stage_failed", "--stage", "train", since, "--message=-killed") == 0
    assert notify(run, "stage_failed", "--stage", "train", since) == 0
    given, plain = sent(run)
    assert given["message"] == "-killed"
    assert plain["message"].startswith("It ended before it could record why")


@pytest.mark.parametrize("event", ["feed_late", "feed_missing"])
def test_files_that_are_late_are_those_that_the_waiting_task_names(event: str, run: Run) -> None:
    record(run, stage_row(run, "ingest", status="not landed", error="missing at first: a, b"))
    assert notify(run, event, "--stage", "ingest", "--message=still missing: b") == 0
    assert notify(run, event, "--stage", "ingest") == 0
    given, recorded = sent(run)
    assert (given["event"], given["stage"]) == (event, "ingest")
    assert given["message"] == "still missing: b"
    assert recorded["message"] == "missing at first: a, b"


def test_files_that_are_late_are_told_again_where_nobody_was_reached(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OSError("no route to host")

    hooked = {"NIGHTSHIFT_HOME": str(run.environment.home), "NIGHTSHIFT_WEBHOOK_URL": SECRET}
    for name, value in hooked.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(channels.CHANNELS, "webhook", away)  # type: ignore[arg-type]
    late = ("--stage", "ingest", "--message=still missing: b")
    assert notify(run, "feed_late", *late) == 3
    with monkeypatch.context() as other:
        other.setitem(channels.CHANNELS, "webhook", lambda *_: None)  # type: ignore[arg-type]
        other.setitem(channels.CHANNELS, "log", away)  # type: ignore[arg-type]
        assert notify(run, "feed_late", *late) == 0
        assert notify(run, "feed_missing", *late) == 3


def test_a_night_that_is_done_is_told_of(run: Run) -> None:
    record(run, *night_rows(run))
    assert notify(run, "night_done", "--stage", "monitor") == 0
    (message,) = sent(run)
    assert message["stage"] is None
    assert message["message"].startswith("10 stages in 20 s")


def test_a_promotion_is_told_of(run: Run) -> None:
    settle(run, "4")
    promoted = {"event": "promoted", "model_version": "4"}
    record(run, stage_row(run, "evaluate", metrics=promoted))
    assert notify(run, "model_promoted") == 0
    (message,) = sent(run)
    assert (message["stage"], message["message"]) == ("evaluate", "Model 4.")


@pytest.mark.parametrize("asked", ["model_promoted", "model_awaiting"])
def test_a_model_that_awaits_a_person_is_told_of(asked: str, run: Run) -> None:
    settle(run, "4", "awaiting")
    awaiting = {"event": "awaiting", "model_version": "4"}
    record(run, stage_row(run, "evaluate", metrics=awaiting))
    assert notify(run, asked) == 0
    (message,) = sent(run)
    assert message["event"] == "model_awaiting"
    assert "a new model awaits a person" in str(message["text"])


def test_an_approval_that_nobody_gave_is_told_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    promotion = Promotion(needs_approval=True, approval_hours=48)
    expiring = replace(run.pipeline, promotion=promotion)
    monkeypatch.setattr("pipelines.catalog.pipeline", lambda name: expiring)
    settle(run, "4", "expired")
    for _ in range(2):
        assert notify(run, "approval_expired") == 0
    (message,) = sent(run)
    assert "nobody approved a model in time. Model 4: nobody approved" in message["text"]
    assert message["text"].endswith("/nightshift/pages/flights/models")


def test_an_alias_that_was_moved_by_hand_is_told_of_once(run: Run) -> None:
    move_alias(run, "1", minute=1)
    assert notify(run, "alias_moved", "--stage", "evaluate") == 0
    assert notify(run, "alias_moved", "--stage", "predict") == 0
    (message,) = sent(run)
    assert (message["event"], message["stage"]) == ("alias_moved", "evaluate")
    told = "MLflow's alias was moved by hand and put back. Somebody has moved the alias"
    assert told in str(message["text"])


@pytest.mark.parametrize("asked", ["drift_found", "drift_ended"])
def test_drift_is_told_of(asked: str, run: Run) -> None:
    record(run, stage_row(run, "monitor", metrics={"drift_ended": ["skew"]}))
    assert notify(run, asked) == 0
    (message,) = sent(run)
    assert message["event"] == "drift_ended"
    assert "drift has ended. Ended: skew." in str(message["text"])


def test_predictions_that_are_not_there_are_told_once_and_the_recovery_once(run: Run) -> None:
    for watch in ("scheduled__1", "scheduled__2"):
        watching = replace(run, run_id=watch)
        assert notify(watching, "predictions_late") == 0
    (late,) = sent(run)
    assert (late["event"], late["stage"]) == ("predictions_late", None)
    assert "No predictions for 2013-01-06 by 06:00 (America/New_York)." in late["text"]
    record(run, *night_rows(run))
    assert notify(run, "night_done") == 0
    assert notify(run, "night_done") == 0
    found = [one["event"] for one in sent(run)[1:]]
    assert found == ["night_done", "recovered", "night_done"]


def test_predictions_that_were_due_before_the_first_run_are_not_late(run: Run) -> None:
    record(run, stage_row(run, "ingest"))
    before, after = NIGHT - timedelta(hours=1), NIGHT + timedelta(hours=1)
    assert notify(run, "predictions_late", "--since", before.isoformat()) == 0
    assert sent(run) == []
    assert notify(run, "predictions_late", "--since", after.isoformat()) == 0
    (late,) = sent(run)
    assert late["event"] == "predictions_late"


def test_predictions_that_are_there_are_not_late(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_predictions(run)
    assert notify(run, "predictions_late") == 0
    assert sent(run) == []
    assert "has no predictions_late to tell" in capsys.readouterr().err


def test_a_stage_that_fails_again_for_the_same_reason_is_told_once(run: Run) -> None:
    for minute in range(3):
        row = stage_row(run, "train", minute=minute, status="failed", error="Spark is away")
        record(run, row)
        assert notify(run, "stage_failed", "--stage", "train") == 0
    assert len(sent(run)) == 1


@pytest.mark.parametrize(
    "event",
    [
        "night_done",
        "model_promoted",
        "model_awaiting",
        "approval_expired",
        "alias_moved",
        "drift_found",
    ],
)
def test_what_has_not_happened_is_not_told(
    event: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    record(run, stage_row(run, "ingest"))
    assert notify(run, event, "--stage", "predict") == 0
    assert sent(run) == []
    assert f"run manual__1 has no {event} to tell" in capsys.readouterr().err


def test_a_channel_that_fails_is_a_fault_of_this_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = replace(run.pipeline, notify=("log", "webhook"))
    monkeypatch.setattr("pipelines.catalog.pipeline", lambda name: both)
    # A port at which nobody listens: only root could.
    monkeypatch.setenv("NIGHTSHIFT_WEBHOOK_URL", "http://127.0.0.1:1/T0K3N")
    assert notify(run, "stage_failed", "--stage", "train") == 3
    assert len(sent(run)) == 1
    printed = capsys.readouterr().err
    assert "was not sent to webhook: " in printed
    assert "T0K3N" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage_failed"], "needs --stage"),
        (["recovered"], "not yours to tell: a night that is done (night_done) tells it"),
        (["maintenance_failed"], "not yours to tell: `nightshift maintain` tells it, or else"),
        (["declaration_unreadable"], "not yours to tell: `nightshift announce` tells it."),
        (["stage_failed", "--stage", "trian"], "Did you mean 'train'"),
        (["stage_failed", "--stage", "train", "--since=yesterday"], "is not an instant"),
    ],
)
def test_wrong_usage_is_explained(
    arguments: list[str], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    event, *more = arguments
    assert notify(run, event, *more) == 2
    assert message in capsys.readouterr().err


def test_an_instant_without_an_offset_is_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    assert parse_instant("2013-01-06T09:30:00") == datetime(2013, 1, 6, 9, 30, tzinfo=UTC)
    assert parse_instant("2013-01-06T10:30:00+01:00") == datetime(2013, 1, 6, 10, 30, tzinfo=berlin)
    with pytest.raises(UsageError, match="--since 'noon' is not an instant"):
        parse_instant("noon")
