"""A changed definition is told, and spreads over no day by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from itertools import chain

import pytest

from jobs import night
from jobs.commands.plan import plan
from jobs.lake import publications
from jobs.planning import survey
from jobs.planning.passes import Pass, of_stage
from pipelines.days import Days
from pipelines.spec import Table
from pipelines.stages import STAGES, stage
from tests.jobs.tiny_home import DAYS, MARKS, OUTCOMES, SUMS, TINY, Home, no_definitions, stages_of


def test_the_plan_tells_of_another_definition_and_a_night_spreads_none(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    with pytest.MonkeyPatch.context() as patched:
        changed = {**no_definitions(None), "sums": "another"}
        patched.setattr(survey, "definitions", lambda _: changed)
        rows = plan(home.run(DAYS[1])).rows
    # These publications were made without any definition.
    assert {row[1] for row in rows} == {"current"}
    home.definition = "before"
    home.restate(DAYS[2], DAYS[2])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(survey, "definitions", no_definitions)
        rows = plan(home.run(DAYS[2])).rows
    told = {row[0]: (row[1], row[4]) for row in rows}
    another = "made by another definition"
    assert told["tiny.scoring"] == ("outdated", f"{another}; --restate makes these days anew")
    stays = "stays as it was served, --rescore makes a new revision"
    assert told["tiny.predictions"] == ("served", f"{another}; {stays}")
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def _published_on_record(home: Home) -> set[tuple[str, date, datetime]]:
    """Every publication: its table, the night that it is of, and when it was made."""
    tables = home.pipeline.tables
    names = [table.name for table in tables]
    told = publications.told_of(home.run(DAYS[-1]), names)
    found = set()
    for table in tables:
        for one in told[table.name]:
            found.add((table.name, table.night_of(one.day), one.published_at))
    return found


def _definitions_of(home: Home, night: date) -> dict[str, str]:
    """By which definition each made table has that night."""
    run = home.run(DAYS[-1])
    names = ("marks", "sums", "training", "scoring")
    return {name: publications.in_force(run, name)[night].definition for name in names}


@pytest.mark.parametrize("corrected", [DAYS[1], DAYS[3]])
@pytest.mark.parametrize("by_tasks", [False, True])
def test_a_correction_spreads_no_definition_over_tables_that_do_not_follow_from_it(
    home: Home, corrected: date, by_tasks: bool
) -> None:
    home.definition = "before"
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.definition = "another"
    home.land(corrected, 7)
    with home._stages():
        foreseen = chain.from_iterable(survey.Survey(home.run(DAYS[4])).foreseen())
        to_do = [one for one in foreseen if one.state in ("missing", "stale")]
    before = _published_on_record(home)
    home.performed.clear()
    if by_tasks:
        assert home.night_by_tasks(DAYS[4], len(STAGES), lambda: None) == 0
    else:
        assert home.night(DAYS[4]) == 0
    made = {(name, night) for name, night, _ in _published_on_record(home) - before}
    assert made == {(one.table.name, one.night) for one in to_do}
    # Marks follow from the file. The sums of that night, and what it scored, saw none of it.
    assert _definitions_of(home, corrected) == {
        "marks": "another",
        "sums": "before",
        "training": "another",
        "scoring": "before",
    }
    assert set(_definitions_of(home, DAYS[4]).values()) == {"another"}
    for name in ("transform", "features"):
        assert stages_of(home)[name] == [str(corrected), str(DAYS[4])]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_a_table_that_is_new_spreads_no_definition_over_the_others(home: Home) -> None:
    home.definition = "before"
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.definition = "another"
    home.pipeline = replace(TINY, derived=(*TINY.derived, OUTCOMES))
    assert home.night(DAYS[4]) == 0
    assert list(home.published("outcomes")) == DAYS[:5]
    for before in DAYS[:4]:
        assert set(_definitions_of(home, before).values()) == {"before"}
    assert set(_definitions_of(home, DAYS[4]).values()) == {"another"}


def test_nights_that_need_other_tables_are_one_pass_where_no_definition_has_changed(
    home: Home,
) -> None:
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.land(DAYS[3], 7)
    assert home.night(DAYS[4]) == 0
    for name in ("transform", "features"):
        assert stages_of(home)[name] == [f"{DAYS[3]}..{DAYS[4]}"]


def test_transforms_that_cannot_be_read_are_left_to_the_stage_that_tells_it(home: Home) -> None:
    def definitions(_: object) -> dict[str, str]:
        raise SyntaxError("invalid syntax")

    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.land(DAYS[3], 7)
    run = home.run(DAYS[4])
    with home._stages(), pytest.MonkeyPatch.context() as patched:
        assert night.make_true(run, STAGES[:2], notify=False) == 0
        patched.setattr(survey, "definitions", definitions)
        planned = of_stage(run, stage("transform"), survey.Survey(run))
    both = Days(DAYS[3], DAYS[4])
    assert planned == [Pass(days=both, tables=("marks", "sums"))]


@pytest.mark.parametrize(
    "derived",
    [
        (MARKS, replace(SUMS, name="totals")),
        (MARKS,),
    ],
)
def test_a_table_that_is_declared_no_more_keeps_nothing_from_being_planned(
    derived: tuple[Table, ...], home: Home
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    # What is scored was made from the sums of these nights.
    home.pipeline = replace(TINY, derived=derived)
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    told = {row[0]: row[1] for row in rows}
    assert told["tiny.scoring"] == told["tiny.training"] == "current"
    assert told.get("tiny.totals", "missing") == "missing"
    assert "tiny.sums" not in told
    if "tiny.totals" not in told:
        assert home.night(DAYS[2]) == 0
        assert home.performed == []
