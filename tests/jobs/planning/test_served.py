"""Predictions stay as they were served, are lost, and are scored and measured again."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from jobs import night
from jobs.commands.decide import Said, approve, rollback
from jobs.commands.plan import plan
from jobs.lake import datasets, ops, served
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import partition, path
from jobs.planning import survey
from jobs.planning.reasons import of_all, without_days
from pipelines.days import Days
from pipelines.errors import AwaitsApproval, Refused
from pipelines.spec import PREDICTIONS
from pipelines.stages import STAGES
from tests.jobs.tiny_home import (
    DAYS,
    LOST,
    RESCORE,
    TINY,
    Home,
    no_definitions,
    stages_of,
    told_of,
    without_model,
)


def test_a_killed_night_goes_on_where_it_stopped(home: Home) -> None:
    home.night(DAYS[0])
    home.publishes_until_kill = 1
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[1])
    assert home.night(DAYS[1]) == 0
    assert "ingest" not in stages_of(home)
    assert home.published("sums")[DAYS[1]] == [1 + 21]


def test_what_was_served_stays_though_all_that_it_was_made_from_has_changed(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[3], first=DAYS[0])
    served = home.published(PREDICTIONS)
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3]) == 0
    made = stages_of(home)
    assert made["transform"] == [str(DAYS[1]), str(DAYS[3])]
    assert "predict" not in made
    assert home.published(PREDICTIONS) == served
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_what_was_served_stays_when_its_model_is_rolled_back(home: Home) -> None:
    home.promote(DAYS[0], "1")
    home.promote(DAYS[1], "2")
    home.night(DAYS[3], first=DAYS[0])
    served = home.published(PREDICTIONS)
    rollback(home.environment, TINY, None, Said(who="alice", why="odd"))
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    assert home.published(PREDICTIONS) == served


def test_nights_that_await_the_first_model_are_scored_when_a_person_lets_it_serve(
    home: Home,
) -> None:
    home.awaits_model = True
    home.await_person(DAYS[1], "7")
    assert home.night(DAYS[2], first=DAYS[0]) == AwaitsApproval.exit_code
    # Each time, as long as nobody has decided.
    assert home.night(DAYS[2]) == AwaitsApproval.exit_code
    waiting = str(Days(DAYS[1], DAYS[2]))
    assert stages_of(home) == {"predict": [waiting]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(survey, "definitions", no_definitions)
        planned = plan(home.run(DAYS[2]))
    (row,) = [row for row in planned.rows if row[0] == "tiny.predictions"]
    why = "no model serves yet: nightshift approve tiny 7 --why TEXT"
    assert row[1:] == ("awaits approval", 2, waiting, why)
    assert f"- awaits approval {row[3]}: predictions ({why})" in planned.summary
    approve(home.environment, TINY, "7", Said(who="alice", why="seen"))
    home.awaits_model = False
    assert home.night(DAYS[3]) == 0
    assert list(home.published(PREDICTIONS)) == DAYS[2:5]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_nights_of_before_the_model_that_a_person_chose_await_nothing(home: Home) -> None:
    for number in range(3):
        home.await_person(DAYS[number], str(number))
    approve(home.environment, TINY, "2", Said(who="alice", why="the best"))
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    assert list(home.published(PREDICTIONS)) == DAYS[3:5]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_the_runs_own_nights_are_scored_again_when_a_person_says_so(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[3], first=DAYS[0])
    served = home.published(PREDICTIONS)
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3], rescore=True) == 0
    assert stages_of(home)["predict"] == [str(DAYS[3])]
    revised = home.published(PREDICTIONS)
    of_tomorrow = DAYS[4]
    assert revised[of_tomorrow] == home.published("sums")[DAYS[3]] != served[of_tomorrow]
    assert {**revised, of_tomorrow: served[of_tomorrow]} == served
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_what_was_measured_of_predictions_that_are_scored_again_is_measured_again(
    home: Home,
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[4], first=DAYS[0])
    # Labels of what the second night foretold came, and some of them two days late.
    for landed in (DAYS[2], DAYS[4]):
        row = {"pipeline": "tiny", "event_date": DAYS[2], "landed_date": landed}
        ops.append(home.environment, "live_quality", [row])
    home.predicted = lambda total: total + 1
    assert home.night(DAYS[1], rescore=True) == 0
    # What the night foretold is watched anew; it knows no label yet.
    assert stages_of(home)["monitor"] == [str(DAYS[1])]
    with home._stages():
        rows = plan(home.run(DAYS[4])).rows
    why = "not measured since its labels or predictions were published"
    of_monitor = [row for row in rows if row[0] == "monitor"]
    told = [row[3:] for row in of_monitor]
    # Not the night between them, which was compared with it and stays what people were told by.
    days = (str(DAYS[2]), str(DAYS[4]))
    assert told == [(day, why) for day in days]
    assert home.night(DAYS[4]) == 0
    assert stages_of(home) == {"monitor": [*days]}
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
    # Scored again by a model that says the same, they are those that were measured.
    assert home.night(DAYS[1], rescore=True) == 0
    assert "monitor" not in stages_of(home)
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_labels_that_came_before_their_predictions_are_measured_by_the_next_night(
    home: Home,
) -> None:
    # Of the day that this leaves out labels have come, and nothing was there to be measured.
    without_model(home)
    assert home.night(DAYS[4], first=DAYS[3]) == 0
    home.other_label = set()
    assert home.night(DAYS[1]) == 0
    assert home.published(PREDICTIONS)[DAYS[2]]
    assert stages_of(home)["monitor"] == [str(DAYS[1])]
    # Nobody knows on which of these nights labels of the day landed.
    assert home.night(DAYS[5]) == 0
    assert stages_of(home)["monitor"] == [f"{DAYS[2]}..{DAYS[5]}"]
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def test_predictions_that_were_served_and_are_lost_are_scored_again_by_a_persons_word_alone(
    home: Home,
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.night(DAYS[2], first=DAYS[1], rescore=True)
    place = path(home.run(DAYS[0]), PREDICTIONS)
    shutil.rmtree(place)
    lost = [(f"tiny.{PREDICTIONS}", 3, f"{DAYS[0]}..{DAYS[2]}", f"{LOST}; {RESCORE}")]
    assert told_of(home, "missing", DAYS[2]) == lost
    # Tomorrow is not scored either: a folder from a backup would not hold that.
    for _ in range(2):
        assert home.night(DAYS[3]) == Refused.exit_code
    assert home.restate(DAYS[0], DAYS[3]) == Refused.exit_code
    assert home.published(PREDICTIONS) == {}
    with pytest.raises(Refused) as refused:
        served.require_not_lost(home.run(DAYS[3], DAYS[0]))
    assert str(refused.value) == (
        f"tiny.predictions has lost what was served for 3 day(s), the first is {DAYS[1]}: "
        f"ops.publications tells of it, and {place} does not hold it any more. What models say of "
        "these days now would pass as what was served. Nothing was published. Restore that folder "
        "from a backup, and run again. Or publish what is said now, as a later revision: "
        f"nightshift run tiny --from {DAYS[0]} --to {DAYS[2]} --rescore"
    )
    # Days of which a person says nothing stay lost, and are told.
    assert home.night(DAYS[2], first=DAYS[1], rescore=True) == Refused.exit_code
    assert list(home.published(PREDICTIONS)) == DAYS[2:4]
    assert home.night(DAYS[3]) == Refused.exit_code
    assert home.night(DAYS[0], rescore=True) == 0
    assert home.night(DAYS[3]) == 0
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    # What took the place of a first and a second revision is none of the two.
    told = datasets.history(home.environment, f"tiny.{PREDICTIONS}").to_table().to_pylist()
    column = partition(home.run(DAYS[0]), PREDICTIONS)
    assert {row[column]: row["revision"] for row in told} == {
        DAYS[1]: 2,
        DAYS[2]: 3,
        DAYS[3]: 3,
        DAYS[4]: 1,
    }


def test_predictions_that_are_lost_of_before_a_first_day_that_was_moved_refuse_no_night(
    home: Home,
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    # A pipeline that begins anew by the same name: what it had is gone.
    for name in ("readings", "marks", "sums", "training", "scoring", PREDICTIONS):
        shutil.rmtree(path(home.run(DAYS[0]), name))
    for day in DAYS[:3]:
        home._file(day).unlink()
    home.pipeline = replace(TINY, first_day=DAYS[3])
    assert home.night(DAYS[4], first=DAYS[3]) == 0
    assert list(home.published(PREDICTIONS)) == DAYS[4:6]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
    # With them it had lost these nights again.
    home.pipeline = replace(TINY, first_day=DAYS[2])
    home.land(DAYS[2], 7)
    assert home.night(DAYS[4]) == Refused.exit_code


def test_predictions_that_come_back_from_a_backup_are_those_that_were_served(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    before = home.published(PREDICTIONS)
    place = path(home.run(DAYS[0]), PREDICTIONS)
    backup = shutil.move(place, f"{home.environment.home}/backup")
    assert home.night(DAYS[2]) == Refused.exit_code
    shutil.move(backup, place)
    assert home.published(PREDICTIONS) == before
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_revision_that_a_backup_does_not_have_is_scored_again_by_a_persons_word_alone(
    home: Home,
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    place = path(home.run(DAYS[0]), PREDICTIONS)
    backup = shutil.copytree(place, f"{home.environment.home}/backup")
    home.land(DAYS[2], 7)
    assert home.night(DAYS[2], rescore=True) == 0
    revised = home.published(PREDICTIONS)
    shutil.rmtree(place)
    shutil.move(backup, place)
    assert home.published(PREDICTIONS)[DAYS[3]] != revised[DAYS[3]]
    # What the first revision says is not what was served last.
    lost = [(f"tiny.{PREDICTIONS}", 1, str(DAYS[2]), f"{LOST}; {RESCORE}")]
    assert told_of(home, "missing", DAYS[2]) == lost
    assert home.night(DAYS[3]) == Refused.exit_code
    assert list(home.published(PREDICTIONS)) == DAYS[1:4]
    assert home.night(DAYS[2], rescore=True) == 0
    assert home.published(PREDICTIONS) == revised
    assert home.night(DAYS[3]) == 0
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    told = datasets.history(home.environment, f"tiny.{PREDICTIONS}").to_table().to_pylist()
    column = partition(home.run(DAYS[0]), PREDICTIONS)
    of_day = [row for row in told if row[column] == DAYS[3]]
    assert {row["revision"] for row in of_day} == {1, 3}


def test_a_backup_without_a_publication_of_the_same_rows_has_lost_nothing(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    place = path(home.run(DAYS[0]), PREDICTIONS)
    backup = shutil.copytree(place, f"{home.environment.home}/backup")
    assert home.night(DAYS[2], rescore=True) == 0
    shutil.rmtree(place)
    shutil.move(backup, place)
    assert home.night(DAYS[3]) == 0
    assert list(home.published(PREDICTIONS)) == DAYS[1:5]


def test_a_restated_night_keeps_what_it_served_and_makes_what_it_had_not(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[1], first=DAYS[0])
    served = home.published(PREDICTIONS)
    assert list(served) == DAYS[1:3]
    home.land(DAYS[1], 7)
    assert home.restate(DAYS[0], DAYS[2]) == 0
    assert home.published("sums")[DAYS[1]] == [1 + 7]
    restated = home.published(PREDICTIONS)
    assert {day: restated[day] for day in served} == served
    assert restated[DAYS[3]] == home.published("sums")[DAYS[2]]


def test_the_plan_tells_which_served_predictions_would_be_others_today(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[2], 3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(survey, "definitions", no_definitions)
        before = plan(home.run(DAYS[2])).rows
        home.night(DAYS[2])
        after = plan(home.run(DAYS[2])).rows
        home.night(DAYS[2], rescore=True)
        again = plan(home.run(DAYS[2])).rows
    stays = "stays as it was served, --rescore makes a new revision"
    for rows, why in ((before, "will change"), (after, "has changed")):
        served = [row for row in rows if row[0] == "tiny.predictions"][-1]
        assert served[1:4] == ("served", 1, "2013-01-07")
        assert served[4] == f"tiny.scoring of 2013-01-07 {why}; {stays}"
    assert [row[1] for row in again if row[0] == "tiny.predictions"] == ["current"]


def test_the_plan_is_one_line_where_nights_differ_in_the_days_of_what_has_changed(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))
    told = told_of(home, "stale")
    of_marks = [row for row in told if row[0] == "tiny.marks"]
    days = f"{DAYS[0]}..{DAYS[3]}"
    why = f"tiny.readings of {DAYS[0]} to {DAYS[3]} has changed"
    assert of_marks == [("tiny.marks", 4, days, why)]
    # Of its window a night's sum has several days.
    (of_sums,) = [row for row in told if row[0] == "tiny.sums"]
    assert of_sums[3] == f"tiny.marks of {DAYS[0]} to {DAYS[3]} will change"


def test_other_words_of_the_same_days_stay_apart() -> None:
    lost, late = "a of 2013-01-05 will change", "a of 2013-01-05 has changed"
    assert without_days(lost) != without_days(late)
    both = [
        "a of 2013-01-06..2013-01-07 is; b of 2013-01-05 was",
        "a of 2013-01-08 is; b of 2013-01-05 was",
    ]
    said = of_all(both)
    assert said == "a of 2013-01-06 to 2013-01-08 is; b of 2013-01-05 was"


def test_a_retraining_asked_for_is_done_though_all_is_current(home: Home) -> None:
    home.night(DAYS[0])
    home.performed.clear()
    run = replace(home.run(DAYS[0]), retrain=True)
    with home._stages():
        assert night.make_true(run, STAGES, notify=False) == 0
    assert [name for name, _ in home.performed][:2] == ["train", "evaluate"]


def test_labels_that_are_declared_to_come_later_have_the_night_trained_anew(home: Home) -> None:
    home.night(DAYS[0])
    assert home.night(DAYS[0]) == 0
    assert home.performed == []
    late = replace(TINY.promotion, label_lag_days=1)
    home.pipeline = replace(TINY, promotion=late)
    assert home.night(DAYS[0]) == 0
    assert [name for name, _ in home.performed][:2] == ["train", "evaluate"]


def test_rows_to_learn_from_that_are_made_anew_after_a_loss_are_learned_from(home: Home) -> None:
    home.night(DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "training"))
    home.land(DAYS[0], 77)
    assert home.night(DAYS[0]) == 0
    # Of the version that was learned from, by chance.
    made = Knowledge(home.run(DAYS[0])).latest("training")
    assert {one.delta_version for one in made.values()} == {0}
    assert "train" in stages_of(home)
    assert home.night(DAYS[0]) == 0
    assert home.performed == []
