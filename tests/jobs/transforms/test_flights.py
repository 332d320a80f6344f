"""The derived tables against the pandas reference on the year's hard days, and trap by trap.

Each trap is a row made by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from jobs.spark.session import plan_for
from jobs.transforms import flights as transforms
from jobs.transforms.columns import scoring_moment
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.feeds import Feed
from pipelines.flights import FLIGHTS, ROLLING, SCHEDULE, TIMEZONE, WEATHER
from tests.conftest import SOAK
from tests.reference import flights as reference

GRAINS = {grain.name: grain.columns for grain in ROLLING.grains}
HARD_DAYS = (
    "2013-01-01",
    "2013-01-02",
    "2013-02-08",
    "2013-02-09",
    "2013-03-10",
    "2013-11-03",
    "2013-12-25",
)
"""First days with short windows, the storm of February, both changes of the clocks, Christmas."""
INTERPRETED, COMPILED = False, True
YEAR = Days(date(2013, 1, 1), date(2013, 12, 31))
_DDL = {"long": "bigint"}
"""Types that Spark's SQL calls otherwise."""
_SUMS = ("n", "n_known", "n_late", "sum_delay", "n_canc", "n_departed", "sum_depdelay")
_SCHEDULE_FEATURES = (
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
)


def _day(text: str) -> date:
    return date.fromisoformat(text)


def _moment(day: date) -> pd.Timestamp:
    """The scoring moment as Spark gives it to pandas: without its zone."""
    return reference.scoring_moment(day).tz_localize(None)


def _schema(feed: Feed) -> str:
    columns = [f"{column.name} {_DDL.get(column.type, column.type)}" for column in feed.columns]
    return ", ".join([*columns, "landed_date date"])


def _frame(spark: SparkSession, feed: Feed, rows: pd.DataFrame) -> DataFrame:
    names = [column.name for column in feed.columns]
    rows = rows.assign(time_hour=_datetimes(rows["time_hour"]))
    chosen = rows[[*names, "landed_date"]]
    # As objects, because only they can hold None: Spark would take NaN for a value.
    values = chosen.astype(object).where(chosen.notna(), None)
    return spark.createDataFrame(values.to_records(index=False).tolist(), _schema(feed))


def _datetimes(instants: pd.Series) -> pd.Series:
    # pandas' own Timestamps are not what Spark takes for a timestamp.
    parsed = pd.to_datetime(instants, utc=True)
    values = [None if pd.isna(one) else one.to_pydatetime() for one in parsed]
    return pd.Series(values, index=instants.index, dtype=object)


@lru_cache(maxsize=1)
def _outcomes() -> pd.DataFrame:
    rows = reference.outcomes()
    landed = rows["obs_date"].dt.date
    return rows.assign(landed_date=landed, flight_date=rows["flight_date"].dt.date)


def _flights(spark: SparkSession, first: date, last: date) -> DataFrame:
    rows = _outcomes()
    has_landed = rows["landed_date"].between(first, last)
    return _frame(spark, FLIGHTS, rows[has_landed])


def _schedules(spark: SparkSession, flight_dates: list[date]) -> DataFrame:
    rows = _outcomes()
    rows = rows[rows["flight_date"].isin(flight_dates)]
    # A schedule lands on the day before.
    landed = [day - timedelta(days=1) for day in rows["flight_date"]]
    return _frame(spark, SCHEDULE, rows.assign(landed_date=landed))


@pytest.fixture(scope="module")
def airports(spark: SparkSession) -> DataFrame:
    """The register of airports, landed before the year."""
    rows = pd.read_csv(reference.source_folder() / "airports.csv")
    zones = []
    for faa, tzone in zip(rows["faa"], rows["tzone"], strict=True):
        zone = None if pd.isna(tzone) else tzone
        zones.append((faa, zone, date(2012, 12, 31)))
    return spark.createDataFrame(zones, "faa string, tzone string, landed_date date")


def _assert_same(rows: DataFrame, expected: pd.DataFrame, key: list[str]) -> None:
    frame: Any = rows.select(*expected.columns).toPandas()
    # Sums of floats depend on their order, in their last digits.
    pd.testing.assert_frame_equal(
        _comparable(frame, key),
        _comparable(expected, key),
        check_dtype=False,
        rtol=1e-13,
        atol=0,
    )


def _comparable(rows: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    return rows.sort_values(key, ignore_index=True).replace({None: np.nan})


@pytest.fixture(params=[INTERPRETED, COMPILED], ids=["interpreted", "compiled"])
def either_way(request: pytest.FixtureRequest, shared_environment: Environment) -> Iterator[None]:
    """Spark interprets a night's queries, and compiles those of a year."""
    plan_for(shared_environment, many_rows=request.param)
    yield
    plan_for(shared_environment, many_rows=False)


@pytest.mark.usefixtures("either_way")
def test_departures_are_those_of_the_reference_on_hard_days(
    spark: SparkSession, airports: DataFrame
) -> None:
    dates = [_day(text) for text in HARD_DAYS]
    days = Days(date(2012, 12, 31), date(2013, 12, 30))
    rows = transforms.departures(_schedules(spark, dates), airports, days)
    expected = pd.concat([_expected_departures(flight_date) for flight_date in dates])
    _assert_same(rows, expected, reference.KEY)


def _expected_departures(flight_date: date) -> pd.DataFrame:
    rows = reference.schedule_features(flight_date)
    keys = {f"{grain}_key": _keys(rows, columns) for grain, columns in GRAINS.items()}
    landed = flight_date - timedelta(days=1)
    own = rows.assign(
        flight_date=flight_date,
        landed_date=landed,
        event_timestamp=_moment(landed),
        **keys,
    )
    numbers = own["flight"].astype(str)
    name = own["carrier"] + "|" + numbers + "|" + own["origin"]
    own["departure_id"] = f"{flight_date}|" + name
    shown = [
        "landed_date",
        "departure_id",
        "event_timestamp",
        *reference.KEY,
        "dest",
        "tailnum",
        "sched_dep_time",
        *keys,
        *_SCHEDULE_FEATURES,
    ]
    return own[shown]


def _keys(rows: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    parts = rows[list(names)].astype(object)
    joined = parts.astype(str).agg("|".join, axis=1)
    # A key that lacks a part is none.
    return joined.where(parts.notna().all(axis=1), None)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    ("either_way", "first", "last"),
    [
        (COMPILED, "2013-01-01", "2013-01-03"),
        (COMPILED, "2013-02-08", "2013-02-09"),
        (COMPILED, "2013-03-09", "2013-03-10"),
        (COMPILED, "2013-11-03", "2013-11-03"),
        (INTERPRETED, "2013-01-01", "2013-01-03"),
        (INTERPRETED, "2013-11-03", "2013-11-03"),
        # Of whole windows one is slow enough.
        pytest.param(INTERPRETED, "2013-02-08", "2013-02-09", marks=SOAK),
        pytest.param(INTERPRETED, "2013-03-09", "2013-03-10", marks=SOAK),
    ],
    indirect=["either_way"],
)
def test_rolling_rates_are_those_of_the_reference_over_windows_cut_row_by_row(
    spark: SparkSession, first: str, last: str
) -> None:
    days = Days(_day(first), _day(last))
    window = days.since(27)
    daily = transforms.tiles(_flights(spark, window.first, window.last), window)
    expected = pd.concat([_expected_rolling(day) for day in days])
    _assert_same(transforms.rolling(daily, days), expected, ["landed_date", "grain", "key"])


def _expected_rolling(day: date) -> pd.DataFrame:
    parts = [_expected_grain(day, grain, names) for grain, names in GRAINS.items()]
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(landed_date=day, event_timestamp=_moment(day))


def _expected_grain(day: date, grain: str, names: tuple[str, ...]) -> pd.DataFrame:
    longest = _expected_rates(day, names, 28)
    joined = longest.join(_expected_rates(day, names, 7))
    joined = joined.join(_expected_rates(day, names, 1))
    joined[["n_7", "n_1"]] = joined[["n_7", "n_1"]].fillna(0)
    rows = joined.drop(columns=["depdelay_28", "depdelay_7"]).reset_index()
    rows = rows.assign(grain=grain, key=_keys(rows, names))
    return rows.drop(columns=list(names))


def _expected_rates(day: date, names: tuple[str, ...], days: int) -> pd.DataFrame:
    outcomes = reference.window(day, days)
    return reference.rates(outcomes, list(names)).add_suffix(f"_{days}")


def test_tiles_of_a_stormy_day_add_up_to_its_outcomes(spark: SparkSession) -> None:
    day = _day("2013-02-08")
    tiles = transforms.tiles(_flights(spark, day, day), Days.of(day))
    outcomes = reference.window(day, 1)
    expected = [
        {
            "landed_date": day,
            "key": origin,
            "n": len(part),
            "n_known": part["arr_delay"].notna().sum(),
            "n_late": (part["arr_delay"] > 15).sum(),
            "sum_delay": int(part["arr_delay"].sum()),
            "n_canc": part["dep_time"].isna().sum(),
            "n_departed": part["dep_delay"].notna().sum(),
            "sum_depdelay": int(part["dep_delay"].sum()),
        }
        for origin, part in outcomes.groupby("origin")
    ]
    _assert_same(tiles.where("grain = 'ap'"), pd.DataFrame(expected), ["key"])


@lru_cache(maxsize=1)
def _observations() -> pd.DataFrame:
    """The weather of hard days, of days with gaps, and of one without any observation."""
    dates = [*HARD_DAYS, "2013-08-22", "2013-10-25", "2013-12-31"]
    rows = reference.weather()
    rows = rows[rows["weather_date"].isin(pd.to_datetime(dates))]
    days = rows["weather_date"].dt.date
    return rows.assign(weather_date=days, landed_date=days)


@pytest.fixture(scope="module")
def hourly(spark: SparkSession) -> DataFrame:
    """The pipeline's table of the observations."""
    return transforms.weather_hourly(_frame(spark, WEATHER, _observations()), YEAR)


def test_hourly_weather_is_that_of_the_reference_on_hard_days(hourly: DataFrame) -> None:
    renamed = {name: f"w_{name}" for name in reference.WEATHER}
    expected = _observations().rename(columns=renamed)
    expected["observed_at"] = expected["observed_at"].dt.tz_localize(None)
    expected["available_at"] = expected["landed_date"].map(_moment)
    shown = ["landed_date", "origin", "observed_at", "available_at", *renamed.values()]
    _assert_same(hourly, expected[shown], ["origin", "observed_at"])


def test_daily_weather_is_that_of_the_reference_on_hard_days(hourly: DataFrame) -> None:
    dates = sorted(set(_observations()["landed_date"]))
    expected = []
    for day in dates:
        of_day = reference.weather_of_day(day)
        expected.append(of_day.assign(landed_date=day, event_timestamp=_moment(day)))
    daily = transforms.weather_daily(hourly, YEAR)
    _assert_same(daily, pd.concat(expected), ["landed_date", "origin"])


_USUAL: dict[str, Any] = {
    "flight_date": date(2013, 3, 9),
    "carrier": "B6",
    "tailnum": None,
    "origin": "JFK",
    "dest": "BOS",
    "sched_dep_time": 800,
    "sched_arr_time": 910,
    "distance": 187,
    "landed_date": date(2013, 3, 8),
}
"""A scheduled flight, of which tests change what they are about."""


def _scheduled(number: int, changed: Mapping[str, Any]) -> dict[str, Any]:
    row = {**_USUAL, "flight": number, **changed}
    hour, minute = divmod(row["sched_dep_time"], 100)
    midnight = pd.Timestamp(row["flight_date"], tz=reference.NEW_YORK)
    # DateOffset goes by the clock: on a day of 23 hours, too, eight is eight.
    local = midnight + pd.DateOffset(hours=hour)
    instant = local.tz_convert("UTC").to_pydatetime()
    return {**row, "hour": hour, "minute": minute, "time_hour": instant}


def _departure(
    spark: SparkSession,
    airports: DataFrame,
    *flights: Mapping[str, Any],
) -> list[Row]:
    """Departures of usual flights with these changes, in their order."""
    rows = [_scheduled(number, changed) for number, changed in enumerate(flights, 1)]
    schedule = _frame(spark, SCHEDULE, pd.DataFrame(rows))
    days = Days(YEAR.first, max(row["landed_date"] for row in rows))
    departures = transforms.departures(schedule, airports, days)
    return departures.orderBy("flight").collect()


def test_block_counts_minutes_on_the_destinations_clock(
    spark: SparkSession, airports: DataFrame
) -> None:
    flights = (
        _flight("BOS", 800, 910, 70),
        # Past midnight, and at midnight written as the end of a day.
        _flight("BOS", 2330, 40, 70),
        _flight("BOS", 2250, 2400, 70),
        # Three and six hours behind, and a zone that knows no summer time.
        _flight("LAX", 800, 1115, 375),
        _flight("HNL", 1000, 1530, 630),
        _flight("PHX", 800, 1140, 340),
        # Not in the register; an hour ahead in winter.
        _flight("SJU", 2359, 442, 223),
        _flight("STT", 800, 1305, 245),
        _flight("XXX", 800, 1305, None),
    )
    rows = _departure(spark, airports, *(flight for flight, _ in flights))
    assert [row["block"] for row in rows] == [minutes for _, minutes in flights]


def _flight(
    dest: str,
    departs: int,
    arrives: int,
    block: int | None,
) -> tuple[dict[str, Any], int | None]:
    """A flight by the clocks of its airports, and its minutes."""
    changed = {"dest": dest, "sched_dep_time": departs, "sched_arr_time": arrives}
    return changed, block


def test_tail_sequence_counts_earlier_flights_of_the_plane_and_ties_share_a_number(
    spark: SparkSession, airports: DataFrame
) -> None:
    flown = [{"tailnum": "N1", "sched_dep_time": time} for time in (800, 1200, 1200, 1700)]
    unassigned = [{}, {}]
    rows = _departure(spark, airports, *flown, *unassigned)
    assert [(row["tail_key"], row["tail_seq"]) for row in rows] == [
        ("N1", 1),
        ("N1", 2),
        ("N1", 2),
        ("N1", 4),
        (None, 0),
        (None, 0),
    ]


def test_scheduled_flights_are_counted_by_origin_and_hour(
    spark: SparkSession, airports: DataFrame
) -> None:
    rows = _departure(
        spark,
        airports,
        {"sched_dep_time": 800},
        {"sched_dep_time": 859},
        {"sched_dep_time": 900},
        {"origin": "EWR"},
    )
    assert [(row["n_origin_hour"], row["n_origin_day"], row["oh_key"]) for row in rows] == [
        (2, 3, "JFK|8"),
        (2, 3, "JFK|8"),
        (1, 3, "JFK|9"),
        (1, 1, "EWR|8"),
    ]


def test_days_to_the_nearest_holiday(spark: SparkSession, airports: DataFrame) -> None:
    # 2013-01-11 lies ten days from both; 2013-12-29 four days after Christmas, three before New
    # Year.
    expected = {
        "2013-01-01": 0,
        "2013-01-02": -1,
        "2013-01-11": -7,
        "2013-07-02": 2,
        "2013-12-28": -3,
        "2013-12-29": 3,
        "2013-06-10": -7,
        "2013-06-20": 7,
    }
    flights = []
    for day in map(_day, expected):
        landed = max(day - timedelta(days=1), YEAR.first)
        flights.append({"flight_date": day, "landed_date": landed})
    rows = _departure(spark, airports, *flights)
    assert {str(row["flight_date"]): row["hol"] for row in rows} == expected


_MIDNIGHTS = {
    "2013-01-01": "2013-01-02T05:00",
    "2013-03-09": "2013-03-10T05:00",
    "2013-03-10": "2013-03-11T04:00",
    "2013-11-02": "2013-11-03T04:00",
    "2013-11-03": "2013-11-04T05:00",
}


@pytest.mark.parametrize(("day", "moment"), _MIDNIGHTS.items())
def test_the_scoring_moment_is_local_midnight_whatever_the_sessions_zone(
    spark: SparkSession, day: str, moment: str
) -> None:
    landed = spark.createDataFrame([(_day(day),)], "landed_date date")
    moments = landed.select(scoring_moment(TIMEZONE).cast("long").alias("seconds"))
    spark.conf.set("spark.sql.session.timeZone", "Asia/Kolkata")
    try:
        [row] = moments.collect()
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
    instant = datetime.fromtimestamp(row["seconds"], tz=UTC)
    assert instant.strftime("%Y-%m-%dT%H:%M") == moment


def _blank(feed: Feed) -> dict[str, Any]:
    return dict.fromkeys((column.name for column in feed.columns), None)


def _outcome(
    tailnum: str | None,
    arr_delay: int | None,
    dep_delay: int | None,
    dep_time: int | None,
) -> dict[str, Any]:
    return {
        **_blank(FLIGHTS),
        "carrier": "B6",
        "flight": 1,
        "origin": "JFK",
        "dest": "BOS",
        "hour": 8,
        "tailnum": tailnum,
        "arr_delay": arr_delay,
        "dep_delay": dep_delay,
        "dep_time": dep_time,
    }


def test_outcomes_without_a_label_are_counted_and_never_rated(spark: SparkSession) -> None:
    day = date(2013, 5, 1)
    outcomes = [
        _outcome("N1", 15, 0, 800),  # exactly 15 minutes is not late
        _outcome("N1", 16, 6, 800),
        _outcome("N1", None, 30, 2400),  # diverted
        _outcome(None, None, None, None),  # cancelled before a plane was assigned
    ]
    flights = _frame(spark, FLIGHTS, pd.DataFrame(outcomes).assign(landed_date=day))
    rows = transforms.tiles(flights, Days.of(day)).collect()
    tiles = {(row["grain"], row["key"]): row for row in rows}
    assert set(tiles) == {
        ("co", "B6|JFK"),
        ("dest", "BOS"),
        ("route", "JFK|BOS"),
        ("tail", "N1"),
        ("oh", "JFK|8"),
        ("coh", "B6|JFK|8"),
        ("flight", "B6|1|JFK"),
        ("ap", "JFK"),
    }
    of_airport = tiles["ap", "JFK"]
    _assert_values(of_airport, n=4, n_known=2, n_late=1, sum_delay=31)
    _assert_values(of_airport, n_canc=1, n_departed=3, sum_depdelay=36)
    of_plane = tiles["tail", "N1"]
    _assert_values(of_plane, n=3, n_known=2, n_late=1, sum_delay=31)
    _assert_values(of_plane, n_canc=0, n_departed=3, sum_depdelay=36)


def _assert_values(row: Row, **expected: object) -> None:
    assert {name: row[name] for name in expected} == expected


def _tile(day: str, key: str, **sums: int) -> tuple[Any, ...]:
    """A tile whose departed flights were ten minutes late each."""
    departed = sums["n"] - sums.get("n_canc", 0)
    whole = {**sums, "n_departed": departed, "sum_depdelay": 10 * departed}
    values = [whole.get(name, 0) for name in _SUMS]
    return (_day(day), "dest", key, *values)


def test_a_window_without_rows_has_count_zero_and_no_rates_and_an_old_key_no_row(
    spark: SparkSession,
) -> None:
    night = _day("2013-05-29")
    rows = [
        _tile("2013-05-01", "old", n=1, n_known=1, n_late=1, sum_delay=99),
        _tile("2013-05-02", "edge", n=2, n_known=2, n_late=1, sum_delay=50),
        _tile("2013-05-29", "gone", n=1, n_canc=1),
    ]
    key = ["landed_date date", "grain string", "key string"]
    schema = ", ".join([*key, *(f"{name} long" for name in _SUMS)])
    daily = spark.createDataFrame(rows, schema)
    rolling = transforms.rolling(daily, Days.of(night))
    edge, gone = rolling.orderBy("key").collect()
    _assert_values(edge, key="edge", n_1=0, n_7=0, n_28=2)
    _assert_values(edge, late_1=None, depdelay_1=None)
    _assert_values(edge, late_7=None, delay_7=None, canc_7=None)
    _assert_values(edge, late_28=0.5, delay_28=25.0, canc_28=0.0)
    _assert_values(gone, key="gone", n_1=1, n_7=1, n_28=1)
    _assert_values(gone, late_1=None, depdelay_1=None)
    _assert_values(gone, late_7=None, delay_7=None, canc_7=1.0)
    _assert_values(gone, late_28=None, delay_28=None, canc_28=1.0)


def test_a_broken_anemometer_is_no_wind(spark: SparkSession) -> None:
    day = date(2013, 7, 1)
    # 200 mph is the bound, and 1048.36 was truly reported.
    measured = [(200.0, None), (199.9, 0.2), (1048.36, 0.1)]
    rows = []
    for hour, (wind, precip) in enumerate(measured):
        values = {"origin": "EWR", "hour": hour, "wind_speed": wind, "precip": precip}
        rows.append({**_blank(WEATHER), **values})
    observed = _frame(spark, WEATHER, pd.DataFrame(rows).assign(landed_date=day))
    hourly = transforms.weather_hourly(observed, Days.of(day))
    [daily] = transforms.weather_daily(hourly, Days.of(day)).collect()
    winds = [row["w_wind_speed"] for row in hourly.collect()]
    assert sorted(winds, key=str) == [199.9, None, None]
    assert daily["wd_wind_max"] == 199.9
    assert daily["wd_precip"] == pytest.approx(0.3)
    assert daily["wd_visib_min"] is None
