"""Seconds per stage of a night.

By `nightshift run` with the platform up, and the next night through Airflow, in turns.

Needs a platform that is up and loaded (`make demo`). Each measured night is a new one, so the
nights that it runs stay in the lake.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import cycle
from statistics import median

from jobs.lake import ops, sql
from jobs.services.airflow_api import FINISHED, Airflow
from jobs.services.secrets import secret
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import new_run_id
from pipelines.stages import STAGES

FLIGHTS = pipeline("flights")


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One measured night."""

    day: date
    whole: float
    """Wall seconds, as the caller waits."""
    stages: dict[str, float]
    """Wall seconds by stage: inside the stage's own process, or of the Airflow task."""


def main() -> int:
    """Measure, print a Markdown table of medians and every single run."""
    parser = argparse.ArgumentParser(prog="bench.nights", description=__doc__)
    parser.add_argument("--nights", type=int, default=3, help="nights each way")
    nights = parser.parse_args().nights
    environment = Environment.read()
    days = _next_days(environment, len(_WAYS) * nights)
    bounds = ["--from", str(days.first), "--to", str(days.last)]
    subprocess.run([*_NIGHTSHIFT, "land", "flights", *bounds], check=True)
    measured: dict[str, list[Night]] = {way: [] for way in _WAYS}
    # In turns, so that what slows the machine down for a while slows both.
    for day, way in zip(days, cycle(_WAYS), strict=False):
        night = _WAYS[way](environment, day)
        measured[way].append(night)
        print(f"{day} by {way}: {night.whole:.1f} s", file=sys.stderr, flush=True)
    print(_table(measured))
    return 0


def _next_days(environment: Environment, count: int) -> Days:
    _, rows = sql.query(environment, "SELECT max(landed_date) FROM flights.flights")
    (last,) = rows[0]
    assert isinstance(last, date), "flights.flights is partitioned by a date"
    return Days(last + timedelta(days=1), last + timedelta(days=count))


def _by_command(environment: Environment, day: date) -> Night:
    run_id = new_run_id()
    command = [*_NIGHTSHIFT, "run", "flights", "--date", str(day), "--run-id", run_id]
    started = time.monotonic()
    # Our own output is the table alone.
    subprocess.run(command, check=True, stdout=sys.stderr)
    whole = time.monotonic() - started
    rows = ops.read(environment, "stage_runs", [("run_id", "=", run_id)]).to_pylist()
    stages = {row["stage"]: row["seconds"] for row in rows}
    return Night(day=day, whole=whole, stages=stages)


def _by_airflow(environment: Environment, day: date) -> Night:
    airflow = Airflow(
        url=f"http://127.0.0.1:{environment.airflow_port}",
        user="admin",
        password=secret(environment, "admin_password"),
    )
    asked = datetime.now(UTC)
    run_id = airflow.trigger("flights", {"date": str(day)})
    whole = (_end_of(airflow, run_id) - asked).total_seconds()
    tasks = airflow.tasks("flights", run_id)
    stages = {task.name: task.seconds or 0.0 for task in tasks}
    return Night(day=day, whole=whole, stages=stages)


def _end_of(airflow: Airflow, run_id: str) -> datetime:
    """When the run has succeeded, as Airflow tells it.

    Looked for seldom: `Airflow.wait` asks for the run and each task every second, which Airflow's
    API has to answer beside the night.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while (run := airflow.run("flights", run_id))["state"] not in FINISHED:
        if time.monotonic() > until:
            raise SystemExit(f"Run {run_id} has not ended after {_PATIENCE_SECONDS} s.")
        time.sleep(_LOOK_SECONDS)
    if run["state"] != "success":
        raise SystemExit(f"Run {run_id} has failed: see {airflow.page('flights', run_id)}")
    return datetime.fromisoformat(run["end_date"])


_NIGHTSHIFT = [sys.executable, "-m", "jobs"]
_WAYS: dict[str, Callable[[Environment, date], Night]] = {
    "nightshift run": _by_command,
    "Airflow": _by_airflow,
}
_PATIENCE_SECONDS = 1800
"""A night that takes longer hangs."""
_LOOK_SECONDS = 3


def _table(measured: dict[str, list[Night]]) -> str:
    ways = list(measured.values())
    lines = ["| stage | `nightshift run` | through Airflow |", "|---|---|---|"]
    for stage in STAGES:
        medians = [_median_of_stage(way, stage.name) for way in ways]
        lines.append(_row(stage.name, medians))
    lines.append(_row("**whole night**", [_median_of_whole(way) for way in ways]))
    runs = {way: _single_runs(nights) for way, nights in measured.items()}
    return "\n".join([*lines, "", f"Single runs: {json.dumps(runs)}"])


def _median_of_stage(nights: list[Night], stage: str) -> float:
    return median(night.stages[stage] for night in nights)


def _median_of_whole(nights: list[Night]) -> float:
    return median(night.whole for night in nights)


def _single_runs(nights: list[Night]) -> list[str]:
    return [f"{night.day} {night.whole:.1f}" for night in nights]


def _row(name: str, seconds: list[float]) -> str:
    cells = [name, *(f"{one:.1f} s" for one in seconds)]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
