"""What is wrong is told once for each cause, and that it is right again once."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import outcome
from jobs.lake import alerts, model_events, ops
from jobs.notifications import channels
from jobs.services import locks, promptly, shared_locks
from jobs.telling import tell
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.events import ALARMS, Event, Notification
from pipelines.run import Run
from pipelines.stages import stage
from tests.jobs import records, toy
from tests.jobs.records import publish_predictions as publish

pytestmark = pytest.mark.usefixtures("patient_tellers")
REFUSED = """toy.readings was refused: 2 expectation(s) failed.
  - toy.readings amount: 9 of 72 rows.
  - toy.readings note: 1 of 72 rows.
Report: /home/reports/r1/index.html"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


@pytest.fixture
def night(environment: Environment) -> Callable[[str], Run]:
    """A run of that day."""
    return lambda day: replace(toy.run_of(environment, day), run_id=f"manual__{day}")


def wrong(run: Run, event: Event = Event.STAGE_REFUSED, why: str = REFUSED) -> Notification:
    return outcome.notification(run, event, why, "check_raw")


def done(run: Run) -> Notification:
    return outcome.notification(run, Event.NIGHT_DONE, "10 stages in 20 s.")


def sent(environment: Environment) -> list[dict[str, str]]:
    """What was told, by the channel `log`."""
    lines = (environment.logs / "notifications.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def events(environment: Environment) -> list[str]:
    return [message["event"] for message in sent(environment)]


@pytest.mark.parametrize("event", sorted(ALARMS))
def test_a_cause_is_told_once_until_it_is_right_again_and_then_anew(
    event: Event, night: Callable[[str], Run], environment: Environment
) -> None:
    run = night("2013-01-05")
    for _ in range(3):
        tell(run, wrong(run, event))
    assert events(environment) == [event]
    tell(run, done(run))
    assert events(environment) == [event, "night_done", "recovered"]
    for _ in range(2):
        tell(run, wrong(run, event))
    assert events(environment)[3:] == [event]


def test_what_is_over_is_told_once_where_the_clock_is_behind(
    night: Callable[[str], Run], environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = night("2013-01-05")
    tell(run, wrong(run))
    # Of another machine.
    behind = ops.now() - timedelta(minutes=10)
    monkeypatch.setattr(ops, "now", lambda: behind)
    for _ in range(2):
        tell(run, done(run))
    assert events(environment)[1:] == ["night_done", "recovered", "night_done"]
    tell(run, wrong(run))
    assert events(environment)[4:] == ["stage_refused"]


def test_another_cause_or_night_or_stage_is_told(
    night: Callable[[str], Run], environment: Environment
) -> None:
    run = night("2013-01-05")
    other = REFUSED.replace("amount", "note")
    tell(run, wrong(run))
    tell(run, wrong(run, why=other))
    tell(run, wrong(run, Event.STAGE_FAILED))
    tell(run, replace(wrong(run), stage="check_clean"))
    later = night("2013-01-06")
    tell(later, wrong(later))
    assert len(sent(environment)) == 5


def test_the_same_cause_is_known_by_its_first_words_and_not_by_its_report(
    night: Callable[[str], Run],
    environment: Environment,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = night("2013-01-05")
    tell(run, wrong(run))
    again = REFUSED.replace("r1/index", "r1~2/index")
    tell(replace(run, run_id="manual__2"), wrong(run, why=again))
    assert len(sent(environment)) == 1
    known = "People know of it already: stage_refused 2013-01-05 check_raw: toy.readings was"
    assert known in capsys.readouterr().err


def refused(
    run: Run,
    *found_in: str,
    rows: int = 72,
    column: str = "amount",
    stage: str = "check_raw",
) -> Notification:
    """A stage of the run was refused for what these files hold, and it has recorded that."""
    failure = {"table": "toy.readings", "expectation": "between", "column": column}
    metrics = {"failures": [failure], "found_in": found_in}
    why = f"toy.readings was refused: 1 expectation(s) failed.\n  - {column}: 9 of {rows} rows."
    row = records.stage_row(run, stage, status="refused", error=why, metrics=metrics)
    records.record(run, row)
    return outcome.notification(run, Event.STAGE_REFUSED, why, stage)


BAD, ITS_NEXT, MENDED = "5.csv digest", "6.csv digest", "5.csv another digest"


def test_the_nights_that_one_bad_file_stops_are_told_once_and_their_recovery_once(
    night: Callable[[str], Run], environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = map(night, ("2013-01-05", "2013-01-06", "2013-01-07"))
    tell(first, refused(first, BAD))
    # A night that follows reads the bad file again, beside its own.
    tell(second, refused(second, BAD, ITS_NEXT, rows=144))
    tell(third, refused(third, BAD, ITS_NEXT, "7.csv digest", rows=216))
    (one,) = sent(environment)
    assert (one["event"], one["days"]) == ("stage_refused", "2013-01-05")
    known = "People know of it already: stage_refused 2013-01-05 check_raw: toy.readings was"
    assert capsys.readouterr().err.count(known) == 2
    stopped = alerts.standing(environment, "toy")
    assert [row["days"] for row in stopped] == ["2013-01-05", "2013-01-06", "2013-01-07"]
    assert len({row["cause"] for row in stopped}) == 1
    for run in (first, second, third):
        tell(run, done(run))
        publish(run)
    over = ["night_done", "recovered", "night_done", "night_done"]
    assert events(environment)[1:] == over
    (listed,) = sent(environment)[2]["message"].splitlines()[1:]
    assert listed.startswith("  - stage_refused 2013-01-05 check_raw: toy.readings was refused")


def test_what_one_bad_file_has_stopped_is_not_over_before_its_own_night_is(
    night: Callable[[str], Run], environment: Environment
) -> None:
    before, first, second = map(night, ("2013-01-04", "2013-01-05", "2013-01-06"))
    publish(before)
    tell(first, refused(first, BAD))
    tell(second, refused(second, BAD, ITS_NEXT, rows=144))
    publish(second)
    # It went over the gap.
    tell(second, done(second))
    assert events(environment) == ["stage_refused", "night_done"]


@pytest.mark.parametrize(
    ("found_in", "how"),
    [
        ([MENDED, ITS_NEXT], {}),
        ([BAD, ITS_NEXT], {"column": "note"}),
        ([ITS_NEXT], {}),
        ([BAD, ITS_NEXT], {"stage": "check_clean"}),
        # Read file by file: that of the next night is bad too.
        ([BAD, ITS_NEXT], {"stage": "ingest"}),
    ],
)
def test_a_night_that_is_stopped_by_something_else_is_told(
    found_in: list[str],
    how: dict[str, str],
    night: Callable[[str], Run],
    environment: Environment,
) -> None:
    first, second = night("2013-01-05"), night("2013-01-06")
    stage = "ingest" if how.get("stage") == "ingest" else "check_raw"
    tell(first, refused(first, BAD, stage=stage))
    tell(second, refused(second, *found_in, **how))
    assert len(sent(environment)) == 2


def test_a_file_that_is_bad_in_its_place_is_told_anew_and_what_stops_later_nights_once(
    night: Callable[[str], Run], environment: Environment
) -> None:
    first, second = night("2013-01-05"), night("2013-01-06")
    tell(first, refused(first, BAD))
    again = replace(first, run_id="manual__again")
    tell(again, refused(again, MENDED, rows=70))
    tell(second, refused(second, MENDED, ITS_NEXT, rows=140))
    assert [one["run_id"] for one in sent(environment)] == [first.run_id, again.run_id]


def no_model(run: Run, why: str = "") -> Notification:
    message = f"{model_events.NONE_IN_FORCE.format(name=run.pipeline.name, days=run.days)} {why}"
    return outcome.notification(run, Event.STAGE_REFUSED, message, "predict")


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_night_without_any_model_is_told_by_the_stage_that_made_none(
    stage: str,
    night: Callable[[str], Run],
    environment: Environment,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = night("2013-01-05")
    tell(run, replace(wrong(run, why="Too few labels."), stage=stage))
    tell(run, no_model(run))
    # Another run of the night, as a person starts one.
    tell(replace(run, run_id="manual__2"), no_model(run))
    assert [message["stage"] for message in sent(environment)] == [stage]
    assert f"People know why: stage_refused 2013-01-05 {stage}: Too few labels." in (
        capsys.readouterr().err
    )


def test_of_two_reasons_why_a_night_has_no_model_the_later_is_why(
    night: Callable[[str], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = night("2013-01-05")
    tell(run, replace(wrong(run, why="Too few labels."), stage="train"))
    tell(run, replace(wrong(run, Event.STAGE_FAILED, why="It was killed."), stage="train"))
    tell(run, no_model(run))
    assert "People know why: stage_failed 2013-01-05 train: It was killed." in (
        capsys.readouterr().err
    )


def test_a_night_without_any_model_is_told_when_its_training_was_told_of_and_has_succeeded_since(
    night: Callable[[str], Run], environment: Environment
) -> None:
    run = night("2013-01-05")
    tell(run, replace(wrong(run, why="Too few labels."), stage="train"))
    records.record(run, records.stage_row(run, "train"))
    tell(run, no_model(run, "One awaits a person."))
    assert [message["stage"] for message in sent(environment)] == ["train", "predict"]


def test_a_night_without_any_model_is_told_where_nothing_else_was(
    night: Callable[[str], Run], environment: Environment
) -> None:
    run, later = night("2013-01-05"), night("2013-01-06")
    tell(run, wrong(run))
    tell(run, no_model(run))
    tell(later, no_model(later))
    unreadable = outcome.notification(later, Event.STAGE_FAILED, "The model is cut off.", "predict")
    tell(later, replace(wrong(later), stage="train"))
    tell(later, unreadable)
    stages = [message["stage"] for message in sent(environment)]
    assert stages == ["check_raw", "predict", "predict", "train", "predict"]


def test_a_recovery_is_told_once_with_what_is_over(
    night: Callable[[str], Run], environment: Environment
) -> None:
    first, second = night("2013-01-05"), night("2013-01-06")
    tell(first, wrong(first))
    late = replace(wrong(first, Event.PREDICTIONS_LATE), stage=None)
    tell(first, late)
    tell(second, done(second))
    tell(second, done(second))
    assert events(environment)[2:] == ["night_done", "recovered", "night_done"]
    recovered = sent(environment)[3]
    why = "toy.readings was refused: 2 expectation(s) failed. toy.readings amount: 9 of 72 rows."
    assert recovered["message"].splitlines() == [
        "10 stages in 20 s. Over is what people were told of:",
        f"  - stage_refused 2013-01-05 check_raw: {why}",
        "  - predictions_late 2013-01-05",
    ]
    assert recovered["text"].startswith("toy 2013-01-06: recovered. 10 stages in 20 s. ")
    assert recovered["page"] == "http://127.0.0.1:8080/dags/toy/runs/manual__2013-01-06"


def test_many_alarms_that_are_over_are_counted(
    night: Callable[[str], Run], environment: Environment
) -> None:
    run = night("2013-01-05")
    for number in range(7):
        tell(run, wrong(run, why=f"cause {number}"))
    tell(run, done(run))
    assert sent(environment)[-1]["message"].splitlines()[-1] == "  - … and 2 more"


def test_an_old_night_that_is_done_ends_nothing_of_a_later_one(
    night: Callable[[str], Run], environment: Environment
) -> None:
    run = night("2013-01-05")
    tell(run, wrong(run))
    before = night("2013-01-04")
    tell(before, done(before))
    assert events(environment) == ["stage_refused", "night_done"]
    tell(before, wrong(before))
    tell(before, done(before))
    assert events(environment)[2:] == ["stage_refused", "night_done", "recovered"]
    assert "2013-01-05" not in sent(environment)[-1]["message"]
    tell(run, wrong(run))
    assert len(sent(environment)) == 5, "people know of it still"
    tell(run, done(run))
    assert events(environment)[5:] == ["night_done", "recovered"]


@pytest.mark.parametrize("is_range", [False, True])
def test_what_is_wrong_with_a_night_that_a_later_one_went_over_stays_wrong(
    is_range: bool, night: Callable[[str], Run], environment: Environment
) -> None:
    before, missing, later = map(night, ("2013-01-04", "2013-01-05", "2013-01-06"))
    if is_range:
        # Which has left the missing night out, as --allow-gap does.
        later = replace(later, days=Days(missing.days.last, later.days.last))
    publish(before)
    tell(missing, wrong(missing, Event.FEED_MISSING))
    tell(later, wrong(later))
    publish(later)
    tell(later, done(later))
    assert events(environment)[2:] == ["night_done", "recovered"]
    assert "feed_missing" not in sent(environment)[-1]["message"]
    tell(missing, wrong(missing, Event.FEED_MISSING))
    assert len(sent(environment)) == 4, "people know of it still"
    publish(missing)
    tell(later, done(later))
    assert events(environment)[4:] == ["night_done", "recovered"]
    assert "feed_missing 2013-01-05" in sent(environment)[-1]["message"]


def test_late_predictions_of_a_last_night_that_is_done_without_a_model_stay_late(
    night: Callable[[str], Run], environment: Environment
) -> None:
    before, without = night("2013-01-04"), night("2013-01-05")
    publish(before)
    late = replace(wrong(without, Event.PREDICTIONS_LATE), stage=None)
    tell(without, late)
    tell(without, wrong(without))
    tell(without, done(without))
    assert events(environment)[2:] == ["night_done", "recovered"]
    assert "predictions_late" not in sent(environment)[-1]["message"]
    publish(without)
    tell(without, done(without))
    assert "  - predictions_late 2013-01-05" in sent(environment)[-1]["message"]


def test_what_was_wrong_with_a_night_whose_predictions_are_lost_stays_wrong(
    night: Callable[[str], Run], environment: Environment
) -> None:
    wrong_one, later = night("2013-01-05"), night("2013-01-06")
    tell(wrong_one, wrong(wrong_one))
    publish(wrong_one)
    shutil.rmtree(environment.table_path("toy.predictions"))
    publish(later)
    tell(later, done(later))
    assert events(environment) == ["stage_refused", "night_done"]
    publish(wrong_one)
    tell(later, done(later))
    assert events(environment)[2:] == ["night_done", "recovered"]


def test_of_a_night_before_the_first_predictions_none_are_awaited(
    night: Callable[[str], Run], environment: Environment
) -> None:
    first, second = night("2013-01-05"), night("2013-01-06")
    tell(first, wrong(first))
    publish(second)
    tell(second, done(second))
    assert events(environment) == ["stage_refused", "night_done", "recovered"]


def test_a_night_that_is_done_with_nothing_wrong_is_no_recovery(
    night: Callable[[str], Run], environment: Environment
) -> None:
    run = night("2013-01-05")
    tell(run, outcome.notification(run, Event.FEED_LATE, "a.csv", "ingest"))
    tell(run, done(run))
    assert events(environment) == ["feed_late", "night_done"]


def test_what_no_channel_delivered_is_told_by_the_next_attempt(
    night: Callable[[str], Run], environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = night("2013-01-05")

    def away(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setitem(channels.CHANNELS, "log", away)  # type: ignore[arg-type]
        assert tell(run, wrong(run)) == ("log",)
    assert tell(run, wrong(run)) == ()
    assert events(environment) == ["stage_refused"]


def test_what_the_log_alone_has_is_told_by_the_next_attempt(
    night: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch, environment: Environment
) -> None:
    """Nobody reads a file while the webhook, which they do read, is away."""
    posted: list[str] = []

    def away(*_: Any) -> None:
        raise NightshiftError("it answered HTTP 503.")

    def deliver(_: Environment, message: Any) -> None:
        posted.append(message["event"])

    run = night("2013-01-05")
    by_both = replace(run, pipeline=replace(run.pipeline, notify=("log", "webhook")))
    for webhook in (away, deliver, deliver):
        monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, "webhook": webhook})
        tell(by_both, wrong(by_both))
    assert posted == ["stage_refused"]
    # Nor is a recovery told that only a file has.
    for webhook in (away, deliver, deliver):
        monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, "webhook": webhook})
        tell(by_both, done(by_both))
    assert posted[1:] == ["night_done", "recovered", "night_done"]


def test_a_silent_webhook_and_a_slow_mail_lose_neither_the_mail_nor_the_record(
    night: Callable[[str], Run], environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The mails have to be through by then.
    monkeypatch.setattr(channels, "MOST_SECONDS", 5.0)
    over = threading.Event()
    mails: list[str | None] = []

    def silent(*_: object) -> None:
        over.wait(600)

    def slow(_: Environment, message: channels.Message) -> None:
        time.sleep(0.2)
        mails.append(message["event"])

    channels_by_name = {"webhook": silent, "email": slow}
    monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, **channels_by_name})
    run = night("2013-01-05")
    both = replace(run, pipeline=replace(run.pipeline, notify=("webhook", "email")))
    # That it comes back at all is the proof that it does not wait for the webhook.
    assert tell(both, wrong(both)) == ("webhook",)
    assert tell(both, wrong(both)) == (), "people know of it"
    assert tell(both, done(both)) == ("webhook", "webhook")
    over.set()
    assert mails == ["stage_refused", "night_done", "recovered"]
    assert alerts.standing(environment, "toy") == []


@pytest.mark.parametrize("broken", ["read", "append", "hold"])
def test_people_are_told_when_the_lake_or_the_disk_is_what_is_wrong(
    broken: str,
    night: Callable[[str], Run],
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise OSError("no space left")

    run = night("2013-01-05")
    monkeypatch.setattr(locks if broken == "hold" else ops, broken, away)
    assert tell(run, wrong(run, Event.STAGE_FAILED)) == ()
    assert events(environment) == ["stage_failed"]
    assert "Warning: people are told, but" in capsys.readouterr().err


def test_people_are_told_soon_where_the_lake_does_not_answer(
    night: Callable[[str], Run],
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    asked: list[bool] = []

    def silent(*_: Any, **__: Any) -> Any:
        asked.append(over.wait(60))
        raise OSError("away")

    run = night("2013-01-05")
    with monkeypatch.context() as broken:
        broken.setattr(promptly, "MOST_SECONDS", 0.2)
        broken.setattr(ops, "read", silent)
        # So that the record of it waits for nothing either.
        broken.setattr(alerts, "record", lambda *_: None)
        failed = outcome.failure(run.at(stage("transform")), Event.STAGE_FAILED, None)
        assert tell(run, failed) == ()
    assert "cannot be read: TimeoutError: the lake does not answer" in failed.message
    assert events(environment) == ["stage_failed"]
    assert asked == [], "nobody has waited for the one read that was tried"
    over.set()


@pytest.mark.parametrize("is_recovery", [False, True])
def test_a_lake_that_does_not_answer_is_waited_for_a_while_with_the_record(
    is_recovery: bool,
    night: Callable[[str], Run],
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    over = threading.Event()

    def silent(*_: Any, **__: Any) -> None:
        over.wait(600)

    run = night("2013-01-05")
    cause = "stage_refused 2013-01-05 check_raw: x"
    if is_recovery:
        tell(run, wrong(run, why="x"))
    monkeypatch.setattr(promptly, "RECORD_SECONDS", 0.2)
    monkeypatch.setattr(ops, "append", silent)
    # That it comes back at all is the proof that it waits no longer.
    tell(run, done(run) if is_recovery else wrong(run, why="x"))
    assert events(environment)[-1] == ("recovered" if is_recovery else "stage_refused")
    what = f"the end of {cause}" if is_recovery else cause
    told = f"Warning: people are told, but '{what}' is not on record, and they may be told again: "
    assert f"{told}the lake does not answer within 0.2 s." in capsys.readouterr().err
    over.set()


def test_people_are_told_soon_where_machines_find_no_lock(
    night: Callable[[str], Run],
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    within = promptly._within

    def hasty_for_the_lock(what: str, asking: Callable[[], Any], seconds: float) -> Any:
        return within(what, asking, 0.2 if what == promptly._LOCK else seconds)

    monkeypatch.setattr(promptly, "_within", hasty_for_the_lock)
    over = threading.Event()

    @contextmanager
    def silent(*_: Any, **__: Any) -> Iterator[None]:
        over.wait(600)
        yield

    monkeypatch.setattr(shared_locks, "hold_at", silent)
    run = night("2013-01-05")
    # That it comes back at all is the proof that it waits no longer.
    tell(run, wrong(run))
    assert events(environment) == ["stage_refused"]
    told = capsys.readouterr().err
    assert "another run may tell it too: the lock of machines does not answer within" in told
    over.set()
    # The lake was asked all the same.
    assert len(alerts.standing(environment, "toy")) == 1


def test_no_secret_of_an_address_is_in_a_warning(
    night: Callable[[str], Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise OSError("cannot read s3://user:T0K3N@bucket/lake")

    run = night("2013-01-05")
    monkeypatch.setattr(ops, "read", away)
    tell(run, wrong(run))
    assert "T0K3N" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lock", "why"),
    [
        ("alerts.toy", "another run may tell it too"),
        ("ops.alerts", "they may be told again"),
    ],
)
def test_people_are_told_where_another_run_is_stuck_that_tells(
    lock: str,
    why: str,
    environment: Environment,
    night: Callable[[str], Run],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    within = promptly._within

    def patient(what: str, asking: Callable[[], Any], _: float) -> Any:
        return within(what, asking, 60)

    # Who waits for the lock itself tells which one it was, before who waits for the lake gives up.
    monkeypatch.setattr(promptly, "_within", patient)
    monkeypatch.setattr(promptly, "MOST_SECONDS", 0.2)
    run = night("2013-01-05")
    stuck = locks.hold(environment, lock)
    with stuck:
        telling = threading.Thread(target=tell, args=(run, wrong(run)), daemon=True)
        telling.start()
        telling.join(120)
        assert not telling.is_alive()
    assert events(environment) == ["stage_refused"]
    assert f"{why}: The lock '{lock}'" in capsys.readouterr().err
