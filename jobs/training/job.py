"""What a training hands to its ranks and gets back.

A folder of memory-mapped arrays and small JSON files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.training.encoding import Encoding, Examples
from pipelines.model import Training

MODEL = "model.keras"
ENCODING = "encoding.json"
_HISTORY = "history.json"
_TRAINING = "training.json"
_PARTS = ("numeric", "categorical", "label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training. `fit` is already shuffled: ranks read it front to back."""

    training: Training
    encoding: Encoding
    fit: Examples
    validation: Examples


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What rank 0 found."""

    history: dict[str, list[float]]
    """Mean over ranks, by metric and epoch."""
    slope: float
    """Of the calibration; below 1 the model was overconfident."""
    steps_per_epoch: int


@contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """A private folder for one training, gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix="job-") as path:
        yield Path(path)


def write(place: Path, job: Job) -> None:
    """Lay a job out for its ranks."""
    (place / _TRAINING).write_text(json.dumps(asdict(job.training)))
    (place / ENCODING).write_text(job.encoding.to_json())
    _write_examples(place, "fit", job.fit)
    _write_examples(place, "validation", job.validation)


def read(place: Path) -> Job:
    """The job in a folder; its arrays stay on disk until they are used."""
    return Job(
        training=_training(json.loads((place / _TRAINING).read_text())),
        encoding=Encoding.from_json((place / ENCODING).read_text()),
        fit=_read_examples(place, "fit"),
        validation=_read_examples(place, "validation"),
    )


def write_outcome(place: Path, outcome: Outcome) -> None:
    """Tell the launcher how it went."""
    (place / _HISTORY).write_text(json.dumps(asdict(outcome)))


def read_outcome(place: Path) -> Outcome:
    """What rank 0 told."""
    return Outcome(**json.loads((place / _HISTORY).read_text()))


def error_file(place: Path, rank: int) -> Path:
    """Where a rank leaves the traceback that it died of."""
    return place / f"rank-{rank}.error"


def _training(value: dict[str, Any]) -> Training:
    fields: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in value.items()
    }
    return Training(**fields)


def _write_examples(place: Path, name: str, examples: Examples) -> None:
    for part in _PARTS:
        np.save(place / f"{name}_{part}.npy", getattr(examples, part), allow_pickle=False)


def _read_examples(place: Path, name: str) -> Examples:
    parts: dict[str, NDArray[Any]] = {
        part: np.load(place / f"{name}_{part}.npy", mmap_mode="r", allow_pickle=False)
        for part in _PARTS
    }
    return Examples(**parts)
