"""A Keras network that Horovod trains on many ranks.

Importing this is cheap: TensorFlow is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.training.families.neural_network.light import LiteRT
from jobs.training.families.neural_network.quiet import import_tensorflow
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
    libraries: tuple[str, ...] = ("tensorflow", "keras", "horovod", "numpy")
    preload: tuple[str, ...] = ("numpy", "tensorflow", "keras", "horovod.tensorflow")
    light: LiteRT = field(default_factory=LiteRT)

    def settings(self, declared: NeuralNetwork, environment: Environment) -> NeuralNetwork:
        """With the ranks of the environment, when it names a number."""
        return replace(declared, ranks=environment.ranks or declared.ranks)

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
        """Lay the job out in the folder, start its ranks, and read what they left."""
        from jobs.training.families.neural_network import job
        from jobs.training.families.neural_network.launch import launch

        job.write(folder, job.of(data, settings))

        def look() -> None:
            if called_off and called_off.is_set():
                raise NightshiftError("The training was called off.")
            slope = data.calibration
            if slope and slope.done() and not job.has_slope(folder):
                job.hand_slope(folder, slope.result())

        launch(environment, folder, settings.ranks, settings.timeout_seconds, look)
        outcome = job.read_outcome(folder)
        return NetworkFit(
            curves=outcome.history,
            calibration_slope=outcome.slope,
            facts={
                "ranks": settings.ranks,
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
