"""Holes, optional feeds, markers, and feeds that are declared later or lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs import night
from jobs.commands.plan import plan
from jobs.lake import knowledge, ops, publications
from jobs.lake.locations import path
from jobs.lake.publications import file_input
from jobs.planning import survey
from jobs.planning.passes import of_stage
from jobs.planning.required import require_no_hole
from pipelines.days import Days
from pipelines.errors import NotLanded, Refused
from pipelines.stages import STAGES, select
from tests.jobs.tiny_home import (
    DAYS,
    MARKS,
    SUMS,
    TINY,
    Home,
    quarantine,
    recorded_publications,
    require_alike,
    stages_of,
    tables_on_record,
    told_of,
)


def test_a_file_that_says_the_same_in_other_words_ends_at_its_own_table(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], *reversed(home.ids_in(DAYS[1])))
    assert home.night(DAYS[2]) == 0
    assert set(stages_of(home)) == {"ingest", "check_raw"}
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_hole_is_refused_by_name_until_it_is_filled_or_allowed(home: Home) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    with pytest.raises(Refused, match=r"1 night\(s\) before 2013-01-07 .*\n.*2013-01-06: tiny/rea"):
        home.night(DAYS[2])
    assert home.performed == []
    assert home.night(DAYS[2], allow_gap=True) == 0
    assert home.published("sums")[DAYS[2]] == [1 + 41]
    # Accepted once: no later night asks again.
    assert home.night(DAYS[3]) == 0
    home.land(DAYS[1], 5)
    assert home.night(DAYS[4]) == 0
    # It came late: as nights truly were that went on without it.
    assert home.published("sums")[DAYS[2]] == [1 + 41]
    assert home.published("sums")[DAYS[1]] == [1]
    assert home.published("marks")[DAYS[1]] == [5]
    assert list(home.published("readings")) == DAYS[:5]


def test_a_gap_in_a_range_is_allowed_as_it_is_to_its_nights_in_order(
    home: Home, other: Home
) -> None:
    for one in (home, other):
        one.promote(DAYS[0])
        one._file(DAYS[2]).unlink()
    for number in range(5):
        code = other.night(DAYS[number], allow_gap=True)
        assert code == (NotLanded.exit_code if number == 2 else 0)
    # Not allowed: the range waits for its file.
    assert home.night(DAYS[4], first=DAYS[0]) == NotLanded.exit_code
    assert home.published("readings") == {}
    assert home.night(DAYS[4], first=DAYS[0], allow_gap=True) == 0
    for one in (home, other):
        one.land(DAYS[2], 5)
    for last in (DAYS[4], DAYS[5]):
        assert home.night(last) == other.night(last) == 0
        require_alike(home, other, DAYS[:6])


def test_the_file_of_a_ranges_last_night_is_waited_for_also_where_gaps_are_allowed(
    home: Home,
) -> None:
    home._file(DAYS[2]).unlink()
    assert home.night(DAYS[2], first=DAYS[0], allow_gap=True) == NotLanded.exit_code


def test_a_hole_is_recorded_and_told_as_a_refusal_of_the_first_stage(home: Home) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    run = home.run(DAYS[2])
    with pytest.raises(Refused) as refused:
        night.make_true(run, STAGES)
    of_run = [("run_id", "=", run.run_id)]
    (row,) = ops.read(home.environment, "stage_runs", of_run).to_pylist()
    recorded = (row["stage"], row["status"], row["first_day"], row["last_day"])
    assert recorded == ("ingest", "refused", DAYS[2], DAYS[2])
    assert row["error"] == str(refused.value)
    log = home.environment.logs / "notifications.log"
    (told,) = map(json.loads, log.read_text().splitlines())
    about = (told["event"], told["stage"], told["message"])
    assert about == ("stage_refused", "ingest", str(refused.value))


def test_a_night_of_an_optional_feed_is_no_hole_and_its_late_file_is_read(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True)
    home.pipeline = replace(TINY, feeds=(optional, *TINY.feeds[1:]))
    home.night(DAYS[0])
    ids = home.ids_in(DAYS[1])
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == []
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    home.land(DAYS[1], *ids)
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == ids


def test_an_old_day_of_an_optional_feed_is_read_when_its_marker_is_there_too(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True, marker="{date}.done")
    home.pipeline = replace(TINY, feeds=(optional, *TINY.feeds[1:]))
    for day in DAYS:
        home.mark(day)
    ids = home.ids_in(DAYS[1])
    home._file(DAYS[1]).unlink()
    home._marker(DAYS[1]).unlink()
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    assert home.published("readings")[DAYS[1]] == []
    home.land(DAYS[1], *ids)
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == []
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
    of_readings = [row[4] for row in rows if row[0] == "tiny.readings"]
    (told,) = filter(None, of_readings)
    assert told == (
        "tiny/readings/2013-01-06.csv has landed, and cannot be read: tiny/2013-01-06.done "
        "is not there"
    )
    home.mark(DAYS[1])
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == ids


def test_a_corrected_file_is_read_when_its_marker_has_come_again(home: Home) -> None:
    marked = replace(TINY.feeds[0], marker="{date}.done")
    home.pipeline = replace(TINY, feeds=(marked, *TINY.feeds[1:]))
    for day in DAYS:
        # In any order, as where files are copied: of a first delivery both only have to be there.
        home.mark(day)
    arrivals: dict[Path, int] = {}

    def arrived(path: Path) -> datetime:
        return datetime.fromtimestamp(arrivals.get(path, 1), UTC)

    with pytest.MonkeyPatch.context() as patched:
        # The file system's clock cannot be set.
        patched.setattr(knowledge, "arrival", arrived)
        assert home.night(DAYS[2], first=DAYS[0]) == 0
        home.land(DAYS[1], 7)
        arrivals[home._file(DAYS[1])] = 3
        assert home.night(DAYS[3]) == 0
        assert home.published("readings")[DAYS[1]] == [10, 11]
        with home._stages():
            rows = plan(home.run(DAYS[3])).rows
        of_readings = [row[4] for row in rows if row[0] == "tiny.readings"]
        (told,) = filter(None, of_readings)
        assert str(told).endswith("cannot be read: tiny/2013-01-06.done is older than its file")
        home.mark(DAYS[1])
        arrivals[home._marker(DAYS[1])] = 3
        assert home.night(DAYS[3]) == 0
        assert home.published("readings")[DAYS[1]] == [7]


def test_a_missed_night_whose_optional_file_is_announced_is_a_hole(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True, marker="{date}.done")
    home.pipeline = replace(TINY, feeds=(optional, *TINY.feeds[1:]))
    for day in DAYS:
        home.mark(day)
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    with pytest.raises(Refused, match=r"2013-01-06: tiny/readings/2013-01-06.csv"):
        home.night(DAYS[2])
    assert home.night(DAYS[2], allow_gap=True) == 0


@pytest.mark.parametrize(
    "more",
    [{"first_day": DAYS[3]}, {"is_optional": True}],
)
@pytest.mark.parametrize("are_gone", [False, True])
def test_a_feed_that_is_declared_later_asks_for_no_file_of_nights_that_were_made(
    home: Home, more: dict[str, Any], are_gone: bool
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    before = {name: home.published(name) for name in ("marks", "sums", "training")}
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv", **more)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home._write(home.environment.landing / "tiny" / late.file(DAYS[3]), ())
    if are_gone:
        # Whoever lands files may tidy up what was read long ago.
        for day in DAYS[:3]:
            home._file(day).unlink()
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
    missing = [row[2] for row in rows if row[:2] == ("tiny.late", "missing")]
    assert missing == [1]
    current = [row for row in rows if row[:2] == ("tiny.late", "current")]
    without = [row[2:4] for row in current]
    assert without == [(3, f"{DAYS[0]}..{DAYS[2]}")]
    assert home.night(DAYS[3]) == 0
    # An old night is neither read nor judged once more.
    assert stages_of(home)["ingest"] == [str(DAYS[3])]
    made = {name: home.published(name) for name in before}
    found = {name: list(days)[:3] for name, days in made.items()}
    assert found == dict.fromkeys(before, DAYS[:3])
    assert made["sums"][DAYS[3]] == [21 + 41 + 61]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    if are_gone:
        # So it is where such a night is named.
        assert home.night(DAYS[2], first=DAYS[0]) == 0
        assert home.performed == []
        assert home.night(DAYS[2], rescore=True) == 0
        assert stages_of(home)["predict"] == [str(DAYS[2])]


def test_a_correction_has_the_files_of_its_own_feed_read_alone(home: Home) -> None:
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    for day in DAYS[:5]:
        home.land_of("other", day, 5)
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    of_other = publications.in_force(home.run(DAYS[3]), "other")
    home.land(DAYS[0], 7)
    home.land_of("other", DAYS[1], 8)
    home.land(DAYS[2], 7)
    home.land_of("other", DAYS[2], 8)
    run = home.run(DAYS[4])
    found = survey.Survey(run)
    planned = of_stage(run, STAGES[0], found)
    asked = {one.days.first: one.tables for one in planned}
    assert asked == {
        DAYS[0]: ("readings",),
        DAYS[1]: ("other",),
        DAYS[2]: ("readings", "other"),
        DAYS[4]: (),
    }
    assert home.night(DAYS[4]) == 0
    rows = home.published("other")
    corrected = [day for day, ids in rows.items() if ids == [8]]
    assert corrected == DAYS[1:3]
    now = publications.in_force(home.run(DAYS[4]), "other")
    stay = [day for day, before in of_other.items() if now[day] == before]
    assert stay == [DAYS[0], DAYS[3]]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_a_raw_table_that_is_lost_has_the_files_of_its_own_feed_read_alone(home: Home) -> None:
    _with_another_feed(home)
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    of_other = publications.in_force(home.run(DAYS[3]), "other")
    shutil.rmtree(path(home.run(DAYS[3]), "readings"))
    run = home.run(DAYS[4])
    planned = of_stage(run, STAGES[0], survey.Survey(run))
    assert [(one.days, one.tables) for one in planned] == [
        (Days(DAYS[0], DAYS[3]), ("readings",)),
        (Days.of(DAYS[4]), ()),
    ]
    assert home.night(DAYS[4]) == 0
    now = publications.in_force(home.run(DAYS[4]), "other")
    assert now.pop(DAYS[4]).rows == 0
    assert now == of_other
    assert set(home.published("readings")) == set(DAYS[:5])


def test_a_day_that_is_asked_for_by_name_has_what_changed_read_alone(home: Home) -> None:
    _with_another_feed(home)
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.land_of("other", DAYS[1], 8)
    run = home.run(DAYS[2], DAYS[0])
    (planned,) = of_stage(run, STAGES[0], survey.Survey(run))
    assert planned.days == Days.of(DAYS[1])
    assert planned.tables == ("other",)
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    assert home.as_of("other", DAYS[1])[DAYS[1]] == [8]


def test_a_feed_that_is_named_anew_is_read_for_every_night_that_was_made(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    anew = replace(TINY.feeds[0], name="anew")
    marks = replace(MARKS, reads=("anew",))
    home.pipeline = replace(
        TINY,
        feeds=(anew, *TINY.feeds[1:]),
        derived=(marks, SUMS),
        entity_table="anew",
    )
    assert told_of(home, "missing", DAYS[3])[0][:3] == (
        "tiny.anew",
        4,
        f"{DAYS[0]}..{DAYS[3]}",
    )
    # What nobody can read any more is told as ever.
    home._file(DAYS[1]).unlink()
    run = home.run(DAYS[3])
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/readings/{DAYS[1]}.csv"):
        require_no_hole(run, survey.Survey(run))


def test_stages_after_ingest_make_nights_anew_that_lack_a_feed_that_was_declared_later(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    shape = select(["transform", "check_clean", "features"])
    home.performed.clear()
    assert home.restate(DAYS[0], DAYS[2], stages=shape) == 0
    assert stages_of(home)["features"] == [f"{DAYS[0]}..{DAYS[2]}"]


def test_a_changed_file_of_before_the_first_day_of_its_feed_is_told_and_not_read(
    home: Home,
) -> None:
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    folder = home.environment.landing / "tiny"
    files = [folder / other.file(day) for day in DAYS[:3]]
    for file in files:
        home._write(file, (1,))
    home.night(DAYS[2], first=DAYS[0])
    before = home.published("other")
    later = replace(other, first_day=DAYS[1])
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, later))
    home._write(files[0], (2,))
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    reasons = [row[4] for row in rows if row[:2] == ("tiny.other", "current")]
    assert "its feed is declared to have no drop of that day; its rows stay" in reasons
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    assert home.published("other") == before


@pytest.mark.parametrize("is_gone", [False, True])
def test_what_was_refused_of_a_day_that_a_feed_has_no_more_keeps_no_night_busy(
    home: Home, is_gone: bool
) -> None:
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    file = home.environment.landing / "tiny" / other.file(DAYS[0])
    for day in DAYS[:3]:
        home._write(file.with_name(f"{day}.csv"), (1,))
    home.night(DAYS[2], first=DAYS[0])
    own = file_input(f"tiny/{other.file(DAYS[0])}", DAYS[0], file)
    refused = replace(own, digest="of one that was refused")
    quarantine(home, DAYS[0], [1, 2], refused, "other")
    later = replace(other, first_day=DAYS[1])
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, later))
    if is_gone:
        file.unlink()
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    told = [row[4] for row in rows if row[:2] == ("tiny.other", "current")]
    assert "its feed is declared to have no drop of that day; its rows stay" in told
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_feed_that_is_declared_without_its_first_day_is_refused_with_the_way_out(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home._write(home.environment.landing / "tiny" / late.file(DAYS[3]), ())
    way_out = r"Of a feed that is new \(late\) declare the first_day"
    with pytest.raises(Refused, match=way_out):
        home.night(DAYS[3])
    began = replace(late, first_day=DAYS[3])
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, began))
    assert home.night(DAYS[3]) == 0
    home._file(DAYS[4]).unlink()
    with pytest.raises(Refused, match="lack files") as refused:
        home.night(DAYS[5])
    assert "first_day" not in str(refused.value)


def test_a_late_drop_is_read_though_the_nights_other_files_are_gone(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home.land_of("late", DAYS[1], 7)
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[3]) == 0
    ingested = stages_of(home)["ingest"]
    assert ingested == [str(DAYS[1]), str(DAYS[3])]
    assert home.published("late")[DAYS[1]] == [7]
    assert home.published("readings")[DAYS[1]] == [10, 11]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_a_late_drop_of_the_runs_own_night_is_told_where_other_files_are_gone(home: Home) -> None:
    """The files of a night that is named, and not whole, are read together."""
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home.land_of("late", DAYS[1], 7)
    home._file(DAYS[1]).unlink()
    with home._stages():
        rows = plan(home.run(DAYS[1])).rows
    told = [row[4] for row in rows if row[:2] == ("tiny.late", "current")]
    why = "has landed, and cannot be read: tiny/readings/2013-01-06.csv is not there"
    assert f"tiny/late/2013-01-06.csv {why}" in told
    assert home.night(DAYS[1]) == 0


def test_a_correction_is_read_though_the_file_of_another_feed_is_gone(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True)
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(optional, other, *TINY.feeds[1:]))
    for day in DAYS:
        home.land_of("other", day)
    home.night(DAYS[2], first=DAYS[0])
    home._file(DAYS[1]).unlink()
    home.land_of("other", DAYS[1], 7)
    home.land_of("other", DAYS[2], 8)
    assert home.night(DAYS[3]) == 0
    assert home.published("other")[DAYS[1]] == [7]
    assert home.published("readings")[DAYS[1]] == [10, 11]
    # So it is where its day is asked for by name, which reads nothing else either.
    home.land_of("other", DAYS[1], 9)
    assert home.night(DAYS[1]) == 0
    assert home.as_of("other", DAYS[1])[DAYS[1]] == [9]
    assert home.published("readings")[DAYS[1]] == [10, 11]
    assert home.restate(DAYS[0], DAYS[2], allow_gap=True) == 0
    assert home.published("readings")[DAYS[1]] == [10, 11]
    # Once it is there again, or one without rows in its place, it is read.
    home.land(DAYS[1])
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == []


def test_a_feed_that_has_lost_its_table_is_not_taken_for_one_that_was_declared_later(
    home: Home,
) -> None:
    optional = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, optional))
    home.night(DAYS[2], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "late"))
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[2]) == 0
    # Of nights before its own it is read alone, so that no other file is asked for.
    assert stages_of(home)["ingest"] == [f"{DAYS[0]}..{DAYS[1]}", str(DAYS[2])]
    assert set(home.published("late")) == set(DAYS[:3])


def test_rows_of_an_optional_file_that_are_lost_together_with_it_are_a_hole(home: Home) -> None:
    optional = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, optional))
    home.land_of("late", DAYS[1], 7)
    home.night(DAYS[2], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "late"))
    home._file(DAYS[1], "late").unlink()
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/late/{DAYS[1]}.csv"):
        home.night(DAYS[3])
    # Once a person says that it has none, the night has none.
    home.land_of("late", DAYS[1])
    assert home.night(DAYS[3]) == 0
    assert home.published("late")[DAYS[1]] == []
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_of_an_old_night_the_file_of_a_feed_declared_since_is_asked_for_alone(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    new = replace(TINY.feeds[0], name="new", path="new/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, new))
    for day in DAYS[:4]:
        home._write(home.environment.landing / f"tiny/new/{day}.csv", ())
    file = home._file(DAYS[1], "new")
    file.rename(file.with_suffix(".away"))
    home._file(DAYS[1]).unlink()
    told = rf"- {DAYS[1]}: tiny/new/{DAYS[1]}.csv\n(?s:.*)declare"
    with pytest.raises(Refused, match=told):
        home.night(DAYS[3])
    file.with_suffix(".away").rename(file)
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["ingest"] == [f"{DAYS[0]}..{DAYS[2]}", str(DAYS[3])]
    assert home.published("readings")[DAYS[1]] == [10, 11]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def _with_another_feed(home: Home) -> None:
    """A second daily feed, whose files of all days have landed."""
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    for day in DAYS:
        home._write(home.environment.landing / f"tiny/other/{day}.csv", ())


def test_a_night_killed_between_its_raw_tables_is_a_hole_once_a_file_that_it_lacks_is_gone(
    home: Home,
) -> None:
    _with_another_feed(home)
    home.night(DAYS[0])
    home.publishes_until_kill = 0
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[1])
    home._waiting.clear()
    home._file(DAYS[1]).unlink()
    home._file(DAYS[1], "other").unlink()
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/other/{DAYS[1]}.csv\n"):
        home.night(DAYS[2])
    assert home.night(DAYS[2], allow_gap=True) == 0
    assert home.night(DAYS[2], allow_gap=True) == 0
    assert home.performed == []
    # What it has of the other feed needs no file any more.
    home.land_of("other", DAYS[1], 5)
    assert home.night(DAYS[2]) == 0
    assert home.published("other")[DAYS[1]] == [5]


@pytest.mark.parametrize("is_gone", [False, True])
def test_stages_after_ingest_make_no_night_that_was_killed_between_its_raw_tables(
    home: Home, is_gone: bool
) -> None:
    _with_another_feed(home)
    home.night(DAYS[0])
    home.publishes_until_kill = 0
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[1])
    home._waiting.clear()
    assert DAYS[1] in home.published("readings")
    assert DAYS[1] not in home.published("other")
    why = "'ingest' has not read its files"
    if is_gone:
        (home.environment.landing / f"tiny/other/{DAYS[1]}.csv").unlink()
        why = f"tiny/other/{DAYS[1]}.csv is not there"
    home.performed.clear()
    shape = select(["transform", "check_clean", "features"])
    with pytest.raises(Refused, match=f"  - {DAYS[1]}: {why}"):
        home.restate(DAYS[1], DAYS[1], stages=shape)
    assert not home.performed


def test_stages_after_ingest_make_no_night_of_a_first_load_that_was_killed_between_raw_tables(
    home: Home,
) -> None:
    _with_another_feed(home)
    # The register is the first that is published.
    home.publishes_until_kill = 1
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[1], first=DAYS[0])
    home._waiting.clear()
    assert list(home.published("readings")) == DAYS[:2]
    assert not home.published("other")
    home.performed.clear()
    shape = select(["transform", "check_clean", "features"])
    for day in DAYS[:2]:
        with pytest.raises(Refused, match=f"  - {day}: 'ingest' has not read its files"):
            home.restate(day, day, stages=shape)
    assert not home.performed
    # The next night makes them whole, each as it would have been.
    assert home.night(DAYS[2]) == 0
    for day in DAYS[:3]:
        assert day in home.as_of("other", day)
    assert home.restate(DAYS[1], DAYS[1], stages=shape) == 0


def test_stages_after_ingest_make_no_night_that_has_lost_a_raw_table(home: Home) -> None:
    _with_another_feed(home)
    home.night(DAYS[1], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "other"))
    shape = select(["transform", "check_clean", "features"])
    with pytest.raises(Refused, match=f"  - {DAYS[1]}: 'ingest' has not read its files"):
        home.restate(DAYS[1], DAYS[1], stages=shape)


def test_a_night_whose_own_file_is_late_says_so_and_makes_nothing(home: Home) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[1]) == NotLanded.exit_code
    assert list(home.published("readings")) == DAYS[:1]


def test_the_plan_tells_of_a_changed_register_whose_marker_has_not_come_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, sensors = TINY.feeds
    home.pipeline = replace(TINY, feeds=(readings, replace(sensors, marker="sensors.done")))
    marker = home.environment.landing / "tiny/sensors.done"
    home._write(marker, ())
    home.night(DAYS[1], first=DAYS[0])
    home.land_register(2)
    arrivals = {home._register: 3, marker: 2}

    def arrived(path: Path) -> datetime:
        return datetime.fromtimestamp(arrivals.get(path, 1), UTC)

    monkeypatch.setattr(knowledge, "arrival", arrived)
    reasons = [row[3] for row in told_of(home, "current", DAYS[1])]
    (told,) = filter(None, reasons)
    assert told == (
        "tiny/sensors.csv has changed: its rows of before stay until tiny/sensors.done comes again"
    )
    # A correction is read in spite of it.
    home.land(DAYS[0], 7)
    assert home.night(DAYS[1]) == 0
    assert home.published("readings")[DAYS[0]] == [7]
    arrivals[marker] = 3
    assert home.night(DAYS[2]) == 0
    assert home.register_of(DAYS[2]) == [2]


def test_a_reference_file_that_a_kill_left_unrecorded_is_recorded_though_it_never_changes(
    home: Home,
) -> None:
    home.land(DAYS[0], 1)
    home.publishes_until_kill = 0
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[0])
    # What it had staged is gone with the run.
    home._waiting.clear()
    assert tables_on_record(home) == set()
    assert home.registered() == {DAYS[0]: [1]}
    assert home.night(DAYS[0]) == 0
    assert home.registered() == {DAYS[0]: [1]}
    assert {"tiny.readings", "tiny.sensors"} <= tables_on_record(home)


def test_what_was_never_recorded_is_recorded_by_a_night_that_has_nothing_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.land(DAYS[0], 1)
    home.promote(DAYS[0])
    with monkeypatch.context() as failing:
        failing.setattr(publications, "record", lambda *_: None)
        assert home.night(DAYS[0]) == 0
    assert tables_on_record(home) == set()
    assert home.night(DAYS[0]) == 0
    assert home.performed == []
    tables = {table.name for table in TINY.tables}
    assert tables_on_record(home) == {f"tiny.{name}" for name in tables}
    rows = recorded_publications(home).num_rows
    assert home.night(DAYS[0]) == 0
    assert recorded_publications(home).num_rows == rows
