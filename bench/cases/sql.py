"""A filter and an aggregate over a year of predictions, as a person asks for it in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from deltalake import write_deltalake

from bench.harness import Answer, Case, Peer, Work
from jobs.services import stage_client
from jobs.services.own_server import preloaded
from jobs.services.stage_server import PRELOAD
from jobs.spark.server import running_server
from jobs.spark.session import address, connect, plan_for
from pipelines.environment import Environment

_SEED = 20130101
_FIRST_DAY = date(2013, 1, 1)
_DAYS = 365
_SELECT = (
    "SELECT carrier, count(*) AS flights, avg(late_probability) AS mean "
    "FROM {table} WHERE dest = 'LAX' AND flight_date >= DATE '2013-02-01' "
    "GROUP BY carrier ORDER BY carrier"
)


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    names = ["carrier", "flights"]
    own, other = (one.select(names).to_pylist() for one in (ours, theirs))
    if not own or own != other:
        return False
    apart = ours["mean"].to_numpy() - theirs["mean"].to_numpy()
    return bool(np.abs(apart).max() < 1e-9)


CASE = Case(
    name="sql",
    what="`nightshift sql` while the platform is up, from start to end",
    peers=(
        Peer(name="alone", what="the same, no platform up"),
        Peer(
            name="spark", what="Spark SQL in a session that is warm: the statement alone", goal=0.2
        ),
        Peer(
            name="client",
            what="a script of pyspark that asks a Spark that is warm, from start to end",
            goal=0.2,
        ),
        Peer(name="duckdb", what="DuckDB on the same files, bare, from start to end", goal=2.0),
    ),
    sizes=(328_500,),
    quick_size=328_500,
    repeats=9,
    same=_same,
)
_CARRIERS = "UA B6 EV DL AA MQ US 9E WN VX"
_AIRPORTS = "LAX ATL ORD BOS MCO CLT SFO FLL MIA DCA"


def prepare(folder: Path, size: int) -> None:
    """A year of predictions of flights, a file a day."""
    draw = np.random.default_rng(_SEED)
    days = np.repeat(np.arange(_DAYS), -(-size // _DAYS))[:size]
    carriers = np.array(_CARRIERS.split())
    origins = np.array(["EWR", "JFK", "LGA"])
    airports = np.array(_AIRPORTS.split())
    dates = np.datetime64(_FIRST_DAY) + days
    rows = pa.table(
        {
            "flight_date": pa.array(dates, pa.date32()),
            "carrier": carriers[draw.integers(0, len(carriers), size)],
            "flight": pa.array(draw.integers(1, 8000, size), pa.int32()),
            "origin": origins[draw.integers(0, len(origins), size)],
            "dest": airports[draw.integers(0, len(airports), size)],
            "late_probability": draw.beta(2, 6, size),
            "model_version": np.array(["7"] * size),
        }
    )
    write_deltalake(_table(folder), rows, partition_by=["flight_date"])


def ours(folder: Path) -> Work:
    """The command, which the stage server answers."""
    with preloaded(_environment(folder), PRELOAD) as environment:
        if not stage_client.available(environment):
            raise RuntimeError("the stage server did not start")
        yield from _command(environment)


def alone(folder: Path) -> Work:
    """The command, which imports what it needs: no stage server is up in its home."""
    yield from _command(_environment(folder))


def _command(environment: Environment) -> Work:
    statement = _SELECT.format(table="flights.predictions")
    command = [sys.executable, "-m", "jobs", "sql", "--format", "csv", statement]
    variables = {**os.environ, **environment.variables()}

    def work() -> Answer:
        done = subprocess.run(command, check=True, capture_output=True, env=variables)
        return lambda: csv.read_csv(pa.BufferReader(done.stdout))

    yield work


def spark(folder: Path) -> Work:
    """The statement alone: session and JVM are there, and have answered it before."""
    with running_server(_environment(folder), 0) as environment:
        plan_for(environment, many_rows=True)
        session = connect(environment)

        def work() -> Answer:
            rows = session.sql(_of_delta(folder)).toArrow()
            return lambda: rows

        yield work


def client(folder: Path) -> Work:
    """The script, as a user of Spark Connect writes it: the server has answered it before."""
    program = (
        "import pyarrow.csv; from pyspark.sql import SparkSession; "
        "spark = SparkSession.builder.getOrCreate(); "
        f"rows = spark.sql({_of_delta(folder)!r}).toArrow(); "
        "pyarrow.csv.write_csv(rows, '/dev/stdout')"
    )
    with running_server(_environment(folder), 0) as environment:
        command = [sys.executable, "-c", program]
        variables = {**os.environ, "SPARK_REMOTE": address(environment)}

        def work() -> Answer:
            done = subprocess.run(command, check=True, capture_output=True, env=variables)
            return lambda: csv.read_csv(pa.BufferReader(done.stdout))

        yield work


def duckdb(folder: Path) -> Work:
    """A script of two lines."""
    files = f"read_parquet('{_table(folder)}/*/*.parquet', hive_partitioning = true)"
    program = f"import duckdb; duckdb.sql({_SELECT.format(table=files)!r}).write_csv('/dev/stdout')"

    def work() -> Answer:
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        return lambda: csv.read_csv(pa.BufferReader(done.stdout))

    yield work


def _of_delta(folder: Path) -> str:
    return _SELECT.format(table=f"delta.`{_table(folder)}`")


def _table(folder: Path) -> str:
    return str(folder / "home" / "lake" / "flights" / "predictions")


def _environment(folder: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(folder / "home")})
