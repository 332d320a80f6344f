"""Rows for `nightshift models PIPELINE`."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from pipelines.environment import Environment
from pipelines.spec import Pipeline

_NOT_EVALUATED: dict[str, Any] = {
    "event": "not evaluated",
    "created_at": None,
    "who": None,
    "reason": None,
}


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
        "decided_at",
        "who",
        task.leak_score,
        task.headline,
        *(f"{rival}_{task.headline}" for rival in rivals),
        "reason",
        "mlflow_run_id",
    )


def models(
    pipeline: Pipeline, environment: Environment
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Column names and rows: every model of the pipeline, newest first.

    The champion is the one that `ops.model_events` says, wherever the alias points.
    """
    from jobs.lake import model_events
    from jobs.training.registry import CHAMPION, Registry

    recorded = model_events.events(environment, pipeline.name)
    last = {event["model_version"]: event for event in recorded}
    # What a person says is not measured.
    measured = {event["model_version"]: event for event in recorded if event["metrics"]}
    known = model_events.turns_of(recorded)
    serves = known[-1].version if known else None
    rows: list[tuple[object, ...]] = []
    for model in Registry(environment, pipeline.name).versions():
        aliases = [alias for alias in model.aliases if alias != CHAMPION]
        if model.version == serves:
            aliases.append(CHAMPION)
        event = last.get(model.version, _NOT_EVALUATED)
        rows.append(
            (
                model.version,
                model.as_of,
                " ".join(aliases) or None,
                model.family,
                event["event"],
                event["created_at"],
                event["who"],
                *_measured(pipeline, measured.get(model.version, event)),
                event["reason"],
                model.run_id,
            )
        )
    return columns(pipeline), rows


def gone(pipeline: Pipeline, environment: Environment, listed: Collection[object]) -> str | None:
    """The version that serves by the record, where it is not among those listed from MLflow."""
    from jobs.lake import model_events

    known = model_events.turns(environment, pipeline.name)
    return known[-1].version if known and known[-1].version not in listed else None


def of_others(pipeline: Pipeline, environment: Environment) -> list[str]:
    """The versions in MLflow that are not listed, because this platform did not make them."""
    from jobs.training.registry import Registry

    return Registry(environment, pipeline.name).of_others()


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
