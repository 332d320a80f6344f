"""What the airline, the weather service and the registers would drop each night of 2013."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache

import pandas as pd

from jobs.examples import Demo
from jobs.examples.nycflights13 import dated, read
from pipelines.days import Days

# Written out, because they are printed for people to copy.
_TOP = """SELECT carrier, flight, origin, dest, sched_dep_time,
    round(late_probability, 3) AS late_probability, model_version
  FROM flights.predictions WHERE flight_date = '2013-04-03'
  ORDER BY late_probability DESC, carrier, flight LIMIT 10"""
_COUNT = """SELECT flight_date, count(*) AS flights,
    round(avg(late_probability), 3) AS mean_probability, max(model_version) AS model
  FROM flights.predictions WHERE flight_date >= '2013-04-01'
  GROUP BY flight_date ORDER BY flight_date"""

DEMO = Demo(
    # From the night that drops the first schedule.
    load=Days(date(2012, 12, 31), date(2013, 3, 31)),
    nights=Days(date(2013, 4, 1), date(2013, 4, 2)),
    queries=(_TOP, _COUNT),
)

_NEW_YORK = "America/New_York"
_PUERTO_RICO = ("SJU", "BQN", "PSE", "STT")
"""Airports that the register of airports lacks, and their zone, below."""
_PUERTO_RICO_ZONE = "America/Puerto_Rico"
_DAY_MINUTES = 24 * 60
_MINUTE = "timedelta64[m]"


@lru_cache(maxsize=1)
def source() -> Mapping[str, pd.DataFrame]:
    """The year 2013 as the source would deliver it.

    Values are as it writes them, and each row has the day of its drop.
    """
    airports = read("airports.csv")
    flights = dated(read("flights.csv.zip"), "flight_date")
    weather = dated(read("weather.csv"), "weather_date")
    day_before = [day - timedelta(days=1) for day in flights["flight_date"]]
    return {
        "flights": flights.assign(drop_date=known_on(flights, airports)),
        "schedule": flights.assign(drop_date=day_before),
        "weather": weather.assign(drop_date=weather["weather_date"]),
        "planes": read("planes.csv"),
        "airports": airports,
    }


def known_on(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.Series:
    """The New York day on which each outcome became known.

    That of its landing, never before the flight's own day.

    The source holds no instant of arrival, only local clock times without a day: it is counted from
    the scheduled departure (an instant) by the scheduled duration and the delay.
    """
    arrival = arrives_at(flights, airports)
    in_new_york = pd.Series(_NEW_YORK, index=flights.index)
    landed = wall_clock(arrival, in_new_york).dt.date
    flown = flights["flight_date"]
    return landed.where(arrival.notna() & (landed > flown), flown)


def arrives_at(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.Series:
    """The instant of each arrival.

    Null for flights without an arrival delay: cancelled and diverted ones.
    """
    hour = pd.to_datetime(flights["time_hour"], utc=True)
    departure = hour + pd.to_numeric(flights["minute"]).astype(_MINUTE)
    leaves = wall_clock(departure, zones(flights["dest"], airports))
    arrives = pd.to_numeric(flights["sched_arr_time"])
    # The source writes a clock's time as HHMM.
    arrives_minute = arrives // 100 * 60 + arrives % 100
    leaves_minute = leaves.dt.hour * 60 + leaves.dt.minute
    # Both by the clock of the destination, which may have passed midnight in between.
    scheduled_minutes = (arrives_minute - leaves_minute) % _DAY_MINUTES
    delay_minutes = pd.to_numeric(flights["arr_delay"], errors="coerce")
    return departure + pd.to_timedelta(scheduled_minutes + delay_minutes, unit="min")


def zones(destinations: pd.Series, airports: pd.DataFrame) -> pd.Series:
    """The time zone of each destination."""
    known = dict(zip(airports["faa"], airports["tzone"], strict=True))
    return destinations.map(known | dict.fromkeys(_PUERTO_RICO, _PUERTO_RICO_ZONE))


def wall_clock(instants: pd.Series, zones: pd.Series) -> pd.Series:
    """What a clock in its zone shows at each instant, without the zone."""
    parts = []
    for zone, part in instants.groupby(zones):
        local = part.dt.tz_convert(zone)
        parts.append(local.dt.tz_localize(None))
    return pd.concat(parts).reindex(instants.index)
