"""Model cards: what a person should know of a version of a model before trusting it.

A card is made from the record alone, so it can be written anew at any time: people's words and the
quality of published predictions come later than the model. Nothing is asked of the record that
an older version of this code might not have written: what it lacks is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.training.cards import contents, render
from pipelines.places import write_whole

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
    return _put(environment, pipeline, model, _files(environment, pipeline, registry, model))


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
        files = _files(environment, pipeline, registry, model)
        folder = _put(environment, pipeline, model, files)
        registry.log_card(model, files)
    except Exception as error:  # a night must not fail for a text about it
        print(
            f"Warning: the card of model '{pipeline.name}' version {model.version} was not "
            f"written: {error}. To write it: nightshift card {pipeline.name} {model.version}",
            file=sys.stderr,
            flush=True,
        )
        return None
    return folder


def _files(
    environment: Environment,
    pipeline: Pipeline,
    registry: Registry,
    model: ModelVersion,
) -> dict[str, bytes]:
    """What the files of the card hold, by name; the page, which shows the others, last."""
    card = contents.card_of(environment, pipeline, registry, model)
    pictures = {render.file_of(name): png for name, png in card.pictures.items()}
    texts = {TEXT: render.markdown(card), PAGE: render.html(card)}
    encoded = {name: text.encode() for name, text in texts.items()}
    return {**pictures, **encoded}


def _put(
    environment: Environment, pipeline: Pipeline, model: ModelVersion, files: Mapping[str, bytes]
) -> Path:
    folder = environment.cards(pipeline.name) / model.version
    for name, content in files.items():
        write_whole(folder / name, content)
    return folder
