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
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

from jobs.lake import ops, sql
from jobs.services.airflow_api import Airflow
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
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--nights", type=int, default=3, help="nights each way")
    nights = parser.parse_args().nights
    environment = Environment.read()
    days = _next_days(environment, 2 * nights)
    subprocess.run(
        [*_NIGHTSHIFT, "land", "flights", "--from", str(days.first), "--to", str(days.last)],
        check=True,
    )
    measured: dict[str, list[Night]] = {"nightshift run": [], "Airflow": []}
    for day, (way, found) in zip(days, _in_turns(measured), strict=False):
        found.append(
            _by_command(environment, day)
            if way == "nightshift run"
            else _by_airflow(environment, day)
        )
        print(f"{day} by {way}: {found[-1].whole:.1f} s", file=sys.stderr, flush=True)
    print(_table(measured))
    return 0


_NIGHTSHIFT = [sys.executable, "-m", "jobs"]


def _in_turns(measured: dict[str, list[Night]]) -> Iterator[tuple[str, list[Night]]]:
    while True:
        yield from measured.items()


def _next_days(environment: Environment, count: int) -> Days:
    (last,) = sql.query(environment, "SELECT max(landed_date) FROM flights.flights")[1][0]
    assert isinstance(last, date), "flights.flights is partitioned by a date"
    return Days(last + timedelta(days=1), last + timedelta(days=count))


def _by_command(environment: Environment, day: date) -> Night:
    run_id, started = new_run_id(), time.monotonic()
    subprocess.run(
        [*_NIGHTSHIFT, "run", "flights", "--date", str(day), "--run-id", run_id],
        check=True,
        stdout=sys.stderr,
    )
    whole = time.monotonic() - started
    rows = ops.read(environment, "stage_runs", [("run_id", "=", run_id)]).to_pylist()
    return Night(day=day, whole=whole, stages={row["stage"]: row["seconds"] for row in rows})


def _by_airflow(environment: Environment, day: date) -> Night:
    airflow = Airflow(
        url=f"http://127.0.0.1:{environment.airflow_port}",
        user="admin",
        password=secret(environment, "admin_password"),
    )
    started = time.monotonic()
    run_id = airflow.trigger("flights", {"date": str(day)})
    airflow.wait("flights", run_id, 1800)
    whole = time.monotonic() - started
    return Night(
        day=day,
        whole=whole,
        stages={task.name: task.seconds or 0.0 for task in airflow.tasks("flights", run_id)},
    )


def _table(measured: dict[str, list[Night]]) -> str:
    lines = ["| stage | `nightshift run` | through Airflow |", "|---|---|---|"]
    lines += [
        _line(
            stage.name,
            [median(n.stages[stage.name] for n in nights) for nights in measured.values()],
        )
        for stage in STAGES
    ]
    lines.append(
        _line("**whole night**", [median(n.whole for n in nights) for nights in measured.values()])
    )
    runs = {way: [f"{n.day} {n.whole:.1f}" for n in nights] for way, nights in measured.items()}
    return "\n".join([*lines, "", f"Single runs: {json.dumps(runs)}"])


def _line(name: str, seconds: list[float]) -> str:
    return "| " + " | ".join([name, *(f"{one:.1f} s" for one in seconds)]) + " |"


if __name__ == "__main__":
    sys.exit(main())
