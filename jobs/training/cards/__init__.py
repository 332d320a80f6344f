"""Model cards: what a person should know of a version of a model before trusting it.

A card is made from the record alone, so it can be written anew at any time: people's words and the
quality of published predictions come later than the model. Nothing is asked of the record that
an older version of this code might not have written: what it lacks is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.training.cards import contents, render

if TYPE_CHECKING:
    from jobs.training.registry import ModelVersion, Registry
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

PAGE, TEXT = "index.html", "card.md"


def write(
    environment: Environment,
    pipeline: Pipeline,
    registry: Registry,
    model: ModelVersion,
) -> Path:
    """Write the card of a version as a page and as Markdown; returns the folder.

    Raises:
        NightshiftError: what the model pins cannot be read.
    """
    card = contents.card_of(environment, pipeline, registry, model)
    folder = environment.cards(pipeline.name) / model.version
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in card.pictures.items():
        (folder / render.file_of(name)).write_bytes(png)
    (folder / TEXT).write_text(render.markdown(card))
    (folder / PAGE).write_text(render.html(card))
    return folder


def keep(
    environment: Environment,
    pipeline: Pipeline,
    registry: Registry,
    model: ModelVersion,
) -> Path | None:
    """Write the card and put it beside the model in MLflow.

    Returns:
        The folder; None: it could not be done, which is told and keeps nobody from anything.
    """
    try:
        folder = write(environment, pipeline, registry, model)
        registry.log_card(model, folder)
    except Exception as error:  # a night must not fail for a text about it
        print(
            f"Warning: the card of model '{pipeline.name}' version {model.version} was not "
            f"written: {error}. To write it: nightshift card {pipeline.name} {model.version}",
            file=sys.stderr,
            flush=True,
        )
        return None
    return folder
