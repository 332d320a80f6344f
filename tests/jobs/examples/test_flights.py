"""What the source of flights drops, and when.

An outcome on the day on which it became known, never before.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from jobs.commands.land import land
from jobs.examples import flights as example
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError
from tests.reference import flights as reference

FLIGHTS = pipeline("flights")


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def _days(first: str, last: str | None = None) -> Days:
    return Days(date.fromisoformat(first), date.fromisoformat(last or first))


def _dropped(home: Environment, name: str) -> pd.DataFrame:
    return pd.read_csv(home.landing / "flights" / name, dtype=str, keep_default_na=False)


def _files(home: Environment) -> set[str]:
    return {
        str(path.relative_to(home.landing / "flights"))
        for path in home.landing.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "golden",
    sorted((ROOT / "tests" / "data" / "flights").glob("*.head.csv")),
    ids=lambda path: path.name,
)
def test_a_drop_begins_as_a_reviewer_can_read_in_its_golden(
    golden: Path, home: Environment
) -> None:
    land(FLIGHTS, home, _days("2013-03-10"))
    feed, _, day = golden.name.removesuffix(".head.csv").partition("-")
    dropped = home.landing / "flights" / (f"{feed}/{day}.csv" if day else f"{feed}.csv")
    assert dropped.read_text().startswith(golden.read_text())


def test_every_outcome_is_dropped_on_the_day_it_became_known() -> None:
    source = example.source()
    expected = reference.outcomes()["obs_date"].dt.date
    pd.testing.assert_series_equal(source["flights"]["drop_date"], expected, check_names=False)
    assert (source["flights"]["drop_date"] != source["flights"]["flight_date"]).sum() == 26_873


def test_the_instant_of_arrival_reproduces_the_clock_time_of_all_arrivals_but_one() -> None:
    source = example.source()
    arrival = example.arrives_at(source["flights"], source["airports"])
    zones = example.zones(source["flights"]["dest"], source["airports"])
    clock = example.wall_clock(arrival, zones)
    shown = pd.to_numeric(source["flights"]["arr_time"], errors="coerce") % 2400
    differs = arrival.notna() & (clock.dt.hour * 100 + clock.dt.minute != shown)
    assert arrival.notna().sum() == 327_346
    assert differs.sum() == 1


def test_a_drop_holds_the_declared_columns_and_the_source_to_the_letter(home: Environment) -> None:
    land(FLIGHTS, home, _days("2013-02-09"))
    for feed in FLIGHTS.feeds:
        rows = _dropped(home, feed.path.format(date="2013-02-09"))
        assert list(rows.columns) == [column.name for column in feed.columns]
    flights = _dropped(home, "flights/2013-02-09.csv")
    known = reference.outcomes()
    assert len(flights) == (known["obs_date"] == pd.Timestamp("2013-02-09")).sum()
    assert set(flights["flight_date"]) == {"2013-02-08", "2013-02-09"}
    assert (flights["dep_time"] == "NA").sum() == 393
    assert flights["time_hour"].str.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:00:00Z").all()
    assert "14.960139999999999" in (home.landing / "flights/weather/2013-02-09.csv").read_text()


def test_the_schedule_is_tomorrows_and_tells_no_outcome(home: Environment) -> None:
    land(FLIGHTS, home, _days("2012-12-31"))
    assert _files(home) == {"schedule/2012-12-31.csv", "planes.csv", "airports.csv"}
    schedule = _dropped(home, "schedule/2012-12-31.csv")
    assert set(schedule["flight_date"]) == {"2013-01-01"}
    assert len(schedule) == 842
    assert not {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"} & set(
        schedule.columns
    )


def test_the_last_days_drop_has_outcomes_and_no_schedule(home: Environment) -> None:
    land(FLIGHTS, home, _days("2013-12-31"))
    assert _files(home) == {
        "flights/2013-12-31.csv",
        "weather/2013-12-31.csv",
        "planes.csv",
        "airports.csv",
    }
    assert _dropped(home, "weather/2013-12-31.csv").empty


def test_days_that_the_source_does_not_cover_are_refused(home: Environment) -> None:
    with pytest.raises(
        UsageError,
        match="no data for 2014-01-01: its feeds cover the days from 2012-12-31 to 2013-12-31",
    ):
        land(FLIGHTS, home, _days("2014-01-01"))
    assert _files(home) == set()
