"""Writes what runs record in the `ops` tables, for tests of what is read from there."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.lake import ops
from jobs.lake.commits import publish
from pipelines.days import Days
from pipelines.run import Run
from pipelines.spec import PREDICTIONS
from pipelines.stages import STAGES, stage
from tests.jobs.lake.test_commits import staged

NIGHT = datetime(2013, 1, 6, 9, 30, tzinfo=UTC)
"""When the night of a test begins."""


def stage_row(
    run: Run,
    stage: str,
    *,
    minute: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """A row of `ops.stage_runs`: a stage that began so many minutes into the night, and is done."""
    metrics = more.pop("metrics", {})
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "stage": stage,
        "first_day": run.days.first,
        "last_day": run.days.last,
        "status": "done",
        "started_at": NIGHT + timedelta(minutes=minute),
        "seconds": 2.0,
        "metrics": json.dumps(metrics),
        **more,
    }


def night_rows(run: Run) -> list[dict[str, Any]]:
    """A night in which every stage is done."""
    metrics = {
        "ingest": {"rows_staged": 2053},
        "evaluate": {"event": "kept", "serves": "2"},
        "predict": {"predictions": 940},
    }
    rows = []
    for minute, one in enumerate(STAGES):
        told = metrics.get(one.name, {})
        rows.append(stage_row(run, one.name, minute=minute, metrics=told))
    return rows


def record(run: Run, *rows: dict[str, Any]) -> None:
    """Append rows to `ops.stage_runs`."""
    ops.append(run.environment, "stage_runs", rows)


def publish_predictions(run: Run) -> None:
    """Publish a prediction of the run's night, as the stages do that make and judge it."""
    day = run.pipeline.table(PREDICTIONS).day_of(run.days.last)
    of_day = replace(run, days=Days.of(day)).at(stage("check_predictions"))
    publish(of_day, PREDICTIONS, staged(of_day, {day: [1]}, PREDICTIONS))


def settle(
    run: Run,
    model_version: str,
    event: str = "promoted",
    *,
    minute: int = 0,
) -> None:
    """Append the run's verdict on the model to `ops.model_events`."""
    row = {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "as_of": run.days.last,
        "event": event,
        "model_version": model_version,
        "created_at": NIGHT + timedelta(minutes=minute),
    }
    ops.append(run.environment, "model_events", [row])


def move_alias(run: Run, model_version: str, *, minute: int = 0) -> None:
    """Append to `ops.model_events` that somebody has moved MLflow's alias by hand."""
    row = {
        "pipeline": run.pipeline.name,
        "event": "alias_moved",
        "model_version": model_version,
        "reason": f"Somebody has moved the alias to version {model_version}.",
        "created_at": NIGHT + timedelta(minutes=minute),
    }
    ops.append(run.environment, "model_events", [row])
