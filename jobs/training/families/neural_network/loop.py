"""Fits a model on one rank's share of every batch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from jobs.training import shards
from jobs.training.encoding import Encoding
from jobs.training.families.neural_network import feed, horovod_keras3, network
from jobs.training.families.neural_network.checkpoint import Checkpoints
from jobs.training.families.neural_network.dropout import SharedDropout
from jobs.training.families.neural_network.job import FoundJob, Outcome
from jobs.training.metrics import Vector, require_finite
from jobs.training.shards import Shards
from jobs.training.tasks import LearningTask, task_of


def make_repeatable(seed: int) -> None:
    """Let what follows give the same weights again. Call it before TensorFlow does anything."""
    # The number of threads decides the order in which floats are added, and so the last bits of the
    # weights.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    # The same on all ranks: the order of the steps is drawn by each.
    keras.utils.set_random_seed(seed)


def fit(
    job: FoundJob,
    told_slope: Callable[[], float | None],
) -> tuple[keras.Model, Outcome]:
    """Train on all ranks together and calibrate; every rank ends with the same model.

    Args:
        job: What to learn from, and how.
        told_slope: Asked for the slope of the calibration, in the end, if there are no validation
            rows to tell it.
    """
    settings = job.network
    task = task_of(job.task)
    parts = settings.accumulated_batches
    wanted = settings.batch_size * parts
    shares = feed.Shares.of(len(job.fit), wanted, hvd.size(), parts)
    # A rank that takes fewer would let the others wait for ever.
    steps = horovod_keras3.agree_on(shares.steps)
    model = network.build(job.encoding, settings, task, _dropouts(job.seed))
    network.compile_for(model, settings, task, steps=steps)
    horovod_keras3.distribute(
        model,
        compression=getattr(hvd.Compression, settings.compression),
        accumulated_batches=parts,
        looked_up=shares.rows * len(job.encoding.categorical),
    )
    checkpoints = Checkpoints(job.checkpoint, settings.checkpoint_seconds)
    done = checkpoints.restore(model)
    model.fit(
        feed.slices(job.fit, shares, hvd.rank(), job.seed, done),
        steps_per_epoch=steps * parts,
        initial_epoch=done,
        epochs=settings.epochs,
        callbacks=[*_validation(job), *horovod_keras3.together([checkpoints])],
        shuffle=False,
        verbose=0,
    )
    curves = checkpoints.curves
    require_finite(loss=curves["loss"], weights=_numbers(model))
    scoring = network.as_it_scores(model, job.encoding, settings, task)
    slope = _calibrated(scoring, job, task, told_slope)
    horovod_keras3.require_alike(scoring)
    outcome = Outcome(
        history=curves,
        slope=slope,
        ranks=hvd.size(),
        steps_per_epoch=steps,
        scores=network.scores(scoring, job.fit.sample()).tolist(),
    )
    return scoring, outcome


class _Validation(keras.callbacks.Callback):
    """Adds the mean loss of the rank's validation rows to the logs of an epoch.

    It calls the network. `fit` would trace it a second time to look at so few rows, which takes
    half a second of a processor on each rank.
    """

    def __init__(self, batches: tf.data.Dataset) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after each epoch."""
        total = 0.0
        rows = 0
        for inputs, label in self._batches:
            prediction = self.model(inputs, training=False)
            loss = self.model.compute_loss(inputs, label, prediction, training=False)
            total += float(loss) * len(label)
            rows += len(label)
        if logs is not None:
            logs["val_loss"] = total / rows


def _validation(job: FoundJob) -> list[keras.callbacks.Callback]:
    if job.validation is None:
        return []
    share = feed.validation(job.validation, hvd.rank(), hvd.size())
    return [_Validation(share)]


def _dropouts(seed: int) -> Callable[[float], keras.layers.Layer]:
    """Makes dropout layers, each with a seed of its own."""
    seeds = count(seed)

    def dropout(share: float) -> SharedDropout:
        return SharedDropout(share, next(seeds), hvd.rank(), hvd.size())

    return dropout


def _calibrated(
    model: keras.Model,
    job: FoundJob,
    task: LearningTask,
    told_slope: Callable[[], float | None],
) -> float | None:
    """Stretch the model as its validation rows, or those of another training, say."""
    if job.validation is None:
        slope = told_slope()
    else:
        distance, label = _distances(model, job.encoding, task, job.validation)
        base = task.link(job.encoding.label_mean)
        slope = task.calibration_slope(distance, label, base, job.expected_slope)
    if slope is not None:
        network.stretch(model, job.encoding, task, slope)
    return slope


def _distances(
    model: keras.Model, encoding: Encoding, task: LearningTask, rows: Shards
) -> tuple[Vector, Vector]:
    """Of all rows how far the linear numbers lie from their base, and the labels.

    Few rows are scored by every rank, many by one each.
    """
    if len(rows) <= feed.WHOLE_ROWS:
        return network.distances(model, encoding, task, rows.read(0, len(rows)))
    first, count = feed.own_rows(rows, hvd.rank(), hvd.size())
    own_pieces = shards.pieces(rows, feed.PIECE_ROWS, first, count)
    found = [network.distances(model, encoding, task, piece) for piece in own_pieces]
    own = np.concatenate([np.stack(one, axis=1) for one in found])
    with tf.device(horovod_keras3.HOST):
        of_all = hvd.allgather(tf.constant(own, tf.float64)).numpy()
    return of_all[:, 0], of_all[:, 1]


def _numbers(model: keras.Model) -> NDArray[Any]:
    return np.concatenate([np.ravel(weights) for weights in model.get_weights()])
