"""Everything that determines a night's models, and one fingerprint of it.

The number of ranks and the machine change the last bits of the weights and not the model, so they
are pinned and not in the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lake import publications
from jobs.lake.definition import is_said
from jobs.lake.knowledge import Knowledge
from jobs.lake.snapshots import Snapshot
from jobs.training.machine import machine
from jobs.version import code_version
from pipelines.days import Days, parse_day

if TYPE_CHECKING:
    from jobs.training.candidate import Recipe
    from jobs.training.families import ModelFamily
    from pipelines.model import Training
    from pipelines.run import Run

_HERE = Path(__file__).parent
_TAKEN_AT = "table_taken_at"
_ORIGIN = (
    *("table", "table_version", _TAKEN_AT, "code_version"),
    *("window_days", "decides_nothing", "machine"),
)
"""Where the rows and the code can be found again, what the training ran on, how the days were
chosen that are pinned themselves, and settings that do not change the model. A newer version of the
table with the same rows makes the same model."""
_RECIPE = ("window_days", "training", "family", "sources", "libraries")
_SHARED_SOURCES = ("candidate.py", "dataset.py", "encoding.py")
"""Our code that decides over the weights of every family."""
LAID_OUT = "laid_out"
"""Who has laid the rows out; not pinned: the process of the stage."""
_SOURCES_ON_SPARK = ("parts.py", "column_statistics.py", "shards.py", "shards_on_spark.py")
"""Our code that decides over the weights where Spark has."""


def pins(run: Run, recipe: Recipe) -> dict[str, object]:
    """What to look up to train the same models again; no row is read for it."""
    days = recipe.days
    return {
        "table": recipe.snapshot.table,
        "table_version": recipe.snapshot.version,
        **_taken_at(recipe.snapshot),
        "code_version": code_version(),
        "as_of": str(run.days.last),
        "fit_days": str(days.fit),
        "validation_days": str(days.validation),
        "fresh_days": str(days.fresh),
        "window_days": run.pipeline.training.window_days,
        "rows": _rows(run, recipe),
        **how(run.pipeline.training, recipe.family, recipe.settings),
        "decides_nothing": _idle(recipe.settings),
        "machine": machine(),
        **_laid_out(recipe),
    }


def how(training: Training, family: ModelFamily, settings: Any) -> dict[str, object]:
    """What decides over the weights besides the rows: settings, our code, and libraries."""
    shared = [_HERE / name for name in (*_SHARED_SOURCES, f"tasks/{training.task}.py")]
    sources = (*shared, *family.sources)
    idle = _idle(settings)
    decisive = {name: value for name, value in asdict(settings).items() if name not in idle}
    said = {name: value for name, value in decisive.items() if is_said(name, value)}
    return {
        "training": learned(training),
        "family": {"name": family.name, **said},
        "sources": _digest(*(source.read_bytes() for source in sources)),
        "libraries": {name: version(name) for name in family.libraries},
    }


def snapshot_of(pinned: Mapping[str, Any]) -> Snapshot:
    """The rows that the models of these pins were made from.

    Raises:
        KeyError: a pin is missing.
        TypeError: a pin is of another kind.
        ValueError: the version, or the instant, is none.
        UsageError: the night is no day.
    """
    return Snapshot(
        table=str(pinned["table"]),
        version=int(pinned["table_version"]),
        night=parse_day(pinned["as_of"]),
        taken_at=taken_at(pinned),
    )


def taken_at(pinned: Mapping[str, Any]) -> datetime | None:
    """When the rows were looked up that are pinned; None: it is not said.

    Raises:
        ValueError: it is no instant.
    """
    said = pinned.get(_TAKEN_AT)
    return None if said is None else datetime.fromisoformat(said)


def _taken_at(snapshot: Snapshot) -> dict[str, object]:
    # Said only where it is known: models of before it was pinned stay what they were.
    return {} if snapshot.taken_at is None else {_TAKEN_AT: snapshot.taken_at.isoformat()}


def _laid_out(recipe: Recipe) -> dict[str, object]:
    """That Spark has laid the rows out, and the code that decided over their order."""
    if not recipe.on_spark:
        # Said only where it is so: models of other windows stay what they were.
        return {}
    sources = [(_HERE / name).read_bytes() for name in _SOURCES_ON_SPARK]
    return {LAID_OUT: {"by": "Spark", "sources": _digest(*sources)}}


def fingerprint(pinned: Mapping[str, object]) -> str:
    """Equal for two trainings that give the same model."""
    decisive = {name: value for name, value in pinned.items() if name not in _ORIGIN}
    # Sorted: the order in which pins are written down decides nothing.
    return _digest(json.dumps(decisive, sort_keys=True).encode())


def recipe(pinned: Mapping[str, object]) -> str:
    """Equal for two trainings that make a model of their rows in the same way."""
    made = {name: pinned[name] for name in _RECIPE}
    return _digest(json.dumps(made, sort_keys=True).encode())


def _rows(run: Run, recipe: Recipe) -> str:
    """What the record of publications tells of the rows to learn from."""
    snapshot, days = recipe.snapshot, recipe.days.all
    told = publications.every(run, snapshot.table)
    # What was published after that version is not read.
    by_then = publications.by_then(told, snapshot.version, snapshot.taken_at)
    knowledge = Knowledge(run, {snapshot.table: by_then})
    if not any(day in days for day in knowledge.latest(snapshot.table)):
        # Nobody has recorded what they say, so that any new version may say something else.
        return f"version {snapshot.version}"
    return knowledge.table_input(snapshot.table, days, Days.of(snapshot.night)).digest


def _idle(settings: Any) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.decides_nothing}


def learned(training: Training) -> dict[str, object]:
    """What is learned from which columns; days, rows and settings are pinned beside it."""
    told = {
        "task": training.task,
        "label": training.label,
        "numeric": training.numeric,
        "categorical": training.categorical,
        "bends": training.bends,
        "shared": training.shared,
        "expected_slope": training.expected_slope,
        "seed": training.seed,
        "max_categories": training.max_categories,
    }
    return {name: value for name, value in told.items() if is_said(name, value)}


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        # With its length, so that the end of one content cannot pass for the start of the next.
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
