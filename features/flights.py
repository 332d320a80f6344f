"""What is known of a scheduled flight at the scoring moment.

Five feature views and the service that joins them.

The keys come with the entity rows (`flights.departures`). The view `rolling` is used once for each
grain, by Feast's aliases: all of them are joined in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
"""Facts of the scoring day alone: its end and the end of the day before are at least 23 hours
apart."""
_WEATHER_AGE = timedelta(hours=6)
_ORIGIN_DAY = ("late_1", "delay_1", "depdelay_1", "canc_1")
_WEATHER = ("w_temp", "w_dewp", "w_humid", "w_wind_speed", "w_precip", "w_pressure", "w_visib")
_WEATHER_DAY = ("wd_precip", "wd_visib_min", "wd_wind_max")
_SCHEDULE = (
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
_ROLLED = tuple(
    f"{stat}_{days}" for stat in ("n", "late", "delay", "canc") for days in ROLLING_DAYS
)

_NAMES = {
    **{
        f"{grain}_{stat}": f"{grain}__{stat}"
        for grain in GRAINS
        if grain != "ap"
        for stat in _ROLLED
    },
    **{f"ap_{stat}": f"ap__{stat}" for stat in _ORIGIN_DAY},
    **{name: f"weather_hourly__{name}" for name in _WEATHER},
    **{name: f"weather_daily__{name}" for name in _WEATHER_DAY},
    **{name: f"departure__{name}" for name in _SCHEDULE},
    **{name: f"plane__{name}" for name in ("year", "seats", "known")},
}
"""Feature -> what Feast calls it: the view or its alias, and the column."""
_COUNTS = tuple(f"{grain}_n_{days}" for grain in GRAINS if grain != "ap" for days in ROLLING_DAYS)
_WHOLE = (*_COUNTS, *_SCHEDULE, "plane_age", "seats", "plane_known")


def definitions(environment: Environment) -> list[Entity | FeatureView | FeatureService]:
    """Everything to be registered with Feast; the service is named after the pipeline."""
    keys = ("grain", "key", "departure_id", "origin", "tailnum")
    entities = {key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in keys}
    rolling = _rolling(environment, entities)
    others = [
        _departure(environment, entities),
        *_weather(environment, entities),
        _plane(environment, entities),
    ]
    service = FeatureService(
        name=PIPELINE.name,
        features=[*_by_grain(rolling), *others],
        description=PIPELINE.title,
        owner=PIPELINE.owner,
    )
    return [*entities.values(), rolling, *others, service]


def prepare(rows: DataFrame) -> DataFrame:
    """The entity rows with every join key.

    The key of each grain is there, the grain's name is not.
    """
    return rows.withColumns({f"{grain}_grain": F.lit(grain) for grain in GRAINS})


def finish(rows: DataFrame) -> DataFrame:
    """What needs a joined row.

    The plane's age, zeros for counts of nothing, one name and one type for each feature.
    """
    values = {name: F.col(joined) for name, joined in _NAMES.items()}
    values |= {name: F.coalesce(values[name], F.lit(0)) for name in _COUNTS}
    values["plane_age"] = F.year(PIPELINE.event_date) - values.pop("year")
    values["plane_known"] = F.coalesce(values.pop("known"), F.lit(0))
    typed = {
        name: value.cast("long" if name in _WHOLE else "double") for name, value in values.items()
    }
    return rows.withColumns(typed).drop(*_NAMES.values())


def _rolling(environment: Environment, entities: Mapping[str, Entity]) -> FeatureView:
    stats = tuple(dict.fromkeys((*_ROLLED, *_ORIGIN_DAY)))
    source = lake_source(
        environment,
        name="rolling",
        table="flights.rolling",
        columns=("grain", "key", *stats),
        event="event_timestamp",
    )
    doc = "Past flights with the same key, counted on the day on which their outcome became known."
    return _view(source, [entities["grain"], entities["key"]], stats, doc, ttl=_LAST_EVENING)


def _by_grain(rolling: FeatureView) -> list[FeatureView]:
    """One alias of the view for each grain, joined by that grain's own key."""
    stats = {grain: list(_ORIGIN_DAY if grain == "ap" else _ROLLED) for grain in GRAINS}
    keys = {grain: {"grain": f"{grain}_grain", "key": f"{grain}_key"} for grain in GRAINS}
    return [
        rolling.with_name(grain).with_join_key_map(keys[grain])[stats[grain]] for grain in GRAINS
    ]


def _departure(environment: Environment, entities: Mapping[str, Entity]) -> FeatureView:
    columns = ("departure_id", *_SCHEDULE)
    source = lake_source(
        environment,
        name="departure",
        table="flights.departures",
        columns=columns,
        event="event_timestamp",
    )
    return _view(
        source, [entities["departure_id"]], _SCHEDULE, "What the schedule tells.", ttl=_LAST_EVENING
    )


def _weather(environment: Environment, entities: Mapping[str, Entity]) -> list[FeatureView]:
    hourly = lake_source(
        environment,
        name="weather_hourly",
        table="flights.weather_hourly",
        columns=("origin", *_WEATHER),
        event="observed_at",
        created="available_at",
    )
    daily = lake_source(
        environment,
        name="weather_daily",
        table="flights.weather_daily",
        columns=("origin", *_WEATHER_DAY),
        event="event_timestamp",
    )
    return [
        _view(
            hourly,
            [entities["origin"]],
            _WEATHER,
            "The latest weather of the origin.",
            ttl=_WEATHER_AGE,
        ),
        _view(
            daily,
            [entities["origin"]],
            _WEATHER_DAY,
            "The day's weather at the origin.",
            ttl=_LAST_EVENING,
        ),
    ]


def _plane(environment: Environment, entities: Mapping[str, Entity]) -> FeatureView:
    source = lake_source(
        environment,
        name="plane",
        table="flights.planes",
        columns=("tailnum", "year", "seats"),
        computed={"known": "1"},
        event=day_end("landed_date", PIPELINE.timezone),
    )
    return _view(
        source,
        [entities["tailnum"]],
        ("year", "seats", "known"),
        "The plane, by the latest register that lists it.",
        ttl=None,
    )


def _view(
    source: DataSource,
    entities: list[Entity],
    features: Iterable[str],
    doc: str,
    *,
    ttl: timedelta | None,
) -> FeatureView:
    """A view named after its source.

    Its keys are in the schema too, or Feast would ask Spark for their types.
    """
    keys = [Field(name=entity.join_key, dtype=String) for entity in entities]
    return FeatureView(
        name=source.name,
        entities=entities,
        schema=[
            *keys,
            *(Field(name=name, dtype=Int64 if _is_whole(name) else Float64) for name in features),
        ],
        ttl=ttl or timedelta(0),
        source=source,
        online=False,
        description=doc,
        owner=PIPELINE.owner,
    )


def _is_whole(column: str) -> bool:
    return column in (*_WHOLE, "year", "known") or column.startswith("n_")
