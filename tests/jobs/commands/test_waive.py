"""A waiver that makes no sense is refused at the border; others are listed with their state."""

from __future__ import annotations

import csv
import io
import os
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.lake import ops, waivers
from pipelines.environment import Environment

BETWEEN = "expect_column_values_to_be_between"
TODAY = waivers.today()
GOOD = {
    "--date": "2013-01-05",
    "--expectation": BETWEEN,
    "--column": "temp",
    "--why": "a new sensor",
    "--until": str(TODAY + timedelta(days=1)),
    "--by": "ann",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    return Environment.read()


def waive(table: str = "weather", **changed: str | None) -> int:
    options = {**GOOD, **{f"--{name}": value for name, value in changed.items()}}
    words: list[str] = []
    for name, value in options.items():
        words += [name, value] if value is not None else []
    return main(["waive", "flights", table, *words])


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["waivers", "flights", "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_waiver_is_listed_until_and_after_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waive() == 0
    told = capsys.readouterr().out
    assert waive("flights.weather", why="another", date=None, **{"from": "2013-01-05"}) == 2
    assert waive(why="another", date=None, **{"from": "2013-01-05", "to": "2013-01-06"}) == 0
    newest, first = listed(capsys)
    assert f"To end it: nightshift waive flights --revoke {first['waiver_id']}" in told
    names = ("state", "table", "days", "column", "by", "why")
    assert {name: first[name] for name in names} == {
        "state": "in force",
        "table": "flights.weather",
        "days": "2013-01-05",
        "column": "temp",
        "by": "ann",
        "why": "a new sensor",
    }
    assert newest["days"] == "2013-01-05..2013-01-06"
    revoked = ["waive", "flights", "--revoke", newest["waiver_id"], "--why", "mended"]
    assert main(revoked) == 0
    assert main(revoked) == 2
    assert "is at its end already: it was revoked" in capsys.readouterr().err
    later = TODAY + timedelta(days=2)
    monkeypatch.setattr(waivers, "today", lambda: later)
    assert [row["state"] for row in listed(capsys)] == ["revoked", "ran out"]


@pytest.mark.parametrize(
    ("table", "changed", "why"),
    [
        ("wether", {}, "Did you mean 'weather'?"),
        ("weather", {"expectation": f"{BETWEEN}_"}, f"Did you mean '{BETWEEN}'?"),
        ("weather", {"column": "tempp"}, "Did you mean 'temp'?"),
        ("weather", {"column": None}, "has several of expect_column_values_to_be_between"),
        ("weather", {"column": "wind_gust_"}, "Did you mean 'wind_gust'?"),
        ("weather", {"until": str(TODAY - timedelta(days=1))}, "is in the past: today is"),
        ("weather", {"until": "soon"}, "'soon'"),
        ("weather", {"why": " … "}, "--why ' … ' says nothing"),
        ("weather", {"why": "one\nand \x1b[2Jmore"}, "--why must be one line of at most 500"),
        ("weather", {"why": None, "until": None}, "Say --why, --until too"),
        (
            "weather",
            {"until": None},
            "Say --until too, as the command in the refusal does; or --revoke ID.",
        ),
        ("weather", {"date": "2012-01-01"}, "2012-01-01"),
        (
            "weather",
            {"expectation": "expect_column_values_to_be_in_set", "column": "rows_of_key"},
            "flights.weather: that cannot be waived",
        ),
        (
            "weather",
            {"expectation": "expect_table_columns_to_match_set", "column": None},
            "flights.weather: that cannot be waived",
        ),
        ("rolling", {"column": "nothing"}, "No column or measure"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_recorded(
    home: Environment,
    capsys: pytest.CaptureFixture[str],
    table: str,
    changed: dict[str, str | None],
    why: str,
) -> None:
    assert waive(table, **changed) == 2
    assert why in capsys.readouterr().err
    assert ops.read(home, "waivers").num_rows == 0


IN_SET = "expect_column_values_to_be_in_set"


@pytest.mark.parametrize(
    ("table", "changed", "offered"),
    [
        (
            "weather",
            {"expectation": IN_SET, "column": None},
            "Say --column, one of: origin, days_old, time_hour_error, airports.",
        ),
        (
            "weather",
            {"expectation": IN_SET, "column": "x"},
            "Known: origin, days_old, time_hour_error, airports.",
        ),
        ("planes", {"expectation": IN_SET, "column": None}, "planes: that cannot be waived"),
        ("planes", {"expectation": "x"}, f"Known: expect_column_values_to_match_regex, {BETWEEN}."),
    ],
)
def test_nothing_is_offered_that_would_be_refused(
    capsys: pytest.CaptureFixture[str],
    table: str,
    changed: dict[str, str | None],
    offered: str,
) -> None:
    assert waive(table, **changed) == 2
    assert offered in capsys.readouterr().err


def test_whoever_names_nobody_is_named_by_the_system_whatever_the_environment_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "somebody else")
    assert waive(by=None) == 0
    assert listed(capsys)[0]["by"] == Path(f"/proc/{os.getpid()}").owner()


def test_an_unknown_pipeline_and_waiver_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["waivers", "fligths"]) == 2
    assert "Did you mean 'flights'?" in capsys.readouterr().err
    assert main(["waive", "flights", "--revoke", "w_1"]) == 2
    assert "No waiver of 'flights' named 'w_1'" in capsys.readouterr().err
