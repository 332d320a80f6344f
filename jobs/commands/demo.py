"""`nightshift demo`: the whole platform in one go, on a pipeline with a built-in source.

Running it again changes nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs import examples
from jobs.examples import Demo
from jobs.services import replays
from jobs.services.airflow_api import Airflow, Task, own_airflow
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.run import Run
from pipelines.spec import Pipeline
from pipelines.stages import STAGES

_NIGHT_SECONDS = 1800
"""A night that takes longer has failed; it takes about a minute on a laptop."""
_DAG_SECONDS = 120
"""Airflow finds a new DAG within half a minute, on a busy machine within two."""


def demo(pipeline: Pipeline, environment: Environment) -> int:
    """Start the platform, load a history, run nights through Airflow, show what came out.

    Leave it running; `DEMO_KEEP=0` stops it in the end, however it ends.

    Raises:
        UsageError: the pipeline has no demonstration built in.
    """
    from jobs.services import down

    shown = demonstration(pipeline)
    started = time.monotonic()
    is_up = False
    try:
        _start(pipeline, environment, shown)
        is_up = True
        code = _land(pipeline, environment, shown) or _load(pipeline, environment, shown)
        if code:
            return code
        _run_nights(pipeline, environment, shown)
        _show(pipeline, environment, shown)
        print(f"\nThe demo took {_minutes(time.monotonic() - started)}.")
    finally:
        if os.environ.get("DEMO_KEEP") == "0":  # a switch of this command, not of the installation
            down(environment)
        elif is_up:
            print("The platform is running: `make down` stops it.", flush=True)
    return 0


def demonstration(pipeline: Pipeline) -> Demo:
    """What there is to show of the pipeline.

    Raises:
        UsageError: nothing; the message names the pipelines that can be shown.
    """
    shown = demonstrations()
    if pipeline.name not in shown:
        raise UsageError(
            f"No demonstration is built in for '{pipeline.name}'. "
            f"Built in: {', '.join(shown) or 'none'}."
        )
    return shown[pipeline.name]


def demonstrations() -> dict[str, Demo]:
    """The demonstrations of all pipelines that have one, by the pipeline's name."""
    shown = {}
    for name in examples.names():
        example = catalog.part("jobs.examples", catalog.pipeline(name), "its demonstration")
        if hasattr(example, "DEMO"):
            shown[name] = example.DEMO
    return shown


def _start(pipeline: Pipeline, environment: Environment, shown: Demo) -> None:
    from jobs.services import up

    if pipeline.replay:
        # Tonight goes on after the last night that is shown.
        replays.begin(environment, pipeline, first=shown.nights.last)
    with _step("Start Spark, Airflow, MLflow and the stage server"):
        up(environment)


def _land(pipeline: Pipeline, environment: Environment, shown: Demo) -> int:
    from jobs.commands.land import land
    from jobs.night import summary

    with _step(f"Land the source's files of {shown.days}"):
        landed = land(pipeline, environment, shown.days)
        rows = {feed.name: landed[feed.name] for feed in pipeline.feeds}
        print(f"{environment.landing}: {_files(landed)}; rows: {summary(rows)}", flush=True)
    return 0


def _files(landed: dict[str, object]) -> str:
    """How many files were written, and how many Airflow, or a demo before, has dropped already."""
    written, unchanged = landed["files_written"], landed["files_unchanged"]
    if not written:
        return f"the source's {unchanged} files are there already"
    return f"{written} files written, {unchanged} there already"


def _load(pipeline: Pipeline, environment: Environment, shown: Demo) -> int:
    from jobs.night import run_night

    days = shown.load
    run = Run(
        pipeline=pipeline,
        days=days,
        environment=environment,
        run_id=f"demo_{pipeline.name}_{days}",
    )
    if is_loaded(run):
        print(f"\n== {days} is loaded already", flush=True)
        return 0
    with _step(
        f"Load {days} in one pass, and train the first model: "
        f"nightshift run {pipeline.name} --from {days.first} --to {days.last}"
    ):
        return run_night(run, STAGES)


def is_loaded(run: Run) -> bool:
    """Whether every stage of the run is done."""
    from jobs.lake import ops

    done_by_run = [("run_id", "=", run.run_id), ("status", "=", "done")]
    done = ops.read(run.environment, "stage_runs", done_by_run, ["stage"])
    return {stage.name for stage in STAGES} <= set(done.column("stage").to_pylist())


def _run_nights(pipeline: Pipeline, environment: Environment, shown: Demo) -> None:
    airflow = own_airflow(environment)
    _wait_for_dag(airflow, pipeline.name)
    for day in shown.nights:
        with _step(f"Night of {day}, by Airflow"):
            run_id = airflow.trigger(pipeline.name, {"date": str(day)})
            print(airflow.page(pipeline.name, run_id), flush=True)
            with _stopped_when_interrupted(airflow, pipeline.name, run_id):
                seconds = airflow.wait(pipeline.name, run_id, _NIGHT_SECONDS, _print_task)
            print(f"The DAG run took {seconds:.0f} s.", flush=True)


def _wait_for_dag(airflow: Airflow, dag: str) -> None:
    until = time.monotonic() + _DAG_SECONDS
    while not airflow.has_dag(dag):
        if time.monotonic() > until:
            raise NightshiftError(
                f"Airflow does not know the DAG '{dag}' after {_DAG_SECONDS} s. "
                f"See 'Dag Import Errors' at {airflow.url}"
            )
        time.sleep(1)


@contextmanager
def _stopped_when_interrupted(airflow: Airflow, dag: str, run_id: str) -> Iterator[None]:
    """Whoever interrupts the demo does not want its DAG run to go on.

    What it published stays whole.
    """
    try:
        yield
    except KeyboardInterrupt:
        airflow.stop(dag, run_id)
        raise


def _print_task(task: Task) -> None:
    if task.state == "success":
        print(f"  {task.name:<18}{task.seconds or 0:6.1f} s", flush=True)
    elif task.state in {"failed", "up_for_retry", "skipped"}:
        print(f"  {task.name:<18}{task.state.replace('_', ' ')}", flush=True)


def _show(pipeline: Pipeline, environment: Environment, shown: Demo) -> None:
    from jobs.commands.models import models
    from jobs.lake.sql import query
    from jobs.output import show

    for statement in shown.queries:
        print(f'\n$ nightshift sql "{statement}"')
        show(*query(environment, statement))
    print(f"\n$ nightshift models {pipeline.name}")
    show(*models(pipeline, environment))
    print(f"\nData-quality report: {newest_report(pipeline, environment)}")
    if pipeline.replay:
        print(f"\n{replays.in_words(environment, pipeline)}")
        print("Its files land and its nights run by themselves, as long as the platform is up.")
    airflow = own_airflow(environment)
    password = _password(airflow, environment)
    print(f"Airflow: {airflow.url}  user {airflow.user}  password {password}")


def _password(airflow: Airflow, environment: Environment) -> str:
    if sys.stdout.isatty():
        return airflow.password
    # A file or a pipe may be a log, which is kept and read by others.
    return f"in {environment.secrets / 'admin_password'}"


def newest_report(pipeline: Pipeline, environment: Environment) -> str:
    """Where the report of the pipeline's last check is."""
    from jobs.lake import ops

    of_pipeline = [("pipeline", "=", pipeline.name)]
    columns = ("checked_at", "report")
    checks = ops.read(environment, "check_results", of_pipeline, columns).to_pylist()
    last = max(checks, key=lambda check: check["checked_at"])
    return str(last["report"])


@contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    yield
    print(f"   done in {_minutes(time.monotonic() - started)}", file=sys.stderr, flush=True)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
