"""Fits a model on one rank's share of every batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from jobs.training.encoding import Examples
from jobs.training.families.neural_network import horovod_keras3, network
from jobs.training.families.neural_network.job import Job, Outcome
from jobs.training.tasks import task_of

_InputsAndLabel = tuple[dict[str, tf.Tensor], tf.Tensor]
_Curves = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """How rows are dealt: step s trains rank r on the slice number `s * ranks + r`.

    So what a step sees does not depend on who asks.
    """

    steps: int
    rows: int
    """Of one rank in one step; all slices are equal, and at most `steps * ranks - 1` rows are left
    out."""

    @classmethod
    def of(cls, rows: int, wanted: int, ranks: int) -> Shares:
        """Slices of about `wanted` rows."""
        about = round(rows / (wanted * ranks))
        most = rows // ranks
        steps = max(1, min(about, most))
        return cls(steps=steps, rows=rows // (steps * ranks))

    def of_rank(
        self,
        array: NDArray[Any],
        rank: int,
        ranks: int,
    ) -> NDArray[Any]:
        """The rank's slices of an array, one a step."""
        used = array[: self.steps * ranks * self.rows]
        dealt = used.reshape(self.steps, ranks, self.rows, *array.shape[1:])
        return np.ascontiguousarray(dealt[:, rank])


def make_repeatable(seed: int, rank: int) -> None:
    """Let what follows give the same weights again. Call it before TensorFlow does anything."""
    # The number of threads decides the order in which floats are added, and so the last bits of the
    # weights.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    # Dropout differs by rank. The order of the steps does not: TensorFlow mixes its own seed into
    # that of a shuffle.
    keras.utils.set_random_seed(seed + rank)
    tf.random.set_seed(seed)


def fit(job: Job) -> tuple[keras.Model, Outcome]:
    """Train on all ranks together and calibrate; every rank ends with the same model."""
    settings = job.network
    task = task_of(job.task)
    ranks = hvd.size()
    shares = Shares.of(len(job.fit), settings.batch_size, ranks)
    # A rank that takes fewer would let the others wait for ever.
    steps = horovod_keras3.agree_on(shares.steps)
    model = network.build(job.encoding, settings, task)
    network.compile_for(model, settings, task, steps=steps, ranks=ranks)
    horovod_keras3.distribute(model)
    history = model.fit(
        _feed(job.fit, shares, job.seed),
        steps_per_epoch=steps,
        epochs=settings.epochs,
        validation_data=(network.inputs(job.validation), job.validation.label),
        validation_batch_size=len(job.validation),
        callbacks=horovod_keras3.together([_early_stopping(settings.patience)]),
        shuffle=False,
        verbose=0,
    )
    slope = network.calibrate(model, job.encoding, task, job.validation)
    return model, Outcome(history=_floats(history.history), slope=slope, steps_per_epoch=steps)


def _feed(examples: Examples, shares: Shares, seed: int) -> tf.data.Dataset:
    """The rank's slices for ever, in a new order each epoch that is the same on all ranks."""
    arrays = {**network.inputs(examples), "label": examples.label}
    slices: dict[str, tf.Tensor] = {}
    for name, array in arrays.items():
        own = shares.of_rank(array, hvd.rank(), hvd.size())
        slices[name] = tf.constant(own)

    def one(step: tf.Tensor) -> _InputsAndLabel:
        row = {name: part[step] for name, part in slices.items()}
        label = row.pop("label")
        return row, label

    steps = tf.data.Dataset.range(shares.steps)
    order = steps.shuffle(shares.steps, seed=seed, reshuffle_each_iteration=True)
    return order.repeat().map(one).prefetch(2)


def _early_stopping(patience: int) -> keras.callbacks.Callback:
    return keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=patience, restore_best_weights=True
    )


def _floats(history: dict[str, list[Any]]) -> _Curves:
    return {name: list(map(float, values)) for name, values in history.items()}
