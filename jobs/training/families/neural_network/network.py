"""The network, and its calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.training import shards
from jobs.training.encoding import Encoding, Examples
from pipelines.model import NeuralNetwork

if TYPE_CHECKING:
    from jobs.training.tasks import LearningTask
    from jobs.training.tasks.head import Head

LAST = "last"
"""Name of the layer that puts together what the last unit reads; the one-hot categories are the end
of it."""
_WIDE = "wide"
"""Name of the layer that holds the last unit's weights of the categories while it learns."""
_EMBEDDING = "embedding"
"""Name of the layer with the table of categories."""
_WEIGHT_DECAY = 1e-4
_MOST_ONE_HOT = 2**26
"""Numbers of the one-hot categories of rows that are scored at once: a quarter of a gigabyte."""


Dropout = Callable[[float], keras.layers.Layer]
"""Makes a layer that leaves out that share of its inputs in training."""


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that warms up in a line for a tenth of the steps, and decays by a cosine.

    The numbers are those of `keras.optimizers.schedules.CosineDecay`, worked out beforehand: the
    optimizer asks for the rate once for each variable, and so many copies of the formula, with its
    branches, took TensorFlow a fifth of the time that tracing takes.
    """

    def __init__(self, highest: float, steps: int) -> None:
        numbers = np.arange(steps + 1)
        warmup = steps // 10
        rising = numbers / max(1, warmup)
        done = (numbers - warmup) / max(1, steps - warmup)
        falling = (1 + np.cos(np.pi * done)) / 2
        rates = highest * np.where(numbers < warmup, rising, falling)
        self._last = steps
        self._rates = keras.ops.convert_to_tensor(rates, "float32")

    def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
        """The rate of a step, numbered from 0; of later ones than there are, that of the end."""
        return keras.ops.take(self._rates, keras.ops.minimum(step, self._last))


def build(
    encoding: Encoding,
    settings: NeuralNetwork,
    task: LearningTask,
    dropout: Dropout | None = None,
) -> keras.Model:
    """A wide and a deep part that end in one unit.

    The wide part is linear in the scaled numbers, the missing-value indicators and the one-hot
    categories; the deep part is a multilayer perceptron of the same, with embedded categories.
    Without categorical features it has an input for them all the same, of no columns.

    Args:
        encoding: How rows become numbers.
        settings: The size of the network.
        task: What the last unit says.
        dropout: Of training; None: the network is to score. The two hold the same weights, those of
            the categories in another layer: see `as_it_scores`.
    """
    numeric = keras.Input((len(encoding.numeric),), name="numeric")
    categorical = keras.Input((len(encoding.categorical),), dtype="int32", name="categorical")
    numbers = _numbers(numeric, encoding, settings.shared_weight)
    given = [*numbers]
    # Keras has no table without rows.
    if encoding.categorical:
        embedded = keras.layers.Embedding(
            encoding.embedding_rows, settings.embedding_size, name=_EMBEDDING
        )(categorical)
        given.append(keras.layers.Flatten()(embedded))
    hidden = keras.layers.Concatenate()(given)
    if dropout:
        hidden = dropout(settings.input_dropout)(hidden)
    # Numbers are scaled, and the last unit sums up, in 32 bits: few products, and all of the range.
    precision = settings.precision if dropout else "float32"
    for number, units in enumerate(settings.hidden, 1):
        layer = keras.layers.Dense(
            units, activation="relu", name=f"hidden_{number}", dtype=precision
        )
        hidden = layer(hidden)
        if dropout:
            hidden = dropout(settings.dropout)(hidden)
    read = [hidden, *numbers]
    end = _looking_up if dropout else _prediction
    prediction = end(read, categorical, encoding, task)
    return keras.Model({"numeric": numeric, "categorical": categorical}, prediction)


def as_it_scores(
    model: keras.Model, encoding: Encoding, settings: NeuralNetwork, task: LearningTask
) -> keras.Model:
    """The network without dropout, with the weights of one that was built with it."""
    scoring = build(encoding, settings, task)
    for layer in scoring.layers:
        # Those that hold weights have names; of the others Keras numbers the names.
        if layer.weights:
            layer.set_weights(_weights(model, layer.name, encoding, task))
    return scoring


def compile_for(
    model: keras.Model, settings: NeuralNetwork, task: LearningTask, steps: int
) -> None:
    """Give the model its loss and its optimizer, whose rate warms up and then decays.

    Args:
        model: The network to train.
        settings: The rate, and for how many epochs.
        task: What the loss follows from.
        steps: Steps of one epoch, in each of which the weights move once. TensorFlow runs all of
            them before it returns to Python, so callbacks see epochs only.
    """
    rates = Rates(settings.learning_rate, steps * settings.epochs)
    optimizer = keras.optimizers.AdamW(rates, weight_decay=_WEIGHT_DECAY)
    if settings.precision == "mixed_float16":
        # Gradients below 6e-8 would be zeros.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    batches = steps * settings.accumulated_batches
    # XLA would compile Horovod's operations away from the graph that knows them: jit_compile must
    # be off.
    model.compile(optimizer, task.keras_loss, jit_compile=False, steps_per_execution=batches)


def inputs(examples: Examples) -> dict[str, NDArray[np.generic]]:
    """The examples by the names of the model's inputs."""
    return {"numeric": examples.numeric, "categorical": examples.categorical}


def scores(model: keras.Model, examples: Examples) -> NDArray[np.float64]:
    """What the model says of each example."""
    found = [np.empty(0)]
    for piece in shards.pieces(examples, _rows_at_once(model, examples)):
        given = model(inputs(piece), training=False)
        found.append(np.asarray(given, np.float64)[:, 0])
    return np.concatenate(found)


def _rows_at_once(model: keras.Model, examples: Examples) -> int:
    """So many that their one-hot categories, a table's width for each column, fit into memory."""
    columns = examples.categorical.shape[1]
    if not columns:
        return max(1, len(examples))
    width: int = columns * model.get_layer(_EMBEDDING).input_dim
    return max(1, _MOST_ONE_HOT // width)


def distances(
    model: keras.Model, encoding: Encoding, task: LearningTask, examples: Examples
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far the linear numbers of the examples lie from their base, and the labels."""
    distance = task.link(scores(model, examples)) - task.link(encoding.label_mean)
    return distance, examples.label.astype(np.float64)


def stretch(model: keras.Model, encoding: Encoding, task: LearningTask, slope: float) -> None:
    """Make the slope part of the last unit's weights: a saved file gives calibrated predictions."""
    base = task.link(encoding.label_mean)
    last = model.get_layer(task.unit)
    kernel, bias = last.get_weights()
    last.set_weights([kernel * slope, base + slope * (bias - base)])


def save(model: keras.Model, path: Path) -> None:
    """Write the model as a `.keras` file, which says nothing of how it has learned."""
    # One of the same layers that nobody has compiled: the optimizer of the other names `Rates`,
    # code of ours that only a training needs.
    keras.Model(model.input, model.output, name=model.name).save(path)


def load(path: Path) -> keras.Model:
    """The model of a `.keras` file; a file that wants to run code of its own is refused."""
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _prediction(
    read: list[keras.KerasTensor],
    categorical: keras.KerasTensor,
    encoding: Encoding,
    task: LearningTask,
) -> keras.KerasTensor:
    """What the last unit says of one-hot categories and of what else it reads."""
    head = task.head(encoding.label_mean, encoding.label_scale)
    given = [*read]
    if encoding.categorical:
        # Not `CategoryEncoding`, which LiteRT has no operation for. No two columns share a row.
        one_hot = keras.ops.max(keras.ops.one_hot(categorical, encoding.embedding_rows), axis=1)
        given.append(one_hot)
    last = keras.layers.Concatenate(name=LAST)(given)
    return _scaled(_unit(head, task, head.activation)(last), head)


def _looking_up(
    read: list[keras.KerasTensor],
    categorical: keras.KerasTensor,
    encoding: Encoding,
    task: LearningTask,
) -> keras.KerasTensor:
    """The same for training: one-hot categories, nearly all zeros, take a fifth of a step."""
    head = task.head(encoding.label_mean, encoding.label_scale)
    linear = _unit(head, task, None)(keras.layers.Concatenate()(read))
    if encoding.categorical:
        wide = keras.layers.Embedding(
            encoding.embedding_rows, 1, embeddings_initializer="zeros", name=_WIDE
        )
        linear = linear + keras.ops.sum(wide(categorical), axis=1)
    return _scaled(keras.layers.Activation(head.activation)(linear), head)


def _weights(
    model: keras.Model, name: str, encoding: Encoding, task: LearningTask
) -> list[NDArray[np.float32]]:
    """What a trained network has learned, as the layer of that name of a scoring one holds it."""
    own: list[NDArray[np.float32]] = model.get_layer(name).get_weights()
    if name != task.unit or not encoding.categorical:
        return own
    kernel, bias = own
    (of_categories,) = model.get_layer(_WIDE).get_weights()
    return [np.concatenate([kernel, of_categories]), bias]


def _unit(head: Head, task: LearningTask, activation: str | None) -> keras.layers.Dense:
    return keras.layers.Dense(
        1,
        activation=activation,
        # So that the first predictions are the mean label.
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant(head.start_bias),
        name=task.unit,
    )


def _scaled(prediction: keras.KerasTensor, head: Head) -> keras.KerasTensor:
    if (head.scale, head.offset) == (1.0, 0.0):
        return prediction
    return keras.layers.Rescaling(head.scale, head.offset)(prediction)


def _numbers(
    numeric: keras.KerasTensor, encoding: Encoding, shared_weight: float
) -> list[keras.KerasTensor]:
    """The scaled numbers, missing ones at the mean, and an indicator for each column with such."""
    scaled = keras.layers.Normalization(
        mean=encoding.means, variance=encoding.variances, name="scale"
    )(numeric)
    missing = keras.ops.isnan(scaled)
    lows = np.asarray(encoding.lows, np.float32)
    highs = np.asarray(encoding.highs, np.float32)
    bounded = keras.ops.minimum(keras.ops.maximum(scaled, lows), highs)
    filled = keras.ops.where(missing, keras.ops.zeros_like(scaled), bounded)
    weights = [shared_weight if name in encoding.shared else 1.0 for name in encoding.numeric]
    weighted = filled * np.asarray(weights, np.float32)
    positions = [encoding.numeric.index(name) for name in encoding.indicators]
    if not positions:
        return [weighted]
    is_missing = keras.ops.take(keras.ops.cast(missing, "float32"), positions, axis=1)
    return [weighted, is_missing]
