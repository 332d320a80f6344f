"""Everything that determines a model's weights, and one fingerprint of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.version import code_version

if TYPE_CHECKING:
    from jobs.lake.snapshots import Snapshot
    from jobs.training.dataset import Dataset, Window
    from jobs.training.families import ModelFamily
    from pipelines.model import Training

_HERE = Path(__file__).parent
_ORIGIN = ("table", "table_version", "code_version")
"""Where the rows and the code can be found again. A newer version with the same content makes the
same model."""


def pins(
    data: Dataset, family: ModelFamily, settings: Any, as_of: date, days: Window, snapshot: Snapshot
) -> dict[str, object]:
    """What to look up to train the same model again."""
    task = data.training.task
    sources = (_HERE / "encoding.py", _HERE / "tasks" / f"{task}.py", *family.sources)
    return {
        "table": snapshot.table,
        "table_version": snapshot.version,
        "code_version": code_version(),
        "as_of": str(as_of),
        "fit_days": str(days.fit),
        "validation_days": str(days.validation),
        "content": {"fit": data.fit.fingerprint(), "validation": data.validation.fingerprint()},
        "encoding": _digest(data.encoding.to_json().encode()),
        "training": _learned(data.training),
        "family": {"name": family.name, **asdict(settings)},
        "sources": _digest(*(source.read_bytes() for source in sources)),
        "libraries": {name: version(name) for name in family.libraries},
    }


def fingerprint(pinned: Mapping[str, object]) -> str:
    """Equal for two trainings that give the same weights."""
    decisive = {name: value for name, value in pinned.items() if name not in _ORIGIN}
    # Sorted: the order in which pins are written down decides nothing.
    return _digest(json.dumps(decisive, sort_keys=True).encode())


def _learned(training: Training) -> dict[str, object]:
    """What is learned from which columns; days, rows and settings are pinned beside it."""
    return {
        "task": training.task,
        "label": training.label,
        "numeric": training.numeric,
        "categorical": training.categorical,
        "seed": training.seed,
    }


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        # With its length, so that the end of one content cannot pass for the start of the next.
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
