"""Which model serves a night."""

from __future__ import annotations

from bisect import bisect_right
from datetime import date
from functools import cache
from operator import itemgetter
from typing import Any

from jobs.lake import ops
from jobs.training.registry import ModelVersion, Registry
from pipelines.days import Days
from pipelines.environment import Environment

EVENTS = "model_events"


def serving_model(
    environment: Environment, registry: Registry, as_of: date, besides: str | None = None
) -> ModelVersion | None:
    """The champion for that night; see `serving_models`."""
    return serving_models(environment, registry, Days.of(as_of), besides).get(as_of)


def serving_models(
    environment: Environment, registry: Registry, nights: Days, besides: str | None = None
) -> dict[date, ModelVersion]:
    """The champion for each night that has one, never trained on what became known later.

    That is the alias `champion`, and for a night before the champion's own the last model promoted
    by then.

    Args:
        besides: A version to leave out: the candidate, which may have been promoted by an earlier
            run of this night.
    """
    champion = registry.champion()
    if champion and champion.version == besides:
        champion = None
    promoted: list[dict[str, Any]] = []
    if champion is None or champion.as_of > nights.first:
        promoted = _promoted(environment, registry.name, nights.last, besides)
    version = cache(registry.version)
    models: dict[date, ModelVersion] = {}
    for night in nights:
        if champion and champion.as_of <= night:
            models[night] = champion
            continue
        by_then = bisect_right(promoted, night, key=itemgetter("as_of"))
        if by_then:
            last = promoted[by_then - 1]
            models[night] = version(last["model_version"])
    return models


def events(
    environment: Environment, pipeline: str, model_version: str | None = None
) -> list[dict[str, Any]]:
    """What became of each model of the pipeline, or of one, oldest first."""
    about = [("pipeline", "=", pipeline)]
    if model_version is not None:
        about.append(("model_version", "=", model_version))
    table = ops.read(environment, EVENTS, about)
    rows: list[dict[str, Any]] = table.to_pylist()
    return sorted(rows, key=itemgetter("created_at"))


def _promoted(
    environment: Environment, pipeline: str, by: date, besides: str | None
) -> list[dict[str, Any]]:
    """Night and version of the models promoted by that night, in the order of their nights."""
    promotions = [
        ("pipeline", "=", pipeline),
        ("event", "=", "promoted"),
        ("as_of", "<=", by),
    ]
    if besides is not None:
        promotions.append(("model_version", "!=", besides))
    columns = ("as_of", "created_at", "model_version")
    table = ops.read(environment, EVENTS, promotions, columns)
    rows: list[dict[str, Any]] = table.to_pylist()
    return sorted(rows, key=itemgetter("as_of", "created_at"))
