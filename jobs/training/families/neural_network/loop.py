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

from jobs.training.families.neural_network import feed, horovod_keras3, network
from jobs.training.families.neural_network.dropout import SharedDropout
from jobs.training.families.neural_network.job import Job, Outcome
from jobs.training.metrics import require_finite
from jobs.training.tasks import LearningTask, task_of

_Curves = dict[str, list[float]]


def make_repeatable(seed: int) -> None:
    """Let what follows give the same weights again. Call it before TensorFlow does anything."""
    # The number of threads decides the order in which floats are added, and so the last bits of the
    # weights.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    # The same on all ranks: the order of the steps is drawn by each.
    keras.utils.set_random_seed(seed)


def fit(job: Job, told_slope: Callable[[], float | None]) -> tuple[keras.Model, Outcome]:
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
    )
    history = model.fit(
        feed.slices(job.fit, shares, hvd.rank(), job.seed),
        steps_per_epoch=steps * parts,
        epochs=settings.epochs,
        callbacks=horovod_keras3.together([]),
        shuffle=False,
        verbose=0,
        validation_data=None if job.validation is None else feed.whole(job.validation),
    )
    curves = _floats(history.history)
    require_finite(loss=curves["loss"], weights=_numbers(model))
    scoring = network.as_it_scores(model, job.encoding, settings, task)
    slope = _calibrated(scoring, job, task, told_slope)
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


def _calibrated(
    model: keras.Model,
    job: Job,
    task: LearningTask,
    told_slope: Callable[[], float | None],
) -> float | None:
    """Stretch the model as its validation rows, or those of another training, say."""
    if job.validation is None:
        slope = told_slope()
    else:
        slope = network.calibration_slope(
            model, job.encoding, task, job.validation, job.expected_slope
        )
    if slope is not None:
        network.stretch(model, job.encoding, task, slope)
    return slope


def _numbers(model: keras.Model) -> NDArray[Any]:
    return np.concatenate([np.ravel(weights) for weights in model.get_weights()])


def _floats(history: dict[str, list[Any]]) -> _Curves:
    return {name: list(map(float, values)) for name, values in history.items()}
