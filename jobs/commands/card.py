"""The command `nightshift card`: what a person should know of a version of a model."""

from __future__ import annotations

import sys

from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.spec import Pipeline


def card(environment: Environment, pipeline: Pipeline, version: str | None) -> None:
    """Write the card of a version anew, print it as Markdown, and say where its page is.

    Args:
        environment: Whose models they are.
        pipeline: Of the model.
        version: As `nightshift models` shows it; None: the one that serves.

    Raises:
        UsageError: there is no such version, or none serves.
        NightshiftError: the one that serves was deleted in MLflow, or what the model pins cannot be
            read.
    """
    from jobs.training import cards
    from jobs.training.registry import Registry

    registry = Registry(environment, pipeline.name)
    if version is None:
        # What nobody has named is no wrong usage.
        model = registry.in_service(_serving(environment, pipeline))
    else:
        model = registry.version(version)
    folder = cards.write(environment, pipeline, registry, model)
    print((folder / cards.TEXT).read_text(encoding="utf-8"), end="")
    print(f"Page: {folder / cards.PAGE}", file=sys.stderr)


def _serving(environment: Environment, pipeline: Pipeline) -> str:
    from jobs.lake import model_events

    known = model_events.turns(environment, pipeline.name)
    if not known:
        raise UsageError(
            f"No model of '{pipeline.name}' serves. Say which version: "
            f"nightshift models {pipeline.name} lists them."
        )
    return known[-1].version
