"""What a run tells people follows from what it recorded, and is told once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import outcome
from jobs.lake import model_events, ops
from jobs.telling import tell
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.events import Event, Notification
from pipelines.model import Promotion
from pipelines.run import Run, new_run_id
from pipelines.stages import stage
from tests.jobs import toy
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
PAGE = "http://127.0.0.1:8080/dags/toy/runs/manual__r1"
PROMOTED = {"event": "promoted", "model_version": "4", "reason": "Better in 80 % of resamples."}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    return replace(toy.run_of(environment, "2013-01-05"), run_id="manual__r1")


def failed(run: Run, minute: int, error: str, run_id: str = "manual__r1") -> None:
    """An attempt of ingest that failed."""
    row = stage_row(run, "ingest", minute=minute, status="failed", error=error)
    record(run, row | {"run_id": run_id})


def reason(run: Run, minute: int | None = None) -> str:
    """Why ingest failed, in an attempt that began so many minutes into the night."""
    since = None if minute is None else NIGHT + timedelta(minutes=minute)
    return outcome.failure(run, Event.STAGE_FAILED, since, "no reason").message


@pytest.mark.parametrize(
    ("code", "event"),
    [
        (1, Event.STAGE_REFUSED),
        (2, Event.STAGE_FAILED),
        (3, Event.STAGE_FAILED),
        (4, Event.FEED_MISSING),
    ],
)
def test_a_stage_that_ends_badly_was_refused_or_failed_or_lacked_files(
    code: int, event: Event, run: Run
) -> None:
    failed(run, 0, "arr_delay: 40 % null")
    assert outcome.of_stage(run, code, NIGHT) == Notification(
        event=event,
        pipeline="toy",
        days="2013-01-05",
        run_id="manual__r1",
        stage="ingest",
        message="arr_delay: 40 % null",
        page=PAGE,
    )


def test_a_failure_has_the_reason_of_its_own_attempt(run: Run) -> None:
    failed(run, 0, "first")
    failed(run, 5, "second")
    assert reason(run, minute=5) == "second"
    assert reason(run) == "second"
    assert reason(run, minute=6) == "no reason", "this attempt was killed before it could say why"


def test_of_a_stage_that_was_killed_the_caller_knows_more(run: Run) -> None:
    failed(run, 0, outcome.NO_REASON)
    assert reason(run) == "no reason"


def test_a_failure_has_no_reason_of_another_run_day_or_stage(run: Run) -> None:
    failed(run, 0, "another run", run_id="r2")
    record(run, stage_row(run, "train", status="failed", error="another stage"))
    record(run, stage_row(run, "ingest", status="failed", error="x") | {"pipeline": "other"})
    assert reason(run) == "no reason"


def refuse_to_read(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Have the record raise at each reading."""

    def refused(*_: object) -> None:
        raise OSError(why)

    monkeypatch.setattr(ops, "read", refused)


def test_a_failure_is_told_even_when_the_lake_cannot_be_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_read(monkeypatch, "the lake is away")
    assert reason(run) == "no reason"


def test_a_record_that_cannot_be_read_is_told_and_not_a_process_that_was_killed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_read(monkeypatch, "Generic S3 error: 403 Forbidden")
    told = outcome.of_stage(run, 3, NIGHT)
    assert told is not None
    assert told.message.endswith("cannot be read: Generic S3 error: 403 Forbidden.")


def test_a_stage_that_was_killed_is_told_of_in_plain_words(run: Run) -> None:
    notification = outcome.of_stage(run, 3, NIGHT)
    assert notification
    assert notification.message.startswith("It ended before it could record why")


def test_a_stage_that_is_done_tells_nothing(run: Run) -> None:
    assert outcome.of_stage(run, 0, NIGHT) is None


def test_a_postgresql_that_is_behind_is_told_though_the_stage_is_done(run: Run) -> None:
    done = replace(run, environment=replace(run.environment, warehouse_url="postgresql://db"))
    record(done, stage_row(done, "ingest", metrics={"warehouse_failed": "PostgreSQL: down."}))
    told = outcome.of_stage(done, 0, NIGHT)
    assert told is not None
    assert (told.event, told.stage) == (Event.WAREHOUSE_FAILED, "ingest")
    assert told.message == (
        "PostgreSQL: down. The lake has every day; the next night publishes what is left, or by "
        "hand: nightshift warehouse toy"
    )
    record(done, stage_row(done, "ingest", minute=9, metrics={"warehouse_days": 2}))
    assert outcome.of_stage(done, 0, NIGHT) is None


def test_a_promotion_is_told_by_the_run_that_gave_the_verdict(run: Run) -> None:
    settle(run, "4")
    record(run, stage_row(run, "evaluate", metrics=PROMOTED))
    notification = outcome.of_stage(run.at(stage("evaluate")), 0, NIGHT)
    assert notification == outcome.promotion(run)
    assert notification == Notification(
        event=Event.MODEL_PROMOTED,
        pipeline="toy",
        days="2013-01-05",
        run_id="manual__r1",
        stage="evaluate",
        message="Model 4. Better in 80 % of resamples.",
        page="http://127.0.0.1:8080/nightshift/pages/toy/models",
    )


def test_a_verdict_that_another_run_gave_is_not_told_again(run: Run) -> None:
    first = replace(run, run_id="r0")
    settle(first, "4")
    record(first, stage_row(first, "evaluate", metrics=PROMOTED))
    record(run, stage_row(run, "evaluate", minute=9, metrics=PROMOTED))
    assert outcome.promotion(run) is None


def test_a_verdict_of_a_run_that_was_killed_then_is_told_once_by_those_that_come_upon_it(
    run: Run,
) -> None:
    killed, later = replace(run, run_id="r0"), replace(run, run_id="r2")
    # An earlier verdict of the same words, which people know.
    record(later, stage_row(later, "evaluate", metrics=PROMOTED))
    settle(killed, "4", minute=5)
    record(killed, stage_row(killed, "evaluate", minute=4, status="failed", metrics=None))
    record(run, stage_row(run, "evaluate", minute=9, metrics=PROMOTED))
    assert outcome.promotion(run)
    last = replace(run, run_id="r3")
    record(last, stage_row(last, "evaluate", minute=12, metrics=PROMOTED))
    assert outcome.promotion(last) is None


def test_a_run_whose_evaluation_is_repeated_does_not_tell_it_again(run: Run) -> None:
    settle(run, "4")
    record(run, stage_row(run, "evaluate", metrics=PROMOTED))
    record(run, stage_row(run, "evaluate", minute=9, metrics=PROMOTED))
    assert outcome.promotion(run) is None


def test_a_retry_tells_the_promotion_that_a_killed_attempt_could_not(run: Run) -> None:
    settle(run, "4")
    record(run, stage_row(run, "evaluate", status="failed", metrics=None))
    record(run, stage_row(run, "evaluate", minute=9, metrics=PROMOTED))
    assert outcome.promotion(run)


def test_another_model_of_the_same_run_is_told_of(run: Run) -> None:
    settle(run, "4")
    settle(run, "5")
    record(run, stage_row(run, "evaluate", metrics=PROMOTED))
    record(run, stage_row(run, "evaluate", minute=9, metrics=PROMOTED | {"model_version": "5"}))
    notification = outcome.promotion(run)
    assert notification
    assert notification.message.startswith("Model 5.")


def test_a_model_that_awaits_a_person_is_told_of_once_and_as_such(run: Run) -> None:
    awaiting = PROMOTED | {"event": "awaiting", "reason": "nightshift approve toy 4 --why TEXT"}
    settle(run, "4", "awaiting")
    record(run, stage_row(run, "evaluate", metrics=awaiting))
    notification = outcome.promotion(run)
    assert notification
    assert notification.event is Event.MODEL_AWAITING
    assert notification.message == "Model 4. nightshift approve toy 4 --why TEXT"
    record(run, stage_row(run, "evaluate", minute=9, metrics=awaiting))
    assert outcome.promotion(run) is None


@pytest.mark.parametrize("event", ["kept", "refused", "rolled_back", "approved"])
def test_a_model_that_is_not_promoted_is_not_told_of(event: str, run: Run) -> None:
    settle(run, "4")
    record(run, stage_row(run, "evaluate", metrics=PROMOTED | {"event": event}))
    assert outcome.promotion(run) is None


def test_a_run_without_an_evaluation_has_promoted_nothing(run: Run) -> None:
    assert outcome.promotion(run) is None


EXPIRING = replace(toy.TOY, promotion=Promotion(needs_approval=True, approval_hours=48))


@pytest.mark.parametrize("status", ["done", "failed", "refused"])
def test_models_that_nobody_approved_in_time_are_told_of_until_people_know(
    run: Run, status: str
) -> None:
    expiring = replace(run, pipeline=EXPIRING)
    assert outcome.expiry(expiring) is None
    settle(run, "4", "expired", minute=1)
    settle(run, "5", "expired", minute=2)
    record(run, stage_row(run, "evaluate", status=status))
    told = outcome.expiry(expiring)
    assert told == Notification(
        event=Event.APPROVAL_EXPIRED,
        pipeline="toy",
        days="2013-01-05",
        run_id="manual__r1",
        stage="evaluate",
        message="Models 4, 5: nobody approved within 48 h. What serves serves on.",
        page="http://127.0.0.1:8080/nightshift/pages/toy/models",
    )
    later = replace(expiring, run_id="r2")
    assert outcome.expiry(later) is not None, "nobody has been told yet"
    tell(expiring, told)
    assert outcome.expiry(expiring) is None
    assert outcome.expiry(later) is None
    now = (ops.now() - NIGHT) // timedelta(minutes=1) + 1
    settle(later, "6", "expired", minute=now)
    again = outcome.expiry(later)
    assert again
    assert again.message.startswith("Model 6: ")


def test_each_move_of_the_alias_by_hand_is_told_of_once_by_whichever_run_comes_first(
    run: Run,
) -> None:
    evaluating = run.at(stage("evaluate"))
    predicting = replace(run.at(stage("predict")), run_id="r2")
    assert outcome.alias_moved(evaluating) is None
    move_alias(run, "1", minute=1)
    told = outcome.alias_moved(evaluating)
    assert told == Notification(
        event=Event.ALIAS_MOVED,
        pipeline="toy",
        days="2013-01-05",
        run_id="manual__r1",
        stage="evaluate",
        message="Somebody has moved the alias to version 1.\nThe alias changes nothing. "
        "To change what serves: nightshift rollback toy --to VERSION --why TEXT",
        page="http://127.0.0.1:8080/nightshift/pages/toy/models",
    )
    assert outcome.alias_moved(predicting) is not None, "nobody has been told yet"
    tell(evaluating, told)
    assert outcome.alias_moved(evaluating) is None
    assert outcome.alias_moved(predicting) is None
    move_alias(
        run,
        "1",
        minute=(ops.now() - NIGHT) // timedelta(minutes=1) + 1,
    )
    assert outcome.alias_moved(predicting) is not None, "it was moved again"


@pytest.mark.parametrize("is_event", [True, False], ids=["of an event", "of what was told"])
def test_a_move_of_the_alias_is_told_of_once_whatever_clock_was_ahead(
    run: Run, is_event: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluating = run.at(stage("evaluate"))
    now = ops.now()
    monkeypatch.setattr(ops, "now", lambda: now + timedelta(minutes=10))
    if is_event:
        model_events.record(run.environment, [_event(run, "promoted")])
    else:
        tell(evaluating, outcome.notification(run, Event.NIGHT_DONE, "Done.", "evaluate"))
    monkeypatch.setattr(ops, "now", lambda: now)
    for _ in range(2):
        model_events.record(run.environment, [_event(run, "alias_moved")])
        told = outcome.alias_moved(evaluating)
        assert told is not None
        tell(evaluating, told)
        assert outcome.alias_moved(evaluating) is None


def _event(run: Run, name: str) -> dict[str, Any]:
    return {
        "pipeline": run.pipeline.name,
        "as_of": run.days.last,
        "event": name,
        "model_version": "1",
        "reason": "Somebody has moved the alias to version 1.",
    }


def test_a_model_whose_time_ran_out_and_that_awaits_a_person_anew_is_told_of_again(
    run: Run,
) -> None:
    awaiting = PROMOTED | {"event": "awaiting"}
    settle(run, "4", "awaiting")
    record(run, stage_row(run, "evaluate", metrics=awaiting))
    assert outcome.promotion(run)
    settle(replace(run, run_id="r2"), "4", "expired", minute=5)
    settle(run, "4", "awaiting", minute=6)
    # It began before the time ran out: the stage itself records that first.
    record(run, stage_row(run, "evaluate", minute=4, seconds=180.0, metrics=awaiting))
    assert outcome.promotion(run), "people know of the first time only"
    record(run, stage_row(run, "evaluate", minute=9, metrics=awaiting))
    assert outcome.promotion(run) is None


def watched(run: Run, minute: int = 0, **told: list[str]) -> None:
    record(run, stage_row(run, "monitor", minute=minute, metrics=told))


def test_drift_that_a_night_has_found_is_told(run: Run) -> None:
    watched(run, drift_began=["feature x (wasserstein)"], drift_ended=["skew"])
    notification = outcome.of_stage(run.at(stage("monitor")), 0, NIGHT)
    assert notification == Notification(
        event=Event.DRIFT_FOUND,
        pipeline="toy",
        days="2013-01-05",
        run_id="manual__r1",
        stage="monitor",
        message="Began: feature x (wasserstein). Ended: skew. "
        "See nightshift drift toy --date 2013-01-05",
        page=PAGE,
    )


def test_drift_that_has_ended_is_told(run: Run) -> None:
    watched(run, drift_began=[], drift_ended=["feature"])
    notification = outcome.drift(run)
    assert notification
    assert notification.event is Event.DRIFT_ENDED
    assert notification.message.startswith("Ended: feature. ")


def test_drift_that_lasts_is_not_told(run: Run) -> None:
    assert outcome.drift(run) is None
    watched(run, drift_began=[], drift_ended=[])
    assert outcome.drift(run) is None


def test_drift_of_a_night_is_told_once_however_often_it_is_watched(run: Run) -> None:
    found = {"drift_began": ["feature x (wasserstein)"], "drift_ended": []}
    watched(run, **found)
    again = replace(run, run_id="r2")
    assert outcome.drift(again) is None, "another run has watched it"
    watched(again, minute=5, **found)
    assert outcome.drift(again) is None
    more = {"drift_began": ["feature y (wasserstein)"], "drift_ended": []}
    watched(again, minute=9, **more)
    assert outcome.drift(again) is not None


def test_a_stage_that_succeeded_names_what_is_to_be_told_of_it(run: Run) -> None:
    watching, evaluating = run.at(stage("monitor")), run.at(stage("evaluate"))
    assert outcome.to_tell(watching) == []
    record(run, *night_rows(run))
    assert outcome.to_tell(watching) == [Event.NIGHT_DONE]
    watched(run, minute=50, drift_began=["feature x (wasserstein)"], drift_ended=[])
    assert outcome.to_tell(watching) == [Event.DRIFT_FOUND, Event.NIGHT_DONE]
    assert outcome.to_tell(evaluating) == []
    settle(run, "4")
    record(run, stage_row(run, "evaluate", minute=51, metrics=PROMOTED))
    assert outcome.to_tell(evaluating) == [Event.MODEL_PROMOTED]
    move_alias(run, "3")
    assert outcome.to_tell(evaluating) == [Event.MODEL_PROMOTED, Event.ALIAS_MOVED]
    assert outcome.to_tell(run.at(stage("predict"))) == [Event.ALIAS_MOVED]
    assert outcome.to_tell(run.at(stage("train"))) == []
    away = replace(run, environment=replace(run.environment, warehouse_url="postgresql://db"))
    failed = {"warehouse_failed": "PostgreSQL: down."}
    record(run, stage_row(run, "check_predictions", minute=52, metrics=failed))
    assert outcome.to_tell(away.at(stage("check_predictions"))) == [Event.WAREHOUSE_FAILED]
    assert outcome.to_tell(away.at(stage("check_raw"))) == []


def test_a_night_that_is_done_is_summed_up(run: Run) -> None:
    record(run, *night_rows(run))
    assert outcome.night_done(run) == Notification(
        event=Event.NIGHT_DONE,
        pipeline="toy",
        days="2013-01-05",
        run_id="manual__r1",
        stage=None,
        message="10 stages in 20 s, rows 2053, predictions 940, model kept, serving model 2.",
        page=PAGE,
    )


def test_nights_that_were_caught_up_in_passes_of_their_own_are_summed_up_too(run: Run) -> None:
    earlier = replace(run, days=run.days.shifted(-2))
    caught_up = [
        stage_row(earlier, "ingest", minute=0, metrics={"rows_staged": 7}),
        stage_row(earlier, "ingest", minute=1, metrics={"rows_staged": 100}),
        stage_row(earlier, "predict", minute=1, metrics={"predictions": 60}),
    ]
    record(run, *caught_up, *night_rows(run))
    told = outcome.night_done(run)
    assert told
    # Those of the earlier night were ingested twice.
    figures = "rows 2153, predictions 1000, model kept, serving model 2."
    assert told.message == f"10 stages in 24 s, {figures}"


def test_a_night_without_one_of_its_stages_is_not_done(run: Run) -> None:
    record(run, *night_rows(run)[:-1])
    assert outcome.night_done(run) is None


def test_a_night_whose_stage_fails_when_it_is_repeated_is_not_done(run: Run) -> None:
    again = stage_row(run, "ingest", minute=30, status="failed", error="x", metrics=None)
    record(run, *night_rows(run), again)
    assert outcome.night_done(run) is None


def test_what_is_told_leads_to_the_run_and_to_the_report_that_it_has_written(run: Run) -> None:
    file = run.environment.reports / "toy" / "2013-01-05..2013-01-05" / "manual__r1" / "index.html"
    row = stage_row(
        run,
        "check_raw",
        status="refused",
        error="no",
        metrics={"report": str(file)},
    )
    record(run, row)
    at = run.at(stage("check_raw"))
    told = outcome.failure(at, Event.STAGE_REFUSED, None)
    reports = "http://127.0.0.1:8080/nightshift/reports"
    assert told.report == f"{reports}/toy/2013-01-05..2013-01-05/manual__r1/index.html"
    assert told.page == PAGE
    of_command = replace(at, run_id=new_run_id())
    assert outcome.failure(of_command, Event.STAGE_REFUSED, None).page is None


PROMISED = replace(toy.TOY, predictions_by=time(6, 30))
NIGHTS = "http://127.0.0.1:8080/nightshift/pages/toy/nights"


def test_predictions_of_a_night_that_never_began_are_late_and_published_ones_are_not(
    run: Run,
) -> None:
    watched = replace(run, pipeline=PROMISED, run_id="scheduled__watch")
    publish_predictions(toy.run_of(run.environment, "2013-01-04"))
    late = outcome.predictions_late(watched)
    assert late == Notification(
        event=Event.PREDICTIONS_LATE,
        pipeline="toy",
        days="2013-01-05",
        run_id="scheduled__watch",
        stage=None,
        message="No predictions for 2013-01-06 by 06:30 (America/New_York). "
        "Its night has not begun, or its first stage has not ended.",
        page=NIGHTS,
    )
    publish_predictions(run)
    assert outcome.predictions_late(watched) is None


def test_predictions_that_a_killed_run_has_published_and_not_recorded_are_not_late(
    run: Run,
) -> None:
    watched = replace(run, pipeline=PROMISED)
    publish_predictions(run)
    ops.replace(run.environment, "publications", [], "true")
    assert outcome.predictions_late(watched) is None


def test_predictions_that_are_on_record_and_lost_are_late(run: Run) -> None:
    watched = replace(run, pipeline=PROMISED)
    publish_predictions(run)
    shutil.rmtree(run.environment.table_path("toy.predictions"))
    late = outcome.predictions_late(watched)
    assert late
    assert late.message.startswith("No predictions for 2013-01-06 by 06:30 ")


def test_late_predictions_are_told_with_how_far_their_night_has_come(run: Run) -> None:
    watched = replace(run, pipeline=PROMISED, run_id="scheduled__watch")
    record(run, stage_row(run, "ingest"))
    error = "toy.readings was refused: 1 expectation(s) failed.\n  - amount"
    record(run, stage_row(run, "check_raw", minute=5, status="refused", error=error))
    later = {"last_day": date(2013, 1, 6)}
    record(run, stage_row(run, "ingest", minute=9) | later)
    late = outcome.predictions_late(watched)
    assert late
    assert (late.stage, late.run_id, late.page) == ("check_raw", "manual__r1", PAGE)
    assert late.message.endswith(f"The last stage that ended is check_raw: refused. {error}")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("refused", "No model of 'toy' is in force for 2013-01-05."),
        ("awaits approval", "No model serves yet: nightshift approve toy 1"),
    ],
)
def test_without_a_model_predictions_are_late_and_the_reason_is_told(
    status: str, error: str, run: Run
) -> None:
    record(run, stage_row(run, "predict", status=status, error=error))
    late = outcome.predictions_late(replace(run, pipeline=PROMISED))
    assert late
    assert late.message.endswith(f"The last stage that ended is predict: {status}. {error}")


def test_a_night_that_is_done_without_a_model_has_late_predictions(run: Run) -> None:
    record(run, stage_row(run, "predict", metrics={"nights_without_model": ["2013-01-05"]}))
    assert outcome.predictions_late(replace(run, pipeline=PROMISED))


def test_after_a_pause_the_last_deadline_is_missed_and_told(run: Run) -> None:
    before = replace(run, days=run.days.shifted(-4))
    days_ago = NIGHT - timedelta(days=4)
    record(run, stage_row(before, "ingest", started_at=days_ago))
    late = outcome.predictions_late(replace(run, pipeline=PROMISED), due=NIGHT)
    assert late
    assert "Its night has not begun" in late.message


def test_a_deadline_before_the_first_run_is_not_missed_and_one_after_it_is(run: Run) -> None:
    watched = replace(run, pipeline=PROMISED)
    an_hour = timedelta(hours=1)
    assert outcome.predictions_late(watched, due=NIGHT) is None
    record(run, stage_row(run, "ingest"))
    assert outcome.predictions_late(watched, due=NIGHT - an_hour) is None
    assert outcome.predictions_late(watched, due=NIGHT + an_hour)


def test_predictions_of_which_the_lake_says_nothing_are_told_as_that(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise OSError("no route to host")

    watched = replace(run, pipeline=PROMISED)
    monkeypatch.setattr(ops, "read", away)
    late = outcome.predictions_late(watched)
    assert late
    assert (late.event, late.page) == (Event.PREDICTIONS_LATE, NIGHTS)
    unknown = "Nobody can say whether there are predictions for 2013-01-06 by 06:30 "
    assert late.message.startswith(unknown)
    assert late.message.endswith("cannot be read: OSError: no route to host")


def test_a_pipeline_that_promises_no_time_is_never_late(run: Run) -> None:
    with pytest.raises(UsageError, match="'toy' declares no predictions_by"):
        outcome.predictions_late(run)
