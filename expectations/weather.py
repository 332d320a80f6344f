"""What must hold of the weather pipeline: a suite per table.

Three stations report every hour: 72 rows a day, a few missing at times (57 on 2013-12-30). Bounds
leave room for that, and are tight enough that half a file, a file twice, another day's file or
degrees Celsius fall outside.
"""

from __future__ import annotations

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
from expectations.row_rules import quarantine_up_to
from expectations.suite import ROWS, Suite, absent, all_present, between, matches, one_of, present
from pipelines.days import Days
from pipelines.features import names
from pipelines.weather import (
    COLDEST,
    DAILY,
    OBSERVATIONS,
    PIPELINE,
    ROLLING,
    STATIONS,
    STORM_MPH,
    TIMEZONE,
    WARMEST,
)

_STATIONS = ("EWR", "JFK", "LGA")
_HOURS_A_DAY = (45, 75)
"""At most 25 hours at three stations."""
_FORECASTS_A_DAY = (69, 75)
"""23 to 25 hours, as the clocks change, at three stations."""
_ODD_READINGS = 0.03
"""Share of a day's rows that an instrument may spoil, 2 of 72: they are quarantined."""
_HOURLY_RULES = feature_rules.of_table(PIPELINE, "hourly")
_DAILY_RULES = feature_rules.of_table(PIPELINE, "daily")
_ROLLING_RULES = feature_rules.of_table(PIPELINE, "rolling")
_MODEL_RULES = feature_rules.of_model(PIPELINE)


def observations(days: Days) -> Suite:
    """Hourly observations: of the day of the drop, each value one that New York can have."""
    return Suite(
        days=PIPELINE.drop_days(OBSERVATIONS, days),
        key=OBSERVATIONS.key,
        has=OBSERVATIONS.column_names,
        derived={
            "days_old": "datediff(landed_date, observed_date)",
            "clock_error": clock_error("observed_at", "observed_date", TIMEZONE),
            "dewp_above_temp": "dewp - temp",
        },
        each_row=(
            *all_present(["observed_date", "hour"]),
            one_of("station", _STATIONS),
            one_of("days_old", [0], says="The observation is of the day of the drop."),
            between("hour", 0, 23),
            one_of(
                "clock_error",
                [0],
                says="observed_at is the instant at which New York's clocks show the hour.",
            ),
            between("temp", COLDEST, WARMEST),
            between("dewp", COLDEST, WARMEST),
            between("dewp_above_temp", None, 0, says="The dew point is not above the temperature."),
            quarantine_up_to(_ODD_READINGS, between("humid", 0, 100)),
            between("wind_speed", 0, None),
            between("wind_speed", None, STORM_MPH, severity="warning"),
            between("precip", 0, 5),  # 2013: at most 1.2
            # 2013: 984 to 1,042.
            quarantine_up_to(_ODD_READINGS, between("pressure", 900, 1100)),
            between("visib", 0, 20),  # 2013: at most 10
        ),
        measures={
            "stations": "count(DISTINCT station)",
            "known_share": "count(temp) / count(1)",
            # The median, because a single odd row is no other unit.
            "humidity_error": f"percentile(abs({relative_humidity('temp', 'dewp')} - humid), 0.5)",
        },
        each_day=(
            between(ROWS, *_HOURS_A_DAY, says="The day has nearly all of its 72 hourly rows."),
            one_of("stations", [len(_STATIONS)], says="All three stations report."),
            # 2013: at least 98 %.
            between("known_share", 0.8, 1, says="Most temperatures were measured."),
            between(
                "humidity_error",
                0,
                2,
                says="Temperature and dew point in Fahrenheit agree with the humidity "
                "(median error, percent).",
            ),
        ),
    )


def stations(days: Days) -> Suite:
    """The register of stations, on a day on which it changed."""
    return Suite(
        days=PIPELINE.drop_days(STATIONS, days),
        key=STATIONS.key,
        has=STATIONS.column_names,
        each_row=(
            matches("station", "^[A-Z]{3}$"),
            between("lat", -90, 90),
            between("lon", -180, 180),
        ),
        measures={"stations": "count(1)"},
        each_day=(one_of("stations", [len(_STATIONS)], says="The register has all stations."),),
    )


def hours(days: Days) -> Suite:
    """Every hour of the next day at every station, each once."""
    return Suite(
        days=days,
        key=PIPELINE.entity,
        has=("hour", "event_timestamp", "hour_key", "hr_key"),
        derived={
            "days_ahead": "datediff(forecast_date, landed_date)",
            "event_error": midnight_error("event_timestamp", "landed_date", TIMEZONE),
            "clock_error": clock_error("forecast_at", "forecast_date", TIMEZONE),
            "key_error": f"hour_key <> {joined('station, hour')} OR hr_key <> hour_key",
        },
        each_row=(
            *all_present(["hour", "event_timestamp", "hour_key", "hr_key"]),
            one_of("station", _STATIONS),
            *_TOMORROW,
            one_of(
                "clock_error",
                [0],
                says="forecast_at is the instant at which New York's clocks show the hour.",
            ),
            one_of("key_error", [False], says="The keys are station and hour, joined by '|'."),
        ),
        measures={"stations": "count(DISTINCT station)"},
        each_day=(
            between(ROWS, *_FORECASTS_A_DAY, says="The day has all of its hours."),
            one_of("stations", [len(_STATIONS)]),
        ),
    )


def hourly(days: Days) -> Suite:
    """Cleaned observations: nothing is available before it was observed."""
    return Suite(
        days=PIPELINE.drop_days(OBSERVATIONS, days),
        key=("station", "observed_at"),
        has=("available_at", "hour_key", "temp", "dewp", "humid", "wind_speed", "pressure"),
        same_rows_as="observations",
        derived={
            **_HOURLY_RULES.derived,
            "available_error": midnight_error("available_at", "landed_date", TIMEZONE),
            "hours_until_available": (
                "(unix_timestamp(available_at) - unix_timestamp(observed_at)) / 3600"
            ),
        },
        each_row=(
            *_HOURLY_RULES.each_row,
            *all_present(["available_at", "hour_key"]),
            one_of("station", _STATIONS),
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
        ),
    )


def daily(days: Days) -> Suite:
    """The day at each station."""
    return Suite(
        days=PIPELINE.drop_days(OBSERVATIONS, days),
        key=("station",),
        has=("event_timestamp", *names([DAILY])),
        derived={
            **_DAILY_RULES.derived,
            "event_error": midnight_error("event_timestamp", "landed_date", TIMEZONE),
        },
        each_row=(
            *_DAILY_RULES.each_row,
            present("event_timestamp"),
            one_of("station", _STATIONS),
            one_of("event_error", [0], says="event_timestamp is the scoring moment of the night."),
        ),
        measures={"stations": "count(DISTINCT station)"},
        each_day=(one_of("stations", [len(_STATIONS)]),),
    )


def tiles(days: Days) -> Suite:
    """Daily sums by station and hour of the day."""
    return Suite(
        days=PIPELINE.drop_days(OBSERVATIONS, days),
        key=("grain", "key"),
        has=tuple(one.name for one in ROLLING.sums),
        derived={"mean_temp": "sum_temp / nullif(n, 0)"},
        each_row=(
            *all_present(["grain", "key", "n", "sum_temp"]),
            one_of("grain", [grain.name for grain in ROLLING.grains]),
            between("n", 0, 2, says="An hour of the day comes once, or twice in autumn."),
            between("mean_temp", COLDEST, WARMEST),
        ),
        measures={"observations": "sum(n)"},
        each_day=(between("observations", *_HOURS_A_DAY),),
    )


def rolling(days: Days) -> Suite:
    """Mean temperatures over windows: longer windows hold more, empty ones hold nothing."""
    windows = ROLLING.windows
    counts = [f"n_{days}" for days in windows]
    errors = {
        f"a mean of nothing in {days} days": f"n_{days} = 0 AND temp_{days} IS NOT NULL"
        for days in windows
    }
    errors |= {
        f"n_{short} > n_{long}": f"n_{short} > n_{long}" for short, long in pairwise(windows)
    }
    return Suite(
        days=PIPELINE.drop_days(OBSERVATIONS, days),
        key=("grain", "key"),
        has=("event_timestamp", *(one.column(days) for one, days in ROLLING.figures)),
        derived={
            **_ROLLING_RULES.derived,
            "event_error": midnight_error("event_timestamp", "landed_date", TIMEZONE),
            "window_error": first_true(errors),
        },
        each_row=(
            *_ROLLING_RULES.each_row,
            *all_present(["grain", "key", "event_timestamp", *counts]),
            one_of("event_error", [0], says="event_timestamp is the scoring moment of the night."),
            absent("window_error", says="Longer windows hold more, and an empty one no mean."),
        ),
        # All are 72: 24 hours at three stations.
        measures={"keys": "count(1)"},
        each_day=(between("keys", 48, 72, says="Nearly every hour of every station has a past."),),
    )


def training(days: Days) -> Suite:
    """Features as of the scoring moment, with the temperature that landed on landed_date."""
    label = PIPELINE.training.label
    return Suite(
        days=PIPELINE.drop_days(OBSERVATIONS, days),
        key=PIPELINE.entity,
        has=("event_timestamp", label, *PIPELINE.training.features),
        derived={
            **_MODEL_RULES.derived,
            "days_until_known": "datediff(landed_date, forecast_date)",
            "event_error": midnight_error(
                "event_timestamp", "date_sub(forecast_date, 1)", TIMEZONE
            ),
        },
        each_row=(
            *_FEATURE_ROWS,
            *model_rules.label_rows(PIPELINE),
            between(label, COLDEST, WARMEST),
            one_of("days_until_known", [0], says="The temperature became known on its own day."),
        ),
        measures=_FEATURE_MEASURES | {"label_known_share": f"count({label}) / count(1)"},
        each_day=(
            *_FEATURE_DAYS,
            between(
                ROWS,
                *_HOURS_A_DAY,
                severity="warning",
                says="The hours of the day had been scored in the night before.",
            ),
            between("label_known_share", 0.5, 1),
        ),
    )


def scoring(days: Days) -> Suite:
    """Features of every hour of the day after landed_date at every station."""
    return Suite(
        days=days,
        key=PIPELINE.entity,
        has=("event_timestamp", *PIPELINE.carried, *PIPELINE.training.features),
        same_rows_as="hours",
        derived={
            **_MODEL_RULES.derived,
            "days_ahead": "datediff(forecast_date, landed_date)",
            "event_error": midnight_error("event_timestamp", "landed_date", TIMEZONE),
        },
        each_row=(*_FEATURE_ROWS, *_TOMORROW[:1]),
        measures=_FEATURE_MEASURES,
        each_day=(*_FEATURE_DAYS, between(ROWS, *_FORECASTS_A_DAY)),
    )


def predictions(days: Days) -> Suite:
    """One temperature for each scoring row, all of a day by one model."""
    return Suite(
        days=days.shifted(1),
        day=PIPELINE.event_date,
        key=PIPELINE.entity,
        has=model_rules.prediction_columns(PIPELINE),
        same_rows_as="scoring",
        each_row=(
            *all_present(PIPELINE.carried),
            *model_rules.prediction_rows(PIPELINE),
            between(
                PIPELINE.prediction,
                COLDEST,
                WARMEST,
                says="The temperature is one that New York can have.",
            ),
        ),
        measures=model_rules.prediction_measures(PIPELINE),
        each_day=(
            between(ROWS, *_FORECASTS_A_DAY),
            *model_rules.prediction_days(PIPELINE),
        ),
    )


_TOMORROW: tuple[Expectation, ...] = (
    one_of("days_ahead", [1], says="The hour is of the day after landed_date."),
    one_of(
        "event_error",
        [0],
        says="event_timestamp is the scoring moment: midnight in New York before the hour's day.",
    ),
)
_FEATURE_ROWS: tuple[Expectation, ...] = (
    *_MODEL_RULES.each_row,
    *all_present(["event_timestamp", "hour"]),
    one_of("station", _STATIONS),
    _TOMORROW[1],
)
_FEATURE_MEASURES = {
    "history_share": "avg(CAST(hr_temp_28 IS NOT NULL AS INT))",
    "evening_share": "avg(CAST(latest_temp IS NOT NULL AS INT))",
}
_FEATURE_DAYS: tuple[Expectation, ...] = (
    between(
        "history_share",
        0.5,
        1,
        severity="warning",
        says="Most hours have a past at their station.",
    ),
    between(
        "evening_share",
        0.5,
        1,
        severity="warning",
        says="Most hours have the weather of the evening before.",
    ),
)
