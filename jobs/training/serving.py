"""Which model serves a night."""

from __future__ import annotations

from datetime import date
from operator import itemgetter
from typing import Any

from jobs.lake import ops
from jobs.training.registry import ModelVersion, Registry
from pipelines.environment import Environment

EVENTS = "model_events"


def serving_model(
    environment: Environment, registry: Registry, as_of: date, besides: str | None = None
) -> ModelVersion | None:
    """The champion for that night: never one that was trained on what became known later.

    That is the alias `champion`, and for a night before the champion's own the last model promoted
    by then.

    Args:
        besides: A version to leave out: the candidate, which may have been promoted by an earlier
            run of this night.
    """
    champion = registry.champion()
    if champion and champion.as_of <= as_of and champion.version != besides:
        return champion
    earlier = [
        event
        for event in events(environment, registry.name)
        if event["event"] == "promoted"
        and event["as_of"] <= as_of
        and event["model_version"] != besides
    ]
    last = max(earlier, key=itemgetter("as_of", "created_at"), default=None)
    return registry.version(last["model_version"]) if last else None


def events(environment: Environment, pipeline: str) -> list[dict[str, Any]]:
    """What became of each model of the pipeline, oldest first."""
    table = ops.read(environment, EVENTS, [("pipeline", "=", pipeline)])
    rows: list[dict[str, Any]] = table.to_pylist()
    return sorted(rows, key=lambda event: event["created_at"])
