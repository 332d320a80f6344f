"""Finds pipelines by name: each module here that defines a `PIPELINE` is one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from pipelines.errors import no_such
from pipelines.spec import Pipeline

_SPINE = {"__init__", "catalog", "days", "environment", "errors", "run", "spec", "stages"}


def names() -> list[str]:
    """Names of all pipelines, sorted."""
    return sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _SPINE
    )


def pipeline(name: str) -> Pipeline:
    """The pipeline of that name.

    Raises:
        UsageError: there is none; the message offers the near miss.
    """
    if name not in names():
        raise no_such("pipeline", name, names())
    found = import_module(f"pipelines.{name}").PIPELINE
    assert isinstance(found, Pipeline) and found.name == name, (
        f"pipelines/{name}.py must define PIPELINE with name='{name}'"
    )
    return found
