"""What must hold of the flights pipeline.

A suite per table, each a function of the nights that a run writes.

Bounds on volumes and shares leave room around what 2013 shows (634 to 1,014 flights a day, up to 60
% of them cancelled in the blizzard of 9 February), and are tight enough that half a file, a file
twice, another day's file or another unit fall outside. Comments beside them tell the least and the
most of 2013. What was seen in real data and is no fault of the feed is a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from great_expectations.expectations.expectation import Expectation

from expectations import feature_rules
from expectations import predictions as model_rules
from expectations.fragments import (
    clock_error,
    first_true,
    joined,
    midnight_error,
    relative_humidity,
)
from expectations.suite import ROWS, Suite, absent, all_present, between, matches, one_of, present
from pipelines.days import Days
from pipelines.features import names
from pipelines.flights import (
    AIRPORTS,
    DEPARTURE,
    EARLIEST_ARRIVAL,
    FLIGHTS,
    LATE_MINUTES,
    LONGEST_DELAY,
    PIPELINE,
    PLANES,
    ROLLING,
    SCHEDULE,
    STORM_MPH,
    TIMEZONE,
    WEATHER,
    WEATHER_DAILY,
    WEATHER_HOURLY,
    clock_minutes,
)

_ORIGINS = ("EWR", "JFK", "LGA")
_FLOWN_A_DAY = (600, 1200)
"""Outcomes of a drop: flights of its day, and some of the day before."""
_SCHEDULED_A_DAY = (600, 1100)
_TAILNUM = "^N[0-9][0-9A-Z]{1,4}$"
"""Registrations of the United States: N, a digit, and up to four more characters."""
_DEPARTURES_RULES = feature_rules.of_table(PIPELINE, "departures")
_ROLLING_RULES = feature_rules.of_table(PIPELINE, "rolling")
_WEATHER_HOURLY_RULES = feature_rules.of_table(PIPELINE, "weather_hourly")
_WEATHER_DAILY_RULES = feature_rules.of_table(PIPELINE, "weather_daily")
_MODEL_RULES = feature_rules.of_model(PIPELINE)
_GRAINS = tuple(grain.name for grain in ROLLING.grains)


def flights(days: Days) -> Suite:
    """Outcomes: each agrees with its clock times, and is of the drop's day or the one before."""
    return Suite(
        days=PIPELINE.drop_days(FLIGHTS, days),
        key=FLIGHTS.key,
        has=FLIGHTS.column_names,
        derived={
            **_DEPARTURE_ERRORS,
            "days_until_known": "datediff(landed_date, flight_date)",
            "dep_delay_error": (_clock_error("sched_dep_time", "dep_time", "dep_delay")),
            "arr_delay_error": (_clock_error("sched_arr_time", "arr_time", "arr_delay")),
            "miles_per_hour": "distance / air_time * 60",
            "half_an_outcome": first_true(
                {
                    "dep_time without dep_delay": "(dep_time IS NULL) <> (dep_delay IS NULL)",
                    "arr_delay without air_time": "(arr_delay IS NULL) <> (air_time IS NULL)",
                    "arrived without departing": "arr_time IS NOT NULL AND dep_time IS NULL",
                    "arr_delay without arr_time": "arr_delay IS NOT NULL AND arr_time IS NULL",
                    "flew without a plane": "tailnum IS NULL AND dep_time IS NOT NULL",
                }
            ),
        },
        each_row=(
            *_DEPARTURE_ROWS,
            one_of(
                "days_until_known",
                [0, 1],
                says="The flight is of the day of the drop or of the day before.",
            ),
            between("dep_delay", EARLIEST_ARRIVAL, LONGEST_DELAY),
            between("arr_delay", EARLIEST_ARRIVAL, LONGEST_DELAY),
            between("air_time", 15, 900),  # 2013: 20 to 695
            between("dep_time", 1, 2400),
            between("arr_time", 1, 2400),
            between(
                "miles_per_hour",
                50,
                800,  # 2013: 77 to 703
                says="The speed in the air, miles per hour, is a plane's.",
            ),
            one_of(
                "dep_delay_error",
                [0],
                says="dep_delay is the minutes between sched_dep_time and dep_time.",
            ),
            one_of(
                "arr_delay_error",
                [0],
                says="arr_delay is the minutes between sched_arr_time and arr_time.",
            ),
            absent(
                "half_an_outcome",
                says=(
                    "An outcome is whole: "
                    "what left has a plane and a delay, what arrived has a time and a delay."
                ),
            ),
        ),
        measures={
            **_DEPARTURE_MEASURES,
            "cancelled_share": "avg(CAST(dep_time IS NULL AS INT))",
            "diverted_share": "avg(CAST(dep_time IS NOT NULL AND arr_delay IS NULL AS INT))",
            "day_before_share": "avg(CAST(flight_date < landed_date AS INT))",
            "late_share": f"avg(CAST(arr_delay > {LATE_MINUTES} AS INT))",
            "arr_delay_mean": "avg(arr_delay)",
            "arr_delay_spread": "stddev(arr_delay)",
        },
        each_day=(
            *_departures_a_day(_FLOWN_A_DAY),
            # Some fly even in a blizzard: 60 % were cancelled on 2013-02-09.
            between("cancelled_share", 0, 0.95),
            # Two days of 2013 had more, those of the blizzard.
            between(
                "cancelled_share",
                0,
                0.3,
                severity="warning",
                says="Not more than 30 % of the day's flights are cancelled.",
            ),
            between("diverted_share", 0, 0.2),  # 2013: at most 4 %
            # 2013: at most 17 %.
            between("day_before_share", 0, 0.4, says="Most of the drop is about its own day."),
            between("late_share", 0.005, 0.95),  # 2013: 4 to 77 %
            between("arr_delay_mean", -45, 180),  # 2013: -20 to 77
            between(
                "arr_delay_spread",
                5,
                250,  # 2013: 19 to 95
                says="Arrival delays differ among flights (standard deviation, minutes).",
            ),
        ),
    )


def schedule(days: Days) -> Suite:
    """Flights of the day after the drop."""
    return Suite(
        days=PIPELINE.drop_days(SCHEDULE, days),
        key=SCHEDULE.key,
        has=SCHEDULE.column_names,
        derived={**_DEPARTURE_ERRORS, "days_ahead": "datediff(flight_date, landed_date)"},
        each_row=(*_DEPARTURE_ROWS, _TOMORROW),
        measures={**_DEPARTURE_MEASURES, "no_plane_share": "avg(CAST(tailnum IS NULL AS INT))"},
        each_day=(
            *_departures_a_day(_SCHEDULED_A_DAY),
            between("no_plane_share", 0, 0.6),  # 2013: at most 25 %
        ),
    )


def weather(days: Days) -> Suite:
    """Hourly observations. A day without any is real (2013-12-31), and so is one mad wind speed.

    Warnings.
    """
    return Suite(
        days=PIPELINE.drop_days(WEATHER, days),
        key=WEATHER.key,
        has=WEATHER.column_names,
        derived={
            "days_old": "datediff(landed_date, weather_date)",
            "time_hour_error": clock_error("time_hour", "weather_date", TIMEZONE),
            "dewp_above_temp": "dewp - temp",
        },
        each_row=(
            *all_present(["weather_date", "hour"]),
            one_of("origin", _ORIGINS),
            one_of("days_old", [0], says="The observation is of the day of the drop."),
            between("hour", 0, 23),
            one_of(
                "time_hour_error",
                [0],
                says=(
                    "time_hour is the instant at which New York's clocks "
                    "show weather_date and hour."
                ),
            ),
            between("temp", -30, 120),  # 2013: 11 to 100
            between("dewp", -50, 100),  # 2013: -10 to 78
            between("dewp_above_temp", None, 0, says="The dew point is not above the temperature."),
            between("humid", 0, 100),
            between("wind_dir", 0, 360),
            between("wind_speed", 0, None),
            between("wind_speed", None, STORM_MPH, severity="warning"),
            between("wind_gust", 0, None),
            between("wind_gust", None, STORM_MPH, severity="warning"),
            between("precip", 0, 5),  # 2013: at most 1.2
            between("pressure", 900, 1100),  # 2013: 984 to 1,042
            between("visib", 0, 20),  # 2013: at most 10
        ),
        measures={
            "hours": "count(1)",
            "airports": "count(DISTINCT origin)",
            # The median, because a single odd row is no other unit.
            "humidity_error": f"percentile(abs({relative_humidity('temp', 'dewp')} - humid), 0.5)",
            "known_share": (
                "(count(temp) + count(humid) + count(wind_speed) + count(visib)) / (4 * count(1))"
            ),
            "wind_speed_median": "percentile(wind_speed, 0.5)",
            "pressure_mean": "avg(pressure)",
        },
        each_day=(
            between(ROWS, 1, None, severity="warning", says="Weather was observed on the day."),
            # 2013: 57 and more. At most 25 hours at three airports.
            between(
                "hours", 45, 75, says="A day with weather has nearly all of its 72 hourly rows."
            ),
            one_of("airports", [3], says="A day with weather has that of all three airports."),
            between(
                "humidity_error",
                0,
                2,
                says=(
                    "Temperature and dew point in Fahrenheit agree "
                    "with the humidity (median error, percent)."
                ),
            ),
            between("known_share", 0.8, 1),  # 2013: at least 99 %
            between("wind_speed_median", 1, 60),  # 2013: 4 to 28
            between("pressure_mean", 960, 1060),  # 2013: 999 to 1,038
        ),
    )


def planes(days: Days) -> Suite:
    """The register of planes, on a day on which it changed."""
    return Suite(
        days=PIPELINE.drop_days(PLANES, days),
        key=PLANES.key,
        has=PLANES.column_names,
        derived={"years_ahead": "year - year(landed_date)"},
        each_row=(
            matches("tailnum", _TAILNUM),
            between("year", 1900, None),
            between("years_ahead", None, 1, says="No plane was made after next year."),
            between("seats", 1, 900),  # 2013: 2 to 450
            between("engines", 1, 8),  # 2013: 1 to 4
        ),
        measures={"planes": "count(1)", "year_known_share": "count(year) / count(1)"},
        each_day=(
            # It has 3,322.
            between("planes", 2000, 20_000, says="The register is whole."),
            between("year_known_share", 0.9, 1),  # 98 % in the register of 2013
        ),
    )


def airports(days: Days) -> Suite:
    """The register of airports, on a day on which it changed."""
    return Suite(
        days=PIPELINE.drop_days(AIRPORTS, days),
        key=AIRPORTS.key,
        has=AIRPORTS.column_names,
        each_row=(
            matches("faa", "^[A-Z0-9]{3}$"),
            between("lat", -90, 90),
            between("lon", -180, 180),
            between("tz", -12, 14),  # the ends of what zones there are
            matches("tzone", "^[A-Z][A-Za-z_]+/[A-Za-z_/]+$"),
        ),
        measures={
            "airports": "count(1)",
            "tzone_known_share": "count(tzone) / count(1)",
            "home_airports": f"count_if(faa IN {_ORIGINS} AND tzone = '{PIPELINE.timezone}')",
        },
        each_day=(
            # It has 1,458, and the zone of all but three.
            between("airports", 1000, 10_000, says="The register is whole."),
            between("tzone_known_share", 0.95, 1),
            one_of(
                "home_airports", [3], says="The airports of New York are there, in its time zone."
            ),
        ),
    )


def departures(days: Days) -> Suite:
    """The schedule with what it alone tells: its counts are those of the rows themselves."""
    # Written out again: whatever made the keys would agree with itself.
    keys = {
        "co": "carrier, origin",
        "dest": "dest",
        "route": "origin, dest",
        "tail": "tailnum",
        "oh": "origin, hour",
        "coh": "carrier, origin, hour",
        "flight": "carrier, flight, origin",
        "ap": "origin",
    }
    return Suite(
        days=PIPELINE.drop_days(SCHEDULE, days),
        key=SCHEDULE.key,
        has=(
            *SCHEDULE.column_names,
            "departure_id",
            "event_timestamp",
            *(f"{grain}_key" for grain in _GRAINS),
            *names([DEPARTURE]),
        ),
        same_rows_as="schedule",
        derived={
            **_DEPARTURES_RULES.derived,
            "days_ahead": "datediff(flight_date, landed_date)",
            "event_error": midnight_error("event_timestamp", "landed_date", TIMEZONE),
            "id_error": f"departure_id <> {joined(', '.join(PIPELINE.entity))}",
            "key_error": first_true(
                {
                    # '<=>' takes two nulls for equal: without a plane there is no key of one.
                    f"{grain}_key": f"NOT {grain}_key <=> {joined(columns)}"
                    for grain, columns in keys.items()
                }
            ),
            "feature_error": first_true(
                {
                    "dow": "dow <> weekday(flight_date) + 1",
                    "month": "month <> month(flight_date)",
                    "hour": "hour <> sched_dep_time DIV 100",
                    "sched_min": f"sched_min <> {clock_minutes('sched_dep_time')}",
                    "n_origin_day": (
                        "n_origin_day <> count(1) OVER (PARTITION BY landed_date, origin)"
                    ),
                    "n_origin_hour": (
                        "n_origin_hour <> count(1) OVER (PARTITION BY landed_date, origin, hour)"
                    ),
                    "tail_seq": "(tailnum IS NULL) <> (tail_seq = 0)",
                }
            ),
        },
        each_row=(
            *_DEPARTURES_RULES.each_row,
            *all_present(["departure_id", "event_timestamp"]),
            one_of("origin", _ORIGINS),
            _TOMORROW,
            one_of(
                "event_error",
                [0],
                says=(
                    "event_timestamp is the scoring moment: "
                    "midnight in New York at the end of landed_date."
                ),
            ),
            one_of(
                "id_error",
                [False],
                says="departure_id is made of flight_date, carrier, flight and origin.",
            ),
            absent("key_error", says="The keys are those of the columns, joined by '|'."),
            absent("feature_error", says="What the schedule tells agrees with the schedule."),
            present(
                "block",
                severity="warning",
                says="The scheduled duration is known: the destination's time zone is.",
            ),
        ),
        measures=_DEPARTURE_MEASURES,
        each_day=_departures_a_day(_SCHEDULED_A_DAY),
    )


def tiles(days: Days) -> Suite:
    """Daily sums: parts do not exceed wholes, and every grain sums up the same flights."""
    totals = _totals("n")
    return Suite(
        days=PIPELINE.drop_days(FLIGHTS, days),
        key=("grain", "key"),
        has=("n", "n_known", "n_late", "sum_delay", "n_canc", "n_departed", "sum_depdelay"),
        derived={
            "count_error": first_true(
                {
                    "n_canc + n_departed <> n": "n_canc + n_departed <> n",
                    "n_known > n_departed": "n_known > n_departed",
                    "n_late > n_known": "n_late > n_known",
                    "a negative count": "least(n_canc, n_departed, n_known, n_late) < 0",
                }
            ),
            "mean_delay": "sum_delay / nullif(n_known, 0)",
            "mean_depdelay": "sum_depdelay / nullif(n_departed, 0)",
        },
        each_row=(
            *all_present(["grain", "key", "n", "n_known", "n_late", "n_canc", "n_departed"]),
            one_of("grain", _GRAINS),
            between("n", 1, _FLOWN_A_DAY[1]),
            absent("count_error", says="Parts do not exceed wholes."),
            between("mean_delay", EARLIEST_ARRIVAL, LONGEST_DELAY),
            between("mean_depdelay", EARLIEST_ARRIVAL, LONGEST_DELAY),
        ),
        measures={
            "flights": totals[-1],
            "grain_difference": _apart(totals),
            "unassigned_share": f"1 - sum(n) FILTER (WHERE grain = 'tail') / {totals[-1]}",
            "grains": "count(DISTINCT grain)",
        },
        each_day=(
            between(ROWS, 1, None, says="The day has tiles."),
            between("flights", *_FLOWN_A_DAY),
            one_of(
                "grain_difference",
                [0],
                says="Every grain but the plane's sums up the same number of flights.",
            ),
            between(
                "unassigned_share", 0, 0.6, says="Most flights have a plane, and none has two."
            ),
            one_of("grains", [len(_GRAINS)]),
        ),
    )


def rolling(days: Days) -> Suite:
    """Rates and means over windows: longer windows hold more, empty ones hold nothing."""
    windows = ROLLING.windows
    totals = [f"coalesce({total}, 0)" for total in _totals(f"n_{windows[-1]}")]
    counts = [f"n_{days}" for days in windows]
    figures = [statistic.column(window) for statistic, window in ROLLING.figures]
    return Suite(
        days=PIPELINE.drop_days(FLIGHTS, days),
        key=("grain", "key"),
        has=("event_timestamp", *figures),
        derived={
            "event_error": midnight_error("event_timestamp", "landed_date", TIMEZONE),
            "window_error": first_true(
                {
                    **{f"n_{a} > n_{b}": f"n_{a} > n_{b}" for a, b in pairwise(windows)},
                    "no row in the longest window": f"n_{windows[-1]} < 1",
                    **{
                        f"figures of no row in {w} days": (
                            f"n_{w} = 0 AND coalesce(late_{w}, delay_{w}, canc_{w}) IS NOT NULL"
                        )
                        for w in windows
                    },
                    **{
                        f"rows without canc_{w}": f"n_{w} > 0 AND canc_{w} IS NULL" for w in windows
                    },
                }
            ),
            **_ROLLING_RULES.derived,
        },
        each_row=(
            *_ROLLING_RULES.each_row,
            *all_present(["grain", "key", "event_timestamp", *counts]),
            one_of("grain", _GRAINS),
            one_of(
                "event_error",
                [0],
                says="event_timestamp is the scoring moment at the end of landed_date.",
            ),
            absent(
                "window_error",
                says="Longer windows hold more rows, and a window without rows has no figures.",
            ),
        ),
        measures={
            "airports": "count_if(grain = 'ap')",
            "flights": "sum(n_1) FILTER (WHERE grain = 'ap')",
            "grain_difference": (
                f"sum(n_{windows[-1]}) FILTER (WHERE grain = 'ap') - "
                f"sum(n_{windows[-1]}) FILTER (WHERE grain = 'route')"
            ),
            "short_grain": _apart(totals),
        },
        each_day=(
            between(ROWS, 1, None, says="The day has rolling figures."),
            one_of("airports", [3]),
            between("flights", *_FLOWN_A_DAY),
            one_of("grain_difference", [0], says="Airports and routes sum up the same flights."),
            one_of(
                "short_grain",
                [0],
                severity="warning",
                says="Every grain but the plane's has seen the same flights. One that was declared "
                "later has none of the days before: --restate makes them anew.",
            ),
        ),
    )


def _totals(count: str) -> list[str]:
    """SQL of the count's sum in each grain that has all flights; that of airports is the last."""
    # A flight that was cancelled early has no plane.
    whole = [grain for grain in _GRAINS if grain != "tail"]
    return [f"sum({count}) FILTER (WHERE grain = '{grain}')" for grain in whole]


def _apart(totals: Sequence[str]) -> str:
    """SQL of the largest difference between them."""
    listed = ", ".join(totals)
    return f"greatest({listed}) - least({listed})"


def weather_hourly(days: Days) -> Suite:
    """Cleaned weather: nothing is available before it was observed, and no wind is mad any more."""
    return Suite(
        days=PIPELINE.drop_days(WEATHER, days),
        key=("origin", "observed_at"),
        has=("available_at", *names([WEATHER_HOURLY])),
        derived={
            **_WEATHER_HOURLY_RULES.derived,
            "available_error": midnight_error("available_at", "landed_date", TIMEZONE),
            "hours_until_available": (
                "(unix_timestamp(available_at) - unix_timestamp(observed_at)) / 3600"
            ),
        },
        each_row=(
            present("available_at"),
            one_of("origin", _ORIGINS),
            one_of(
                "available_error",
                [0],
                says="available_at is the scoring moment at the end of landed_date.",
            ),
            # The last hour of a day begins an hour before its end, the first at most 25.
            between(
                "hours_until_available",
                0.5,
                25,
                says="The observation is of landed_date, before it became available.",
            ),
            *_WEATHER_HOURLY_RULES.each_row,
        ),
        measures={"hours": "count(1)", "airports": "count(DISTINCT origin)"},
        each_day=(
            between(ROWS, 1, None, severity="warning", says="Weather was observed on the day."),
            between("hours", 45, 75),
            one_of("airports", [3]),
        ),
    )


def weather_daily(days: Days) -> Suite:
    """Sums and extremes of the day at each airport."""
    return Suite(
        days=PIPELINE.drop_days(WEATHER, days),
        key=("origin",),
        has=("event_timestamp", *names([WEATHER_DAILY])),
        derived={
            **_WEATHER_DAILY_RULES.derived,
            "event_error": midnight_error("event_timestamp", "landed_date", TIMEZONE),
        },
        each_row=(
            present("event_timestamp"),
            one_of("origin", _ORIGINS),
            one_of(
                "event_error",
                [0],
                says="event_timestamp is the scoring moment at the end of landed_date.",
            ),
            *_WEATHER_DAILY_RULES.each_row,
        ),
        measures={"airports": "count(DISTINCT origin)"},
        each_day=(
            between(ROWS, 1, None, severity="warning", says="Weather was observed on the day."),
            one_of("airports", [3]),
        ),
    )


def training(days: Days) -> Suite:
    """Features as of the scoring moment, with the label that became known on landed_date.

    A night has rows only of the flights whose departures are known. When the night before was never
    run, those of the day itself are not, and only some that landed after midnight remain: a
    warning.
    """
    label, own = PIPELINE.training.label, "flight_date = landed_date"
    return Suite(
        days=PIPELINE.drop_days(FLIGHTS, days),
        key=PIPELINE.entity,
        has=("event_timestamp", label, *PIPELINE.training.features),
        derived={
            **_FEATURE_ERRORS,
            "days_until_known": "datediff(landed_date, flight_date)",
            "event_error": midnight_error("event_timestamp", "date_sub(flight_date, 1)", TIMEZONE),
        },
        each_row=(
            *_FEATURE_ROWS,
            *model_rules.label_rows(PIPELINE),
            one_of(
                "days_until_known",
                [0, 1],
                says="The label became known on the flight's day or on the day after.",
            ),
        ),
        measures={
            **_feature_measures(own),
            "own_flights": f"count_if({own})",
            # Null on a day without any, which passes.
            "own_flights_if_any": f"nullif(count_if({own}), 0)",
            "label_known_share": f"avg(CAST({label} IS NOT NULL AS INT)) FILTER (WHERE {own})",
            "label_mean": f"avg({label}) FILTER (WHERE {own})",
        },
        each_day=(
            *_FEATURE_DAYS,
            between(
                ROWS, 1, _FLOWN_A_DAY[1], severity="warning", says="The day has training rows."
            ),
            between(
                "own_flights",
                1,
                None,
                severity="warning",
                says="The departures of the day's own flights are known.",
            ),
            between(
                "own_flights_if_any",
                550,  # 2013: at least 611
                _FLOWN_A_DAY[1],
                says="When departures of the day are known, nearly all its flights are there.",
            ),
            # Cancelled flights have none: 40 % had one in the blizzard.
            between("label_known_share", 0.05, 1),
            between("label_mean", 0.005, 0.95),  # 2013: 4 to 78 %
        ),
    )


def scoring(days: Days) -> Suite:
    """Features of each flight scheduled for the day after landed_date, one row a flight."""
    return Suite(
        days=PIPELINE.drop_days(SCHEDULE, days),
        key=PIPELINE.entity,
        has=("event_timestamp", *PIPELINE.carried, *PIPELINE.training.features),
        same_rows_as="departures",
        derived={
            **_FEATURE_ERRORS,
            "days_ahead": "datediff(flight_date, landed_date)",
            "event_error": midnight_error("event_timestamp", "landed_date", TIMEZONE),
        },
        each_row=(*_FEATURE_ROWS, _TOMORROW),
        measures=_feature_measures("TRUE"),
        each_day=(*_FEATURE_DAYS, between(ROWS, *_SCHEDULED_A_DAY)),
    )


def predictions(days: Days) -> Suite:
    """One probability for each scoring row, all of a day by one model."""
    scored = PIPELINE.drop_days(SCHEDULE, days)
    return Suite(
        days=scored and scored.shifted(1),
        day=PIPELINE.event_date,
        key=PIPELINE.entity,
        has=model_rules.prediction_columns(PIPELINE),
        same_rows_as="scoring",
        each_row=(*all_present(PIPELINE.carried), *model_rules.prediction_rows(PIPELINE)),
        measures=model_rules.prediction_measures(PIPELINE),
        each_day=(
            between(ROWS, *_SCHEDULED_A_DAY),
            between("probability_mean", 0.02, 0.9, says="The mean probability is plausible."),
            *model_rules.prediction_days(PIPELINE),
        ),
    )


_TOMORROW = one_of("days_ahead", [1], says="The flight is of the day after landed_date.")
_DEPARTURE_ERRORS = {
    "time_hour_error": clock_error("time_hour", "flight_date", TIMEZONE),
    "sched_dep_error": "hour * 100 + minute - sched_dep_time",
    "goes_nowhere": "origin = dest",
}
_DEPARTURE_ROWS: tuple[Expectation, ...] = (
    *all_present(column.name for column in SCHEDULE.columns if column.required),
    one_of("origin", _ORIGINS),
    matches("carrier", "^[0-9A-Z]{2}$"),
    matches("dest", "^[A-Z]{3}$"),
    # A flight number has at most four digits.
    between("flight", 1, 9999),
    between("distance", 10, 5100),  # 2013: 17 (LaGuardia) to 4,983 (Honolulu)
    between("hour", 0, 23),
    between("minute", 0, 59),
    # Midnight is written as the start of a day or as the end of one.
    between("sched_arr_time", 0, 2400),
    matches(
        "tailnum", _TAILNUM, severity="warning", says="tailnum looks like an American registration."
    ),
    one_of("goes_nowhere", [False], says="The flight goes somewhere else."),
    one_of("sched_dep_error", [0], says="sched_dep_time is made of hour and minute."),
    one_of(
        "time_hour_error",
        [0],
        says="time_hour is the instant at which New York's clocks show flight_date and hour.",
    ),
)
_DEPARTURE_MEASURES = {
    "origins": "count(DISTINCT origin)",
    "carriers": "count(DISTINCT carrier)",
    "destinations": "count(DISTINCT dest)",
}


def _clock_error(scheduled: str, actual: str, delay: str) -> str:
    """Minutes, modulo a day, by which a delay differs from what the clock times say."""
    return f"pmod({clock_minutes(actual)} - {clock_minutes(scheduled)} - {delay}, 1440)"


def _departures_a_day(volume: tuple[int, int]) -> tuple[Expectation, ...]:
    return (
        between(ROWS, *volume, says=f"A day has {volume[0]:,} to {volume[1]:,} flights."),
        one_of("origins", [3], says="All three airports are there."),
        between("carriers", 8, 30),  # 2013: 13 to 16
        between("destinations", 50, 150),  # 2013: 75 to 92
    )


def _feature_measures(where: str) -> dict[str, str]:
    """Measures over the rows for which the condition holds: a few stragglers tell nothing."""
    return {
        "plane_known_share": f"avg(plane_known) FILTER (WHERE {where})",
        "history_share": f"avg(CAST(co_n_28 > 0 AS INT)) FILTER (WHERE {where})",
        "weather_share": f"avg(CAST(w_temp IS NOT NULL AS INT)) FILTER (WHERE {where})",
    }


_FEATURE_ERRORS = {
    **_MODEL_RULES.derived,
    "plane_error": "plane_known = 0 AND coalesce(plane_age, seats) IS NOT NULL",
}
_FEATURE_ROWS: tuple[Expectation, ...] = (
    *_MODEL_RULES.each_row,
    *all_present(["event_timestamp", "carrier", "dest"]),
    one_of("origin", _ORIGINS),
    one_of(
        "event_error",
        [0],
        says="event_timestamp is the scoring moment: midnight in New York before the flight's day.",
    ),
    one_of("plane_error", [False], says="Nothing is known of an unknown plane."),
)
_FEATURE_DAYS: tuple[Expectation, ...] = (
    # 2013: 65 to 87 %; most planes of AA and MQ are not.
    between("plane_known_share", 0.4, 1, says="Most planes are in the register."),
    between(
        "history_share",
        0.5,
        1,
        severity="warning",
        says="Most flights have a past of their carrier at their airport.",
    ),
    between(
        "weather_share",
        0.5,
        1,
        severity="warning",
        says="Most flights have the weather of the evening before.",
    ),
)
