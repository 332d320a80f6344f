"""What is known of a scheduled flight at the scoring moment: ten feature views and the service that joins them.

The keys come with the entity rows (`flights.departures`); each view is a table of the lake, or one grain of `rolling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field
from feast.data_source import DataSource
from feast.types import Float64, Int64, String
from feast.value_type import ValueType
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from features.sources import day_end, lake_source
from pipelines.environment import Environment
from pipelines.flights import GRAINS, PIPELINE, ROLLING_DAYS

ENTITY_TABLE = "departures"
"""The table whose rows are scored; it brings every join key and the scoring moment."""

_LAST_EVENING = timedelta(hours=22)
"""Facts of the scoring day alone: its end and the end of the day before are at least 23 hours apart."""
_WEATHER_AGE = timedelta(hours=6)
_ORIGIN_DAY = ("late_1", "delay_1", "depdelay_1", "canc_1")
_WEATHER = ("w_temp", "w_dewp", "w_humid", "w_wind_speed", "w_precip", "w_pressure", "w_visib")
_WEATHER_DAY = ("wd_precip", "wd_visib_min", "wd_wind_max")
_SCHEDULE = ("dow", "month", "hour", "sched_min", "distance", "block", "hol", "n_origin_hour", "n_origin_day", "tail_seq")
_ROLLED = tuple(f"{stat}_{days}" for stat in ("n", "late", "delay", "canc") for days in ROLLING_DAYS)

COUNTS = tuple(f"{grain}_n_{days}" for grain in GRAINS if grain != "ap" for days in ROLLING_DAYS)
"""Features that are 0, not null, where nothing is known."""
WHOLE = (*COUNTS, *_SCHEDULE, "plane_age", "seats", "plane_known")
"""Features that are whole numbers; the others are doubles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """A feature view before Feast's own words for it."""

    name: str
    key: str
    source: DataSource
    features: tuple[str, ...]
    ttl: timedelta | None
    doc: str


def definitions(environment: Environment) -> list[Entity | FeatureView | FeatureService]:
    """Everything to be registered with Feast; the service is named after the pipeline."""
    declared = [*_rolling_views(environment), _departure(environment), *_weather_views(environment), _plane(environment)]
    entities = {key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in dict.fromkeys(v.key for v in declared)}
    views = [_feature_view(view, entities[view.key]) for view in declared]
    service = FeatureService(name=PIPELINE.name, features=views, description=PIPELINE.title, owner=PIPELINE.owner)
    return [*entities.values(), *views, service]


def finish(rows: DataFrame) -> DataFrame:
    """What needs a joined row: the plane's age, zeros for counts of nothing, one type for each feature."""
    age = F.year(PIPELINE.event_date) - F.col("plane_year")
    filled = {name: F.coalesce(F.col(name), F.lit(0)) for name in (*COUNTS, "plane_known")}
    features = {name: F.col(name) for name in PIPELINE.training.numeric if name != "plane_age"} | {"plane_age": age} | filled
    typed = {name: value.cast("long" if name in WHOLE else "double") for name, value in features.items()}
    return rows.withColumns(typed).drop("plane_year")


def _rolling_views(environment: Environment) -> list[_View]:
    windows = [_rolling(environment, grain, f"{grain}_key", _ROLLED) for grain in GRAINS if grain != "ap"]
    return [*windows, _rolling(environment, "ap", "origin", _ORIGIN_DAY)]


def _rolling(environment: Environment, grain: str, key: str, stats: tuple[str, ...]) -> _View:
    features = {f"{grain}_{stat}": stat for stat in stats}
    source = lake_source(
        environment,
        name=grain,
        table="flights.rolling",
        columns={key: "key", **features},
        event="event_timestamp",
        where=f"grain = '{grain}'",
    )
    doc = f"Past flights with the same {' and '.join(GRAINS[grain])}, counted on the day on which their outcome became known."
    return _View(name=grain, key=key, source=source, features=tuple(features), ttl=_LAST_EVENING, doc=doc)


def _departure(environment: Environment) -> _View:
    columns = {name: name for name in ("departure_id", *_SCHEDULE)}
    source = lake_source(environment, name="departure", table="flights.departures", columns=columns, event="event_timestamp")
    return _View(name="departure", key="departure_id", source=source, features=_SCHEDULE, ttl=_LAST_EVENING, doc="What the schedule tells.")


def _weather_views(environment: Environment) -> list[_View]:
    hourly = lake_source(
        environment,
        name="weather_hourly",
        table="flights.weather_hourly",
        columns={name: name for name in ("origin", *_WEATHER)},
        event="observed_at",
        created="available_at",
    )
    daily = lake_source(
        environment,
        name="weather_daily",
        table="flights.weather_daily",
        columns={name: name for name in ("origin", *_WEATHER_DAY)},
        event="event_timestamp",
    )
    return [
        _View(
            name="weather_hourly", key="origin", source=hourly, features=_WEATHER, ttl=_WEATHER_AGE, doc="The latest weather of the origin."
        ),
        _View(
            name="weather_daily",
            key="origin",
            source=daily,
            features=_WEATHER_DAY,
            ttl=_LAST_EVENING,
            doc="The day's weather at the origin.",
        ),
    ]


def _plane(environment: Environment) -> _View:
    source = lake_source(
        environment,
        name="plane",
        table="flights.planes",
        columns={"tailnum": "tailnum", "plane_year": "year", "seats": "seats", "plane_known": "1"},
        event=day_end("landed_date", PIPELINE.timezone),
    )
    doc = "The plane, by the latest register that lists it."
    return _View(name="plane", key="tailnum", source=source, features=("plane_year", "seats", "plane_known"), ttl=None, doc=doc)


def _feature_view(view: _View, entity: Entity) -> FeatureView:
    whole = (*WHOLE, "plane_year")
    fields = [Field(name=name, dtype=Int64 if name in whole else Float64) for name in view.features]
    return FeatureView(
        name=view.name,
        entities=[entity],
        schema=[Field(name=view.key, dtype=String), *fields],
        ttl=view.ttl or timedelta(0),
        source=view.source,
        online=False,
        description=view.doc,
        owner=PIPELINE.owner,
    )
