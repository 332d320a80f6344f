"""Finds pipelines, and the parts of each, by name.

Each module here beside the vocabulary is one and defines a `PIPELINE`; its parts are the modules
of its name in the other packages.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipelines.errors import UsageError, no_such
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from pipelines.resources import Pool
    from pipelines.spec import Pipeline

_SPINE = frozenset(
    {
        *("__init__", "catalog", "cores", "days", "environment", "errors", "events", "features"),
        "feeds",
        *(
            "for_ranks",
            "forwarding",
            "kinds",
            "landing",
            "model",
            "places",
            "prices",
            "quoting",
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
    """Names of all pipelines, sorted.

    A name with a dot is no module's: an editor's lock (`.#taxi.py`), or a copy (`taxi.old.py`).
    """
    found = {path.stem for path in Path(__file__).parent.glob("*.py")}
    return sorted(name for name in found - _SPINE if "." not in name)


def is_of_spine(module: str) -> bool:
    """Whether a module, by its full name, is one of those here that are no pipelines."""
    package, _, name = module.partition(".")
    return package == __package__ and name in _SPINE


def pipeline(name: str) -> Pipeline:
    """The pipeline of that name.

    Raises:
        UsageError: there is none; the message offers the near miss. Or its module cannot be
            imported; the message says where and why.
    """
    # Here, because whoever only asks for names need not wait for it.
    from pipelines.spec import Pipeline

    if name not in names():
        raise no_such("pipeline", name, names())
    found = getattr(_declaration(name), "PIPELINE", None)
    if not isinstance(found, Pipeline) or found.name != name:
        raise UsageError(f"pipelines/{name}.py must define PIPELINE = Pipeline(name='{name}', …).")
    return found


def readable() -> list[Pipeline]:
    """All pipelines but those whose module cannot be imported.

    Somebody may be writing one, and that is to keep none of the others from its work.
    """
    broken = unreadable()
    return [pipeline(name) for name in names() if name not in broken]


def unreadable() -> dict[str, UsageError]:
    """By name why a pipeline's module cannot be imported."""
    found: dict[str, UsageError] = {}
    for name in names():
        try:
            pipeline(name)
        except UsageError as error:
            found[name] = error
    return found


def _declaration(name: str) -> ModuleType:
    try:
        return import_module(f"pipelines.{name}")
    except Exception as error:  # a declaration is code: it may raise anything
        what = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"{_place(error, name)}: {what}") from error


def _place(error: Exception, name: str) -> str:
    """Where in that module an import has ended, for people."""
    from traceback import extract_tb

    file = str(Path(__file__).with_name(f"{name}.py"))
    lines = [one.lineno for one in extract_tb(error.__traceback__) if one.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    return f"pipelines/{name}.py, line {lines[-1]}" if lines else f"pipelines/{name}.py"


def pools() -> list[Pool]:
    """The pools in which stages of any pipeline wait that can be read.

    Raises:
        UsageError: two pipelines declare one pool otherwise.
    """
    found: dict[str, Pool] = {}
    for declared in readable():
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


def has_part(package: str, pipeline: Pipeline) -> bool:
    """Whether the pipeline has a module in that package."""
    return find_spec(f"{package}.{pipeline.name}") is not None
