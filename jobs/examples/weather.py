"""What the weather service would drop each night of 2013, and its register of stations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import lru_cache

import pandas as pd

from jobs.examples import Demo
from jobs.examples.nycflights13 import dated, read
from pipelines.days import Days

_STATIONS = ("EWR", "JFK", "LGA")
_MISSING = "NA"
"""How the source writes a value that was not measured."""
_NAMES = {"origin": "station", "time_hour": "observed_at"}
_TOP = """SELECT station, hour, round(temperature, 1) AS temperature, model_version
  FROM weather.predictions WHERE forecast_date = '2013-05-24' AND hour IN (6, 12, 18)
  ORDER BY station, hour"""
_COUNT = """SELECT forecast_date, count(*) AS hours, round(min(temperature), 1) AS coldest,
    round(max(temperature), 1) AS warmest, max(model_version) AS model
  FROM weather.predictions WHERE forecast_date >= '2013-05-22'
  GROUP BY forecast_date ORDER BY forecast_date"""

DEMO = Demo(
    load=Days(date(2012, 12, 31), date(2013, 5, 21)),
    nights=Days(date(2013, 5, 22), date(2013, 5, 23)),
    queries=(_TOP, _COUNT),
)


@lru_cache(maxsize=1)
def source() -> Mapping[str, pd.DataFrame]:
    """The year 2013 as the service would deliver it; each observation on its own day."""
    observed = dated(read("weather.csv"), "observed_date").rename(columns=_NAMES)
    observed = observed.mask(observed == _MISSING, None)
    airports = read("airports.csv").rename(columns={"faa": "station"})
    return {
        "observations": observed.assign(drop_date=observed["observed_date"]),
        "stations": airports[airports["station"].isin(_STATIONS)],
    }
