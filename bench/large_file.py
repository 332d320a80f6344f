"""One large CSV file, ingested on one executor and on two: `python -m bench.large_file`.

Writes a day of flights whose file has so many gigabytes, starts a real standalone Spark cluster for
each turn, and prints the seconds of stage `ingest`, the most memory of its process, and the ratio.
With `--bound` an executor is kept to a core, as on a machine of its own: else a single one has its
compilers, collectors and Python run on the core that the other would have.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from bench.spark_cluster import cluster
from jobs.commands.land import land
from jobs.services import usage
from jobs.spark.session import plan_for
from jobs.stages.ingest import ingest
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.run import Run
from pipelines.stages import stage

_DAY = date(2013, 1, 15)
_GIGABYTE = 1_000_000_000
_FLIGHT = 2
"""Place of the flight's number, which is part of the key, in a line."""
_NUMBERS = 10_000
"""Flights have lower ones."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--bound", action="store_true", help="keep each executor to a core")
    parser.add_argument("--turn", nargs=2, help="of this program's own: home, executors")
    asked = parser.parse_args()
    if asked.turn:
        home, executors = asked.turn
        told = _turn(Path(home), int(executors), are_bound=asked.bound)
        print(json.dumps(told))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = Environment.read({"NIGHTSHIFT_HOME": str(home)})
        land(pipeline("flights"), environment, Days.of(_DAY))
        lines = _enlarge(environment.landing / "flights/flights" / f"{_DAY}.csv", asked.gigabytes)
        print(f"{lines:,} lines, {asked.gigabytes:g} GB", flush=True)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(asked.repeats):
            for executors, taken in seconds.items():
                told = _in_a_process(home, executors, are_bound=asked.bound)
                assert told["rows_staged"] >= lines, told
                taken.append(told["seconds"])
                print(f"{executors} executors: {told}", flush=True)
    ratio = median(seconds[1]) / median(seconds[2])
    print(f"two executors are {ratio:.2f} times as fast as one")


def _enlarge(file: Path, gigabytes: float) -> int:
    """Repeat the lines of the file under other keys; returns how many there are."""
    header, *lines = file.read_text().splitlines()
    rows = list(csv.reader(lines))
    wanted = gigabytes * _GIGABYTE
    written = turn = 0
    with file.open("w") as out:
        out.write(header + "\n")
        while out.tell() < wanted:
            for row in rows:
                number = turn * _NUMBERS + int(row[_FLIGHT])
                other = [*row]
                other[_FLIGHT] = str(number)
                out.write(",".join(other) + "\n")
            written += len(rows)
            turn += 1
    return written


def _in_a_process(home: Path, executors: int, *, are_bound: bool) -> dict[str, Any]:
    turn = ["--turn", str(home), str(executors)]
    command = [sys.executable, "-m", "bench.large_file", *turn]
    if are_bound:
        command.append("--bound")
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _turn(home: Path, executors: int, *, are_bound: bool) -> dict[str, Any]:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(home)})
    with tempfile.TemporaryDirectory() as folder:
        # A lake of its own: nothing is there yet.
        own = replace(environment, lake=f"{folder}/lake")
        with cluster(own, Path(folder), executors, are_bound=are_bound) as there:
            run = Run(
                pipeline=pipeline("flights"),
                days=Days.of(_DAY),
                environment=there.environment,
                run_id="bench",
            )
            # As a night decides of so many rows.
            plan_for(there.environment, many_rows=True)
            began = time.monotonic()
            told = ingest(run.at(stage("ingest")))
            seconds = time.monotonic() - began
    # Not by `getrusage`, which also tells a process the peak of the one that started it.
    peak = usage.peak_of(Path("/proc/self"))
    assert peak is not None, "Linux tells it"
    return {
        "seconds": round(seconds, 1),
        "megabytes_of_the_process": round(peak / 1024**2),
        "rows_staged": told["rows_staged"],
    }


if __name__ == "__main__":
    main()
