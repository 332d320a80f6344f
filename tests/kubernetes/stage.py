"""The training of a stage, in a Pod: `python -m tests.kubernetes.stage WEIGHTS EPOCHS`.

The number of epochs may be such that somebody has time to kill a rank, or the stage itself.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from jobs.training.families.neural_network import MODEL, NeuralNetworkFamily
from jobs.training.families.neural_network.network import load
from pipelines.environment import Environment
from tests.jobs.training.small import NETWORK, data_of

RANKS = 2
DROPPING = replace(NETWORK, dropout=0.3, ranks=RANKS, restarts=1, checkpoint_seconds=0)


def train(environment: Environment, file: Path, epochs: int) -> None:
    """Leave the weights in the file, and the loss of each epoch."""
    settings = replace(DROPPING, epochs=epochs, timeout_seconds=600)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fit = NeuralNetworkFamily().fit(data_of(), settings, environment, folder)
        weights = load(folder / MODEL).get_weights()
    np.savez(file, *weights, loss=np.array(fit.curves["loss"]))


if __name__ == "__main__":
    train(
        Environment.read(),
        Path(sys.argv[1]),
        int(sys.argv[2]),
    )
