"""The network, and its calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.training.encoding import Encoding, Examples
from pipelines.model import Training

OUTPUT = "probability"
_EPSILON = 1e-7
_WEIGHT_DECAY = 1e-4
_NEWTON_STEPS = 25
_TINY = 1e-12


def build(encoding: Encoding, training: Training) -> keras.Model:
    """A multilayer perceptron of scaled numbers, missing-value indicators, embedded categories."""
    numeric = keras.Input((len(encoding.numeric),), name="numeric")
    categorical = keras.Input((len(encoding.categorical),), dtype="int32", name="categorical")
    embedded = keras.layers.Embedding(
        encoding.embedding_rows, training.embedding_size, name="embedding"
    )(categorical)
    hidden = keras.layers.Concatenate()(
        [*_numbers(numeric, encoding), keras.layers.Flatten()(embedded)]
    )
    hidden = keras.layers.Dropout(training.input_dropout)(hidden)
    for units in training.hidden:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(training.dropout)(hidden)
    start = keras.initializers.Constant(logit(encoding.base_rate))
    probability = keras.layers.Dense(1, activation="sigmoid", bias_initializer=start, name=OUTPUT)(
        hidden
    )
    return keras.Model({"numeric": numeric, "categorical": categorical}, probability)


def prepare(model: keras.Model, training: Training, steps: int, ranks: int) -> None:
    """Give the model its loss and its optimizer.

    The rate warms up to `ranks` times the base, because a step averages over `ranks` times the
    rows, and then decays.

    Args:
        steps: Steps of one epoch. TensorFlow runs all of them before it returns to Python, so
            callbacks see epochs only.
    """
    total = steps * training.epochs
    warmup = total // 10
    rate = keras.optimizers.schedules.CosineDecay(
        training.learning_rate,
        decay_steps=max(1, total - warmup),
        warmup_target=training.learning_rate * ranks,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY)
    # XLA would compile Horovod's operations away from the graph that knows them: jit_compile must
    # be off.
    model.compile(optimizer, "binary_crossentropy", jit_compile=False, steps_per_execution=steps)


def inputs(examples: Examples) -> dict[str, NDArray[np.generic]]:
    """The examples by the names of the model's inputs."""
    return {"numeric": examples.numeric, "categorical": examples.categorical}


def calibrate(model: keras.Model, encoding: Encoding, validation: Examples) -> float:
    """Stretch or shrink the log-odds around the base rate to fit days that were not trained on.

    The slope becomes part of the last layer's weights, so that the saved file gives calibrated
    probabilities. Only the slope is fitted: a few days tell how far to trust the model, and not
    which rate the next weeks will have.

    Returns:
        The slope; below 1 the model was overconfident.
    """
    base = logit(encoding.base_rate)
    given = np.asarray(model.predict_on_batch(inputs(validation)), np.float64)[:, 0]
    slope = fit_slope(logit(given) - base, validation.label.astype(np.float64), base)
    last = model.get_layer(OUTPUT)
    kernel, bias = last.get_weights()
    last.set_weights([kernel * slope, base + slope * (bias - base)])
    return slope


def fit_slope(
    distance: NDArray[np.float64], label: NDArray[np.float64], base: float, trust: float = 0.2
) -> float:
    """The slope from 0.5 to 2 that gives `base + slope * distance` a low log loss.

    The problem is convex; this is Newton's method.

    Args:
        distance: Of each row's log-odds from the base.
        trust: Weight of these rows against the slope 1, from 0 to 1. Rows of one day share their
            fate, so a few days with thousands of rows tell far less than as many independent rows
            would.
    """
    prior = (1 - trust) / trust * _curvature(distance, base, 1.0)
    slope = 1.0
    for _ in range(_NEWTON_STEPS):
        excess = np.mean((_probability(base + slope * distance) - label) * distance) + prior * (
            slope - 1
        )
        slope = float(
            np.clip(slope - excess / (_curvature(distance, base, slope) + prior), 0.5, 2.0)
        )
    return slope


def save(model: keras.Model, path: Path) -> None:
    """Write the model as a `.keras` file, without the state of its optimizer."""
    model.save(path, include_optimizer=False)


def load(path: Path) -> keras.Model:
    """The model of a `.keras` file; a file that wants to run code of its own is refused."""
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def logit(probability: Any) -> Any:
    """Log-odds, of a number or an array."""
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    return np.log(clipped / (1 - clipped))


def _probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_odds))


def _curvature(distance: NDArray[np.float64], base: float, slope: float) -> float:
    p = _probability(base + slope * distance)
    return float(np.mean(p * (1 - p) * distance**2)) + _TINY


def _numbers(numeric: keras.KerasTensor, encoding: Encoding) -> list[keras.KerasTensor]:
    """The scaled numbers, missing ones at the mean, and an indicator for each column with such."""
    scaled = keras.layers.Normalization(
        mean=encoding.means, variance=encoding.variances, name="scale"
    )(numeric)
    missing = keras.ops.isnan(scaled)
    lows, highs = (np.asarray(bounds, np.float32) for bounds in (encoding.lows, encoding.highs))
    bounded = keras.ops.minimum(keras.ops.maximum(scaled, lows), highs)
    filled = keras.ops.where(missing, keras.ops.zeros_like(scaled), bounded)
    positions = [encoding.numeric.index(name) for name in encoding.indicators]
    if not positions:
        return [filled]
    return [filled, keras.ops.take(keras.ops.cast(missing, "float32"), positions, axis=1)]
