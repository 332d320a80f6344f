"""Rows for `nightshift models PIPELINE`."""

from __future__ import annotations

import json
from typing import Any

from pipelines.environment import Environment
from pipelines.spec import Pipeline


def columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Column names: the score and the headline metric are those of the pipeline's task."""
    from jobs.training.tasks import task_of

    task = task_of(pipeline.training.task)
    rivals = ("champion", *(baseline.name for baseline in pipeline.training.baselines))
    return (
        "version",
        "as_of",
        "alias",
        "family",
        "event",
        task.leak_score,
        task.headline,
        *(f"{rival}_{task.headline}" for rival in rivals),
        "reason",
        "mlflow_run_id",
    )


def models(
    pipeline: Pipeline, environment: Environment
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Column names and rows: every model of the pipeline, newest first."""
    from jobs.training import serving
    from jobs.training.registry import Registry

    last = {event["model_version"]: event for event in serving.events(environment, pipeline.name)}
    rows: list[tuple[object, ...]] = []
    for model in Registry(environment, pipeline.name).versions():
        aliases = " ".join(model.aliases) or None
        event = last.get(model.version, {"event": "not evaluated", "reason": None})
        rows.append(
            (
                model.version,
                model.as_of,
                aliases,
                model.family,
                event["event"],
                *_measured(pipeline, event),
                event["reason"],
                model.run_id,
            )
        )
    return columns(pipeline), rows


def _measured(pipeline: Pipeline, event: dict[str, Any]) -> tuple[object, ...]:
    """The candidate's score, and the headline metric of all; null where it was not measured."""
    from jobs.training.tasks import task_of

    task = task_of(pipeline.training.task)
    measured: dict[str, Any] = json.loads(event.get("metrics") or "{}")
    candidate = measured.get("candidate") or {}
    by_baseline = measured.get("baselines") or {}
    rivals = [measured.get("champion") or {}]
    rivals += [by_baseline.get(baseline.name, {}) for baseline in pipeline.training.baselines]
    return (
        candidate.get(task.leak_score),
        candidate.get(task.headline),
        *(rival.get(task.headline) for rival in rivals),
    )
