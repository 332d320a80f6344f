"""A night of flights: from its files to tomorrow's predictions, after so many days."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from bench import bare_night, stock_night
from bench.alike import alike
from bench.harness import Answer, Case, Peer, Work
from bench.home import Home
from jobs.lake import reading
from jobs.services.stage_client import python_path
from jobs.spark.java import java_home
from jobs.spark.server import own_jars, spark_home
from pipelines.flights import PIPELINE

_BEFORE = PIPELINE.first_day
"""Has the schedule of the first day, and nothing else."""
_FIRST = date(2013, 1, 1)
_MOST_NIGHTS = 40
"""That can be measured; one more is compared first."""


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    """Whether tomorrow's flights have the same features; of the models nothing is asked."""
    if not {*PIPELINE.training.features} <= {*theirs.column_names}:
        return False
    return len(ours) > 0 and alike(ours, theirs, key=bare_night.KEY)


CASE = Case(
    name="night",
    what="`nightshift run`, the platform up: judged, published, two models of two ranks, compared",
    peers=(
        Peer(
            name="script",
            what="polars and one Keras model in a script, from start to end: nothing is judged",
            goal=3.0,
        ),
        Peer(
            name="stock",
            what="a spark-submit a stage: Great Expectations with data docs, Feast's Spark store, "
            "one Keras model, a pandas UDF that calls `predict`",
            goal=0.1,
        ),
    ),
    # Days before it, of some 900 flights.
    sizes=(90,),
    # The run that loads 60 days is refused.
    quick_size=90,
    repeats=3,
    most_repeats=_MOST_NIGHTS,
    same=_same,
)


def prepare(folder: Path, size: int) -> None:
    """The files of the days, and of the nights that are measured."""
    last = _FIRST + timedelta(days=size + _MOST_NIGHTS)
    Home(folder)("land", "flights", "--from", str(_BEFORE), "--to", str(last))
    (folder / "days").write_text(str(size))


def ours(folder: Path) -> Work:
    """Night after night, in a home that has the days before them."""
    nightshift = Home(folder)
    first, *_ = nights = _nights(folder)
    with nightshift.up():
        last = first - timedelta(days=1)
        nightshift("run", "flights", "--from", str(_BEFORE), "--to", str(last))
        ahead = iter(nights)

        def work() -> Answer:
            night = str(next(ahead))
            nightshift("run", "flights", "--date", night)
            of_night = [("landed_date", "=", night)]
            return lambda: reading.read(
                nightshift.environment, "flights.scoring", None, of_night, reading.Moment()
            )

        yield work


def script(folder: Path) -> Work:
    """Night after night, each in a new process."""
    landing = Home(folder).environment.landing / "flights"
    state = folder / "state"
    nights = _nights(folder)
    days_before = range((nights[0] - _FIRST).days)
    before = [_FIRST + timedelta(days=number) for number in days_before]
    bare_night.join(landing, state, before)
    ahead = iter(nights)

    def work() -> Answer:
        night = str(next(ahead))
        program = [sys.executable, "-m", "bench.bare_night", str(landing), str(state), night]
        subprocess.run(program, check=True, capture_output=True)
        return lambda: pl.read_parquet(state / "scoring" / f"{night}.parquet").to_arrow()

    yield work


def stock(folder: Path) -> Work:
    """Night after night, each stage of it in a new Spark; tells how long each took."""
    environment = Home(folder).environment
    landing, state = environment.landing / "flights", folder / "stock"
    state.mkdir()
    nights = _nights(folder)
    jars = ",".join(map(str, own_jars(environment)))
    settings = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
    }
    set_so = [f"--conf={name}={value}" for name, value in settings.items()]
    memory = ["--driver-memory", environment.spark_memory]
    submit = [str(spark_home() / "bin/spark-submit"), "--master", "local[*]", "--jars", jars]
    own = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "JAVA_HOME": str(java_home()),
        "PYTHONPATH": python_path(),
    }

    def run(stage: str, first: date, last: date) -> None:
        asked = [stage, str(landing), str(state), str(first), str(last)]
        program = [*submit, *memory, *set_so, stock_night.__file__, *asked]
        started = time.monotonic()
        subprocess.run(program, check=True, capture_output=True, env=own)
        seconds = time.monotonic() - started
        print(f"    {stage} {seconds:.1f} s", file=sys.stderr, flush=True)

    for stage in ("ingest", "transform"):
        run(stage, _BEFORE, nights[0] - timedelta(days=1))
    ahead = iter(nights)

    def work() -> Answer:
        night = next(ahead)
        for stage in stock_night.STAGES:
            run(stage, night, night)
        return lambda: _scored(state)

    yield work


def _scored(state: Path) -> pa.Table:
    rows = DeltaTable(state / "scoring").to_pyarrow_table()
    # A key may be a feature too.
    names = dict.fromkeys([*bare_night.KEY, *PIPELINE.training.features])
    return rows.select(list(names))


def _nights(folder: Path) -> list[date]:
    """Those after the days."""
    first = _FIRST + timedelta(days=int((folder / "days").read_text()))
    return [first + timedelta(days=number) for number in range(_MOST_NIGHTS + 1)]
