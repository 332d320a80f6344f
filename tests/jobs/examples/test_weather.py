"""What the weather service drops, against small files that a person can read."""

from __future__ import annotations

from datetime import date

from jobs.examples.files import content
from jobs.examples.weather import source
from pipelines.environment import ROOT
from pipelines.weather import OBSERVATIONS, STATIONS

DATA = ROOT / "tests" / "data" / "weather"
SPRING = date(2013, 3, 10)
"""The clocks go forward: no hour 2."""


def test_observations_are_those_of_their_own_day_as_json_lines() -> None:
    rows = source()["observations"]
    of_the_day = rows[rows["drop_date"] == SPRING]
    golden = (DATA / "observations-2013-03-10.head.jsonl").read_bytes()
    assert content(OBSERVATIONS, of_the_day.head(4)) == golden
    assert len(of_the_day) == 69


def test_the_register_holds_the_three_airports() -> None:
    assert content(STATIONS, source()["stations"]) == (DATA / "stations.csv").read_bytes()


def test_what_was_not_measured_is_null() -> None:
    rows = source()["observations"]
    unmeasured = rows[rows["pressure"].isna()]
    lines = content(OBSERVATIONS, unmeasured.head(1)).decode()
    assert '"pressure": null' in lines
    assert "NA" not in lines
