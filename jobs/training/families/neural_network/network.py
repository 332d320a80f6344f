"""The network, and its calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.training.encoding import Encoding, Examples
from pipelines.model import NeuralNetwork

if TYPE_CHECKING:
    from jobs.training.tasks import LearningTask

_WEIGHT_DECAY = 1e-4


def build(encoding: Encoding, settings: NeuralNetwork, task: LearningTask) -> keras.Model:
    """A multilayer perceptron of scaled numbers, missing-value indicators, embedded categories."""
    numeric = keras.Input((len(encoding.numeric),), name="numeric")
    categorical = keras.Input((len(encoding.categorical),), dtype="int32", name="categorical")
    embedded = keras.layers.Embedding(
        encoding.embedding_rows, settings.embedding_size, name="embedding"
    )(categorical)
    flat = keras.layers.Flatten()(embedded)
    hidden = keras.layers.Concatenate()([*_numbers(numeric, encoding), flat])
    hidden = keras.layers.Dropout(settings.input_dropout)(hidden)
    for units in settings.hidden:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(settings.dropout)(hidden)
    prediction = _prediction(hidden, encoding, task)
    return keras.Model({"numeric": numeric, "categorical": categorical}, prediction)


def compile_for(
    model: keras.Model, settings: NeuralNetwork, task: LearningTask, steps: int, ranks: int
) -> None:
    """Give the model its loss and its optimizer.

    The rate warms up to `ranks` times the base, because a step averages over `ranks` times the
    rows, and then decays.

    Args:
        steps: Steps of one epoch. TensorFlow runs all of them before it returns to Python, so
            callbacks see epochs only.
    """
    total = steps * settings.epochs
    warmup = total // 10
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate,
        decay_steps=max(1, total - warmup),
        warmup_target=settings.learning_rate * ranks,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY)
    # XLA would compile Horovod's operations away from the graph that knows them: jit_compile must
    # be off.
    model.compile(optimizer, task.keras_loss, jit_compile=False, steps_per_execution=steps)


def inputs(examples: Examples) -> dict[str, NDArray[np.generic]]:
    """The examples by the names of the model's inputs."""
    return {"numeric": examples.numeric, "categorical": examples.categorical}


def calibrate(
    model: keras.Model, encoding: Encoding, task: LearningTask, validation: Examples
) -> float | None:
    """Stretch or shrink the linear numbers around their base, to fit days not trained on.

    The slope becomes part of the last unit's weights, so that the saved file gives calibrated
    predictions.

    Returns:
        The slope; None: the task takes predictions as they are.
    """
    base = task.link(encoding.label_mean)
    given = np.asarray(model.predict_on_batch(inputs(validation)), np.float64)[:, 0]
    distance = task.link(given) - base
    slope = task.calibration_slope(distance, validation.label.astype(np.float64), base)
    if slope is not None:
        last = model.get_layer(task.unit)
        kernel, bias = last.get_weights()
        last.set_weights([kernel * slope, base + slope * (bias - base)])
    return slope


def save(model: keras.Model, path: Path) -> None:
    """Write the model as a `.keras` file, without the state of its optimizer."""
    model.save(path, include_optimizer=False)


def load(path: Path) -> keras.Model:
    """The model of a `.keras` file; a file that wants to run code of its own is refused."""
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _prediction(
    hidden: keras.KerasTensor, encoding: Encoding, task: LearningTask
) -> keras.KerasTensor:
    head = task.head(encoding.label_mean, encoding.label_scale)
    start = keras.initializers.Constant(head.start_bias)
    unit = keras.layers.Dense(
        1,
        activation=head.activation,
        bias_initializer=start,
        name=task.unit,
    )
    prediction = unit(hidden)
    if (head.scale, head.offset) == (1.0, 0.0):
        return prediction
    return keras.layers.Rescaling(head.scale, head.offset)(prediction)


def _numbers(numeric: keras.KerasTensor, encoding: Encoding) -> list[keras.KerasTensor]:
    """The scaled numbers, missing ones at the mean, and an indicator for each column with such."""
    scaled = keras.layers.Normalization(
        mean=encoding.means, variance=encoding.variances, name="scale"
    )(numeric)
    missing = keras.ops.isnan(scaled)
    lows = np.asarray(encoding.lows, np.float32)
    highs = np.asarray(encoding.highs, np.float32)
    bounded = keras.ops.minimum(keras.ops.maximum(scaled, lows), highs)
    filled = keras.ops.where(missing, keras.ops.zeros_like(scaled), bounded)
    positions = [encoding.numeric.index(name) for name in encoding.indicators]
    if not positions:
        return [filled]
    is_missing = keras.ops.take(keras.ops.cast(missing, "float32"), positions, axis=1)
    return [filled, is_missing]
