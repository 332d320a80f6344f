"""Finds pipelines, and the parts of each, by name.

Each module here beside the vocabulary is one and defines a `PIPELINE`; its parts are the modules
of its name in the other packages.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from pipelines.errors import UsageError, no_such
from pipelines.resources import Pool
from pipelines.spec import Pipeline
from pipelines.stages import STAGES

_SPINE = frozenset(
    {
        *("__init__", "catalog", "days", "environment", "errors", "events", "features", "feeds"),
        *(
            "for_ranks",
            "forwarding",
            "landing",
            "model",
            "places",
            "prices",
            "redaction",
            "replay",
            "resources",
            "rolling",
        ),
        *("run", "spec", "stages", "waivers", "wire"),
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


def pools() -> list[Pool]:
    """The pools in which stages of any pipeline wait.

    Raises:
        UsageError: two pipelines declare one pool otherwise.
    """
    found: dict[str, Pool] = {}
    for declared in map(pipeline, names()):
        for stage in STAGES:
            pool = declared.resources_of(stage).pool
            if pool is None:
                continue
            known = found.setdefault(pool.name, pool)
            if known != pool:
                raise UsageError(
                    f"Pipeline '{declared.name}', stage '{stage.name}': its pool is {pool}, "
                    f"and another stage's is {known}. Declare it once."
                )
    return list(found.values())


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
