"""What was refused of a day, and what the plan tells of it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from jobs import night
from jobs.commands.plan import plan
from jobs.lake import commits, publications
from jobs.lake.locations import path
from jobs.lake.publications import Origin, file_input
from pipelines.spec import QUARANTINE_SUFFIX
from pipelines.stages import stage
from tests.jobs.tiny_home import DAYS, LOST, TINY, Home, quarantine, staged_as, stages_of, told_of


@pytest.mark.parametrize(
    ("own", "of_refused"),
    [
        ([], [1, 2]),
        ([1], [1, 2]),
        ([1], []),
    ],
)
def test_rows_in_quarantine_of_a_correction_that_was_taken_back_are_made_anew(
    home: Home, own: list[int], of_refused: list[int]
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    file = home._input(DAYS[1])
    if own:
        quarantine(home, DAYS[1], own, file)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    # The refused file has gone, and that of before is there again: no input has changed.
    quarantine(home, DAYS[1], of_refused, replace(file, digest="of the refused one"))
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    to_do = [row for row in rows if row[1] in ("stale", "due")]
    stale = [(row[0], *row[2:]) for row in to_do]
    why = "tiny.readings_quarantine is of another file"
    # What is published stays, and so does all that is made of it.
    assert stale == [("tiny.readings", 1, str(DAYS[1]), why)]
    assert home.night(DAYS[2]) == 0
    assert stages_of(home) == {
        "ingest": [str(DAYS[1])],
        "check_raw": [str(DAYS[1])],
    }
    quarantine(home, DAYS[1], own, file)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_rows_in_quarantine_of_an_optional_file_that_was_withdrawn_go_with_it(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True)
    home.pipeline = replace(TINY, feeds=(optional, *TINY.feeds[1:]))
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    home.land(DAYS[1], 7)
    quarantine(home, DAYS[1], [7], home._input(DAYS[1]))
    home._file(DAYS[1]).unlink()
    why = "tiny.readings_quarantine is of another file"
    stale = told_of(home, "stale", DAYS[2])
    assert stale == [("tiny.readings", 1, str(DAYS[1]), why)]
    assert home.night(DAYS[2]) == 0
    assert set(stages_of(home)) == {"ingest", "check_raw"}
    run = home.run(DAYS[2])
    refused = publications.in_force(run, "readings" + QUARANTINE_SUFFIX)
    assert refused[DAYS[1]].rows == 0
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_published_file_that_nobody_may_read_any_more_is_told_as_a_changed_one(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    # As root may read every file, it is a folder here.
    home._file(DAYS[1]).unlink()
    home._file(DAYS[1]).mkdir()
    changed = f"tiny/readings/{DAYS[1]}.csv has changed; known from {DAYS[3]}"
    stale = told_of(home, "stale")
    assert stale[0] == ("tiny.readings", 1, str(DAYS[1]), changed)


def test_the_plan_tells_of_a_file_that_nobody_may_look_at(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    # As root may look at every file, its name is longer than any can be here.
    home._file(DAYS[3]).unlink()
    home._file(DAYS[3]).symlink_to("x" * 300)
    missing = told_of(home, "missing")
    assert missing[0] == ("tiny.readings", 1, str(DAYS[3]), "never published")


def test_the_plan_tells_no_night_of_a_gap_as_one_of_those_around_it(home: Home) -> None:
    home._file(DAYS[1]).unlink()
    run = home.run(DAYS[3], DAYS[0])

    def planned(state: str) -> list[tuple[object, ...]]:
        rows = plan(run, allow_gap=True).rows
        return [row[2:4] for row in rows if row[:2] == ("tiny.readings", state)]

    around = [(1, str(DAYS[0])), (2, f"{DAYS[2]}..{DAYS[3]}")]
    with home._stages():
        assert planned("missing") == around
        assert home.night(DAYS[3], first=DAYS[0], allow_gap=True) == 0
        assert planned("current") == around


def test_rows_in_quarantine_of_a_register_that_was_taken_back_are_made_anew(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    file = file_input("tiny/sensors.csv", DAYS[0], home._register)
    # Those of the snapshot are its own, as long as no other is known.
    quarantine(home, DAYS[0], [1], file, "sensors")
    assert home.night(DAYS[3]) == 0
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    quarantine(
        home,
        DAYS[2],
        [1, 2],
        replace(file, digest="of a refused one"),
        "sensors",
    )
    assert home.night(DAYS[3]) == 0
    assert stages_of(home) == {
        "ingest": [str(DAYS[2])],
        "check_raw": [str(DAYS[2])],
    }
    quarantine(home, DAYS[2], [], file, "sensors")
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_the_plan_tells_of_days_with_more_bad_rows_than_are_allowed_by_now(home: Home) -> None:
    # One of the two rows of each of these days.
    home.refuses = lambda one: one in (11, 21)
    home.night(DAYS[3], first=DAYS[0])
    file = file_input("tiny/sensors.csv", DAYS[0], home._register)
    quarantine(home, DAYS[0], [2], file, "sensors")
    assert not [row for row in told_of(home, "current") if row[3]]
    lowered = [replace(feed, max_quarantine_share=0.4) for feed in TINY.feeds]
    home.pipeline = replace(TINY, feeds=tuple(lowered))
    why = (
        "more of its rows are bad than the 40.0% that it allows by now (max_quarantine_share); "
        "they were accepted and stay, and --restate refuses them"
    )
    told = [row for row in told_of(home, "current") if row[3]]
    assert told == [
        ("tiny.readings", 2, f"{DAYS[1]}..{DAYS[2]}", why),
        ("tiny.sensors", 1, str(DAYS[3]), why),
    ]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_a_quarantine_of_a_register_whose_folder_is_gone_is_made_again_from_its_file(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    file = file_input("tiny/sensors.csv", DAYS[0], home._register)
    quarantine(home, DAYS[0], [1], file, "sensors")
    run = home.run(DAYS[3])
    name = f"sensors{QUARANTINE_SUFFIX}"
    shutil.rmtree(path(run, name))
    why = f"tiny.{name} {LOST}"
    assert told_of(home, "stale") == [("tiny.sensors", 1, str(DAYS[3]), why)]
    assert home.night(DAYS[3]) == 0
    assert stages_of(home) == {
        "ingest": [str(DAYS[3])],
        "check_raw": [str(DAYS[3])],
    }
    quarantine(home, DAYS[0], [1], file, "sensors")
    publications.forget_made_anew(run, name, [DAYS[0]])
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_a_quarantine_whose_folder_is_gone_is_made_again_from_the_files(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    refused = DAYS[1:4]
    for day in refused:
        quarantine(home, day, [1, 2], home._input(day))
    run = home.run(DAYS[3])
    name = f"readings{QUARANTINE_SUFFIX}"
    shutil.rmtree(path(run, name))
    why = f"tiny.{name} {LOST}"
    assert told_of(home, "stale") == [("tiny.readings", 3, f"{DAYS[1]}..{DAYS[3]}", why)]
    assert home.night(DAYS[3]) == 0
    assert stages_of(home) == {
        "ingest": [f"{DAYS[1]}..{DAYS[2]}", str(DAYS[3])],
        "check_raw": [f"{DAYS[1]}..{DAYS[2]}", str(DAYS[3])],
    }
    # Killed after ingestion has put the rows of one day there, and before the check.
    quarantine(home, DAYS[1], [1, 2], home._input(DAYS[1]))
    assert told_of(home, "stale") == [("tiny.readings", 3, f"{DAYS[1]}..{DAYS[3]}", why)]
    publications.forget_made_anew(run, name, [DAYS[1]])
    assert told_of(home, "stale") == [("tiny.readings", 2, f"{DAYS[2]}..{DAYS[3]}", why)]
    # A file that is gone cannot be read again; and another one has other rows to be refused.
    home._file(DAYS[2]).unlink()
    home.land(DAYS[3], 7)
    assert home.night(DAYS[3]) == 0
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    gone = f"{why}, and cannot be read: tiny/readings/{DAYS[2]}.csv is not there"
    assert ("tiny.readings", 1, str(DAYS[2]), gone) in told_of(home, "current")


def test_rows_of_a_made_table_that_were_refused_and_lost_are_refused_again(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    run = night._numbered(home.run(DAYS[1]).at(stage("transform")))
    name = f"marks{QUARANTINE_SUFFIX}"
    made = publications.in_force(run, "marks")[DAYS[1]]
    origin = Origin(definition=made.definition, inputs={DAYS[1]: made.inputs})
    waiting = staged_as(run, name, {DAYS[1]: [1]}, origin)
    commits.publish(run, name, waiting)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    shutil.rmtree(path(run, name))
    assert home.night(DAYS[2]) == 0
    made_again = [str(DAYS[1])]
    assert stages_of(home) == {"transform": made_again, "check_clean": made_again}
    publications.forget_made_anew(run, name, [DAYS[1]])
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_file_without_bad_rows_needs_no_quarantine(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    quarantine(home, DAYS[1], [1], home._input(DAYS[1]))
    home.land(DAYS[1], 7)
    quarantine(home, DAYS[1], [], home._input(DAYS[1]))
    home.land(DAYS[1], 8)
    assert home.night(DAYS[2]) == 0
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
