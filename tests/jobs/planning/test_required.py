"""What a run refuses to go on without, and nights that no model can score."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

import pytest

from jobs import night
from jobs.commands.decide import Said, rollback
from jobs.commands.plan import plan
from jobs.lake import ops
from jobs.lake.locations import path
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.events import Event, Notification
from pipelines.spec import PREDICTIONS
from pipelines.stages import STAGES, Stage, select, stage
from tests.jobs.tiny_home import DAYS, LOST, RESCORE, TINY, Home, stages_of, told_of, without_model


def one_by_one(
    home: Home,
    day: date,
    leaving_out: Sequence[str] = (),
) -> dict[str, int]:
    """The exit codes of a night's tasks in Airflow, some of them marked as a success by hand."""
    run = replace(home.run(day), run_id="scheduled__1")
    codes: dict[str, int] = {}
    with home._stages():
        for one in STAGES:
            if one.name in leaving_out:
                continue
            try:
                codes[one.name] = night.make_true(run, (one,))
            except Refused:
                codes[one.name] = 1
    return codes


@pytest.mark.parametrize(
    ("marked", "refused", "table", "maker"),
    [
        ("check_raw", "predict", "tiny.readings", "ingest"),
        ("ingest", "predict", "tiny.readings", "ingest"),
        ("check_clean", "predict", "tiny.marks", "transform"),
        ("features", "predict", "tiny.training", "features"),
        ("check_predictions", "monitor", "tiny.predictions", "predict"),
    ],
)
def test_a_night_that_a_stage_marked_as_a_success_has_not_published_ends_refused(
    marked: str, refused: str, table: str, maker: str, home: Home
) -> None:
    home.night(DAYS[0])
    codes = one_by_one(home, DAYS[1], leaving_out=[marked])
    assert [name for name, code in codes.items() if code] == (
        ["predict", "monitor"] if refused == "predict" else ["monitor"]
    )
    about = [("status", "=", "refused"), ("stage", "=", refused)]
    (row,) = ops.read(home.environment, "stage_runs", about).to_pylist()
    assert row["error"].startswith(f"{table} lacks the night of 2013-01-06, and so does what is ")
    assert f"clear '{maker}' with what follows it, or: nightshift run tiny --date 2" in row["error"]
    log = home.environment.logs / "notifications.log"
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert (told[0]["event"], told[0]["stage"]) == ("stage_refused", refused)


@pytest.mark.parametrize("allow_gap", [False, True])
@pytest.mark.parametrize(
    ("done", "asked", "table"),
    [
        (STAGES[:4], "predict", "tiny.training"),
        (STAGES[:1], "predict", "tiny.readings"),
        (STAGES[:5], "monitor", "tiny.predictions"),
    ],
)
def test_stages_by_name_are_refused_where_the_night_lacks_what_they_work_on(
    done: tuple[Stage, ...], asked: str, table: str, allow_gap: bool, home: Home
) -> None:
    home.night(DAYS[0])
    assert home.restate(DAYS[1], DAYS[1], stages=done) == 0
    home.performed.clear()
    asked_on = STAGES[STAGES.index(stage(asked)) :]
    with pytest.raises(Refused, match=rf"^{table} lacks the night of 2013-01-06"):
        home.restate(DAYS[1], DAYS[1], stages=asked_on, allow_gap=allow_gap)
    assert home.performed == []
    about = [("status", "=", "refused"), ("stage", "=", asked)]
    assert ops.read(home.environment, "stage_runs", about).num_rows == 1


def test_old_nights_are_scored_by_name_also_where_a_feed_was_declared_later(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv")
    late = replace(late, first_day=DAYS[3])
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home.performed.clear()
    after_models = select(["predict", "check_predictions", "monitor"])
    assert home.restate(DAYS[1], DAYS[2], stages=after_models) == 0
    assert stages_of(home)["predict"] == [f"{DAYS[1]}..{DAYS[2]}"]


def test_a_range_over_a_change_of_the_label_is_measured(home: Home) -> None:
    home.night(DAYS[0])
    home.promote(DAYS[0])
    home.promote(DAYS[3], "2")
    home.other_label = {"1"}
    assert home.night(DAYS[3], first=DAYS[1]) == 0
    assert stages_of(home)["monitor"] == [f"{DAYS[1]}..{DAYS[3]}"]
    # Of the days after them: what is scored is tomorrow.
    assert list(home.published("predictions")) == [DAYS[1], DAYS[4]]


def test_a_missed_night_without_a_model_is_tried_once_and_the_plan_says_so(home: Home) -> None:
    without_model(home)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    why = (
        f"version 2 is odd; left out. Once that is mended: nightshift run tiny --date {DAYS[1]}; "
        f"or by another model: nightshift run tiny --date {DAYS[1]} --retrain"
    )
    told = ("tiny.predictions", 1, str(DAYS[1]), why)
    assert told_of(home, "unscored", DAYS[2]) == [told]
    # A night that has other work, and a model that has come for others, leave it as it is.
    home.promote(DAYS[3], "4")
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["predict"] == [str(DAYS[3])]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_nights_of_one_turn_without_a_model_are_told_together(home: Home) -> None:
    home.promote(DAYS[0])
    home.promote(DAYS[3], "2")
    home.other_label = {"1"}
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    ((_, nights, days, why),) = told_of(home, "unscored", DAYS[4])
    assert (nights, days) == (3, f"{DAYS[0]}..{DAYS[2]}")
    named = f"--from {DAYS[0]} --to {DAYS[2]}; or"
    assert named in str(why)
    assert str(why).endswith(f"nightshift run tiny --date {DAYS[0]} --retrain")


def _another_has_its_turn(home: Home) -> None:
    home.promote(DAYS[1], "4")


def _its_model_is_rolled_back(home: Home) -> None:
    home.promote(DAYS[0], "4")
    # All whose turns are later are withdrawn.
    rollback(home.environment, TINY, "4", Said(who="alice", why="odd"))


def _another_label_is_declared(home: Home) -> None:
    training = replace(TINY.training, label="other")
    home.pipeline = replace(TINY, training=training)


@pytest.mark.parametrize(
    "changes",
    [_another_has_its_turn, _its_model_is_rolled_back, _another_label_is_declared],
)
def test_a_night_without_a_model_is_tried_again_once_that_may_help(
    home: Home, changes: Callable[[Home], None]
) -> None:
    without_model(home)
    changes(home)
    assert home.night(DAYS[2]) == 0
    assert stages_of(home)["predict"] == [str(DAYS[1])]
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_person_has_a_night_without_a_model_tried_again(home: Home) -> None:
    without_model(home)
    # As `predict` ends for a night that is asked for.
    assert home.night(DAYS[1]) == Refused.exit_code
    assert stages_of(home)["predict"] == [str(DAYS[1])]
    assert home.night(DAYS[3], rescore=True) == 0
    tried = [str(DAYS[1]), str(DAYS[3])]
    assert stages_of(home)["predict"] == tried
    with home._stages():
        retrained = plan(replace(home.run(DAYS[3]), retrain=True))
    states = [row[:4] for row in retrained.rows]
    assert ("tiny.predictions", "missing", 1, str(DAYS[1])) in states
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_a_night_whose_predictions_are_lost_is_not_left_out_for_its_model(home: Home) -> None:
    for number in range(3):
        home.promote(DAYS[number], str(number + 1))
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    shutil.rmtree(path(home.run(DAYS[0]), PREDICTIONS))
    home.other_label = {"2"}
    assert home.night(DAYS[2], first=DAYS[0], rescore=True) == 0
    missing = told_of(home, "missing", DAYS[2])
    told = [row[2:] for row in missing if row[0] == "tiny.predictions"]
    # Of a range over one without a model this home scores the last alone.
    assert told == [(str(Days(DAYS[0], DAYS[1])), f"{LOST}; {RESCORE}")]
    assert home.night(DAYS[3]) == Refused.exit_code


def test_why_a_night_was_not_published_is_said_where_it_is_missed(home: Home) -> None:
    home.night(DAYS[0])
    run = replace(home.run(DAYS[1]), run_id="scheduled__1")
    why = "tiny.readings was refused: 1 expectation(s) failed.\n  - tiny.readings id: 1 of 2 rows."
    night._record(
        run.at(stage("check_raw")),
        time.time(),
        0.1,
        status="refused",
        error=why,
    )
    one_by_one(home, DAYS[1], leaving_out=["ingest", "check_raw"])
    about = [("status", "=", "refused"), ("stage", "=", "predict")]
    (row,) = ops.read(home.environment, "stage_runs", about).to_pylist()
    last = "the last attempt at 'check_raw' was refused: tiny.readings was refused: 1 expectation"
    assert last in row["error"]


@pytest.mark.parametrize("is_exact", [False, True])
def test_a_refusal_between_two_stages_is_told_of_the_one_that_was_about_to_begin(
    is_exact: bool, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Notification] = []
    monkeypatch.setattr("jobs.telling.tell", lambda run, one: told.append(one))
    home.night(DAYS[0])
    perform = night.run_night if is_exact else night.make_true
    home.performed.clear()
    with home._stages(), pytest.raises(Refused, match="'predict' has nothing to work on"):
        perform(home.run(DAYS[1]), select(["train", "evaluate", "predict"]))
    assert [name for name, _ in home.performed] == ["train", "evaluate"]
    (refused,) = told
    assert (refused.event, refused.stage) == (Event.STAGE_REFUSED, "predict")
    about = [("status", "=", "refused")]
    recorded = ops.read(home.environment, "stage_runs", about).to_pylist()
    assert [row["stage"] for row in recorded] == ["predict"]


def test_a_night_whose_tasks_have_all_done_their_work_misses_nothing(home: Home) -> None:
    home.night(DAYS[0])
    assert set(one_by_one(home, DAYS[1]).values()) == {0}
    assert set(one_by_one(home, DAYS[1]).values()) == {0}, "and when all is current"
