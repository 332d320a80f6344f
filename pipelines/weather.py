"""How warm will it be tomorrow? The temperature of every hour at New York's three airports."""

from __future__ import annotations

from datetime import date, time

from pipelines.features import Feature, FeatureView, names
from pipelines.feeds import Column, Feed
from pipelines.model import Between, LastValue, LinearModel, Promotion, Training
from pipelines.rolling import DailySum, Grain, Rolling, Statistic, rolling_views
from pipelines.spec import Pipeline, Replay, Table

TIMEZONE = "America/New_York"
COLDEST, WARMEST = -30, 120
"""Degrees Fahrenheit that are believed; 2013 has 11 to 100."""
STORM_MPH = 200
"""A wind speed from here on is a broken instrument: one of 2013 reads 1,048."""
_LAST_EVENING_HOURS = 22
"""Facts of the scoring day alone: its end and the end of the day before are at least 23 hours
apart."""

OBSERVATIONS = Feed(
    name="observations",
    path="observations/{date}.jsonl",
    format="json_lines",
    columns=(
        Column(name="station", required=True, doc="Airport: EWR, JFK or LGA."),
        Column(name="observed_date", type="date", required=True, doc="Local day."),
        Column(name="hour", type="int", required=True, doc="Local hour."),
        Column(name="observed_at", type="timestamp", required=True, doc="The hour as an instant."),
        Column(name="temp", type="double", doc="Degrees Fahrenheit."),
        Column(name="dewp", type="double", doc="Dew point, degrees Fahrenheit."),
        Column(name="humid", type="double", doc="Relative humidity, percent."),
        Column(name="wind_speed", type="double", doc="Miles per hour."),
        Column(name="precip", type="double", doc="Inches in the hour."),
        Column(name="pressure", type="double", doc="Millibars at sea level."),
        Column(name="visib", type="double", doc="Visibility, miles."),
    ),
    key=("station", "observed_at"),
    first_day=date(2013, 1, 1),
    doc="Hourly observations of local day landed_date.",
)
STATIONS = Feed(
    name="stations",
    path="stations.csv",
    columns=(
        Column(name="station", required=True, doc="Code of the airport."),
        Column(name="name", doc="For people."),
        Column(name="lat", type="double", doc="Degrees north."),
        Column(name="lon", type="double", doc="Degrees east."),
        Column(name="alt", type="int", doc="Feet."),
    ),
    key=("station",),
    doc="The stations whose weather is foretold, as of landed_date.",
)

ROLLING = Rolling(
    sums=(
        DailySum(name="n", sql="count(temp)"),
        # Decimals add up to the same sum in any order.
        DailySum(name="sum_temp", sql="coalesce(sum(CAST(temp AS DECIMAL(9, 2))), 0)"),
    ),
    statistics=(
        Statistic(name="n", amount="n", least=0, doc="Observations."),
        Statistic(
            name="temp",
            amount="sum_temp",
            per="n",
            least=COLDEST,
            most=WARMEST,
            doc="Mean temperature, degrees Fahrenheit.",
        ),
    ),
    grains=(
        Grain(
            name="hr",
            columns=("station", "hour"),
            windows=(7, 28),
            statistics=("temp",),
        ),
    ),
)
"""The past of an hour of the day at a station."""


def _degrees(
    name: str,
    column: str = "",
    made_by: str = "",
    doc: str = "",
) -> Feature:
    return Feature(
        name=name,
        column=column,
        made_by=made_by,
        least=COLDEST,
        most=WARMEST,
        doc=doc,
    )


SAME_HOUR = FeatureView(
    name="same_hour",
    table="hourly",
    keys={"hour_key": "hour_key"},
    event="observed_at",
    created="available_at",
    # The evening's own day, or the day before where that hour is missing.
    max_age_hours=48,
    features=(_degrees("same_hour_temp", "temp"), _degrees("same_hour_dewp", "dewp")),
    doc="The last observation at the same hour of the day.",
)
LATEST = FeatureView(
    name="latest",
    table="hourly",
    keys={"station": "station"},
    event="observed_at",
    created="available_at",
    # Observations of a station in 2013 are at most so far apart.
    max_age_hours=6,
    features=(
        _degrees("latest_temp", "temp"),
        _degrees("latest_dewp", "dewp"),
        Feature(name="latest_pressure", column="pressure", least=900, most=1100),
    ),
    doc="The last observation of the evening.",
)
DAILY = FeatureView(
    name="daily",
    table="daily",
    keys={"station": "station"},
    max_age_hours=_LAST_EVENING_HOURS,
    features=(
        _degrees(
            "day_temp",
            made_by="CAST(sum(CAST(temp AS DECIMAL(9, 2))) AS DOUBLE) / nullif(count(temp), 0)",
            doc="Mean of the day, degrees Fahrenheit.",
        ),
        Feature(
            name="day_pressure_change",
            made_by="max_by(pressure, observed_at) - min_by(pressure, observed_at)",
            least=-100,
            most=100,  # 2013: -23 to 24
            doc="Millibars from the first to the last observation of the day.",
        ),
    ),
    doc="The day at the station.",
)
VIEWS = (
    SAME_HOUR,
    LATEST,
    DAILY,
    *rolling_views(ROLLING, table="rolling", max_age_hours=_LAST_EVENING_HOURS),
)

PIPELINE = Pipeline(
    name="weather",
    title="How warm will it be tomorrow, hour by hour?",
    owner="weather-desk",
    timezone=TIMEZONE,
    schedule="30 4 * * *",
    predictions_by=time(6),
    # The night before the first observations: it foretells them.
    first_day=date(2012, 12, 31),
    # The year's last day was not observed.
    last_day=date(2013, 12, 30),
    # Enough of a history for a first model.
    replay=Replay(first=date(2013, 5, 21), drops="0 4 * * *"),
    feeds=(OBSERVATIONS, STATIONS),
    derived=(
        Table(
            name="hours",
            made_by="transform",
            reads=("stations",),
            key=("forecast_date", "station", "forecast_at"),
            doc="Every hour of the next day at every station.",
            docs={
                "forecast_date": "Local day that is foretold: the day after landed_date.",
                "forecast_at": "The hour as a UTC instant.",
                "hour": "Local hour.",
                "hour_key": "What the same hour of the day is looked up by: station|hour.",
                **ROLLING.key_docs,
            },
            types={"forecast_at": "timestamp"},
        ),
        Table(
            name="hourly",
            made_by="transform",
            reads=("observations",),
            key=("station", "observed_at"),
            doc="Cleaned observations with the instant at which they are known.",
            docs={
                "available_at": "When it is known: the end of local day landed_date.",
                "hour_key": "What the same hour of the day is looked up by: station|hour.",
            },
        ),
        Table(
            name="daily",
            made_by="transform",
            reads=("hourly",),
            key=("station",),
            doc="The mean of the local day, and how the pressure changed.",
        ),
        Table(
            name="tiles",
            made_by="transform",
            reads=("observations",),
            key=("grain", "key"),
            doc="Additive daily sums by station and hour of the day.",
            docs=ROLLING.sum_docs,
        ),
        Table(
            name="rolling",
            made_by="transform",
            reads=("tiles",),
            window_days=max(ROLLING.windows),
            key=("grain", "key"),
            doc="Mean temperatures over the windows that end with landed_date.",
            docs=ROLLING.figure_docs,
        ),
    ),
    entity=("forecast_date", "station", "forecast_at"),
    event_date="forecast_date",
    entity_table="hours",
    outcomes=("observations",),
    carried=("hour",),
    prediction="temperature",
    views=VIEWS,
    search={"l2": Between(low=1, high=10_000, is_log=True)},
    training=Training(
        task="regression",
        label="temp",
        numeric=names(VIEWS),
        categorical=("station", "hour"),
        baselines=(
            LastValue(feature="hr_temp_28", name="climatology"),
            LastValue(feature="same_hour_temp", name="persistence"),
        ),
        # A day's hours share their weather, so that 90 days tell less than their 6,480 rows would:
        # of 1, 100, 300, 1,000 and 3,000 this gave the lowest error over the year.
        family=LinearModel(l2=300),
        slices=("station",),
        min_rows=500,
    ),
    promotion=Promotion(
        # The season moves on: a fit of the night errs less than one of the week (docs/quality.md).
        refresh_days=1,
        # R² of a held-out fortnight, halfway from the best of an honest model to the least of one
        # that reads the label: the family shrinks a copied label too (docs/quality.md).
        max_score=0.86,
        # Well beyond the best of an honest model; a day's level, which both know, adds nothing.
        max_score_within_day=0.75,
    ),
)
