"""What the plan tells of tables and stages, and what is due."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from jobs import night
from jobs.commands import plan as plan_command
from jobs.commands.plan import plan
from jobs.lake import commits, publications
from jobs.planning import passes, required, survey
from jobs.planning.seen import seen_by
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.run import Run
from pipelines.stages import STAGES, Stage, stage
from tests.jobs import tiny_home
from tests.jobs.tiny_home import DAYS, TINY, Home, no_definitions, stages_of


def test_the_plan_tells_what_is_missing_and_stale_and_what_follows(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[0], 3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(survey, "definitions", no_definitions)
        rows = plan(home.run(DAYS[3])).rows
    readings = [row[1:4] for row in rows if row[0] == "tiny.readings"]
    assert readings == [
        ("stale", 1, "2013-01-05"),
        ("current", 2, "2013-01-06..2013-01-07"),
        ("missing", 1, "2013-01-08"),
    ]
    (changed,) = [row for row in rows if row[:2] == ("tiny.readings", "stale")]
    assert changed[4].endswith("2013-01-05.csv has changed; known from 2013-01-08")
    (marks, *_) = [row for row in rows if row[0] == "tiny.marks"]
    assert marks[1:] == ("stale", 1, "2013-01-05", "tiny.readings of 2013-01-05 will change")
    (followed, coming) = [row for row in rows if row[0] == "tiny.sums"]
    assert followed[1:4] == ("current", 3, "2013-01-05..2013-01-07")
    assert coming[1:4] == ("missing", 1, "2013-01-08")
    stages = {row[0]: row[1:] for row in rows[-3:]}
    assert stages["train"] == ("due", 1, "2013-01-08", "not done yet as of 2013-01-08")
    assert stages["evaluate"][0] == stages["monitor"][0] == "due"
    assert home.night(DAYS[3]) == 0


EXPORT = Stage(
    name="export",
    group="serve",
    function="jobs.stages.export:export",
    reads=("sums",),
    does="Hand the sums on.",
)
"""A stage of one's own, which makes no table."""


def test_a_stage_of_ones_own_is_due_again_when_what_it_reads_was_published_since(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_export = (*STAGES, EXPORT)
    for module in (passes, required, night, plan_command, tiny_home):
        monkeypatch.setattr(module, "STAGES", with_export)

    def planned() -> tuple[object, ...]:
        with home._stages():
            return plan(home.run(DAYS[1]), with_export).rows[-1]

    home.night(DAYS[1], first=DAYS[0])
    assert home.performed[-1] == ("export", Days(DAYS[0], DAYS[1]))
    assert planned() == ("export", "current", 1, str(DAYS[1]), "")
    assert home.night(DAYS[1]) == 0
    assert home.performed == []
    home.land(DAYS[1], 7, 8, 9)
    assert planned() == ("export", "due", 1, str(DAYS[1]), "tiny.sums will change")
    assert home.night(DAYS[1]) == 0
    assert home.performed[-1] == ("export", Days.of(DAYS[1]))
    # Made anew and not handed on, as where the stage was left out.
    home.land(DAYS[1], 7, 8)
    with home._stages():
        run = home.run(DAYS[1])
        assert night.make_true(run, with_export[:-1], notify=False) == 0
    since = ("export", "due", 1, str(DAYS[1]), "tiny.sums was published since")
    assert planned() == since
    # That the same rows follow from something else hands nothing on.
    known = publications.in_force(run, "sums")[DAYS[1]]
    making = run.at(stage("transform"))
    commits.confirm(making, "sums", DAYS[1], known.inputs, "another")
    assert planned() == since


def test_labels_that_were_never_measured_are_to_be_though_they_were_confirmed_since(
    home: Home,
) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home.land(DAYS[1], 7)
    monitor = stage("monitor")
    run = home.run(DAYS[1])
    with home._stages():
        without = STAGES[: STAGES.index(monitor)]
        assert night.make_true(run, without, notify=False) == 0

    def to_measure() -> set[date]:
        later = survey.Survey(home.run(DAYS[2]))
        return later.seen.learned_since(seen_by(run, monitor))

    found = to_measure()
    assert DAYS[1] in found
    known = publications.in_force(run, "training")
    making = run.at(stage("features"))
    for day in found:
        commits.confirm(making, "training", day, known[day].inputs, "another")
    assert to_measure() == found


def test_a_stage_of_ones_own_is_given_the_nights_that_were_missed_or_corrected(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_export = (*STAGES, EXPORT)
    for module in (passes, required, night, plan_command, tiny_home):
        monkeypatch.setattr(module, "STAGES", with_export)

    def exported() -> list[Days]:
        return [days for name, days in home.performed if name == "export"]

    # What was published before the stage was there is not asked for.
    with home._stages():
        run = home.run(DAYS[0])
        assert night.make_true(run, STAGES, notify=False) == 0
    home.night(DAYS[1])
    assert exported() == [Days.of(DAYS[1])]
    # The night after was missed.
    home.night(DAYS[3])
    assert exported() == [Days(DAYS[2], DAYS[3])]
    home.night(DAYS[3])
    assert exported() == []
    # Made anew by a run without it, such as one of some stages.
    home.land(DAYS[1], 7, 8, 9)
    with home._stages():
        run = home.run(DAYS[1])
        assert night.run_night(run, STAGES, notify=False) == 0
        rows = plan(home.run(DAYS[3]), with_export).rows
        told = [row for row in rows if row[0] == "export"]
    assert told[0][:2] == ("export", "due")
    assert str(told[0][3]).startswith(str(DAYS[1]))
    assert home.night(DAYS[3]) == 0
    assert exported()[0].first == DAYS[1]


def test_the_plan_tells_of_stages_that_are_due_though_all_tables_are_current(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    with home._stages():
        nothing = plan(home.run(DAYS[1]))
        retrained = plan(replace(home.run(DAYS[1]), retrain=True))
        restated = plan(home.run(DAYS[1]), is_exact=True)
    assert not nothing.has_work
    assert {row[1] for row in nothing.rows} == {"current"}
    assert nothing.summary == "nothing to do, all is current."
    assert retrained.has_work
    assert retrained.summary.splitlines()[1:] == [
        "- due 2013-01-06: train (--retrain trains again)",
        "- due 2013-01-06: evaluate (a model will be trained)",
    ]
    assert restated.has_work
    assert "--restate does all stages" in restated.summary


def test_the_plan_tells_how_many_nights_are_made_in_one_go(home: Home, tmp_path: Path) -> None:
    home.night(DAYS[0])
    with home._stages():
        missed = plan(home.run(DAYS[3]))
        exact = plan(home.run(DAYS[2], DAYS[1]), is_exact=True)
    assert (missed.nights, exact.nights) == (3, 2)
    plan_command.write_result(missed, tmp_path / "plan")
    assert json.loads((tmp_path / "plan").read_text())["nights"] == 3
    home.night(DAYS[3])
    with home._stages():
        assert plan(home.run(DAYS[3])).nights == 0
    # A gap that a night went over is told, and nobody waits for its files.
    home._file(DAYS[4]).unlink()
    assert home.night(DAYS[5], allow_gap=True) == 0
    with home._stages():
        beyond = plan(home.run(DAYS[6]))
    assert beyond.accepted_gaps == 1
    assert beyond.nights == 1


def test_the_plan_of_some_stages_tells_of_these_alone(home: Home) -> None:
    home.night(DAYS[0])
    home.land(DAYS[1], 2)
    home._file(DAYS[2]).unlink()
    learning = (stage("train"), stage("evaluate"))
    with home._stages():
        current = plan(home.run(DAYS[0]), learning)
        due = plan(home.run(DAYS[3]), learning)
        read = plan(home.run(DAYS[3]), (stage("check_raw"),))
        whole = plan(home.run(DAYS[3]))
    assert [row[:2] for row in current.rows] == [
        ("train", "current"),
        ("evaluate", "current"),
    ]
    assert not current.has_work
    assert [row[:2] for row in due.rows] == [
        ("train", "due"),
        ("evaluate", "due"),
    ]
    assert due.has_work
    assert {row[0] for row in read.rows} == {"tiny.readings", "tiny.sensors"}
    assert whole.rows[0][:2] == ("tiny", "hole")
    assert set(due.rows) | set(read.rows) < set(whole.rows)


def test_a_night_is_measured_though_another_was_before_it_could_be(home: Home) -> None:
    # Else the restated night would foretell for the first time.
    home.promote(DAYS[0])
    home.night(DAYS[1], first=DAYS[0])
    stops = stage("monitor")
    with home._stages():
        # As if the check of the predictions had refused.
        before = [one for one in STAGES if one != stops]
        assert night.make_true(home.run(DAYS[2]), before, notify=False) == 0
    assert home.restate(DAYS[0], DAYS[0]) == 0
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["monitor"] == [f"{DAYS[2]}..{DAYS[3]}"]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_nights_that_a_kill_left_unmeasured_are_measured_by_the_next(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.land(DAYS[3], 8)
    whole = home._perform

    def perform(run: Run) -> int:
        if run.doing.name == "monitor" and ("monitor", run.days) != home.performed[-1]:
            measured = [days for name, days in home.performed if name == "monitor"]
            if measured:
                raise KeyboardInterrupt
        return whole(run)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(home, "_perform", perform)
        with pytest.raises(KeyboardInterrupt):
            home.night(DAYS[5])
    assert stages_of(home)["monitor"] == [str(DAYS[1])]
    assert home.night(DAYS[5]) == 0
    measured = stages_of(home)["monitor"]
    assert measured == [str(DAYS[3]), str(DAYS[5])]


def test_the_plan_of_a_correction_foresees_that_a_model_is_trained_and_measured(
    home: Home,
) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home.land(DAYS[1], 7)
    with home._stages():
        found = plan(home.run(DAYS[1]))
    reasons = {row[0]: row[1:] for row in found.rows[-3:]}
    assert reasons["train"] == ("due", 1, "2013-01-06", "tiny.training will change")
    assert reasons["evaluate"][0] == reasons["monitor"][0] == "due"
    assert home.night(DAYS[1]) == 0
    assert {"train", "evaluate", "monitor"} <= set(stages_of(home))


def test_rows_learned_from_an_evening_that_was_found_late_are_known_when_it_was(
    home: Home,
) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[2], allow_gap=True) == 0
    then = home.as_of("training", DAYS[2])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3]) == 0
    assert home.as_of("training", DAYS[2]) == then
    later = home.as_of("training", DAYS[3])
    assert later[DAYS[2]] != then[DAYS[2]]
    # Nor does what that night learned from ask for another model of it.
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_night_that_is_to_begin_at_the_start_loads_the_history_that_has_landed(
    home: Home,
) -> None:
    home.pipeline = replace(TINY, first_day=DAYS[0])
    run = replace(home.run(DAYS[3]), from_start=True)
    with home._stages():
        planned = plan(run)
        assert planned.rows[0][1:4] == ("missing", 4, f"{DAYS[0]}..{DAYS[3]}")
        _, first_line, *_ = planned.summary.splitlines()
        assert first_line == (
            f"- missing {DAYS[0]}..{DAYS[3]}: readings, marks, sums, training, scoring "
            "(never published)"
        )
        assert night.make_true(run, STAGES, notify=False) == 0
    assert stages_of(home)["ingest"] == [f"{DAYS[0]}..{DAYS[3]}"]
    assert stages_of(home)["train"] == [str(DAYS[3])]
    assert list(home.published("sums")) == DAYS[:4]
    once = Home(home.environment.home / "once")
    for number, day in enumerate(DAYS):
        once.land(day, 10 * number, 10 * number + 1)
    once.night(DAYS[3], first=DAYS[0])
    for name in ("readings", "marks", "sums", "training", "scoring"):
        assert home.published(name) == once.published(name), name


def test_the_plan_has_work_where_a_run_would_be_refused_for_a_hole(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home._file(DAYS[2]).unlink()
    with home._stages():
        found = plan(home.run(DAYS[3]))
        assert found.rows[0][:2] == ("tiny", "hole")
        assert found.has_work
    with pytest.raises(Refused, match="are not made, or not whole, and lack files"):
        home.night(DAYS[3])
