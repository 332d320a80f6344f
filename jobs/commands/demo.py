"""`nightshift demo`: the whole platform in one go, on the first quarter of 2013.

Running it again changes nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from jobs.services.airflow_api import Airflow, Task
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.run import Run
from pipelines.stages import STAGES

FLIGHTS = pipeline("flights")
QUARTER = Days(date(2012, 12, 31), date(2013, 3, 31))
NIGHTS = Days(date(2013, 4, 1), date(2013, 4, 2))
LOAD_RUN = "demo-first-quarter"
_NIGHT_SECONDS = 1800
_DAG_SECONDS = 120

# Written out, because they are printed for people to copy.
TOP = """SELECT carrier, flight, origin, dest, sched_dep_time,
    round(late_probability, 3) AS late_probability, model_version
  FROM flights.predictions WHERE flight_date = '2013-04-03'
  ORDER BY late_probability DESC, carrier, flight LIMIT 10"""
COUNT = """SELECT flight_date, count(*) AS flights,
    round(avg(late_probability), 3) AS mean_probability, max(model_version) AS model
  FROM flights.predictions WHERE flight_date >= '2013-04-01'
  GROUP BY flight_date ORDER BY flight_date"""


def demo(environment: Environment) -> int:
    """Start the platform, load a quarter, run two nights through Airflow, show what came out.

    Leave it running; `DEMO_KEEP=0` stops it in the end, however it ends.
    """
    from jobs.services import down

    started = time.monotonic()
    try:
        code = _up(environment) or _land(environment) or _load(environment)
        if code:
            return code
        _run_nights(environment)
        _show(environment)
        print(f"\nThe demo took {_minutes(time.monotonic() - started)}.")
    finally:
        if os.environ.get("DEMO_KEEP") == "0":  # a switch of this command, not of the installation
            down(environment)
        else:
            print("The platform is running: `make down` stops it.", flush=True)
    return 0


def _up(environment: Environment) -> int:
    from jobs.services import up

    with _step("Start Spark, Airflow and the stage server"):
        return up(environment)


def _land(environment: Environment) -> int:
    from jobs.commands.land import land
    from jobs.night import summary

    days = Days(QUARTER.first, NIGHTS.last)
    with _step(f"Land the airline's files of {days}"):
        print(f"{environment.landing}: {summary(land(FLIGHTS, environment, days))}", flush=True)
    return 0


def _load(environment: Environment) -> int:
    from jobs.night import run_night

    if _is_loaded(environment):
        print(f"\n== {QUARTER} is loaded already", flush=True)
        return 0
    with _step(
        f"Load {QUARTER} in one pass, and train the first model: "
        f"nightshift run flights --from {QUARTER.first} --to {QUARTER.last}"
    ):
        return run_night(
            Run(pipeline=FLIGHTS, days=QUARTER, environment=environment, run_id=LOAD_RUN), STAGES
        )


def _is_loaded(environment: Environment) -> bool:
    from jobs.lake import ops

    if not ops.exists(environment, "stage_runs"):
        return False
    done = ops.read(environment, "stage_runs", [("run_id", "=", LOAD_RUN), ("status", "=", "done")])
    return {stage.name for stage in STAGES} <= set(done.column("stage").to_pylist())


def _run_nights(environment: Environment) -> None:
    airflow = _airflow(environment)
    _wait_for_dag(airflow)
    for day in NIGHTS:
        with _step(f"Night of {day}, by Airflow"):
            run_id = airflow.trigger(FLIGHTS.name, {"date": str(day)})
            print(airflow.page(FLIGHTS.name, run_id), flush=True)
            with _stopped_when_interrupted(airflow, run_id):
                seconds = airflow.wait(FLIGHTS.name, run_id, _NIGHT_SECONDS, _tell)
            print(f"The DAG run took {seconds:.0f} s.", flush=True)


def _wait_for_dag(airflow: Airflow) -> None:
    until = time.monotonic() + _DAG_SECONDS
    while not airflow.has_dag(FLIGHTS.name):
        if time.monotonic() > until:
            raise NightshiftError(
                f"Airflow does not know the DAG '{FLIGHTS.name}' after {_DAG_SECONDS} s. "
                f"See 'Dag Import Errors' at {airflow.url}"
            )
        time.sleep(1)


@contextmanager
def _stopped_when_interrupted(airflow: Airflow, run_id: str) -> Iterator[None]:
    """Whoever interrupts the demo does not want its DAG run to go on.

    What it published stays whole.
    """
    try:
        yield
    except KeyboardInterrupt:
        airflow.stop(FLIGHTS.name, run_id)
        raise


def _tell(task: Task) -> None:
    if task.state == "success":
        print(f"  {task.name:<18}{task.seconds or 0:6.1f} s", flush=True)
    elif task.state in {"failed", "up_for_retry", "skipped"}:
        print(f"  {task.name:<18}{task.state.replace('_', ' ')}", flush=True)


def _show(environment: Environment) -> None:
    from jobs.lake.sql import query
    from jobs.output import show

    for statement in (TOP, COUNT):
        print(f'\n$ nightshift sql "{statement}"')
        show(*query(environment, statement))
    _show_quality(environment)
    print(f"\nData-quality report: {_report(environment)}")
    airflow = _airflow(environment)
    print(f"Airflow: {airflow.url}  user {airflow.user}  password {airflow.password}")


def _show_quality(environment: Environment) -> None:
    from jobs.lake import ops
    from jobs.output import show

    last = max(
        ops.read(environment, "model_events", [("pipeline", "=", FLIGHTS.name)]).to_pylist(),
        key=lambda event: event["created_at"],
    )
    told = json.loads(last["metrics"])
    promoted = last["event"] == "promoted"
    champion = last["model_version" if promoted else "rival_version"]
    models = {
        f"champion, version {champion}": told["candidate" if promoted else "champion"],
        **(
            {}
            if promoted
            else {
                f"candidate, version {last['model_version']} ({last['event']})": told["candidate"]
            }
        ),
        f"baseline, the rate of {' x '.join(FLIGHTS.training.baseline)}": told["baseline"],
    }
    print(
        f"\nQuality on the {told['rows']} flights of {told['days']} "
        f"held-out days as of {last['as_of']}, all days pooled:"
    )
    show(
        ["model", "AUC", "log loss"],
        [
            (name, round(one["auc"], 4), round(one["log_loss"], 4))
            for name, one in models.items()
            if one
        ],
    )


def _report(environment: Environment) -> str:
    from jobs.lake import ops

    rows = ops.read(
        environment,
        "check_results",
        [("pipeline", "=", FLIGHTS.name), ("table_name", "=", f"{FLIGHTS.name}.predictions")],
    ).to_pylist()
    return str(max(rows, key=lambda row: row["checked_at"])["report"])


def _airflow(environment: Environment) -> Airflow:
    from jobs.services.airflow import USER
    from jobs.services.secrets import secret

    return Airflow(
        url=f"http://127.0.0.1:{environment.airflow_port}",
        user=USER,
        password=secret(environment, "admin_password"),
    )


@contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    yield
    print(f"   done in {_minutes(time.monotonic() - started)}", file=sys.stderr, flush=True)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
