"""A night of flights by a script of one's own: polars and Keras, one process, no platform.

`python -m bench.bare_night LANDING STATE DAY` reads what has landed by the day, joins the features
of tomorrow's flights and the labels of today's, fits a network on the newest 90 days, and writes
tomorrow's predictions. What it leaves out: checks before anything is published, versions, a model
that is compared before it serves, a way back.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pipelines.flights import TIMEZONE

if TYPE_CHECKING:
    import keras

KEY = ["flight_date", "carrier", "flight", "origin"]
CATEGORIES = ["carrier", "origin", "dest"]
KEYS = {
    "co": ["carrier", "origin"],
    "dest": ["dest"],
    "route": ["origin", "dest"],
    "tail": ["tailnum"],
    "oh": ["origin", "hour"],
    "coh": ["carrier", "origin", "hour"],
    "flight": ["carrier", "flight", "origin"],
}
YESTERDAY = ("co", "dest", "oh")
WEATHER = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
_HOLIDAYS = [date(2013, *day) for day in ((1, 1), (1, 21), (2, 18), (5, 27), (7, 4), (9, 2))]
_HOLIDAYS += [date(2013, *day) for day in ((10, 14), (11, 11), (11, 28), (12, 25))]
_HOLIDAYS += [date(2014, 1, 1)]
_LATE_MINUTES = 15
_WINDOWS = (28, 7, 1)
TRAINING_DAYS = 90
_MOST_WIND = 200
EPOCHS = 12
BATCH = 2048


def join(landing: Path, state: Path, day: date) -> pl.DataFrame:
    """Keep the features of tomorrow's flights, and what became known of today's.

    Args:
        landing: Folder of the feeds' files.
        state: Where a day's rows are kept, and those of the days before lie.
        day: The night.
    """
    outcomes = _outcomes(landing, day)
    scoring = _features(landing, day, outcomes)
    (state / "scoring").mkdir(parents=True, exist_ok=True)
    (state / "training").mkdir(exist_ok=True)
    scoring.write_parquet(state / "scoring" / f"{day}.parquet")
    known = _last(outcomes, day, 1)
    evenings = [one - timedelta(days=1) for one in known["flight_date"].unique()]
    files = [state / "scoring" / f"{evening}.parquet" for evening in evenings]
    # The first night has scored nothing before.
    scored = [pl.read_parquet(file) for file in files if file.exists()]
    labelled = (
        pl.concat([scoring.clear(), *scored])
        .join(known.select(*KEY, _late()), on=KEY)
        .drop_nulls("late")
    )
    labelled.write_parquet(state / "training" / f"{day}.parquet")
    return scoring


def predict(state: Path, day: date, scoring: pl.DataFrame) -> None:
    """Fit a network on the newest days, and write what it says of tomorrow's flights."""
    import keras

    keras.utils.set_random_seed(1)
    days = [day - timedelta(days=back) for back in range(TRAINING_DAYS)]
    files = [state / "training" / f"{one}.parquet" for one in days]
    rows = pl.concat([pl.read_parquet(file) for file in files if file.exists()])
    numbers = [name for name in rows.columns if name not in (*KEY, *CATEGORIES, "late")]
    means = rows.select(pl.col(numbers).mean()).row(0, named=True)
    spread = rows.select(pl.col(numbers).std()).row(0, named=True)
    known = {name: rows[name].unique().to_list() for name in CATEGORIES}

    def arrays(frame: pl.DataFrame) -> list[object]:
        scaled = [(pl.col(one) - means[one]) / (spread[one] or 1.0) for one in numbers]
        columns = frame.select(scaled).fill_null(0.0).to_numpy().astype("float32")
        codes = []
        for name in CATEGORIES:
            of_value = {value: number for number, value in enumerate(known[name], 1)}
            code = pl.col(name).replace_strict(of_value, default=0, return_dtype=pl.Int32)
            codes.append(frame.select(code).to_numpy())
        return [columns, *codes]

    model = network(len(numbers), known)
    model.fit(arrays(rows), rows["late"].to_numpy(), BATCH, EPOCHS, verbose=0)
    said = model.predict(arrays(scoring), batch_size=BATCH, verbose=0)[:, 0]
    (state / "predictions").mkdir(exist_ok=True)
    told = scoring.select(KEY).with_columns(late_probability=pl.Series(said))
    told.write_parquet(state / "predictions" / f"{day}.parquet")


def network(numbers: int, known: Mapping[str, Sequence[str]]) -> keras.Model:
    """A multilayer perceptron of so many numbers, and of the categories with their known values."""
    import keras

    inputs = [keras.Input((numbers,))]
    parts = [inputs[0]]
    for name in CATEGORIES:
        code = keras.Input((1,), dtype="int32")
        embedded = keras.layers.Embedding(len(known[name]) + 1, 8)(code)
        inputs.append(code)
        parts.append(keras.layers.Flatten()(embedded))
    hidden = keras.layers.Concatenate()(parts)
    for units in (128, 64):
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(0.3)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(keras.optimizers.Adam(2e-3), "binary_crossentropy")
    return model


def _features(landing: Path, day: date, outcomes: pl.DataFrame) -> pl.DataFrame:
    flight_date = day + timedelta(days=1)
    rows = _schedule(landing, day)
    for window in _WINDOWS:
        known = _last(outcomes, day, window)
        for name, columns in KEYS.items():
            if window == 1 and name not in YESTERDAY:
                continue
            figures = _rates(known.drop_nulls(columns), columns, f"{name}_{{}}_{window}")
            rows = rows.join(figures.drop(f"{name}_depdelay_{window}"), on=columns, how="left")
    today = _rates(_last(outcomes, day, 1), ["origin"], "ap_{}_1")
    rows = rows.join(today.drop("ap_n_1"), on="origin", how="left")
    rows = rows.join(_weather(landing, day), on="origin", how="left")
    planes = _read(landing / "planes.csv").select("tailnum", built="year", seats="seats")
    rows = rows.join(planes.with_columns(plane_known=1), on="tailnum", how="left")
    counts = [name for name in rows.columns if name.split("_")[1:2] == ["n"]]
    return rows.with_columns(
        pl.col("plane_known").fill_null(0),
        pl.col(*counts).fill_null(0),
        plane_age=flight_date.year - pl.col("built"),
        dow=pl.lit(flight_date.isoweekday()),
        month=pl.lit(flight_date.month),
        hol=pl.lit(days_to_holiday(flight_date)),
    ).drop("built", "tailnum", "zone", "departs", "minute")


def _schedule(landing: Path, day: date) -> pl.DataFrame:
    rows = _read(landing / "schedule" / f"{day}.csv")
    zones = _read(landing / "airports.csv").select(dest="faa", zone="tzone")
    rows = rows.join(zones, on="dest", how="left")
    islands = pl.col("dest").is_in(["SJU", "BQN", "PSE", "STT"])
    zone = pl.when(islands).then(pl.lit("America/Puerto_Rico")).otherwise("zone")
    departs = pl.col("time_hour") + pl.duration(minutes="minute")
    rows = rows.with_columns(zone=zone, departs=departs)
    there = pl.lit(None, pl.Datetime("us"))
    for name in rows["zone"].drop_nulls().unique():
        local = pl.col("departs").dt.convert_time_zone(name).dt.replace_time_zone(None)
        there = pl.when(pl.col("zone") == name).then(local).otherwise(there)
    arrival = there.dt.truncate("1d") + pl.duration(minutes=_of_day("sched_arr_time"))
    block = (arrival - there).dt.total_minutes()
    sequence = pl.col("departs").rank("min").over("tailnum")
    return rows.with_columns(
        block=pl.when(block < 0).then(block + 24 * 60).otherwise(block),
        sched_min=_of_day("sched_dep_time"),
        n_origin_hour=pl.len().over("origin", "hour"),
        n_origin_day=pl.len().over("origin"),
        tail_seq=pl.when(pl.col("tailnum").is_null()).then(0).otherwise(sequence),
    ).drop("sched_dep_time", "sched_arr_time", "time_hour")


def _rates(rows: pl.DataFrame, columns: list[str], name: str) -> pl.DataFrame:
    return rows.group_by(columns).agg(
        pl.len().alias(name.format("n")),
        _late().mean().alias(name.format("late")),
        pl.col("arr_delay").mean().alias(name.format("delay")),
        pl.col("dep_time").is_null().mean().alias(name.format("canc")),
        pl.col("dep_delay").mean().alias(name.format("depdelay")),
    )


def _late() -> pl.Expr:
    return (pl.col("arr_delay") > _LATE_MINUTES).cast(pl.Float64).alias("late")


def _weather(landing: Path, day: date) -> pl.DataFrame:
    wind = pl.col("wind_speed")
    calm = pl.when(wind < _MOST_WIND).then(wind)
    rows = _read(landing / "weather" / f"{day}.csv").with_columns(wind_speed=calm)
    midnight = pl.lit(day + timedelta(days=1)).cast(pl.Datetime("us"))
    moment = midnight.dt.replace_time_zone(TIMEZONE).dt.convert_time_zone("UTC")
    recent = pl.col("time_hour").is_between(moment - pl.duration(hours=6), moment, closed="left")
    latest = rows.filter(recent).sort("time_hour").unique("origin", keep="last")
    known = pl.col("precip").count() > 0
    of_day = rows.group_by("origin").agg(
        wd_precip=pl.when(known).then(pl.col("precip").sum()),
        wd_visib_min=pl.col("visib").min(),
        wd_wind_max=pl.col("wind_speed").max(),
    )
    at_end = latest.select("origin", pl.col(WEATHER).name.prefix("w_"))
    return of_day.join(at_end, on="origin", how="left")


def _outcomes(landing: Path, day: date) -> pl.DataFrame:
    """What became known in the days of the longest window, each with the day on which it did."""
    known = []
    for back in range(max(_WINDOWS)):
        landed = day - timedelta(days=back)
        file = landing / "flights" / f"{landed}.csv"
        if file.exists():
            known.append(_read(file).with_columns(landed=pl.lit(landed)))
    return pl.concat(known)


def _last(outcomes: pl.DataFrame, day: date, days: int) -> pl.DataFrame:
    """Those of so many days that end with the day."""
    return outcomes.filter(pl.col("landed") > day - timedelta(days=days))


def _read(file: Path) -> pl.DataFrame:
    texts = ("carrier", "tailnum", "origin", "dest", "faa", "tzone", "time_hour", "flight_date")
    numbers = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", *WEATHER)
    types = dict.fromkeys(texts, pl.String) | dict.fromkeys(numbers, pl.Float64)
    header = file.open().readline().strip().split(",")
    of_file = {name: one for name, one in types.items() if name in header}
    rows = pl.read_csv(file, null_values="NA", schema_overrides=of_file)
    casts = []
    if "time_hour" in header:
        instant = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
        casts.append(instant)
    if "flight_date" in header:
        casts.append(pl.col("flight_date").str.to_date())
    return rows.with_columns(casts)


def _of_day(clock: str) -> pl.Expr:
    return pl.col(clock) // 100 * 60 + pl.col(clock) % 100


def days_to_holiday(day: date) -> int:
    distances = [(holiday - day).days for holiday in _HOLIDAYS]
    nearest = min(distances, key=lambda distance: (abs(distance), distance))
    return max(-7, min(7, nearest))


def main() -> int:
    """The night."""
    landing, state = map(Path, sys.argv[1:3])
    day = date.fromisoformat(sys.argv[3])
    predict(state, day, join(landing, state, day))
    return 0


if __name__ == "__main__":
    sys.exit(main())
