"""Finds pipelines, and the parts of each, by name.

Each module here beside the vocabulary is one and defines a `PIPELINE`; its parts are the modules
of its name in the other packages.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from pipelines.errors import UsageError, no_such
from pipelines.spec import Pipeline

_SPINE = frozenset(
    {
        *("__init__", "catalog", "days", "environment", "errors", "events", "features", "feeds"),
        *(
            "landing",
            "model",
            "prices",
            "redaction",
            "replay",
            "rolling",
            "run",
            "spec",
            "stages",
            "waivers",
        ),
    }
)
"""Modules here that are no pipelines."""


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
    found = getattr(import_module(f"pipelines.{name}"), "PIPELINE", None)
    if not isinstance(found, Pipeline) or found.name != name:
        raise UsageError(f"pipelines/{name}.py must define PIPELINE = Pipeline(name='{name}', …).")
    return found


def part(package: str, pipeline: Pipeline, holds: str) -> ModuleType:
    """The module of the pipeline in that package: `part("expectations", flights, "its suites")`.

    Args:
        package: Such as `jobs.transforms`.
        pipeline: Whose part it is.
        holds: What the module holds, for the message.

    Raises:
        UsageError: there is none; the message says which file to write.
    """
    name = f"{package}.{pipeline.name}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # The module is there, and something that it imports is not.
        if error.name != name:
            raise
        file = f"{name.replace('.', '/')}.py"
        raise UsageError(
            f"{file} does not exist. Pipeline '{pipeline.name}' needs it for {holds}."
        ) from None
