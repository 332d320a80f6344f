"""The verdicts on some days, newest run first, and where their reports are."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from operator import itemgetter
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


def printed(home: Environment, capsys: pytest.CaptureFixture[str], days: Days) -> Any:
    assert quality(FLIGHTS, home, days, "csv") == 0
    output = capsys.readouterr()
    return list(csv.DictReader(io.StringIO(output.out))), output.err


def test_the_newest_run_comes_first_with_its_tables_in_the_order_of_a_night(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, minute in (("old", 1), ("new", 2)):
        for table in ("weather", "flights"):
            judged(home, run_id, minute, table)
    rows, said = printed(home, capsys, Days.of(DAY))
    assert [(row["run"], row["table"]) for row in rows] == [
        ("new", "flights.flights"),
        ("new", "flights.weather"),
        ("old", "flights.flights"),
        ("old", "flights.weather"),
    ]
    assert said.splitlines() == ["Report: report of new", "Report: report of old"]


def test_a_refused_table_says_what_failed_and_a_passed_one_what_it_was_warned_of(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    unmet = {"success": False, "column_name": "arr_delay", "observed": "40 % null"}
    late = {"success": False, "expectation": "rows of yesterday", "observed": "-30 %"}
    judged(home, "run", 1, "flights", **unmet)
    judged(home, "run", 1, "flights", **late, severity="warning")
    judged(home, "run", 1, "weather", **late, severity="warning")
    rows, _ = printed(home, capsys, Days.of(DAY))
    shown = list(map(itemgetter("verdict", "checks", "failed", "found"), rows))
    assert shown == [
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
