"""A night of flights by a script of one's own: polars and Keras, one process, no platform.

`python -m bench.bare_night LANDING STATE DAY` reads what has landed by the day, joins the features
of tomorrow's flights and the labels of today's, fits a network on the newest 90 days, and writes
tomorrow's predictions. With the last of many days behind DAY it only joins, all days in one pass.
What it leaves out: checks before anything is published, versions, a model that is compared before
it serves, a way back.
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
_HOLIDAYS_AS_TEXT = """
2013-01-01 2013-01-21 2013-02-18 2013-05-27 2013-07-04 2013-09-02
2013-10-14 2013-11-11 2013-11-28 2013-12-25 2014-01-01
"""
_HOLIDAYS = [date.fromisoformat(day) for day in _HOLIDAYS_AS_TEXT.split()]
_LATE_MINUTES = 15
_WINDOWS = (28, 7, 1)
TRAINING_DAYS = 90
_MOST_WIND = 200
EPOCHS = 12
BATCH = 2048


def join(landing: Path, state: Path, days: Sequence[date]) -> pl.DataFrame:
    """Keep the features of the flights of each next day, and what became known of each day's.

    Args:
        landing: Folder of the feeds' files.
        state: Where a day's rows are kept, and those of the days before lie.
        days: The nights, one after another.
    """
    outcomes = _outcomes(landing, days)
    scoring = _features(landing, days, outcomes)
    _keep(scoring, state / "scoring", days)
    known = outcomes.filter(pl.col("landed").is_in(days))
    evenings = [one - timedelta(days=1) for one in known["flight_date"].unique()]
    files = [state / "scoring" / f"{evening}.parquet" for evening in evenings]
    # The first night has scored nothing before.
    scored = [pl.read_parquet(file) for file in files if file.exists()]
    labelled = (
        pl.concat([scoring.drop("landed").clear(), *scored])
        .join(known.select(*KEY, "landed", _late()), on=KEY)
        .drop_nulls("late")
    )
    _keep(labelled, state / "training", days)
    return scoring.drop("landed")


def _keep(rows: pl.DataFrame, folder: Path, days: Sequence[date]) -> None:
    """A file a day."""
    folder.mkdir(parents=True, exist_ok=True)
    of_day = rows.partition_by("landed", as_dict=True, include_key=False)
    for day in days:
        found = of_day.get((day,), rows.drop("landed").clear())
        found.write_parquet(folder / f"{day}.parquet")


def predict(state: Path, day: date, scoring: pl.DataFrame) -> None:
    """Fit a network on the newest days, and write what it says of tomorrow's flights."""
    import keras

    keras.utils.set_random_seed(1)
    days = [day - timedelta(days=back) for back in range(TRAINING_DAYS)]
    files = [state / "training" / f"{one}.parquet" for one in days]
    there = [file for file in files if file.exists()]
    rows = pl.concat([pl.read_parquet(file) for file in there])
    no_numbers = {*KEY, *CATEGORIES, "late"}
    numbers = [name for name in rows.columns if name not in no_numbers]
    of_numbers = rows.select(numbers)
    means = of_numbers.mean().row(0, named=True)
    spread = of_numbers.select(pl.all().std()).row(0, named=True)
    known = {name: rows[name].unique().to_list() for name in CATEGORIES}

    def arrays(frame: pl.DataFrame) -> list[object]:
        scaled = []
        for one in numbers:
            # Of a number that is always the same it is 0.
            deviation = spread[one] or 1.0
            scaled.append((pl.col(one) - means[one]) / deviation)
        columns = frame.select(scaled).fill_null(0.0).to_numpy().astype("float32")
        codes = []
        for name in CATEGORIES:
            of_value = {value: number for number, value in enumerate(known[name], 1)}
            code = pl.col(name).replace_strict(of_value, default=0, return_dtype=pl.Int32)
            codes.append(frame.select(code).to_numpy())
        return [columns, *codes]

    model = network(len(numbers), known)
    label = rows["late"].to_numpy()
    model.fit(arrays(rows), label, BATCH, EPOCHS, verbose=0)
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


def _features(landing: Path, days: Sequence[date], outcomes: pl.DataFrame) -> pl.DataFrame:
    rows = _schedule(landing, days)
    for name, columns in KEYS.items():
        daily = _daily(outcomes.drop_nulls(columns), columns)
        for window in _WINDOWS if name in YESTERDAY else _WINDOWS[:-1]:
            figures = _rates(daily, columns, days, window, f"{name}_{{}}_{window}")
            figures = figures.drop(f"{name}_depdelay_{window}")
            rows = rows.join(figures, on=["landed", *columns], how="left")
    today = _rates(_daily(outcomes, ["origin"]), ["origin"], days, 1, "ap_{}_1")
    rows = rows.join(today.drop("ap_n_1"), on=["landed", "origin"], how="left")
    rows = rows.join(_weather(landing, days), on=["landed", "origin"], how="left")
    planes = _read(landing / "planes.csv").select("tailnum", built="year", seats="seats")
    rows = rows.join(planes.with_columns(plane_known=1), on="tailnum", how="left")
    counts = [name for name in rows.columns if _is_count(name)]
    flight_date = pl.col("flight_date")
    holidays = {one: days_to_holiday(one) for one in rows["flight_date"].unique()}
    return rows.with_columns(
        pl.col("plane_known").fill_null(0),
        pl.col(*counts).fill_null(0),
        plane_age=flight_date.dt.year() - pl.col("built"),
        dow=flight_date.dt.weekday(),
        month=flight_date.dt.month(),
        hol=flight_date.replace_strict(holidays, return_dtype=pl.Int32),
    ).drop("built", "tailnum", "zone", "departs", "minute")


def _schedule(landing: Path, days: Sequence[date]) -> pl.DataFrame:
    rows = _landed(landing / "schedule", days)
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
    sequence = pl.col("departs").rank("min").over("landed", "tailnum")
    has_no_tail = pl.col("tailnum").is_null()
    return rows.with_columns(
        block=pl.when(block < 0).then(block + 24 * 60).otherwise(block),
        sched_min=_of_day("sched_dep_time"),
        n_origin_hour=pl.len().over("landed", "origin", "hour"),
        n_origin_day=pl.len().over("landed", "origin"),
        tail_seq=pl.when(has_no_tail).then(0).otherwise(sequence),
    ).drop("sched_dep_time", "sched_arr_time", "time_hour")


def _daily(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Sums of a day, of which those of a window are made: a row counts in many windows."""
    return rows.group_by("landed", *columns).agg(
        n=pl.len(),
        arrived=pl.col("arr_delay").count(),
        late=_late().sum(),
        delay=pl.col("arr_delay").sum(),
        cancelled=pl.col("dep_time").null_count(),
        departed=pl.col("dep_delay").count(),
        depdelay=pl.col("dep_delay").sum(),
    )


def _is_count(name: str) -> bool:
    return name.split("_")[1:2] == ["n"]


def _rates(
    daily: pl.DataFrame,
    columns: Sequence[str],
    days: Sequence[date],
    window: int,
    name: str,
) -> pl.DataFrame:
    """The figures of each of the days: of so many days that end with it."""
    windows = []
    for day in days:
        windows += [(day, day - timedelta(days=back)) for back in range(window)]
    within = pl.DataFrame(windows, ["landed", "known_on"], orient="row")
    return (
        daily.rename({"landed": "known_on"})
        .join(within, on="known_on")
        .drop("known_on")
        .group_by("landed", *columns)
        .agg(pl.all().sum())
        .select(
            "landed",
            *columns,
            pl.col("n").alias(name.format("n")),
            _share("late", "arrived").alias(name.format("late")),
            _share("delay", "arrived").alias(name.format("delay")),
            _share("cancelled", "n").alias(name.format("canc")),
            _share("depdelay", "departed").alias(name.format("depdelay")),
        )
    )


def _share(total: str, count: str) -> pl.Expr:
    share = pl.col(total) / pl.col(count)
    return pl.when(pl.col(count) > 0).then(share)


def _late() -> pl.Expr:
    return (pl.col("arr_delay") > _LATE_MINUTES).cast(pl.Float64).alias("late")


def _weather(landing: Path, days: Sequence[date]) -> pl.DataFrame:
    wind = pl.col("wind_speed")
    calm = pl.when(wind < _MOST_WIND).then(wind)
    rows = _landed(landing / "weather", days).with_columns(wind_speed=calm)
    next_day = pl.col("landed") + timedelta(days=1)
    midnight = next_day.cast(pl.Datetime("us")).dt.replace_time_zone(TIMEZONE)
    moment = midnight.dt.convert_time_zone("UTC")
    since = moment - pl.duration(hours=6)
    recent = pl.col("time_hour").is_between(since, moment, closed="left")
    key = ["landed", "origin"]
    in_order = rows.filter(recent).sort("time_hour")
    latest = in_order.unique(key, keep="last", maintain_order=True)
    known = pl.col("precip").count() > 0
    of_day = rows.group_by(key).agg(
        wd_precip=pl.when(known).then(pl.col("precip").sum()),
        wd_visib_min=pl.col("visib").min(),
        wd_wind_max=pl.col("wind_speed").max(),
    )
    at_end = latest.select(*key, pl.col(WEATHER).name.prefix("w_"))
    return of_day.join(at_end, on=key, how="left")


def _outcomes(landing: Path, days: Sequence[date]) -> pl.DataFrame:
    """What became known in the longest window of each of the days."""
    count = (days[-1] - days[0]).days + max(_WINDOWS)
    known = [days[-1] - timedelta(days=back) for back in range(count)]
    return _landed(landing / "flights", known)


def _landed(folder: Path, days: Sequence[date]) -> pl.DataFrame:
    """The files of the days, as far as they are there, with the day on which each landed."""
    found = []
    for day in days:
        file = folder / f"{day}.csv"
        if file.exists():
            found.append(_read(file).with_columns(landed=day))
    return pl.concat(found)


def _read(file: Path) -> pl.DataFrame:
    texts = ("carrier", "tailnum", "origin", "dest", "faa", "tzone", "time_hour", "flight_date")
    flown = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
    # Of a day on which all of them lack nobody could tell the type.
    numbers = (*flown, *WEATHER, "wind_dir", "wind_gust")
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
    """The night, or the rows of many."""
    landing, state = map(Path, sys.argv[1:3])
    first, *others = map(date.fromisoformat, sys.argv[3:])
    if others:
        count = (others[-1] - first).days + 1
        join(landing, state, [first + timedelta(days=number) for number in range(count)])
    else:
        predict(state, first, join(landing, state, [first]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
