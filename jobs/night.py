"""Plans a night as data, and performs it stage by stage.

In the stage server when one is up, else in this process.
"""

from __future__ import annotations

import fcntl
import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TextIO

from jobs.services import stage_client
from jobs.spark.session import explain_loss, server
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.run import Run
from pipelines.stages import Stage

PERFORM = "jobs.night:perform"
"""This module's entry for the stage server."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One line of the plan: a stage, and the tables that it stages or publishes."""

    stage: Stage
    tables: tuple[str, ...]


def plan(run: Run, stages: tuple[Stage, ...]) -> tuple[Step, ...]:
    """What the run would do, in order."""
    made = {
        stage.name: tuple(
            f"{run.pipeline.name}.{t.name}"
            for t in run.pipeline.tables
            if t.made_by in (stage.name, stage.audits)
        )
        for stage in stages
    }
    return tuple(Step(stage=stage, tables=made[stage.name]) for stage in stages)


def run_night(run: Run, stages: tuple[Stage, ...]) -> int:
    """Perform the stages one after another until one does not succeed; returns its exit code.

    Uses what `nightshift up` has started, and starts and stops what it needs when nothing is up.
    """
    with nullcontext() if stage_client.available(run.environment) else server(run.environment):
        for stage in stages:
            code = _perform_somewhere(run.at(stage))
            if code:
                return code
    return 0


def perform(argument: dict[str, Any]) -> int:
    """Do one stage in this process, record it in `ops.stage_runs`, and return its exit code.

    Args:
        argument: A `Run` as `Run.to_json` wrote it.
    """
    run = Run.from_json(argument)
    started, clock = time.time(), time.monotonic()
    try:
        with one_run_at_a_time(run):
            metrics = _function(run.doing)(run)
    except Exception as error:  # whatever it is, it must be recorded and end as an exit code
        code, message = explain(explain_loss(run.environment, error) or error)
        _record(
            run,
            started,
            time.monotonic() - clock,
            status="refused" if code == Refused.exit_code else "failed",
            error=message,
        )
        return code
    seconds = time.monotonic() - clock
    _record(run, started, seconds, status="done", metrics=metrics)
    print(f"{run.doing.name:<18}{seconds:6.1f} s  {summary(metrics)}", flush=True)
    return 0


def explain(error: BaseException, to: TextIO | None = None) -> tuple[int, str]:
    """Tell a person what went wrong, with a traceback only for faults.

    Returns:
        The exit code and the message.
    """
    out = to or sys.stderr
    if isinstance(error, Refused | UsageError):
        print(
            f"{'Refused' if isinstance(error, Refused) else 'Usage'}: {error}", file=out, flush=True
        )
        return error.exit_code, str(error)
    if not isinstance(error, NightshiftError):
        traceback.print_exception(error, file=out)
    # Spark's messages end with the server's stack, which the traceback above has told already.
    message = (
        str(error)
        if isinstance(error, NightshiftError)
        else f"{type(error).__name__}: {str(error).partition('JVM stacktrace:')[0].strip()}"
    )
    print(f"Fault: {message}", file=out, flush=True)
    return NightshiftError.exit_code, message


def summary(metrics: dict[str, Any]) -> str:
    """The plain numbers and words of a stage's metrics on one line.

    Nested values stay in `ops.stage_runs`.
    """
    return ", ".join(
        f"{name} {_short(value)}"
        for name, value in metrics.items()
        if isinstance(value, int | float | str)
    )


@contextmanager
def one_run_at_a_time(run: Run) -> Iterator[None]:
    """Hold the pipeline's lock: two runs of one pipeline in one home take turns, stage by stage."""
    folder = run.environment.runtime / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / run.pipeline.name).open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"{run.doing.name}: "
                f"waiting for another run of '{run.pipeline.name}' to finish its stage.",
                flush=True,
            )
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _perform_somewhere(run: Run) -> int:
    if stage_client.available(run.environment):
        return stage_client.call(run.environment, PERFORM, run.to_json(), {})
    return perform(run.to_json())


def _function(stage: Stage) -> Any:
    module, _, name = stage.function.partition(":")
    return getattr(import_module(module), name)


def _record(
    run: Run,
    started: float,
    seconds: float,
    *,
    status: str,
    metrics: dict[str, Any] | None = None,
    error: str | None = None,
) -> None:
    from datetime import UTC, datetime

    from jobs.lake import ops
    from jobs.version import code_version

    row = {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "stage": run.doing.name,
        "first_day": run.days.first,
        "last_day": run.days.last,
        "status": status,
        "started_at": datetime.fromtimestamp(started, UTC),
        "seconds": seconds,
        "metrics": json.dumps(metrics, default=str) if metrics is not None else None,
        "error": error,
        "code_version": code_version(),
    }
    ops.append(run.environment, "stage_runs", [row])


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
