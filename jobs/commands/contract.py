"""The command `nightshift contract`: what consumers of a pipeline's predictions may rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.lake import contract as promises

if TYPE_CHECKING:
    from pipelines.spec import Pipeline

HEADER = promises.HEADER


def contract(pipeline: Pipeline) -> list[tuple[object, ...]]:
    """A row for each column of the predictions, by `HEADER`.

    Raises:
        UsageError: the declaration tells no type of a column, or deprecates a column wrongly.
    """
    return [promises.values(one) for one in promises.contract(pipeline)]
