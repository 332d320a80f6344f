"""The command `nightshift replay`: whether a model can be trained again to the same weights."""

from __future__ import annotations

import sys
from dataclasses import astuple
from typing import TYPE_CHECKING

from jobs.output import show, shown

if TYPE_CHECKING:
    from jobs.training.replay import Replayed
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

HEADER = ("model", "weights", "numbers", "same", "largest_difference")
_DIFFERENT = 1
"""The exit code: the model was judged."""


def replay(environment: Environment, pipeline: Pipeline, version: str, form: str) -> int:
    """Train a version again from its pins, and print a row for each array of its weights.

    Returns:
        The exit code: 0 when all weights are the same, bit for bit, else 1.

    Raises:
        UsageError: there is no such version, the rows that it was trained on have been deleted, or
            its ranks have no places.
        Refused: its pins lack something, or do not fit what is declared today.
        NightshiftError: the training failed, or files of the version are gone or were changed.
    """
    from jobs.services.own_server import preloaded
    from jobs.training import replay as replays
    from jobs.training.registry import Registry

    registry = Registry(environment, pipeline.name)
    first = replays.original(registry, environment, pipeline, version)
    snapshot = first.recipe.snapshot
    print(
        f"Training version {version} of '{pipeline.name}' again: {first.model.family} as of "
        f"{first.model.as_of}, from {pipeline.name}.{snapshot.table} version {snapshot.version}",
        file=sys.stderr,
        flush=True,
    )
    with preloaded(environment, first.recipe.family.preload) as ranks_in:
        found = replays.replay(registry, first, ranks_in)
    show(HEADER, map(astuple, found.parts), form)
    _say(found, version)
    return 0 if found.same else _DIFFERENT


def _say(found: Replayed, version: str) -> None:
    """The verdict, and what is not as it was."""
    differ = [part for part in found.parts if not part.same]
    for model, digest in found.digests.items():
        if all(part.model != model for part in differ):
            print(f"The same weights of the {model} model: sha256 {digest}", file=sys.stderr)
    if differ:
        print(
            f"Not the same weights: {len(differ)} of {len(found.parts)} arrays of version "
            f"{version} differ.",
            file=sys.stderr,
        )
    for pin in found.changed:
        print(
            f"Not as then: {pin.name} was {shown(pin.then)}, is {shown(pin.now)}", file=sys.stderr
        )
    if differ and not found.changed:
        print(
            "All pins are as then: something that is not pinned decides over the weights.",
            file=sys.stderr,
        )
