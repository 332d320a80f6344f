"""A Keras network that Horovod trains on many ranks.

Importing this is cheap: TensorFlow is imported where it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from jobs.training import shards
from jobs.training.families.neural_network.alike import LIBRARIES
from jobs.training.families.neural_network.light import LiteRT
from jobs.training.families.neural_network.quiet import import_tensorflow
from pipelines import places
from pipelines.errors import NightshiftError
from pipelines.model import NeuralNetwork

if TYPE_CHECKING:
    from threading import Event

    import keras

    from jobs.training.dataset import Dataset
    from jobs.training.encoding import Encoding, Examples
    from jobs.training.metrics import Vector
    from pipelines.environment import Environment

MODEL = "model.keras"
# Those that decide the weights; the others only start the ranks.
_SOURCES = (
    "__init__.py",
    "checkpoint.py",
    "dropout.py",
    "feed.py",
    "horovod_keras3.py",
    "job.py",
    "loop.py",
    "network.py",
    "rank.py",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkFit:
    """What rank 0 left in the folder of the training."""

    curves: Mapping[str, list[float]]
    """Mean over ranks."""
    calibration_slope: float | None
    facts: Mapping[str, object]
    sample_scores: Vector
    file: Path

    def save(self, folder: Path) -> None:
        """Move the model there."""
        self.file.rename(folder / MODEL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A loaded network."""

    keras_model: keras.Model

    def score(self, examples: Examples) -> Vector:
        """What the network says of each example."""
        from jobs.training.families.neural_network import network

        return network.scores(self.keras_model, examples)


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuralNetworkFamily:
    """See `jobs.training.families.ModelFamily` for what each part is."""

    name: str = NeuralNetwork.name
    files: tuple[str, ...] = (MODEL,)
    sources: tuple[Path, ...] = tuple(Path(__file__).parent / name for name in _SOURCES)
    libraries: tuple[str, ...] = LIBRARIES
    preload: tuple[str, ...] = ("numpy", "tensorflow", "keras", "horovod.tensorflow")
    streams: bool = True
    light: LiteRT = field(default_factory=LiteRT)

    def settings(self, declared: NeuralNetwork, environment: Environment) -> NeuralNetwork:
        """With the ranks of the environment, when it names a number or hosts."""
        named = environment.ranks or sum(environment.hosts.values())
        return replace(declared, ranks=named or declared.ranks)

    def processes(self, settings: NeuralNetwork) -> int:
        """The ranks."""
        return settings.ranks

    def fit(
        self,
        data: Dataset,
        settings: Any,
        environment: Environment,
        folder: Path,
        called_off: Event | None = None,
    ) -> NetworkFit:
        """Lay the job out, start its ranks, and read what they left."""
        from jobs.training.families import TIMELINE
        from jobs.training.families.neural_network import job
        from jobs.training.families.neural_network.launch import launch

        checkpoint = environment.jobs / f"checkpoint-{self._digest(data, settings)}"
        slope_is_told = False

        def look() -> None:
            nonlocal slope_is_told
            if called_off and called_off.is_set():
                raise NightshiftError("The training was called off.")
            slope = data.calibration
            if slope and slope.done() and not slope_is_told:
                job.hand_slope(seen, slope.result())
                slope_is_told = True

        with _seen_by_ranks(environment, folder) as seen:
            job.write(seen, job.of(data, settings, checkpoint))
            launch(
                environment,
                seen,
                settings.ranks,
                settings.timeout_seconds,
                look,
                settings.restarts,
            )
            outcome = job.read_outcome(seen)
            for name in (MODEL, TIMELINE):
                _bring(seen / name, folder)
        # A store that is away at this moment is no reason to lose the training: what stays there is
        # for `nightshift maintain`.
        with suppress(Exception):
            checkpoint.unlink(missing_ok=True)
        return NetworkFit(
            curves=outcome.history,
            calibration_slope=outcome.slope,
            facts={
                "ranks": outcome.ranks,
                "epochs": len(outcome.history["loss"]),
                "steps_per_epoch": outcome.steps_per_epoch,
            },
            sample_scores=np.array(outcome.scores),
            file=folder / MODEL,
        )

    def load(self, folder: Path, encoding: Encoding) -> Network:
        """The network; the graph holds the scaling, so the encoding is not asked for."""
        import_tensorflow()
        from jobs.training.families.neural_network import network

        return Network(keras_model=network.load(folder / MODEL))

    def _digest(self, data: Dataset, settings: NeuralNetwork) -> str:
        """Equal for two trainings that come to the same weights step by step, on as many ranks."""
        training = data.training
        decisive = {
            "settings": {
                name: value
                for name, value in asdict(settings).items()
                if name not in settings.decides_nothing
            },
            "ranks": settings.ranks,
            "task": training.task,
            "seed": training.seed,
            "encoding": data.encoding.to_json(),
            "libraries": {name: version(name) for name in self.libraries},
            "rows": len(data.fit),
        }
        digest = hashlib.sha256(json.dumps(decisive).encode())
        at_once = shards.rows_of_file(len(data.encoding.columns))
        for piece in shards.pieces(data.fit, at_once):
            # All of it: of a category that was corrected meanwhile nothing else tells.
            for array in (piece.numeric, piece.categorical, piece.label):
                digest.update(array.tobytes())
        for source in self.sources:
            digest.update(source.read_bytes())
        return digest.hexdigest()


@contextmanager
def _seen_by_ranks(environment: Environment, folder: Path) -> Iterator[Path]:
    """A folder for the job that its ranks see, and that is gone afterwards."""
    if environment.place_of_ranks is None:
        yield folder
        return
    seen = environment.jobs / f"job-{uuid4().hex}"
    if not places.is_url(seen):
        # It has rows of the training: its ranks run as this user, and nobody else needs it.
        seen.mkdir(mode=0o700, parents=True)
    try:
        yield seen
    finally:
        places.remove(seen)


def _bring(file: Path, folder: Path) -> None:
    """Copy a file that the ranks may have left."""
    if file.parent != folder and file.exists():
        (folder / file.name).write_bytes(file.read_bytes())
