"""What the platform's own tables cost in their first nights and after many.

`python -m bench.ops_tables --nights 300` records as many nights of ten stages in an empty lake,
looks up each night when it is done, and compares the first and the last 30 nights.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

from deltalake import DeltaTable

from jobs.lake import ops
from jobs.output import show
from pipelines.environment import Environment
from pipelines.stages import STAGES

_FIRST = date(2013, 1, 1)
_METRICS = json.dumps({f"metric_{number}": number / 7 for number in range(30)})
_KEPT = {
    "delta.deletedFileRetentionDuration": "interval 1 seconds",
    "delta.logRetentionDuration": "interval 4 seconds",
}
"""A night takes about half a second here: what is kept for days is kept for seconds."""
_COMPARED = 30
"""Nights at each end."""

Seconds = tuple[float, float]
"""On the clock, and of the processors."""


def main() -> int:
    """Measure, and print a row for each end."""
    parser = argparse.ArgumentParser(prog="bench.ops_tables", description=__doc__)
    parser.add_argument("--nights", type=int, default=300)
    count = parser.parse_args().nights
    with TemporaryDirectory() as home:
        environment = Environment.read({"NIGHTSHIFT_HOME": home})
        nights = [_night(environment, 0)]
        table = DeltaTable(environment.table_path("ops.stage_runs"))
        table.alter.set_table_properties(_KEPT)
        nights += [_night(environment, number) for number in range(1, count)]
        folder = Path(environment.table_path("ops.stage_runs"))
        files = sum(path.is_file() for path in folder.rglob("*"))
    # Without the first: it imports libraries, and creates the table.
    ends = {"first": nights[1 : _COMPARED + 1], "last": nights[-_COMPARED:]}
    names = ("nights", "append", "append, CPU", "read", "read, CPU")
    show(names, [_row(name, end) for name, end in ends.items()], "table")
    print(f"{files} files of data and log", file=sys.stderr)
    return 0


def _night(environment: Environment, number: int) -> tuple[list[Seconds], Seconds]:
    """What each append and the look-up took."""
    run_id = f"run__{number:04}"
    appends = []
    for stage in STAGES:
        row = {
            "run_id": run_id,
            "pipeline": "flights",
            "stage": stage.name,
            "first_day": _FIRST + timedelta(days=number),
            "last_day": _FIRST + timedelta(days=number),
            "status": "done",
            "started_at": ops.now(),
            "seconds": 2.5,
            "metrics": _METRICS,
        }
        appends.append(_timed(ops.append, environment, "stage_runs", [row]))
    of_run = [("pipeline", "=", "flights"), ("run_id", "=", run_id)]
    return appends, _timed(ops.read, environment, "stage_runs", of_run)


def _timed(function: Callable[..., object], *arguments: Any) -> Seconds:
    clock = time.perf_counter()
    processors = time.process_time()
    function(*arguments)
    return time.perf_counter() - clock, time.process_time() - processors


def _row(
    name: str,
    nights: list[tuple[list[Seconds], Seconds]],
) -> tuple[object, ...]:
    appends: list[Seconds] = []
    for of_night, _ in nights:
        appends += of_night
    reads = [read for _, read in nights]
    return (
        name,
        median(clock for clock, _ in appends),
        # The mean: now and then an append tidies the table.
        mean(processors for _, processors in appends),
        median(clock for clock, _ in reads),
        mean(processors for _, processors in reads),
    )


if __name__ == "__main__":
    sys.exit(main())
