"""From which night rows are known, in whatever order nights and files come."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from jobs import night
from jobs.commands.plan import plan
from jobs.lake import datasets, knowledge, ops, publications
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import path
from jobs.planning import survey
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.stages import STAGES
from tests.jobs.tiny_home import (
    DAYS,
    MARKS,
    OF_THE_MOMENT,
    OUTCOMES,
    SUMS,
    TINY,
    WINDOW,
    Home,
    require_alike,
    stages_of,
    told_of,
)


def test_nights_from_before_a_first_day_that_was_moved_stay_as_they_are(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for day in DAYS[:4]:
        home.land(day, 1)
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    # A table that is declared by now is made for no night before it, either.
    derived = (*TINY.derived, OUTCOMES)
    home.pipeline = replace(TINY, first_day=DAYS[2], derived=derived)
    home.land(DAYS[0], 1, 2)
    home.land(DAYS[2], 1, 3)
    assert home.night(DAYS[3]) == 0
    made = {day for _, days in home.performed for day in days}
    assert made == {DAYS[2], DAYS[3]}
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    ids = {day: [1] for day in DAYS[:4]}
    assert home.published("readings") == {**ids, DAYS[2]: [1, 3]}


def test_a_missed_night_is_caught_up_by_the_next_one_in_one_pass(home: Home) -> None:
    assert home.night(DAYS[0]) == 0
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["ingest"] == ["2013-01-06..2013-01-08"]
    assert stages_of(home)["monitor"] == ["2013-01-06..2013-01-08"]
    assert list(home.published("sums")) == DAYS[:4]


def test_a_night_with_nothing_to_do_does_nothing_and_says_so(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.night(DAYS[2])
    capsys.readouterr()
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    lines = capsys.readouterr().out.splitlines()
    found = [line.split() for line in lines]
    assert found == [[one.name, "current"] for one in STAGES]
    recorded = ops.read(home.environment, "stage_runs", [("status", "=", "current")])
    assert sorted(recorded["stage"].to_pylist()) == sorted(one.name for one in STAGES)


def test_a_correction_changes_the_night_that_finds_it_and_no_moment_that_has_passed(
    home: Home,
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    before = {name: home.published(name) for name in ("sums", "scoring", "training")}
    home.land(DAYS[3], 7)
    assert home.night(DAYS[5]) == 0
    made = stages_of(home)
    assert made["ingest"] == [str(DAYS[3]), str(DAYS[5])]
    assert made["transform"] == [str(DAYS[3]), str(DAYS[5])]
    assert home.published("marks")[DAYS[3]] == [7]
    assert home.as_of("marks", DAYS[4])[DAYS[3]] == [30, 31]
    # What the moments were told stays, and what was learned has the label that is known now.
    for name in ("sums", "scoring"):
        found = {day: home.published(name)[day] for day in before[name]}
        assert found == before[name]
    assert home.published("sums")[DAYS[5]] == [7 + 81 + 101]
    evening = before["sums"][DAYS[2]][0]
    assert home.published("training")[DAYS[3]] == [70_000 + evening]
    # As of a night that has passed, it is learned from what was known then.
    as_of = home.as_of("training", DAYS[4])
    assert as_of[DAYS[3]] == before["training"][DAYS[3]]
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def _published_outcomes(home: Home) -> dict[date, list[int]]:
    """By day; each is the sum of the marks of its window, as these are by now."""
    marks = home.published("marks")
    found = home.published("outcomes")
    for day, of_day in found.items():
        window = Days.of(day).since(WINDOW - 1)
        totals = [sum(marks.get(one, ())) for one in window]
        assert of_day == [sum(totals)]
    return found


def test_a_table_that_follows_corrections_is_made_anew_for_every_window_over_a_changed_day(
    home: Home,
) -> None:
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OUTCOMES))
    home.night(DAYS[4], first=DAYS[0])
    before = {name: home.published(name) for name in ("sums", "outcomes")}
    assert before["outcomes"] == before["sums"]
    home.land(DAYS[1], 7)
    assert home.night(DAYS[5]) == 0
    assert stages_of(home)["transform"] == [f"{DAYS[1]}..{DAYS[3]}", str(DAYS[5])]
    found = _published_outcomes(home)
    told_before = before["outcomes"]
    changed = [day for day in told_before if found[day] != told_before[day]]
    assert changed == DAYS[1:4]
    # Moments that have passed are what they were, and so is what they saw of it.
    sums = home.published("sums")
    assert {day: sums[day] for day in before["sums"]} == before["sums"]
    assert home.as_of("outcomes", DAYS[4]) == before["outcomes"]
    assert home.as_of("outcomes", DAYS[5]) == found
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


@pytest.mark.parametrize("is_found_before", [False, True])
def test_days_that_are_made_follow_corrections_once_their_table_says_so(
    home: Home, is_found_before: bool
) -> None:
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OF_THE_MOMENT))
    home.night(DAYS[4], first=DAYS[0])
    before = home.published("outcomes")
    home.land(DAYS[1], 7)
    if is_found_before:
        assert home.night(DAYS[5]) == 0
        assert {day: home.published("outcomes")[day] for day in before} == before
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OUTCOMES))
    assert home.night(DAYS[5]) == 0
    found = _published_outcomes(home)
    assert [day for day in before if found[day] != before[day]] == DAYS[1:4]
    assert home.as_of("outcomes", DAYS[4]) == before
    # Tables of the moment go on saying what their night knew.
    assert home.published("sums")[DAYS[1]] == before[DAYS[1]]
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def test_what_is_made_late_for_a_night_is_seen_by_it_and_by_those_since_it_was_made(
    home: Home,
) -> None:
    home._file(DAYS[1]).unlink()
    home.night(DAYS[0])
    for day in DAYS[2:4]:
        home.night(day, allow_gap=True)
    nights = [Days.of(day) for day in DAYS[2:4]]
    asked = [*nights, Days(*DAYS[2:4])]
    seen = {night: _input_of_sums(home, night).digest for night in asked}
    made = {name: home.published(name) for name in ("sums", "scoring")}
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    days = {night: list(home.as_of("sums", night)) for night in DAYS[:5]}
    assert days == {
        DAYS[0]: DAYS[:1],
        # As it was: with a window that lacks its own day, which is known since the last night.
        DAYS[1]: DAYS[:2],
        DAYS[2]: [DAYS[0], DAYS[2]],
        DAYS[3]: [DAYS[0], *DAYS[2:4]],
        DAYS[4]: DAYS[:5],
    }
    assert home.published("sums")[DAYS[1]] == [1]
    told = datasets.known_by(home.environment, "tiny.sums", DAYS[3]).to_table()
    assert sorted(told["landed_date"].to_pylist()) == days[DAYS[3]]
    # So what those nights looked up in it is what they would find again.
    assert {night: _input_of_sums(home, night).digest for night in seen} == seen
    for name, before in made.items():
        assert {day: home.published(name)[day] for day in before} == before
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
    # On purpose: then it was known from its own day on.
    assert home.restate(DAYS[1], DAYS[1]) == 0
    assert list(home.as_of("sums", DAYS[3])) == DAYS[:4]


def _input_of_sums(home: Home, nights: Days) -> publications.Input:
    """What a view that looks back over all days reads of the sums in these nights."""
    until = Days(DAYS[0], nights.last)
    return Knowledge(home.run(nights.last)).table_input("sums", until, nights)


@pytest.mark.parametrize("lacks", ["other/{}.csv", "{}.done"])
def test_a_drop_that_could_not_be_read_in_time_changes_no_moment_that_has_passed(
    home: Home, lacks: str
) -> None:
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv", marker="{date}.done")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    for day in DAYS:
        home.land_of("other", day, 5)
        home.mark(day)
    late = home.environment.landing / "tiny" / lacks.format(DAYS[1])
    told = late.read_text()
    late.unlink()
    assert home.night(DAYS[0]) == 0
    assert home.night(DAYS[2], allow_gap=True) == 0
    tables = ("readings", "marks", "sums")
    before = {name: home.as_of(name, DAYS[2]) for name in tables}
    late.write_text(told)
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
    assert not [row for row in rows if row[:2] == ("tiny.sums", "stale")]
    assert home.night(DAYS[3]) == 0
    assert {name: home.as_of(name, DAYS[2]) for name in before} == before
    for name in ("readings", "other"):
        known = publications.in_force(home.run(DAYS[3]), name)
        assert known[DAYS[1]].known_day == DAYS[3], name


def test_a_feed_that_is_declared_later_is_known_to_no_night_that_was_scored(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    for day in DAYS[:5]:
        home.land_of("late", day, 5)
    assert home.night(DAYS[4]) == 0
    known = publications.in_force(home.run(DAYS[4]), "late")
    assert set(known) == set(DAYS[:5])
    # Of the last one too, which had no night after it.
    assert {one.known_day for one in known.values()} == {DAYS[4]}


def test_a_night_that_is_asked_for_again_sees_what_was_corrected_before_it(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[3], 7)
    assert home.night(DAYS[4]) == 0
    assert home.published("sums")[DAYS[4]] == [41 + 7 + 81]
    assert home.published("sums")[DAYS[3]] == [21 + 41 + 61]


def test_a_correction_found_by_an_old_night_changes_none_that_was_made_since(home: Home) -> None:
    home.night(DAYS[5], first=DAYS[0])
    sums = home.published("sums")
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == [7]
    assert home.published("sums") == sums
    assert home.night(DAYS[5]) == 0
    assert home.published("sums") == sums
    home.land(DAYS[5], 1)
    home.land(DAYS[6], 2)
    assert home.night(DAYS[6], first=DAYS[5]) == 0
    assert home.published("sums")[DAYS[6]] == [81 + 1 + 2]


def test_a_late_twin_dates_no_correction_back_that_its_successor_has_found(home: Home) -> None:
    home.night(DAYS[0])
    home.land(DAYS[0], 7)

    def overtake() -> None:
        assert home.night(DAYS[2]) == 0

    home.meanwhile = overtake
    home.publishes_until_overlap = 0
    home.night(DAYS[1])
    assert home.published("readings")[DAYS[0]] == [7]
    known = publications.in_force(home.run(DAYS[2]), "readings")
    assert known[DAYS[0]].known_day == DAYS[2]
    assert home.as_of("readings", DAYS[1])[DAYS[0]] == [0, 1]


@pytest.mark.parametrize("refused", ["check_clean", "features"])
def test_a_night_of_which_nothing_was_scored_is_made_with_its_own_file_that_was_mended(
    home: Home, refused: str
) -> None:
    home.night(DAYS[0])
    home.refused_stage = refused
    for bad in ((10, 11), (5,)):
        home.land(DAYS[1], *bad)
        assert home.night(DAYS[1]) == Refused.exit_code
        assert home.published("readings")[DAYS[1]] == list(bad)
    home.refused_stage = ""
    home.land(DAYS[1], 7)
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    stale = [row for row in rows if row[:2] == ("tiny.readings", "stale")]
    assert [row[4] for row in stale] == [f"tiny/readings/{DAYS[1]}.csv has changed"]
    assert home.night(DAYS[2]) == 0
    assert home.as_of("marks", DAYS[1])[DAYS[1]] == [7]
    assert home.published("sums")[DAYS[1]] == [1 + 7]
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_correction_that_its_night_did_not_survive_is_known_as_it_was_when_it_comes_anew(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.refused_stage = "check_clean"
    assert home.night(DAYS[4]) == Refused.exit_code
    home.refused_stage = ""
    home.land(DAYS[1], 8)
    assert home.night(DAYS[5]) == 0
    assert home.as_of("marks", DAYS[3])[DAYS[1]] == [10, 11]
    assert home.as_of("marks", DAYS[4])[DAYS[1]] == [8]


def test_what_was_scored_stays_as_it_was_also_where_it_is_lost(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    tables = ("marks", "sums", "scoring")
    before = {name: home.as_of(name, DAYS[2]) for name in tables}
    shutil.rmtree(path(home.run(DAYS[0]), "scoring"))
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3]) == 0
    assert {name: home.as_of(name, DAYS[2]) for name in before} == before


def test_a_range_dates_a_correction_before_it_as_its_nights_in_order_do(
    home: Home, other: Home
) -> None:
    for one in (home, other):
        one.promote(DAYS[0])
        one.night(DAYS[4], first=DAYS[0])
        one.land(DAYS[1], 7)
        one.land_register(1, 2)
    sums = home.published("sums")
    assert home.night(DAYS[4], first=DAYS[2]) == 0
    for day in DAYS[2:5]:
        assert other.night(day) == 0
    # All of its nights have passed.
    assert home.published("sums") == sums
    for last in (DAYS[4], DAYS[5]):
        assert home.night(last) == other.night(last) == 0
        require_alike(home, other, DAYS[:7])


def test_a_range_that_goes_on_past_what_was_made_sees_a_correction_from_there(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    sums = home.published("sums")
    home.land(DAYS[3], 7)
    assert home.night(DAYS[5], first=DAYS[4]) == 0
    # Asked for again by name, and last of all.
    assert home.published("sums") == {
        **sums,
        DAYS[4]: [41 + 7 + 81],
        DAYS[5]: [7 + 81 + 101],
    }
    home.land(DAYS[2], 5)
    before = home.published("sums")
    assert home.night(DAYS[6], first=DAYS[3]) == 0
    assert home.published("sums") == {**before, DAYS[6]: [81 + 101 + 121]}
    assert home.as_of("marks", DAYS[5])[DAYS[2]] == [20, 21]
    assert home.as_of("marks", DAYS[6])[DAYS[2]] == [5]


def test_a_range_finds_a_changed_register_as_its_nights_in_order_do(
    home: Home, other: Home
) -> None:
    for one in (home, other):
        one.night(DAYS[3], first=DAYS[0])
    for number, first in enumerate((1, 2, 3, 5)):
        last = first + 1
        for one in (home, other):
            one.land_register(2 + number)
        assert home.night(DAYS[last], first=DAYS[first]) == 0
        for day in DAYS[first : last + 1]:
            assert other.night(day) == 0
        assert home.registered() == other.registered()
    # Nights that had passed saw the file of their own time.
    assert home.registered() == {
        DAYS[0]: [1],
        DAYS[3]: [4],
        DAYS[5]: [5],
    }


def test_a_changed_register_needs_no_file_of_a_made_night_that_is_gone(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home._file(DAYS[3]).unlink()
    home.land_register(2)
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    assert home.night(DAYS[5], first=DAYS[3]) == 0
    assert home.registered() == {
        DAYS[0]: [1],
        DAYS[4]: [2],
    }


def test_a_changed_register_is_found_by_the_first_night_of_a_range_that_has_its_file(
    home: Home,
) -> None:
    home.night(DAYS[0])
    home.land_register(2)
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[3], first=DAYS[1], allow_gap=True) == 0
    assert home.registered() == {
        DAYS[0]: [1],
        DAYS[2]: [2],
    }


def test_a_register_that_is_declared_later_is_unknown_to_nights_that_have_passed(
    home: Home,
) -> None:
    home.pipeline = replace(TINY, feeds=TINY.feeds[:1])
    home.night(DAYS[2], first=DAYS[0])
    home.pipeline = TINY
    assert home.night(DAYS[3]) == 0
    home.land(DAYS[1], 7)
    home.land_register(5)
    assert home.night(DAYS[4]) == 0
    of_nights = {
        DAYS[3]: [1],
        DAYS[4]: [5],
    }
    assert home.registered() == of_nights
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
    # Whoever asks for those nights by name has them see the file of today.
    assert home.restate(DAYS[0], DAYS[2]) == 0
    assert home.registered() == {DAYS[0]: [5], **of_nights}


@pytest.mark.parametrize("is_missed", [False, True])
def test_a_register_that_is_declared_later_is_unknown_to_a_passed_night_that_is_made_anew_with_it(
    is_missed: bool, home: Home
) -> None:
    home.pipeline = replace(TINY, feeds=TINY.feeds[:1])
    home.night(DAYS[0])
    if not is_missed:
        home.night(DAYS[1])
    home.night(DAYS[2], allow_gap=True)
    home.land(DAYS[1], 7)
    home.pipeline = TINY
    assert home.night(DAYS[3], allow_gap=True) == 0
    assert home.published("readings")[DAYS[1]] == [7]
    assert home.registered() == {DAYS[3]: [1]}


def test_a_correction_is_read_where_its_feed_drops_files_by_now(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    readings, sensors = TINY.feeds
    moved = replace(readings, path="moved/{date}.csv")
    home.pipeline = replace(TINY, feeds=(moved, sensors))
    folder = home.environment.landing / "tiny"
    run = home.run(DAYS[2])

    def told() -> dict[date, tuple[str, str]]:
        found = survey.Survey(run).findings(run.pipeline.table("readings"))
        return {one.night: (one.state, one.reason) for one in found}

    # No file of before need be moved.
    assert set(told().values()) == {("current", "")}
    (folder / "readings").rename(folder / "moved")
    assert set(told().values()) == {("current", "")}
    home._write(folder / "moved" / f"{DAYS[1]}.csv", [7])
    (folder / "moved" / f"{DAYS[0]}.csv").unlink()
    found = told()
    assert found[DAYS[0]] == ("current", survey._GONE)
    state, reason = found[DAYS[1]]
    assert state == "stale"
    assert reason.startswith(f"tiny/moved/{DAYS[1]}.csv has landed")
    assert found[DAYS[2]] == ("current", "")


def test_a_correction_where_its_feed_dropped_files_before_is_told(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    readings, sensors = TINY.feeds
    moved = replace(readings, path="moved/{date}.csv")
    home.pipeline = replace(TINY, feeds=(moved, sensors))
    # The source has not heard of it.
    home.land(DAYS[1], 7)
    (told,) = [row for row in told_of(home, "current") if row[3]]
    old, new = f"tiny/readings/{DAYS[1]}.csv", f"tiny/moved/{DAYS[1]}.csv"
    assert told[3] == f"{old} has changed; its feed drops it as {new} by now"


def test_a_correction_of_a_feed_that_moved_its_files_awaits_their_marker(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, sensors = TINY.feeds
    folder = home.environment.landing / "tiny"
    home.pipeline = replace(TINY, feeds=(replace(readings, marker="{date}.done"), sensors))
    home.mark(DAYS[0])
    assert home.night(DAYS[0]) == 0
    moved = replace(readings, path="moved/{date}.csv", marker="moved/{date}.done")
    home.pipeline = replace(TINY, feeds=(moved, sensors))
    (folder / "readings").rename(folder / "moved")
    file, marker = (folder / "moved" / f"{DAYS[0]}.{end}" for end in ("csv", "done"))
    home._write(marker, ())
    arrivals: dict[Path, int] = {}

    def arrived(path: Path) -> datetime:
        return datetime.fromtimestamp(arrivals.get(path, 1), UTC)

    def told() -> tuple[str, str]:
        run = home.run(DAYS[0])
        (found,) = survey.Survey(run).findings(run.pipeline.table("readings"))
        return found.state, found.reason

    # The file system's clock cannot be set.
    monkeypatch.setattr(knowledge, "arrival", arrived)
    assert told() == ("current", "")
    home._write(file, [7])
    arrivals[file] = 3
    state, reason = told()
    assert state == "current"
    assert reason.endswith(f"tiny/moved/{marker.name} is older than its file")
    arrivals[marker] = 4
    assert told() == ("stale", f"tiny/moved/{file.name} has landed")


def test_a_register_is_looked_for_where_its_feed_drops_it_by_now(home: Home) -> None:
    home.night(DAYS[0])
    readings, sensors = TINY.feeds
    moved = replace(sensors, path="moved.csv")
    home.pipeline = replace(TINY, feeds=(readings, moved))
    folder = home.environment.landing / "tiny"
    home._register.rename(folder / "moved.csv")
    run = home.run(DAYS[1])

    def told() -> tuple[date, str, str]:
        (found,) = survey.Survey(run).findings(run.pipeline.table("sensors"))
        return found.night, found.state, found.reason

    assert told() == (DAYS[1], "current", "")
    home._write(folder / "moved.csv", [2])
    assert told() == (DAYS[1], "stale", "tiny/moved.csv has changed")


def test_nights_before_the_first_that_was_made_see_the_register_when_they_are_loaded(
    home: Home,
) -> None:
    home.pipeline = replace(TINY, first_day=DAYS[0])
    home.night(DAYS[2])
    home.land_register(2)
    with home._stages():
        run = replace(home.run(DAYS[3]), from_start=True)
        assert night.make_true(run, STAGES, notify=False) == 0
    assert home.registered() == {
        DAYS[0]: [2],
        DAYS[2]: [1],
        DAYS[3]: [2],
    }


@pytest.mark.parametrize("publishes_until_kill", [0, 1])
def test_a_first_load_that_is_killed_between_its_raw_tables_sees_the_register_from_its_first_night(
    publishes_until_kill: int, home: Home, other: Home
) -> None:
    home.publishes_until_kill = publishes_until_kill
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[2], first=DAYS[0])
    for one in (home, other):
        assert one.night(DAYS[2], first=DAYS[0]) == 0
    assert home.registered() == other.registered() == {DAYS[0]: [1]}
    require_alike(home, other, DAYS[:3])


def test_a_changed_register_is_found_by_a_range_that_begins_before_its_first_snapshot(
    home: Home,
) -> None:
    home.night(DAYS[2])
    home.land_register(2)
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    assert home.registered() == {
        DAYS[0]: [2],
        DAYS[2]: [2],
    }
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    assert home.performed == []


def test_a_day_that_is_asked_for_by_name_is_made_as_its_file_says_now(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[1]) == 0
    assert home.published("sums")[DAYS[1]] == [1 + 7]
    # What follows is stale, all of it, and the next night makes it.
    assert home.night(DAYS[4]) == 0
    assert stages_of(home)["transform"] == [f"{DAYS[2]}..{DAYS[3]}"]
    assert stages_of(home)["features"] == [f"{DAYS[2]}..{DAYS[4]}"]
    assert home.published("sums")[DAYS[3]] == [7 + 41 + 61]


def test_restating_makes_what_was_corrected_late_known_from_its_own_day(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    assert home.published("sums")[DAYS[1]] == [1 + 21]
    assert home.restate(DAYS[0], DAYS[4]) == 0
    assert home.published("sums")[DAYS[1]] == [1 + 7]
    assert home.as_of("marks", DAYS[1])[DAYS[1]] == [7]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
