"""A night of flights as the manuals of its parts have it: `spark-submit` a stage, stock libraries.

Each function of `STAGES` is a program of its own: `spark-submit stock_night.py STAGE LANDING STATE
FIRST LAST`, as Airflow's `SparkSubmitOperator` would start it. Tables are Delta tables, checks are
checkpoints of Great Expectations that write data docs, features come from Feast's own Spark store,
the model is one Keras model that one process fits, and it scores by a pandas UDF that calls
`predict`. Each night it asks Feast for all rows to learn from, as Feast's manual does; ours and
`bare_night` ask for the night's, and keep those of the nights before. What it leaves out: that all
of a night is judged before anything of it is seen, two models, a comparison before one serves, a
way back.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.bare_night import (
    BATCH,
    CATEGORIES,
    EPOCHS,
    KEY,
    KEYS,
    TRAINING_DAYS,
    WEATHER,
    YESTERDAY,
    days_to_holiday,
    network,
)
from pipelines.flights import TIMEZONE

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

_LONGEST_WINDOW = 28
_FEEDS = ("flights", "schedule", "weather")
_VIEWS = {**KEYS, "ap": ["origin"], "weather": ["origin"], "planes": ["tailnum"]}
"""Feature view -> its key."""
_WHOLE_KEYS = ("hour", "flight")
_ROLLED = ("n", "late", "delay", "canc")
_OF_YESTERDAY = ("late", "delay", "depdelay", "canc")
_PREDICTIONS = "predictions"


def ingest(spark: SparkSession, landing: Path, state: Path, days: Sequence[date]) -> None:
    """The files of the days into one table a feed, a partition a day."""
    for feed in _FEEDS:
        files = [landing / feed / f"{day}.csv" for day in days]
        there = [str(file) for file in files if file.exists()]
        rows = spark.read.csv(there, header=True, nullValue="NA", schema=_SCHEMAS[feed])
        day = "to_date(regexp_extract(_metadata.file_name, '([0-9-]{10}).csv', 1))"
        _replace(rows.selectExpr("*", f"{day} AS landed_date"), state, feed, days)
    for feed in ("planes", "airports"):
        path = str(landing / f"{feed}.csv")
        rows = spark.read.csv(path, header=True, nullValue="NA", schema=_SCHEMAS[feed])
        rows.write.format("delta").mode("overwrite").save(str(state / feed))


def transform(spark: SparkSession, landing: Path, state: Path, days: Sequence[date]) -> None:
    """What each view of the feature store says as of each of the days."""
    since = days[0] - timedelta(days=_LONGEST_WINDOW - 1)
    outcomes = spark.read.format("delta").load(str(state / "flights"))
    # The join by a range of days would read every partition.
    outcomes = outcomes.where(f"landed_date >= DATE '{since}' AND landed_date <= DATE '{days[-1]}'")
    outcomes = outcomes.selectExpr("*", "CAST(arr_delay > 15 AS DOUBLE) AS late")
    outcomes.createOrReplaceTempView("outcomes")
    _days(spark, days).createOrReplaceTempView("days")
    for view, keys in KEYS.items():
        _replace(spark.sql(_rolled_up(view, keys)), state, f"view_{view}", days)
    _replace(spark.sql(_AIRPORT_YESTERDAY), state, "view_ap", days)
    weather = spark.read.format("delta").load(str(state / "weather"))
    weather = weather.where(f"landed_date >= DATE '{days[0]}' AND landed_date <= DATE '{days[-1]}'")
    calm = "CASE WHEN wind_speed < 200 THEN wind_speed END AS wind_speed"
    weather.selectExpr("* EXCEPT (wind_speed)", calm).createOrReplaceTempView("weather")
    _replace(spark.sql(_WEATHER_OF_A_DAY), state, "view_weather", days)
    planes = spark.read.format("delta").load(str(state / "planes"))
    planes = planes.selectExpr(
        "tailnum", "year AS built", "seats", "1 AS plane_known", "TIMESTAMP '2012-01-01' AS as_of"
    )
    planes.write.format("delta").mode("overwrite").save(str(state / "view_planes"))
    for feed in ("schedule", "airports"):
        rows = spark.read.format("delta").load(str(state / feed))
        rows.createOrReplaceTempView(feed)
    next_days = [day + timedelta(days=1) for day in days]
    holidays = [(day, days_to_holiday(day)) for day in next_days]
    spark.createDataFrame(holidays, "flight_date DATE, hol INT").createOrReplaceTempView("holidays")
    _replace(spark.sql(_DEPARTURES), state, "departures", days)


def features(spark: SparkSession, landing: Path, state: Path, days: Sequence[date]) -> None:
    """By Feast's Spark store: tomorrow's flights, and the labelled ones of the newest 90 days."""
    night = days[-1]
    store = _feature_store(state)
    departures = spark.read.format("delta").load(str(state / "departures"))
    tomorrow = departures.where(f"landed_date = DATE '{night}'")
    scoring = _joined(store, tomorrow)
    scoring.write.format("delta").mode("overwrite").save(str(state / "scoring"))
    since = night - timedelta(days=TRAINING_DAYS - 1)
    labels = (
        spark.read.format("delta")
        .load(str(state / "flights"))
        .where(f"landed_date BETWEEN DATE '{since}' AND DATE '{night}' AND arr_delay IS NOT NULL")
        .selectExpr(*KEY, "CAST(arr_delay > 15 AS INT) AS is_late")
    )
    known = _joined(store, departures.join(labels, KEY))
    known.write.format("delta").mode("overwrite").save(str(state / "training"))


def train(spark: SparkSession, landing: Path, state: Path, days: Sequence[date]) -> None:
    """One Keras model in one process, from the rows in pandas."""
    import keras

    keras.utils.set_random_seed(1)
    stored = spark.read.format("delta").load(str(state / "training"))
    rows: Any = stored.toPandas()
    no_numbers = {*KEY, *CATEGORIES, *_NOT_LEARNED}
    numbers = [name for name in rows if name not in no_numbers]
    known = {name: sorted(rows[name].unique()) for name in CATEGORIES}
    means = rows[numbers].mean()
    spread = rows[numbers].std().replace(0, 1)
    encoding = {
        "numbers": numbers,
        "means": list(means),
        "spread": list(spread),
        "known": known,
    }
    model = network(len(numbers), known)
    label = rows["is_late"].to_numpy()
    model.fit(_arrays(rows, encoding), label, BATCH, EPOCHS, verbose=0)
    model.save(state / "model.keras")
    (state / "encoding.json").write_text(json.dumps(encoding))


def predict(spark: SparkSession, landing: Path, state: Path, days: Sequence[date]) -> None:
    """Tomorrow's flights by a pandas UDF that calls `predict`."""
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.functions import pandas_udf

    encoding = json.loads((state / "encoding.json").read_text())
    model_file = str(state / "model.keras")

    def scored(batches: Iterator[pd.DataFrame]) -> Iterator[pd.Series]:
        import keras
        import pandas as pd

        model = keras.models.load_model(model_file)
        for batch in batches:
            said = model.predict(_arrays(batch, encoding), batch_size=BATCH, verbose=0)
            yield pd.Series(said[:, 0].astype("float64"))

    # Named as Spark wants them: it looks at these, and not at the text of an annotation.
    import pandas as pd

    scored.__annotations__ = {
        "batches": Iterator[pd.DataFrame],
        "return": Iterator[pd.Series],
    }
    udf: Any = pandas_udf(scored, "double")  # type: ignore[call-overload]
    rows = spark.read.format("delta").load(str(state / "scoring"))
    columns = F.struct(*encoding["numbers"], *CATEGORIES)
    told = rows.select(*KEY, "landed_date", udf(columns).alias("probability"))
    _replace(told, state, _PREDICTIONS, days[-1:])


def check_raw(spark: SparkSession, landing: Path, state: Path, days: Sequence[date]) -> None:
    """Three feeds of the night, each by a checkpoint."""
    _check(spark, state, days[-1], _FEEDS)


def check_clean(spark: SparkSession, landing: Path, state: Path, days: Sequence[date]) -> None:
    """The views of the night and its departures."""
    views = [f"view_{view}" for view in _VIEWS if view != "planes"]
    _check(spark, state, days[-1], [*views, "departures"])


def check_predictions(
    spark: SparkSession, landing: Path, state: Path, days: Sequence[date]
) -> None:
    """What was foretold."""
    _check(spark, state, days[-1], [_PREDICTIONS])


STAGES = {
    stage.__name__: stage
    for stage in (
        *(ingest, check_raw, transform, check_clean, features),
        *(train, predict, check_predictions),
    )
}
_DEPARTURE = (
    "flight_date DATE, carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING, "
    "sched_dep_time INT, sched_arr_time INT, distance INT, hour INT, minute INT, "
    "time_hour TIMESTAMP"
)
_SCHEMAS = {
    "flights": f"{_DEPARTURE}, dep_time INT, dep_delay INT, arr_time INT, arr_delay INT, "
    "air_time INT",
    "schedule": _DEPARTURE,
    "weather": "origin STRING, weather_date DATE, hour INT, temp DOUBLE, dewp DOUBLE, "
    "humid DOUBLE, wind_dir INT, wind_speed DOUBLE, wind_gust DOUBLE, precip DOUBLE, "
    "pressure DOUBLE, visib DOUBLE, time_hour TIMESTAMP",
    "planes": "tailnum STRING, year INT, type STRING, manufacturer STRING, model STRING, "
    "engines INT, seats INT, speed INT, engine STRING",
    "airports": "faa STRING, name STRING, lat DOUBLE, lon DOUBLE, alt INT, tz INT, dst STRING, "
    "tzone STRING",
}
_NOT_LEARNED = ("landed_date", "tailnum", "event_timestamp", "is_late", "built", "flight")
_AIRPORT_YESTERDAY = """
    SELECT day AS landed_date, moment AS as_of, origin, avg(late) AS ap_late_1,
        avg(arr_delay) AS ap_delay_1, avg(dep_delay) AS ap_depdelay_1,
        avg(CAST(dep_time IS NULL AS INT)) AS ap_canc_1
    FROM outcomes JOIN days ON landed_date = day GROUP BY day, moment, origin
"""
_NEWEST = ", ".join(
    f"max_by({name}, time_hour) FILTER (WHERE time_hour >= moment - INTERVAL 6 HOURS "
    f"AND time_hour < moment) AS w_{name}"
    for name in WEATHER
)
_WEATHER_OF_A_DAY = f"""
    SELECT day AS landed_date, moment AS as_of, origin, {_NEWEST},
        sum(precip) AS wd_precip, min(visib) AS wd_visib_min, max(wind_speed) AS wd_wind_max
    FROM weather JOIN days ON landed_date = day
    GROUP BY day, moment, origin
"""
_DEPARTURES = """
    WITH timed AS (
        SELECT schedule.*, time_hour + make_interval(0, 0, 0, 0, 0, minute) AS departs,
            CASE WHEN dest IN ('SJU', 'BQN', 'PSE', 'STT') THEN 'America/Puerto_Rico'
                ELSE tzone END AS zone
        FROM schedule JOIN days ON landed_date = day LEFT JOIN airports ON dest = faa
    ), there AS (
        SELECT *, from_utc_timestamp(departs, zone) AS local,
            sched_arr_time DIV 100 * 60 + sched_arr_time % 100 AS arrives
        FROM timed
    ), lasting AS (
        SELECT *, arrives - hour(local) * 60 - minute(local) AS block_or_less FROM there
    )
    SELECT landed_date, moment AS event_timestamp, flight_date, carrier, flight, origin, dest,
        tailnum, hour, distance,
        CASE WHEN block_or_less < 0 THEN block_or_less + 1440 ELSE block_or_less END AS block,
        sched_dep_time DIV 100 * 60 + sched_dep_time % 100 AS sched_min,
        count(1) OVER (PARTITION BY landed_date, origin, hour) AS n_origin_hour,
        count(1) OVER (PARTITION BY landed_date, origin) AS n_origin_day,
        CASE WHEN tailnum IS NULL THEN 0 ELSE
            rank() OVER (PARTITION BY landed_date, tailnum ORDER BY departs) END AS tail_seq,
        weekday(flight_date) + 1 AS dow, month(flight_date) AS month, hol
    FROM lasting JOIN days ON landed_date = day JOIN holidays USING (flight_date)
"""


def _rolled_up(view: str, keys: Sequence[str]) -> str:
    names = ", ".join(keys)
    known = " AND ".join(f"{name} IS NOT NULL" for name in keys)
    figures = []
    for window in _windows(view):
        within = f"FILTER (WHERE landed_date > date_sub(day, {window}))"
        figures += [
            f"count(1) {within} AS {view}_n_{window}",
            f"avg(late) {within} AS {view}_late_{window}",
            f"avg(arr_delay) {within} AS {view}_delay_{window}",
            f"avg(CAST(dep_time IS NULL AS INT)) {within} AS {view}_canc_{window}",
        ]
    return f"""
        SELECT day AS landed_date, moment AS as_of, {names}, {", ".join(figures)}
        FROM outcomes JOIN days
            ON landed_date BETWEEN date_sub(day, {_LONGEST_WINDOW - 1}) AND day
        WHERE {known} GROUP BY day, moment, {names}
    """


def _windows(view: str) -> tuple[int, ...]:
    return (1, 7, _LONGEST_WINDOW) if view in YESTERDAY else (7, _LONGEST_WINDOW)


def _days(spark: SparkSession, days: Sequence[date]) -> DataFrame:
    """Each day with the moment of its end, for which flights are scored."""
    rows = spark.createDataFrame([(day,) for day in days], "day DATE")
    end = f"to_utc_timestamp(CAST(date_add(day, 1) AS TIMESTAMP), '{TIMEZONE}')"
    return rows.selectExpr("day", f"{end} AS moment")


def _replace(rows: DataFrame, state: Path, table: str, days: Sequence[date]) -> None:
    """Overwrite the partitions of the days."""
    # Delta 4.4 cannot resolve a BETWEEN here.
    within = f"landed_date >= DATE '{days[0]}' AND landed_date <= DATE '{days[-1]}'"
    writer = rows.write.format("delta").partitionBy("landed_date").mode("overwrite")
    writer.option("replaceWhere", within).save(str(state / table))


def _joined(store: Any, rows: DataFrame) -> Any:
    """The rows with the figures of every view, as of their moment."""
    names = [f"{view}:{name}" for view in _VIEWS for name in _figures(view)]
    rows.createOrReplaceTempView("entities")
    joined = store.get_historical_features("SELECT * FROM entities", names).to_spark_df()
    counts = [f"{view}_n_{window}" for view in KEYS for window in _windows(view)]
    return joined.fillna(0, [*counts, "plane_known"]).selectExpr(
        "*", "year(flight_date) - built AS plane_age"
    )


def _figures(view: str) -> list[str]:
    if view in KEYS:
        return [f"{view}_{figure}_{window}" for figure in _ROLLED for window in _windows(view)]
    if view == "ap":
        return [f"ap_{figure}_1" for figure in _OF_YESTERDAY]
    if view == "weather":
        of_day = ("wd_precip", "wd_visib_min", "wd_wind_max")
        return [*(f"w_{name}" for name in WEATHER), *of_day]
    return ["built", "seats", "plane_known"]


def _feature_store(state: Path) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
    from feast.types import Float64, Int64, String
    from feast.value_type import ValueType

    names = sorted({name for keys in _VIEWS.values() for name in keys})
    entities = {
        name: Entity(
            name=name,
            join_keys=[name],
            value_type=ValueType.INT64 if name in _WHOLE_KEYS else ValueType.STRING,
        )
        for name in names
    }
    views = []
    for view, keys in _VIEWS.items():
        figures = [Field(name=name, dtype=Float64) for name in _figures(view)]
        of_key = [Field(name=name, dtype=Int64 if name in _WHOLE_KEYS else String) for name in keys]
        path = str(state / f"view_{view}")
        views.append(
            FeatureView(
                name=view,
                entities=[entities[name] for name in keys],
                schema=[*of_key, *figures],
                source=SparkSource(
                    name=view, query=f"SELECT * FROM delta.`{path}`", timestamp_field="as_of"
                ),
                # Of the night alone: a key that has no figures today has none.
                ttl=timedelta(0) if view == "planes" else timedelta(hours=12),
                online=False,
            )
        )
    config = RepoConfig(
        project="stock",
        provider="local",
        registry=str(state / "registry.db"),
        offline_store={"type": "spark"},
        online_store=None,
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([*entities.values(), *views])
    return store


def _arrays(rows: pd.DataFrame, encoding: dict[str, Any]) -> list[Any]:
    import numpy as np

    numbers = rows[encoding["numbers"]].astype("float64").to_numpy()
    scaled = (numbers - np.array(encoding["means"])) / np.array(encoding["spread"])
    arrays = [np.nan_to_num(scaled).astype("float32")]
    for name in CATEGORIES:
        of_value = {value: code for code, value in enumerate(encoding["known"][name], 1)}
        codes = rows[name].map(of_value).fillna(0)
        arrays.append(codes.to_numpy("int32").reshape(-1, 1))
    return arrays


def _check(spark: SparkSession, state: Path, night: date, tables: Sequence[str]) -> None:
    """A checkpoint over the night's rows of the tables, with data docs.

    Raises:
        SystemExit: an expectation is not met.
    """
    import great_expectations as gx

    context = gx.get_context(mode="file", project_root_dir=str(state))
    source = context.data_sources.add_or_update_spark("spark")
    for table in tables:
        rows = spark.read.format("delta").load(str(state / table))
        of_night = rows.where(f"landed_date = DATE '{night}'")
        asset = source.add_dataframe_asset(table)
        batch = asset.add_batch_definition_whole_dataframe("night")
        suite = gx.ExpectationSuite(name=table, expectations=_expectations(table, of_night))
        context.suites.add_or_update(suite)
        definition = gx.ValidationDefinition(name=table, data=batch, suite=suite)
        checkpoint = gx.Checkpoint(
            name=table,
            validation_definitions=[context.validation_definitions.add_or_update(definition)],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs")],
        )
        checkpoint = context.checkpoints.add_or_update(checkpoint)
        result = checkpoint.run(batch_parameters={"dataframe": of_night})
        if not result.success:
            raise SystemExit(f"{table}: {result.describe()}")


def _expectations(table: str, rows: DataFrame) -> list[Any]:
    """The key, every column that is always there, and bounds: fewer than the suites of ours."""
    import great_expectations.expectations as gxe

    key = _keys_of(table)
    unique = (
        gxe.ExpectColumnValuesToBeUnique(column=key[0])
        if len(key) == 1
        else gxe.ExpectCompoundColumnsToBeUnique(column_list=list(key))
    )
    bounds = {name: bound for name, bound in _BOUNDS.items() if name in rows.columns}
    shares = [name for name in rows.columns if "_late_" in name or "_canc_" in name]
    bounds |= dict.fromkeys(shares, (0, 1))
    between = gxe.ExpectColumnValuesToBeBetween
    return [
        unique,
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in key),
        *(
            between(column=name, min_value=low, max_value=high)
            for name, (low, high) in bounds.items()
        ),
    ]


def _keys_of(table: str) -> Sequence[str]:
    view = table.removeprefix("view_")
    if table == "weather":
        return ("origin", "time_hour")
    return KEY if table in ("flights", "schedule", "departures", _PREDICTIONS) else _VIEWS[view]


_BOUNDS = {
    "distance": (10, 5100),
    "hour": (0, 23),
    "minute": (0, 59),
    "flight": (1, 9999),
    "dep_delay": (-120, 2880),
    "arr_delay": (-180, 2880),
    "temp": (-30, 120),
    "humid": (0, 100),
    "visib": (0, 20),
    "block": (1, 900),
    "sched_min": (0, 1439),
    "dow": (1, 7),
    "month": (1, 12),
    "hol": (-7, 7),
    "probability": (0, 1),
}


def main() -> int:
    """One stage."""
    warnings.simplefilter("ignore")
    from pyspark.sql import SparkSession

    stage, landing, state, *ends = sys.argv[1:]
    first, last = map(date.fromisoformat, ends)
    count = (last - first).days + 1
    days = [first + timedelta(days=number) for number in range(count)]
    spark = SparkSession.builder.appName(stage).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    STAGES[stage](spark, Path(landing), Path(state), days)
    spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
