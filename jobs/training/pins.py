"""Everything that determines a model's weights, and one fingerprint of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

from jobs.training.dataset import Snapshot, Window
from jobs.training.job import Job
from jobs.version import code_version

_SOURCES = ("encoding.py", "model.py", "loop.py", "horovod_keras3.py", "job.py", "rank.py")
_LIBRARIES = ("tensorflow", "keras", "horovod", "numpy")
_ORIGIN = ("table", "table_version", "code_version")
"""Where the rows and the code can be found again. A newer version with the same content makes the
same model."""


def pins(job: Job, as_of: date, days: Window, pinned: Snapshot, ranks: int) -> dict[str, object]:
    """What to look up to train the same model again."""
    return {
        "table": pinned.table,
        "table_version": pinned.version,
        "code_version": code_version(),
        "as_of": str(as_of),
        "fit_days": str(days.fit),
        "validation_days": str(days.validation),
        "content": {"fit": job.fit.fingerprint(), "validation": job.validation.fingerprint()},
        "encoding": _digest(job.encoding.to_json().encode()),
        "training": asdict(job.training),
        "ranks": ranks,
        "sources": _digest(*((Path(__file__).parent / name).read_bytes() for name in _SOURCES)),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def fingerprint(pinned: Mapping[str, object]) -> str:
    """Equal for two trainings that give the same weights."""
    decisive = {name: value for name, value in pinned.items() if name not in _ORIGIN}
    return _digest(json.dumps(decisive, sort_keys=True).encode())


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
