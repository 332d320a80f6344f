"""What a night costs with more flights a day: `python -m bench.sizing --times 1 10 100`.

Each size gets a home of its own: some days in one pass, then single nights. Every flight comes so
many times, each under another number and with another plane, so that days, airports, routes and
their skew stay what they are. What is kept of a night is what the platform itself records of it in
`ops.costs`, and the most memory of Spark's server. With fewer days of history than the 90 of the
training's window, a night learns from those that there are.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from statistics import median

from bench.command import named, nightshift
from jobs.commands.land import land
from jobs.lake import waivers
from jobs.lake.sql import query
from jobs.output import show
from jobs.services import processes, usage
from jobs.spark.server import running_server
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.waivers import Waiver

FLIGHTS = pipeline("flights")
_NUMBERS = 10_000
"""Flights have lower ones."""
_GIGABYTE = 1e9
_OF_A_NIGHT = """
    SELECT stage, string_agg(DISTINCT status, ', '), median(seconds),
        median(cpu_seconds + spark_cpu_seconds), max(peak_bytes) / 1e9,
        median(rows_read), median(bytes_written) / 1e6
    FROM ops.costs
    WHERE pipeline = 'flights' AND first_day = last_day AND status IN ('done', 'refused')
    GROUP BY stage ORDER BY min(started_at)
"""
_COLUMNS = ("stage", "ended", "s", "processor s", "GB", "rows read", "MB written")


def main() -> None:
    """Measure each size, and print a table of it."""
    parser = argparse.ArgumentParser(prog="bench.sizing", description=__doc__)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--days", type=int, default=30, help="of history")
    parser.add_argument("--nights", type=int, default=3, help="after it")
    asked = parser.parse_args()
    for times in asked.times:
        with tempfile.TemporaryDirectory() as folder:
            environment = Environment.read({"NIGHTSHIFT_HOME": folder})
            history = Days(FLIGHTS.first_day, FLIGHTS.first_day + timedelta(days=asked.days))
            nights = [history.last + timedelta(days=n + 1) for n in range(asked.nights)]
            _measure(environment, times, history, nights)


def _measure(environment: Environment, times: int, history: Days, nights: list[date]) -> None:
    all_days = Days(history.first, nights[-1])
    land(FLIGHTS, environment, all_days)
    rows = _multiply(environment.landing / FLIGHTS.name, times)
    _waive_volumes(environment, all_days)
    with running_server(environment, port=0, lasting=True) as environment:
        loaded = _run(environment, history)
        seconds = [_run(environment, Days.of(night)) for night in nights]
        server = _most_memory_of_spark(environment)
    of_lake = sum(path.stat().st_size for path in environment.home.rglob("*.parquet"))
    print(
        f"\n{times} times the flights: {rows:,} rows, {len(history)} days in {loaded:.0f} s, "
        f"a night {median(seconds):.0f} s;"
    )
    print(f"Spark's server {server / _GIGABYTE:.1f} GB, Parquet files {of_lake / _GIGABYTE:.2f} GB")
    _, stages = query(environment, _OF_A_NIGHT)
    show(_COLUMNS, [tuple(map(_rounded, row)) for row in stages], "table")
    sys.stdout.flush()


def _rounded(value: object) -> object:
    return round(value, 2) if isinstance(value, float) else value


def _most_memory_of_spark(environment: Environment) -> int:
    server = processes.listener(environment.spark_port)
    assert server is not None, "Spark's server has ended"
    peak = usage.peak_of(Path(f"/proc/{server.pid}"))
    assert peak is not None, "only Linux tells it"
    return peak


def _multiply(landing: Path, times: int) -> int:
    """Let each flight and each plane come so many times; returns the rows of all files."""
    files = [*landing.glob("flights/*.csv"), *landing.glob("schedule/*.csv")]
    return sum(_copied(file, times) for file in [*files, landing / "planes.csv"])


def _copied(file: Path, times: int) -> int:
    with file.open(newline="") as read:
        rows = list(csv.DictReader(read))
    if not rows:
        return 0
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    for copy in range(times):
        for row in rows:
            writer.writerow(_another(row, copy))
    file.write_text(out.getvalue())
    return times * len(rows)


def _another(row: dict[str, str], copy: int) -> dict[str, str]:
    changed = dict(row)
    if copy and row["tailnum"] != "NA":
        changed["tailnum"] = f"{row['tailnum']}-{copy}"
    if "flight" in row:
        changed["flight"] = str(int(row["flight"]) + copy * _NUMBERS)
    return changed


def _waive_volumes(environment: Environment, days: Days) -> None:
    """Let through what the suites say of how many flights a day has, and of their numbers."""
    for table in FLIGHTS.tables:
        waiver = Waiver(
            waiver_id=waivers.new_id(),
            days=days,
            expectation=None,
            column=None,
            by="bench.sizing",
            why="flights come more than once",
            until=None,
        )
        waivers.grant(environment, FLIGHTS.name, f"{FLIGHTS.name}.{table.name}", waiver)


def _run(environment: Environment, days: Days) -> float:
    started = time.monotonic()
    variables = {**os.environ, **environment.variables()}
    nightshift("run", FLIGHTS.name, *named(days), variables=variables)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
