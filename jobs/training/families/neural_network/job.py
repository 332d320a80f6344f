"""What a training hands to its ranks and gets back.

A folder of encoded rows and small JSON files, on a disk or in a store.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.training import shards
from jobs.training.encoding import ENCODING, Encoding, Examples
from jobs.training.families.neural_network import alike
from jobs.training.shards import Shards
from pipelines import places
from pipelines.errors import NightshiftError
from pipelines.model import NeuralNetwork

if TYPE_CHECKING:
    from jobs.training.dataset import Dataset

_SETTINGS = "settings.json"
_OUTCOME = "outcome.json"
_SLOPE = "slope.json"
_LOOK_SECONDS = 0.02
_LOOK_SECONDS_AT_STORE = 0.5
"""Each look is a request."""


class CheckpointAway(NightshiftError):
    """The checkpoint of a training cannot be read now: another attempt may go well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training. `fit` is already shuffled: ranks read it front to back."""

    task: str
    seed: int
    network: NeuralNetwork
    encoding: Encoding
    fit: Examples | Shards
    validation: Examples | Shards | None
    expected_slope: float
    """See `Training.expected_slope`."""
    checkpoint: Path
    """File from which an interrupted training goes on, in a place that all ranks see."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundJob:
    """A job as its ranks find it."""

    task: str
    seed: int
    network: NeuralNetwork
    encoding: Encoding
    fit: Shards
    validation: Shards | None
    expected_slope: float
    checkpoint: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What rank 0 leaves for the launcher."""

    history: dict[str, list[float]]
    """Mean over ranks, by metric and epoch."""
    slope: float | None
    """Of the calibration; None: the task has none."""
    ranks: int
    """That were left in the end."""
    steps_per_epoch: int
    scores: list[float]
    """Of the first rows to fit, by the model before it was saved."""


def of(data: Dataset, network: NeuralNetwork, checkpoint: Path) -> Job:
    """The job of training that network on the data."""
    return Job(
        task=data.training.task,
        seed=data.training.seed,
        network=network,
        encoding=data.encoding,
        fit=data.fit,
        validation=data.validation,
        expected_slope=data.training.expected_slope,
        checkpoint=checkpoint,
    )


def write(folder: Path, job: Job) -> None:
    """Lay a job out for its ranks."""
    settings = {
        "task": job.task,
        "seed": job.seed,
        "network": asdict(job.network),
        "fit": _lay_out(folder / "fit", job.fit),
        "validation": None,
        "expected_slope": job.expected_slope,
        "checkpoint": str(job.checkpoint),
        "made_by": alike.of_here(),
    }
    if job.validation is not None:
        settings["validation"] = _lay_out(folder / "validation", job.validation)
    (folder / ENCODING).write_text(job.encoding.to_json())
    (folder / _SETTINGS).write_text(json.dumps(settings))


def _settings(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / _SETTINGS).read_text())
    return told


def read(folder: Path) -> FoundJob:
    """The job in a folder; its rows stay where they are until they are used."""
    settings = _settings(folder)
    validation = settings["validation"]
    return FoundJob(
        task=settings["task"],
        seed=settings["seed"],
        network=_network(settings["network"]),
        encoding=Encoding.from_json((folder / ENCODING).read_text()),
        fit=shards.find(places.place(settings["fit"])),
        validation=validation and shards.find(places.place(validation)),
        expected_slope=settings["expected_slope"],
        checkpoint=places.place(settings["checkpoint"]),
    )


def made_by(folder: Path) -> dict[str, str]:
    """Code and libraries of the stage that has laid the job out."""
    told: dict[str, str] = _settings(folder)["made_by"]
    return told


def lies_in_store(folder: Path) -> bool:
    """Whether ranks read or write anything of the job in an object store."""
    settings = _settings(folder)
    named = (settings["fit"], settings["validation"], settings["checkpoint"])
    return any(map(places.is_url, named))


def needed(folder: Path) -> Iterator[Path]:
    """Files of a job that each of its ranks must see, wherever it runs, in the order of asking."""
    yield folder / _SETTINGS
    settings = _settings(folder)
    for rows in (settings["fit"], settings["validation"]):
        if rows:
            yield places.place(rows) / shards.INDEX


def has_slope(folder: Path) -> bool:
    """Whether the ranks of a job without validation days have been given their slope."""
    return (folder / _SLOPE).exists()


def hand_slope(folder: Path, slope: float | None) -> None:
    """Give the ranks of a job without validation days the slope; None: there is none."""
    # Nobody reads half of it.
    places.write_whole(folder / _SLOPE, json.dumps(slope).encode())


def await_slope(folder: Path, timeout_seconds: float) -> float | None:
    """The slope that the launcher hands over.

    Raises:
        NightshiftError: it has handed over none for so long.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = _LOOK_SECONDS_AT_STORE if places.is_url(folder) else _LOOK_SECONDS
    while not has_slope(folder):
        if time.monotonic() > deadline:
            raise NightshiftError(
                f"No slope was handed over in {timeout_seconds:g} s: a job without validation days "
                f"needs a number, or null, in {folder / _SLOPE}."
            )
        time.sleep(pause)
    slope: float | None = json.loads((folder / _SLOPE).read_text())
    return slope


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Leave it for the launcher."""
    (folder / _OUTCOME).write_text(json.dumps(asdict(outcome)))


def read_outcome(folder: Path) -> Outcome:
    """What rank 0 left."""
    return Outcome(**json.loads((folder / _OUTCOME).read_text()))


def has_outcome(folder: Path) -> bool:
    """Whether the training is done."""
    return (folder / _OUTCOME).exists()


def error_file(folder: Path, rank: int) -> Path:
    """Where a rank leaves the traceback that it died of."""
    return folder / f"rank-{rank}.error"


def process_file(folder: Path, rank: int) -> Path:
    """Where a rank on this machine leaves the number of its process."""
    return folder / f"rank-{rank}.pid"


def _network(value: dict[str, Any]) -> NeuralNetwork:
    # JSON has no tuples.
    return NeuralNetwork(**(value | {"hidden": tuple(value["hidden"])}))


def _lay_out(folder: Path, rows: Examples | Shards) -> str:
    """Where the rows lie, once they do: those of `Shards` stay where they are."""
    if isinstance(rows, Examples):
        rows = shards.write(folder, rows)
    return str(rows.folder)
