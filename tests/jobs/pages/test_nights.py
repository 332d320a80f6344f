"""The page of nights says what the plan says, and why a night was refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench import recorded_year
from bench.recorded_year import YEAR
from jobs.commands.plan import plan
from jobs.lake import ops, sql
from jobs.pages.nights import Night, Nights, below_reports, nights
from jobs.planning import survey
from pipelines import replay
from pipelines.days import Days, parse_day
from pipelines.environment import Environment
from pipelines.errors import Refused
from pipelines.flights import PIPELINE as FLIGHTS
from pipelines.spec import Replay
from tests.jobs.tiny_home import DAYS, TINY, Home, no_definitions, without_model


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    for number, day in enumerate(DAYS):
        made.land(day, 10 * number, 10 * number + 1)
    return made


def after(night: date) -> datetime:
    """When that night is the last that is over."""
    moment = datetime(night.year, night.month, night.day, 12, tzinfo=UTC)
    return moment + timedelta(days=1)


def shown(home: Home, last: date) -> Nights:
    return nights(home.environment, TINY, after(last))


def by_plan(
    home: Home,
    last: date,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[Any, tuple[str, str]]:
    """State and reason of each table and night, as `nightshift plan` tells them."""
    monkeypatch.setattr(survey, "definitions", no_definitions)
    found = {}
    for what, state, _, days, reason in plan(home.run(last)).rows:
        schema, _, table = str(what).partition(".")
        first, _, end = str(days).partition("..")
        if schema == "tiny" and table:
            for night in Days(parse_day(first), parse_day(end or first)):
                found[table, night] = (str(state), str(reason))
    return found


def told(page: Nights) -> dict[Any, tuple[str, str]]:
    return {
        (cell.table, night.day): (cell.state, cell.reason)
        for night in page.nights
        for cell in night.cells
        if cell.state
    }


def test_every_cell_says_what_the_plan_says(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 500)
    page = shown(home, DAYS[4])
    expected = by_plan(home, DAYS[4], monkeypatch)
    assert told(page) == expected
    states = {state for state, _ in expected.values()}
    assert states == {"current", "stale", "missing"}
    assert [night.day for night in page.nights] == DAYS[4::-1]
    assert page.to_make == DAYS[4]
    assert sum(page.counts.values()) == len(page.nights) * len(page.tables)


def test_counts_are_those_of_sql(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home.night(DAYS[2])
    page = shown(home, DAYS[4])
    # Without a champion the newest night alone is to have predictions.
    published = (
        "SELECT count(DISTINCT (table_name, day)) FROM ops.publications "
        "WHERE table_name <> 'tiny.predictions'"
    )
    ((current,),) = sql.query(home.environment, published)[1]
    assert page.counts["current"] == current
    in_all = sum(count for state, count in page.counts.items() if state)
    assert page.counts["missing"] == in_all - current > 0
    # Each night's last run.
    each = f"range(DATE '{DAYS[0]}', DATE '{DAYS[5]}', INTERVAL 1 DAY) AS each(night)"
    runs = (
        f"SELECT night::DATE, arg_max(run_id, started_at) FROM ops.stage_runs, {each} "
        "WHERE night BETWEEN first_day AND last_day GROUP BY 1"
    )
    by_night = dict(sql.query(home.environment, runs)[1])
    assert {night.day: night.run_id for night in page.nights if night.run_id} == by_night


def test_what_was_served_is_told_as_by_the_plan_and_not_to_be_made(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[2], 3)
    home.night(DAYS[2])
    page = shown(home, DAYS[2])
    assert told(page) == by_plan(home, DAYS[2], monkeypatch)
    assert (page.counts["served"], page.to_make) == (1, None)


def test_days_that_another_definition_made_are_told_and_not_to_be_made(home: Home) -> None:
    home.definition = "before"
    home.night(DAYS[1], first=DAYS[0])
    home.definition = "today"
    home.night(DAYS[2])
    page = shown(home, DAYS[2])
    states = {place: state for place, (state, _) in told(page).items()}
    outdated = {day for (_, day), state in states.items() if state == "outdated"}
    assert outdated == {DAYS[0], DAYS[1]}
    reasons = {reason for state, reason in told(page).values() if state == "outdated"}
    assert reasons == {"made by another definition; --restate makes these days anew"}
    assert (page.to_make, page.work) == (None, ())


def test_a_night_that_awaits_a_person_is_told_as_that_and_not_to_be_made(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.awaits_model = True
    home.await_person(DAYS[1], "7")
    home.night(DAYS[2], first=DAYS[0])
    row: dict[str, Any] = {"run_id": "r9", "pipeline": "tiny"}
    row |= {"stage": "predict", "status": "awaits approval"}
    row |= {"first_day": DAYS[2], "last_day": DAYS[2]}
    row |= {"started_at": datetime.now(UTC)}
    ops.append(home.environment, "stage_runs", [row])
    page = shown(home, DAYS[2])
    assert told(page) == by_plan(home, DAYS[2], monkeypatch)
    assert (page.counts["awaits approval"], page.to_make) == (2, None)
    assert night_of(page, DAYS[2]).outcome == "awaits approval"
    (work,) = page.work
    assert work.state == "awaits approval"
    assert (work.first, work.last) == (DAYS[1], DAYS[2])
    home.promote(DAYS[1], "7")
    assert shown(home, DAYS[2]).to_make == DAYS[2]


def test_a_night_that_no_model_scores_stays_as_it_is_and_says_why(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_model(home)
    page = shown(home, DAYS[2])
    assert told(page) == by_plan(home, DAYS[2], monkeypatch)
    assert page.counts["unscored"] == 1
    assert (page.to_make, page.work) == (None, ())
    (stays,) = page.stays
    assert (stays.state, stays.first) == ("unscored", DAYS[1])
    assert stays.tables == ("predictions",)


def test_reasons_are_told_once_with_their_tables_and_nights(home: Home) -> None:
    home.night(DAYS[2])
    work = shown(home, DAYS[4]).work
    (one,) = [each for each in work if "readings" in each.tables]
    assert (one.state, one.reason) == ("missing", "never published")
    assert one.first == DAYS[3]
    assert one.last == DAYS[4]
    assert one.nights == 2


def test_nothing_is_to_be_made_where_all_is_current(home: Home) -> None:
    home.night(DAYS[4])
    page = shown(home, DAYS[4])
    assert page.to_make is None
    assert page.work == ()


def test_a_night_that_lacks_files_is_a_hole_and_not_to_be_made(home: Home) -> None:
    home.night(DAYS[0])
    (home.environment.landing / "tiny" / "readings" / f"{DAYS[1]}.csv").unlink()
    page = shown(home, DAYS[2])
    (hole,) = [night for night in page.nights if night.day == DAYS[1]]
    (cell,) = [cell for cell in hole.cells if cell.state == "hole"]
    assert (cell.table, hole.is_to_do) == ("readings", False)
    assert cell.reason == f"tiny/readings/{DAYS[1]}.csv has not landed"


def refused_at(
    home: Home,
    night: date,
    failures: list[Mapping[str, object]],
) -> None:
    report = home.environment.reports / "tiny" / f"{night}..{night}" / "manual__1" / "index.html"
    report.parent.mkdir(parents=True)
    report.touch()
    metrics = {"failures": failures, "report": str(report)}
    row = {
        "run_id": "manual__1",
        "pipeline": "tiny",
        "stage": "check_raw",
        "first_day": night,
        "last_day": night,
        "status": "refused",
        "started_at": datetime.now(UTC),
        "metrics": json.dumps(metrics),
        "error": "1 check failed.\n- more",
    }
    ops.append(home.environment, "stage_runs", [row])


def night_of(page: Nights, day: date) -> Night:
    (found,) = [night for night in page.nights if night.day == day]
    return found


def test_a_refused_night_says_why_and_where_its_report_is(home: Home) -> None:
    home.night(DAYS[0])
    refused_at(home, DAYS[1], [{"table": "tiny.readings", "says": "amount is from 0 to 9."}])
    night = night_of(shown(home, DAYS[1]), DAYS[1])
    states = {cell.table: (cell.state, cell.reason) for cell in night.cells}
    assert states["readings"] == ("refused", "amount is from 0 to 9.")
    assert states["marks"][0] == "missing"
    assert (night.run_id, night.outcome) == ("manual__1", "refused")
    assert night.report == f"tiny/{DAYS[1]}..{DAYS[1]}/manual__1/index.html"


def test_a_night_that_was_refused_for_a_hole_names_the_first_file_that_lacks(home: Home) -> None:
    home.night(DAYS[0])
    lacking = f"tiny/readings/{DAYS[1]}.csv"
    (home.environment.landing / lacking).unlink()
    with pytest.raises(Refused):
        home.night(DAYS[2])
    cells = night_of(shown(home, DAYS[2]), DAYS[2]).cells
    (refused,) = [cell for cell in cells if cell.state == "refused"]
    assert refused.table == "readings"
    told = f"1 night(s) before {DAYS[2]} are not made, or not whole, and lack files: {DAYS[1]}: "
    assert refused.reason == f"{told}{lacking}"


def test_a_refused_night_is_shown_though_it_is_not_due_yet(home: Home) -> None:
    home.night(DAYS[0])
    refused_at(home, DAYS[1], [{"table": "tiny.readings", "says": "amount is from 0 to 9."}])
    page = shown(home, DAYS[0])
    assert [night.day for night in page.nights] == [DAYS[1], DAYS[0]]
    assert page.to_make == DAYS[1]
    assert page.counts["refused"] == 1


def test_a_night_that_ended_badly_years_ahead_shows_none_of_those_years(home: Home) -> None:
    home.night(DAYS[0])
    refused_at(
        home,
        DAYS[0].replace(year=DAYS[0].year + 90),
        [],
    )
    found = [night.day for night in shown(home, DAYS[0]).nights]
    assert found == [DAYS[0]]


def test_reports_are_found_in_a_home_that_was_moved(home: Home, tmp_path: Path) -> None:
    home.night(DAYS[0])
    refused_at(home, DAYS[1], [])
    path = f"tiny/{DAYS[1]}..{DAYS[1]}/manual__1/index.html"
    moved = replace(home.environment, reports=tmp_path / "moved")
    assert below_reports(moved, str(home.environment.reports / path)) is None
    (moved.reports / path).parent.mkdir(parents=True)
    (moved.reports / path).touch()
    assert below_reports(moved, str(home.environment.reports / path)) == path
    page = nights(moved, TINY, after(DAYS[1]))
    assert night_of(page, DAYS[1]).report == path


def test_a_report_that_was_tidied_away_is_not_led_to(home: Home) -> None:
    home.night(DAYS[0])
    refused_at(home, DAYS[1], [])
    path = night_of(shown(home, DAYS[1]), DAYS[1]).report
    assert path is not None
    (home.environment.reports / path).unlink()
    assert night_of(shown(home, DAYS[1]), DAYS[1]).report is None


def test_a_refusal_that_was_overcome_is_told_no_more(home: Home) -> None:
    home.night(DAYS[0])
    refused_at(home, DAYS[1], [{"table": "tiny.readings", "says": "amount is from 0 to 9."}])
    home.night(DAYS[1])
    night = night_of(shown(home, DAYS[1]), DAYS[1])
    assert {cell.state for cell in night.cells} <= {"current", ""}
    assert night.outcome == "done"


def test_of_a_replay_a_run_that_is_told_as_the_page_was_makes_all_that_it_shows(
    home: Home,
) -> None:
    declared = replace(TINY, first_day=DAYS[0], last_day=DAYS[4])
    played = Replay(first=DAYS[2], drops="0 4 * * *")
    home.pipeline = replace(declared, replay=played)
    path = replay.file_of(home.pipeline, home.environment)
    path.parent.mkdir(parents=True)
    now = datetime(2026, 11, 25, 20, tzinfo=UTC)
    begun = replay.beginning(home.pipeline, now)
    path.write_text(begun.to_json())
    page = nights(home.environment, home.pipeline, now)
    assert page.to_make == DAYS[2]
    assert [night.day for night in page.nights if night.is_to_do] == DAYS[2::-1]
    run = replace(home.run(page.to_make), from_start=page.from_start)
    with home._stages():
        planned = plan(run).rows
    assert planned[0][:4] == ("tiny.readings", "missing", 3, f"{DAYS[0]}..{DAYS[2]}")
    # Without a replay nobody loads a history: the first night is the first that was asked for.
    assert not shown(home, DAYS[2]).from_start


def test_a_year_of_nights_is_shown(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    recorded_year.write(environment, FLIGHTS, YEAR)
    page = nights(environment, FLIGHTS, after(YEAR.last))
    assert len(page.nights) == len(YEAR)
    assert (page.to_make, page.counts["current"]) == (None, 365 * 11 + 2)
    counted = "SELECT count(DISTINCT (table_name, day)) FROM ops.publications"
    assert sql.query(environment, counted)[1] == [(page.counts["current"],)]
    runs = "SELECT last_day, arg_max(run_id, started_at) FROM ops.stage_runs GROUP BY 1"
    by_night = dict(sql.query(environment, runs)[1])
    assert {night.day: night.run_id for night in page.nights} == by_night
