"""The verdicts on some days, newest run first, and where their reports are."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.commands.quality import quality
from jobs.lake import ops
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError

FLIGHTS = pipeline("flights")
DAY = date(2013, 1, 5)


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def judged(
    home: Environment,
    run_id: str,
    minute: int,
    table: str,
    **more: Any,
) -> None:
    row = {
        "run_id": run_id,
        "pipeline": "flights",
        "table_name": f"flights.{table}",
        "first_day": DAY,
        "last_day": DAY,
        "stage": "check_raw",
        "severity": "critical",
        "success": True,
        "detail": json.dumps({"rows": 7}),
        "report": f"report of {run_id}",
        "checked_at": datetime(2013, 1, 6, 4, minute, tzinfo=UTC),
    }
    ops.append(home, "check_results", [row | more])


def ran(
    home: Environment,
    run_id: str,
    minute: int,
    stage: str,
    **more: Any,
) -> None:
    row = {
        "run_id": run_id,
        "pipeline": "flights",
        "stage": stage,
        "first_day": DAY,
        "last_day": DAY,
        "status": "done",
        "started_at": datetime(2013, 1, 6, 4, minute, tzinfo=UTC),
        "seconds": 2.04,
        "metrics": json.dumps(more.pop("metrics", {})),
    }
    ops.append(home, "stage_runs", [row | more])


def printed(
    home: Environment, capsys: pytest.CaptureFixture[str], *, code: int = 0, **options: Any
) -> Any:
    assert quality(FLIGHTS, home, Days.of(DAY), "csv", **options) == code
    output = capsys.readouterr()
    return list(csv.DictReader(io.StringIO(output.out))), output.err


def shown(
    rows: list[dict[str, str]],
    *names: str,
) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def test_the_last_run_is_shown_with_its_tables_in_the_order_of_a_night(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, minute in (("old", 1), ("new", 2)):
        for table in ("weather", "flights"):
            judged(home, run_id, minute, table)
    new = [("new", "flights.flights"), ("new", "flights.weather")]
    old = [("old", "flights.flights"), ("old", "flights.weather")]
    rows, said = printed(home, capsys)
    assert shown(rows, "run", "table") == new
    assert said == "Report: report of new\n"
    rows, _ = printed(home, capsys, run_id="old")
    assert shown(rows, "run", "table") == old
    rows, said = printed(home, capsys, show_all=True)
    assert shown(rows, "run", "table") == new + old
    assert said == "Report: report of new\nReport: report of old\n"
    with pytest.raises(UsageError, match=r"No run 'odd' on 2013-01-05. Known: new, old."):
        printed(home, capsys, run_id="odd")


def test_a_run_is_shown_stage_by_stage_with_what_was_ingested_and_quarantined(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    feed = {"files": 1, "in_files": 9, "staged": 7, "quarantined": 2, "unchanged": 0}
    metrics = {"rows_staged": 7, "rows_quarantined": 2, "feeds": {"weather": feed}}
    ran(home, "run", 1, "ingest", metrics=metrics)
    ran(
        home,
        "run",
        2,
        "check_raw",
        metrics={"rows": 7, "checks": 1, "warnings": 0},
    )
    judged(
        home,
        "run",
        3,
        "weather",
        detail=json.dumps({"rows": 7, "quarantined": 0}),
    )
    ran(home, "run", 4, "transform", status="failed", error="a bug\nof ours")
    # Nothing was to do in it: it says nothing of the data.
    ran(home, "later", 9, "ingest", status="current")
    rows, _ = printed(home, capsys)
    assert shown(rows, "stage", "table", "outcome", "rows", "quarantined", "seconds", "found") == [
        ("ingest", "", "done", "7", "2", "2.0", ""),
        ("ingest", "flights.weather", "done", "7", "2", "", "1 file(s) with 9 rows"),
        ("check_raw", "", "done", "7", "", "2.0", ""),
        ("check_raw", "flights.weather", "passed", "7", "0", "", ""),
        ("transform", "", "failed", "", "", "2.0", "a bug"),
    ]


def test_a_run_that_was_refused_at_ingest_says_of_which_file_and_ends_with_1(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = {"table": "flights.weather", "says": "weather/2013-01-05.csv: 9 of 9", "count": 9}
    metrics = {"report": "the report", "failures": [failure]}
    refused = {"status": "refused", "error": "flights.weather was refused", "metrics": metrics}
    ran(home, "run", 1, "ingest", **refused)
    rows, said = printed(home, capsys, code=1)
    assert shown(rows, "table", "outcome", "quarantined", "found") == [
        ("", "refused", "", "flights.weather was refused"),
        ("flights.weather", "refused", "9", "weather/2013-01-05.csv: 9 of 9"),
    ]
    assert said == "Report: the report\n"


def test_a_night_that_was_interrupted_between_two_stages_is_told_as_that(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(home, "run", 1, "ingest")
    ran(home, "run", 2, "check_raw", status="current")
    told = (
        "Nothing is on record of run run after check_raw: it goes on, or was interrupted, or was "
        "asked for some stages alone. What is left: nightshift plan flights --date 2013-01-05\n"
    )
    _, said = printed(home, capsys)
    assert said == told
    _, said = printed(home, capsys, run_id="run")
    assert said == told
    # Of other days that it makes, too.
    another = DAY + timedelta(days=1)
    ran(home, "run", 3, "monitor", first_day=another, last_day=another)
    _, said = printed(home, capsys)
    assert said == ""
    ran(home, "run", 4, "transform", status="failed")
    _, said = printed(home, capsys)
    assert said == ""


def test_of_a_run_that_was_taken_up_again_the_last_attempt_counts(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(home, "run", 1, "check_raw", status="refused")
    judged(home, "run", 2, "weather", success=False, observed="all")
    printed(home, capsys, code=1)
    ran(home, "run", 3, "check_raw")
    judged(home, "run", 4, "weather")
    rows, _ = printed(home, capsys)
    assert shown(rows, "table", "outcome") == [("", "done"), ("flights.weather", "passed")]
    rows, _ = printed(home, capsys, show_all=True)
    assert shown(rows, "outcome") == [
        ("refused",),
        ("refused",),
        ("done",),
        ("passed",),
    ]


def test_a_range_that_was_refused_and_accepted_in_halves_is_done(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    # Four days up to the one that is asked for.
    first = DAY - timedelta(days=3)
    second = DAY - timedelta(days=2)
    third = DAY - timedelta(days=1)
    whole = {"first_day": first, "last_day": DAY}
    ran(home, "run", 1, "check_raw", **whole, status="refused")
    judged(home, "run", 2, "weather", **whole, success=False, observed="all")
    early = {"first_day": first, "last_day": second}
    ran(home, "run", 3, "check_raw", **early)
    judged(home, "run", 4, "weather", **early)
    # Of the other half nothing is known yet.
    printed(home, capsys, code=1)
    assert quality(FLIGHTS, home, Days(first, second), "csv") == 0
    late = {"first_day": third, "last_day": DAY}
    ran(home, "run", 5, "check_raw", **late)
    judged(home, "run", 6, "weather", **late)
    capsys.readouterr()
    rows, _ = printed(home, capsys, run_id="run")
    told = [("2013-01-04..2013-01-05", "done"), ("2013-01-04..2013-01-05", "passed")]
    assert shown(rows, "days", "outcome") == told
    assert quality(FLIGHTS, home, Days(first, DAY), "csv") == 0
    # A half that is refused as well counts.
    ran(home, "run", 7, "check_raw", **late, status="refused")
    assert quality(FLIGHTS, home, Days(first, DAY), "csv") == 1


def test_a_run_that_failed_before_or_after_the_data_is_told(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(home, "green", 1, "ingest")
    judged(home, "green", 2, "weather")
    ran(home, "trained", 3, "ingest", status="current")
    ran(home, "trained", 4, "train", status="failed", error="no memory")
    # Nothing was to do in it.
    ran(home, "idle", 5, "ingest", status="current")
    ran(home, "idle", 6, "monitor", status="current")
    rows, _ = printed(home, capsys)
    told = [("trained", "ingest", "current", ""), ("trained", "train", "failed", "no memory")]
    assert shown(rows, "run", "stage", "outcome", "found") == told
    rows, _ = printed(home, capsys, run_id="trained")
    assert shown(rows, "run", "stage", "outcome", "found") == told
    rows, _ = printed(home, capsys, run_id="idle")
    assert shown(rows, "stage", "outcome") == [("ingest", "current"), ("monitor", "current")]
    rows, _ = printed(home, capsys, show_all=True)
    runs = dict.fromkeys(row["run"] for row in rows)
    assert list(runs) == ["idle", "trained", "green"]
    # One that has made up for it.
    ran(home, "again", 7, "train")
    rows, _ = printed(home, capsys)
    assert shown(rows, "run", "stage", "outcome") == [("again", "train", "done")]


def test_a_refusal_counts_though_nothing_was_to_do_since(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(home, "idle", 5, "ingest", status="current")
    rows, _ = printed(home, capsys, show_all=True)
    assert shown(rows, "run") == [("idle",)]
    with pytest.raises(UsageError, match="No data of 'flights' has been judged"):
        printed(home, capsys)
    ran(home, "red", 1, "evaluate", status="refused", error="worse")
    printed(home, capsys, code=1)
    rows, _ = printed(home, capsys, code=1, show_all=True)
    assert shown(rows, "run") == [("idle",), ("red",)]


def test_a_refused_table_says_what_failed_and_a_passed_one_what_it_was_warned_of(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    unmet = {"success": False, "column_name": "arr_delay", "observed": "40 % null"}
    late = {"success": False, "expectation": "rows of yesterday", "observed": "-30 %"}
    judged(home, "run", 1, "flights", **unmet)
    judged(home, "run", 1, "flights", **late, severity="warning")
    judged(home, "run", 1, "weather", **late, severity="warning")
    rows, _ = printed(home, capsys, code=1)
    assert shown(rows, "outcome", "checks", "failed", "found") == [
        ("refused", "2", "1", "arr_delay: 40 % null"),
        ("passed", "1", "0", "rows of yesterday: -30 %"),
    ]


@pytest.mark.parametrize(
    ("days", "command"),
    [
        (Days.of(date(2013, 1, 6)), "nightshift run flights --date 2013-01-06"),
        (
            Days(date(2013, 1, 6), date(2013, 1, 7)),
            "nightshift run flights --from 2013-01-06 --to 2013-01-07",
        ),
    ],
)
def test_days_that_nobody_judged_are_wrong_usage(
    days: Days, command: str, home: Environment
) -> None:
    judged(home, "run", 1, "flights")
    with pytest.raises(UsageError, match=f"Judge it: {command}"):
        quality(FLIGHTS, home, days, "table")
