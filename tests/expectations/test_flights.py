"""Every suite passes on real rows, and every expectation of it fails on a planted fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from expectations import flights as suites
from jobs.commands.land import land
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.flights import PIPELINE
from tests.expectations import nights
from tests.expectations.faults import Fault, failed, failed_columns
from tests.expectations.nights import NIGHT, RAW, broken, judged

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLES = tuple(table.name for table in PIPELINE.tables)


def _set_to(value: str, *columns: str) -> list[Fault]:
    return [(column, value) for column in columns]


_SCHEDULED = [
    *_set_to("NULL", "flight_date", "carrier", "flight", "origin", "dest"),
    *_set_to("NULL", "sched_dep_time", "sched_arr_time", "distance", "hour"),
    ("minute", "NULL"),
    ("time_hour", "NULL"),
    ("origin", "'XXX'"),
    ("carrier", "'A'"),
    ("dest", "'jfk'"),
    ("flight", "0"),
    ("distance", "6000"),
    ("hour", "24"),
    ("minute", "60"),
    ("sched_arr_time", "2500"),
    ("tailnum", "'D942DN'"),
    ("dest", "origin"),
    ("sched_dep_time", "1"),
    ("time_hour", "time_hour + INTERVAL 1 HOUR"),
    ("flight_date", "flight_date - 2"),
]
_OBSERVED = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
_HOURLY = _set_to("9999", *(f"w_{name}" for name in _OBSERVED))
_DAILY = _set_to("9999", "wd_precip", "wd_visib_min", "wd_wind_max")
_SCHEDULE_FEATURES = (
    "dow",
    "month",
    "hour",
    "sched_min",
    "distance",
    "hol",
    "n_origin_hour",
    "n_origin_day",
    "tail_seq",
)
_LATER = ("event_timestamp", "event_timestamp + INTERVAL 1 HOUR")
_MODELLED = [
    *_set_to("NULL", "event_timestamp", "carrier", "dest", "plane_known"),
    *_set_to("NULL", *_SCHEDULE_FEATURES),
    ("origin", "'XXX'"),
    _LATER,
    ("co_late_7", "1.5"),
    ("dest_delay_28", "9999"),
    ("route_n_7", "-1"),
    ("plane_known", "0"),
    ("plane_known", "2"),
    ("plane_age", "500"),
    ("seats", "0"),
    ("block", "5"),
    ("dow", "8"),
    ("month", "13"),
    ("hour", "24"),
    ("sched_min", "1440"),
    ("distance", "0"),
    ("hol", "8"),
    ("n_origin_day", "0"),
    ("n_origin_hour", "0"),
    ("tail_seq", "-1"),
    *_HOURLY,
    *_DAILY,
]
FAULTS: dict[str, list[Fault]] = {
    "flights": [
        *_SCHEDULED,
        ("dep_delay", "9999"),
        ("arr_delay", "-200"),
        ("air_time", "5"),
        ("dep_time", "2401"),
        ("arr_time", "0"),
        ("dep_delay", "NULL"),
    ],
    "schedule": _SCHEDULED,
    "weather": [
        *_set_to("NULL", "weather_date", "hour"),
        ("origin", "'XXX'"),
        ("weather_date", "weather_date - 1"),
        ("hour", "24"),
        ("time_hour", "time_hour + INTERVAL 1 HOUR"),
        *_set_to("-99", "temp", "dewp", "humid", "wind_dir", "wind_speed"),
        *_set_to("-99", "wind_gust", "precip", "pressure", "visib"),
        ("dewp", "temp + 1"),
        ("wind_speed", "1048.36"),
        ("wind_gust", "300"),
    ],
    "planes": [
        ("tailnum", "'D942DN'"),
        ("year", "0"),
        ("year", "2050"),
        ("seats", "0"),
        ("engines", "40"),
    ],
    "airports": [
        ("faa", "'jfk'"),
        ("lat", "91"),
        ("lon", "-181"),
        ("tz", "20"),
        ("tzone", "'EST'"),
    ],
    "departures": [
        *_set_to("NULL", "departure_id", "event_timestamp"),
        *_set_to("NULL", *_SCHEDULE_FEATURES),
        ("block", "NULL"),
        ("origin", "'XXX'"),
        ("flight_date", "flight_date - 1"),
        _LATER,
        ("departure_id", "'1'"),
        ("co_key", "'UA'"),
        ("dow", "dow + 1"),
        ("block", "5"),
        ("hol", "8"),
        ("tail_seq", "50"),
    ],
    "tiles": [
        *_set_to("NULL", "grain", "key", "n", "n_known", "n_late", "n_canc", "n_departed"),
        ("grain", "'airport'"),
        ("n", "0"),
        ("n_late", "n_known + 1"),
        ("sum_delay", "99999999"),
        ("sum_depdelay", "-99999999"),
    ],
    "rolling": [
        *_set_to("NULL", "grain", "key", "event_timestamp", "n_1", "n_7", "n_28"),
        ("grain", "'airport'"),
        _LATER,
        ("n_7", "n_28 + 1"),
        ("late_7", "2"),
        ("delay_28", "9999"),
    ],
    "weather_hourly": [
        ("available_at", "NULL"),
        ("origin", "'XXX'"),
        ("available_at", "observed_at"),
        *_HOURLY,
    ],
    "weather_daily": [
        ("event_timestamp", "NULL"),
        ("origin", "'XXX'"),
        _LATER,
    ],
    "training": [
        *_MODELLED,
        ("late", "2"),
        ("flight_date", "flight_date - 3"),
    ],
    "scoring": [
        *_MODELLED,
        ("flight_date", "flight_date - 1"),
    ],
    "predictions": [
        *_set_to("NULL", "dest", "sched_dep_time", "late_probability", "model_version"),
        *_set_to("NULL", "model_run_id", "run_id", "predicted_at", "scoring_version"),
        ("late_probability", "1"),
        ("late_probability", "'NaN'"),
    ],
}
"""One fault in one row each."""
_NO_ROW_LEFT_TO_BREAK = {"weather_daily": {"feature_out_of_range"}}
"""Three rows a day hold three faults."""


_LANDED = (
    NIGHT,
    date(2013, 3, 6),
    date(2013, 2, 9),
    date(2013, 2, 12),
    date(2013, 3, 10),
    date(2013, 11, 3),
    date(2013, 12, 30),
    date(2013, 12, 31),
)
"""A usual night, the one after it, and odd ones: storms, changes of the clocks, the year's end."""


@pytest.fixture(scope="session")
def landing(tmp_path_factory: pytest.TempPathFactory, shared_environment: Environment) -> Path:
    folder = tmp_path_factory.mktemp("landing")
    for day in _LANDED:
        land(PIPELINE, replace(shared_environment, landing=folder), Days.of(day))
    return folder


@pytest.fixture(scope="session")
def good(spark: SparkSession, landing: Path) -> Iterator[dict[str, DataFrame]]:
    """Real rows of one night of every table, kept in the server."""
    made: dict[str, DataFrame] = {}
    for name in TABLES:
        made[name] = _made(spark, landing, name, made).persist()
    yield made
    for frame in made.values():
        frame.unpersist()


def _made(
    spark: SparkSession,
    landing: Path,
    name: str,
    made: dict[str, DataFrame],
) -> DataFrame:
    if name in RAW:
        return nights.raw(spark, landing, name, NIGHT)
    if name in ("training", "scoring"):
        return nights.features(spark, name, NIGHT)
    if name == "predictions":
        return nights.predictions(made["scoring"])
    return nights.derived(name, made, NIGHT)


@pytest.mark.parametrize("name", TABLES)
def test_real_rows_pass(good: dict[str, DataFrame], name: str) -> None:
    verdict = judged(name, good[name])
    assert not failed(verdict), verdict.failures
    assert verdict.rows == good[name].count()


@pytest.mark.usefixtures("one_explained")
@pytest.mark.parametrize("name", TABLES)
def test_every_expectation_about_rows_can_fail(good: dict[str, DataFrame], name: str) -> None:
    suite = getattr(suites, name)(Days.of(NIGHT))
    untested = _NO_ROW_LEFT_TO_BREAK.get(name, set())
    declared = {
        (one.expectation_type, one.column, one.severity.value)
        for one in suite.each_row
        if one.column not in untested
    }
    rows = broken(good[name], name, FAULTS[name])
    verdict = judged(name, rows, same_rows=good[name])
    assert declared - failed(verdict) == set()


@pytest.mark.usefixtures("one_explained")
@pytest.mark.parametrize(
    ("name", "change", "caught_by"),
    [
        ("flights", lambda rows: rows.where("pmod(flight, 2) = 0"), {"rows"}),
        ("flights", lambda rows: rows.union(rows), {"rows_of_key", "rows"}),
        (
            "flights",
            lambda rows: rows.selectExpr(
                "* EXCEPT (landed_date)", "landed_date + 1 AS landed_date"
            ),
            {"day_of_the_run", "rows"},
        ),
        (
            "flights",
            lambda rows: _with(rows, arr_delay="0", dep_delay="0"),
            {"arr_delay_error", "dep_delay_error", "late_share", "arr_delay_spread"},
        ),
        ("flights", lambda rows: _with(rows, arr_delay="arr_delay * 60"), {"arr_delay_error"}),
        (
            "flights",
            lambda rows: _with(rows, dep_delay="arr_delay", arr_delay="dep_delay"),
            {"dep_delay_error", "arr_delay_error"},
        ),
        (
            "flights",
            lambda rows: _with(rows, origin="dest", dest="origin"),
            {"origin", "origins"},
        ),
        (
            "flights",
            lambda rows: _with(rows, time_hour="from_utc_timestamp(time_hour, 'America/New_York')"),
            {"time_hour_error"},
        ),
        ("flights", lambda rows: rows.where("origin <> 'LGA'"), {"origins"}),
        ("flights", lambda rows: rows.limit(0), {"rows"}),
        ("flights", lambda rows: _cancelled(rows), {"cancelled_share"}),
        ("schedule", lambda rows: rows.where("pmod(flight, 2) = 0"), {"rows"}),
        (
            "schedule",
            lambda rows: rows.where("carrier IN ('UA', 'DL') OR dest = 'MIA'"),
            {"rows", "destinations"},
        ),
        ("weather", lambda rows: rows.where("hour < 12"), {"hours"}),
        ("weather", lambda rows: rows.where("origin <> 'JFK'"), {"airports"}),
        (
            "weather",
            lambda rows: _with(rows, temp="(temp - 32) / 1.8", dewp="(dewp - 32) / 1.8"),
            {"humidity_error"},
        ),
        ("weather", lambda rows: _with(rows, wind_speed="NULL", visib="NULL"), {"known_share"}),
        ("planes", lambda rows: rows.limit(1500), {"planes"}),
        ("airports", lambda rows: rows.where("faa <> 'JFK'"), {"home_airports"}),
        (
            "departures",
            lambda rows: rows.where("pmod(flight, 2) = 0"),
            {"rows", "rows_lacking", "feature_error"},
        ),
        (
            "tiles",
            lambda rows: rows.where("grain <> 'route' OR pmod(hash(key), 2) = 0"),
            {"grain_difference"},
        ),
        ("rolling", lambda rows: rows.where("grain <> 'ap'"), {"airports"}),
        ("training", lambda rows: rows.where("pmod(flight, 2) = 0"), {"own_flights_if_any"}),
        ("training", lambda rows: _with(rows, late="0"), {"label_mean"}),
        (
            "scoring",
            lambda rows: _with(rows, plane_known="0", plane_age="NULL", seats="NULL"),
            {"plane_known_share"},
        ),
        ("predictions", lambda rows: rows.where("pmod(flight, 2) = 0"), {"rows", "rows_lacking"}),
        ("predictions", lambda rows: _with(rows, late_probability="0.5"), {"probability_spread"}),
        ("predictions", lambda rows: _with(rows, model_version="origin"), {"models"}),
    ],
)
def test_what_plausibly_breaks_is_refused(
    good: dict[str, DataFrame],
    name: str,
    change: Callable[[DataFrame], DataFrame],
    caught_by: set[str],
) -> None:
    verdict = judged(name, change(good[name]), same_rows=good[name])
    assert caught_by <= failed_columns(verdict)


@pytest.mark.parametrize("name", ["flights", "schedule"])
def test_the_file_of_another_day_is_refused(spark: SparkSession, landing: Path, name: str) -> None:
    tomorrow = nights.raw(spark, landing, name, date(2013, 3, 6))
    mislabelled = tomorrow.selectExpr("* EXCEPT (landed_date)", f"DATE'{NIGHT}' AS landed_date")
    assert failed_columns(judged(name, mislabelled)) & {"days_until_known", "days_ahead"}


@pytest.mark.parametrize(
    ("day", "name", "warning"),
    [
        (date(2013, 2, 9), "flights", "cancelled_share"),
        (date(2013, 2, 12), "weather", "wind_speed"),
        (date(2013, 12, 31), "weather", "rows"),
        (date(2013, 12, 31), "flights", None),
        (date(2013, 3, 10), "weather", None),
        (date(2013, 11, 3), "weather", None),
    ],
)
def test_odd_days_of_the_real_year_pass(
    spark: SparkSession, landing: Path, day: date, name: str, warning: str | None
) -> None:
    rows = nights.raw(spark, landing, name, day)
    verdict = judged(name, rows, Days.of(day))
    assert verdict.passed
    assert {check.column for check in verdict.warnings} == ({warning} if warning else set())


def test_a_range_is_judged_as_its_nights_are(
    spark: SparkSession, landing: Path, good: dict[str, DataFrame]
) -> None:
    tomorrow = nights.raw(spark, landing, "flights", date(2013, 3, 6))
    half = tomorrow.where("pmod(flight, 2) = 0")
    both = Days(NIGHT, date(2013, 3, 6))
    assert judged("flights", good["flights"].union(tomorrow), both).passed
    verdict = judged("flights", good["flights"].union(half), both)
    alone = judged("flights", half, Days.of(both.last))
    assert failed_columns(alone) == {"rows"}
    assert failed_columns(verdict) == {"rows"}
    assert [check.examples for check in verdict.failures] == [
        ({"landed_date": "2013-03-06", "rows": f"{half.count()}.0"},)
    ]


@pytest.mark.parametrize(
    ("left", "warnings"),
    [("FALSE", {"rows"}), ("flight_date < landed_date AND late = 1", {"own_flights"})],
)
def test_a_night_after_one_that_was_never_run_trains_on_what_is_known(
    good: dict[str, DataFrame], left: str, warnings: set[str]
) -> None:
    verdict = judged("training", good["training"].where(left))
    assert verdict.passed
    assert {check.column for check in verdict.warnings} == warnings


def test_a_day_without_a_drop_may_be_empty(good: dict[str, DataFrame]) -> None:
    first = Days.of(PIPELINE.first_day)
    assert judged("flights", good["flights"].limit(0), first).passed
    assert failed_columns(judged("schedule", good["schedule"].limit(0), first)) == {"rows"}


def _with(rows: DataFrame, **changed: str) -> DataFrame:
    """The rows with other values (SQL) in some columns, of the columns' own types."""
    types = dict(rows.dtypes)
    columns = {name: f"CAST({sql} AS {types[name]}) AS {name}" for name, sql in changed.items()}
    return rows.selectExpr(*(columns.get(name, name) for name in rows.columns))


def _cancelled(rows: DataFrame) -> DataFrame:
    never_happened = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
    return _with(rows, **dict.fromkeys(never_happened, "NULL"))
