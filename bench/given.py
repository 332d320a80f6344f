"""What a peer of our training learns from: the job as ours gets it, its rows in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.training.encoding import Encoding, Examples
from jobs.training.families.neural_network import job
from jobs.training.tasks import task_of
from pipelines.model import NeuralNetwork

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A job, with its rows."""

    task: str
    network: NeuralNetwork
    encoding: Encoding
    fit: Examples
    validation: Examples


def ready(folder: Path) -> Given:
    """The job of the folder, with all imported that a training of it takes."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    found = job.read(folder)
    assert found.validation is not None
    given = Given(
        task=found.task,
        network=found.network,
        encoding=found.encoding,
        fit=found.fit.read(0, len(found.fit)),
        validation=found.validation.read(0, len(found.validation)),
    )
    model_of(given)
    return given


def model_of(given: Given) -> keras.Model:
    """The network, compiled, not trained."""
    import keras

    from jobs.training.families.neural_network import network

    task = task_of(given.task)
    model = network.build(given.encoding, given.network, task, keras.layers.Dropout)
    network.compile_for(model, given.network, task, steps=steps_of(given))
    return model


def loss_of(model: keras.Model, given: Given) -> float:
    """What it is on the validation rows."""
    from jobs.training.families.neural_network import network

    tensor = model(network.inputs(given.validation), training=False)
    said = np.asarray(tensor, np.float64)[:, 0]
    # Of each row, the probability that the model gave to what has come true.
    of_truth = np.where(given.validation.label == 1, said, 1 - said)
    return float(-np.mean(np.log(of_truth)))


def steps_of(given: Given) -> int:
    """Of an epoch."""
    return max(1, round(len(given.fit) / given.network.batch_size))
