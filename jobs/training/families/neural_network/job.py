"""What a training hands to its ranks and gets back.

A folder of memory-mapped arrays and small JSON files.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.training.encoding import ENCODING, Encoding, Examples
from pipelines.errors import NightshiftError
from pipelines.model import NeuralNetwork

if TYPE_CHECKING:
    from jobs.training.dataset import Dataset

_SETTINGS = "settings.json"
_OUTCOME = "outcome.json"
_SLOPE = "slope.json"
_LOOK_SECONDS = 0.02
_PARTS = ("numeric", "categorical", "label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training. `fit` is already shuffled: ranks read it front to back."""

    task: str
    seed: int
    network: NeuralNetwork
    encoding: Encoding
    fit: Examples
    validation: Examples | None
    expected_slope: float
    """See `Training.expected_slope`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What rank 0 leaves for the launcher."""

    history: dict[str, list[float]]
    """Mean over ranks, by metric and epoch."""
    slope: float | None
    """Of the calibration; None: the task has none."""
    steps_per_epoch: int
    scores: list[float]
    """Of the first rows to fit, by the model before it was saved."""


def of(data: Dataset, network: NeuralNetwork) -> Job:
    """The job of training that network on the data."""
    return Job(
        task=data.training.task,
        seed=data.training.seed,
        network=network,
        encoding=data.encoding,
        fit=data.fit,
        validation=data.validation,
        expected_slope=data.training.expected_slope,
    )


def write(folder: Path, job: Job) -> None:
    """Lay a job out for its ranks."""
    settings = {
        "task": job.task,
        "seed": job.seed,
        "network": asdict(job.network),
        "has_validation": job.validation is not None,
        "expected_slope": job.expected_slope,
    }
    (folder / _SETTINGS).write_text(json.dumps(settings))
    (folder / ENCODING).write_text(job.encoding.to_json())
    _write_examples(folder, "fit", job.fit)
    if job.validation is not None:
        _write_examples(folder, "validation", job.validation)


def read(folder: Path) -> Job:
    """The job in a folder; its arrays stay on disk until they are used."""
    settings = json.loads((folder / _SETTINGS).read_text())
    return Job(
        task=settings["task"],
        seed=settings["seed"],
        network=_network(settings["network"]),
        encoding=Encoding.from_json((folder / ENCODING).read_text()),
        fit=_read_examples(folder, "fit"),
        validation=_read_examples(folder, "validation") if settings["has_validation"] else None,
        expected_slope=settings["expected_slope"],
    )


def has_slope(folder: Path) -> bool:
    """Whether the ranks of a job without validation days have been given their slope."""
    return (folder / _SLOPE).exists()


def hand_slope(folder: Path, slope: float | None) -> None:
    """Give the ranks of a job without validation days the slope; None: there is none."""
    fresh = folder / f".{_SLOPE}"
    fresh.write_text(json.dumps(slope))
    # Nobody reads half of it.
    fresh.rename(folder / _SLOPE)


def await_slope(folder: Path, timeout_seconds: float) -> float | None:
    """The slope that the launcher hands over.

    Raises:
        NightshiftError: it has handed over none for so long.
    """
    deadline = time.monotonic() + timeout_seconds
    while not has_slope(folder):
        if time.monotonic() > deadline:
            raise NightshiftError(
                f"No slope was handed over in {timeout_seconds:g} s: a job without validation days "
                f"needs a number, or null, in {folder / _SLOPE}."
            )
        time.sleep(_LOOK_SECONDS)
    slope: float | None = json.loads((folder / _SLOPE).read_text())
    return slope


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Leave it for the launcher."""
    (folder / _OUTCOME).write_text(json.dumps(asdict(outcome)))


def read_outcome(folder: Path) -> Outcome:
    """What rank 0 left."""
    return Outcome(**json.loads((folder / _OUTCOME).read_text()))


def error_file(folder: Path, rank: int) -> Path:
    """Where a rank leaves the traceback that it died of."""
    return folder / f"rank-{rank}.error"


def _network(value: dict[str, Any]) -> NeuralNetwork:
    # JSON has no tuples.
    return NeuralNetwork(**(value | {"hidden": tuple(value["hidden"])}))


def _write_examples(folder: Path, name: str, examples: Examples) -> None:
    for part in _PARTS:
        np.save(folder / f"{name}_{part}.npy", getattr(examples, part), allow_pickle=False)


def _read_examples(folder: Path, name: str) -> Examples:
    parts: dict[str, NDArray[Any]] = {}
    for part in _PARTS:
        file = folder / f"{name}_{part}.npy"
        # No pickle: it could hold code, which loading it would run.
        parts[part] = np.load(file, mmap_mode="r", allow_pickle=False)
    return Examples(**parts)
