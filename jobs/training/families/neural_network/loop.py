"""Fits a model on one rank's share of every batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from jobs.training.encoding import Examples
from jobs.training.families.neural_network import horovod_keras3, network
from jobs.training.families.neural_network.dropout import SharedDropout
from jobs.training.families.neural_network.job import Job, Outcome
from jobs.training.metrics import require_finite
from jobs.training.tasks import LearningTask, task_of
from pipelines.errors import NightshiftError

_InputsAndLabel = tuple[dict[str, tf.Tensor], tf.Tensor]
_Curves = dict[str, list[float]]


_EVEN = 8
"""A batch is cut to a multiple of it, so that 1, 2, 4 and 8 ranks train on the same rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """How rows are dealt: step s trains all ranks on batch s, and each on its slice of it.

    So what a step sees does not depend on how many ranks there are.
    """

    steps: int
    batch: int
    """Rows that lie between the beginnings of two steps."""
    rows: int
    """Of one rank in one step; all slices are equal, and the rest of the batch is left out."""
    parts: int = 1
    """In which a rank takes its slice, one after the other; all are equal."""

    @classmethod
    def of(
        cls,
        rows: int,
        wanted: int,
        ranks: int,
        parts: int = 1,
    ) -> Shares:
        """Batches of about `wanted` rows.

        Raises:
            NightshiftError: there are fewer rows than ranks, or than parts of all ranks.
        """
        shares = ranks * parts
        if rows < shares:
            times = f" with {parts} accumulated batches" if parts > 1 else ""
            raise NightshiftError(
                f"{rows} rows are too few for {ranks} ranks{times}: take fewer ranks."
            )
        steps = max(1, min(round(rows / wanted), rows // shares))
        batch = rows // steps
        even = batch - batch % _EVEN
        of_part = (even or batch) // shares or 1
        return cls(steps=steps, batch=batch, rows=of_part * parts, parts=parts)

    def of_rank(self, array: NDArray[Any], rank: int) -> NDArray[Any]:
        """The rank's slices of an array: one a step, or its parts, as one follows the other."""
        shape = array.shape[1:]
        used = array[: self.steps * self.batch]
        batches = used.reshape(self.steps, self.batch, *shape)
        first = rank * self.rows
        own = np.ascontiguousarray(batches[:, first : first + self.rows])
        return own.reshape(self.steps * self.parts, self.rows // self.parts, *shape)


def make_repeatable(seed: int) -> None:
    """Let what follows give the same weights again. Call it before TensorFlow does anything."""
    # The number of threads decides the order in which floats are added, and so the last bits of the
    # weights.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    # The same on all ranks: the order of the steps is drawn by each.
    keras.utils.set_random_seed(seed)


def fit(job: Job) -> tuple[keras.Model, Outcome]:
    """Train on all ranks together and calibrate; every rank ends with the same model."""
    settings = job.network
    task = task_of(job.task)
    parts = settings.accumulated_batches
    wanted = settings.batch_size * parts
    shares = Shares.of(len(job.fit), wanted, hvd.size(), parts)
    # A rank that takes fewer would let the others wait for ever.
    steps = horovod_keras3.agree_on(shares.steps)
    model = network.build(job.encoding, settings, task, _dropouts(job.seed))
    network.compile_for(model, settings, task, steps=steps)
    horovod_keras3.distribute(
        model,
        compression=getattr(hvd.Compression, settings.compression),
        accumulated_batches=parts,
    )
    history = model.fit(
        _feed(job.fit, shares, job.seed),
        steps_per_epoch=steps * parts,
        epochs=settings.epochs,
        callbacks=horovod_keras3.together([]),
        shuffle=False,
        verbose=0,
        **_validated(job),
    )
    curves = _floats(history.history)
    require_finite(loss=curves["loss"], weights=_numbers(model))
    scoring = network.without_dropout(model, job.encoding, settings, task)
    slope = _calibrated(scoring, job, task)
    horovod_keras3.require_alike(scoring)
    outcome = Outcome(
        history=curves,
        slope=slope,
        steps_per_epoch=steps,
        scores=network.scores(scoring, job.fit.sample()).tolist(),
    )
    return scoring, outcome


def _dropouts(seed: int) -> Callable[[float], keras.layers.Layer]:
    """Makes dropout layers, each with a seed of its own."""
    seeds = count(seed)

    def dropout(share: float) -> SharedDropout:
        return SharedDropout(share, next(seeds), hvd.rank(), hvd.size())

    return dropout


def _validated(job: Job) -> dict[str, Any]:
    """How Keras is told of the validation rows, if there are any."""
    rows = job.validation
    if rows is None:
        return {}
    return {
        "validation_data": (network.inputs(rows), rows.label),
        "validation_batch_size": len(rows),
    }


def _calibrated(model: keras.Model, job: Job, task: LearningTask) -> float | None:
    """Stretch the model as its validation rows, or those of another training, say."""
    slope = job.calibration_slope
    if job.validation is not None:
        slope = network.calibration_slope(
            model, job.encoding, task, job.validation, job.expected_slope
        )
    if slope is not None:
        network.stretch(model, job.encoding, task, slope)
    return slope


def _numbers(model: keras.Model) -> NDArray[Any]:
    return np.concatenate([np.ravel(weights) for weights in model.get_weights()])


def _feed(examples: Examples, shares: Shares, seed: int) -> tf.data.Dataset:
    """The rank's slices for ever, in a new order each epoch that is the same on all ranks."""
    arrays = {**network.inputs(examples), "label": examples.label}
    slices: dict[str, tf.Tensor] = {}
    for name, array in arrays.items():
        own = shares.of_rank(array, hvd.rank())
        slices[name] = tf.constant(own)

    def one(step: tf.Tensor) -> _InputsAndLabel:
        row = {name: part[step] for name, part in slices.items()}
        label = row.pop("label")
        return row, label

    steps = tf.data.Dataset.range(shares.steps)
    order = steps.shuffle(shares.steps, seed=seed, reshuffle_each_iteration=True)
    if shares.parts > 1:
        order = order.flat_map(partial(_parts_of, shares.parts))
    return order.repeat().map(one).prefetch(2)


def _parts_of(parts: int, step: tf.Tensor) -> tf.data.Dataset:
    """The numbers of the parts of a step."""
    return tf.data.Dataset.range(step * parts, (step + 1) * parts)


def _floats(history: dict[str, list[Any]]) -> _Curves:
    return {name: list(map(float, values)) for name, values in history.items()}
