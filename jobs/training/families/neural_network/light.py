"""A network as LiteRT reads it: loaded in milliseconds, and scored without TensorFlow.

LiteRT (https://ai.google.dev/edge/litert) was TensorFlow Lite. Importing this is cheap: LiteRT and
TensorFlow are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.training.families.light import EXACT, QUANTISED, Variant
from jobs.training.families.neural_network.quiet import without_chatter

if TYPE_CHECKING:
    from jobs.training.encoding import Examples
    from jobs.training.families.neural_network import Network
    from jobs.training.metrics import Vector

_FILES: Mapping[Variant, str] = {EXACT: "model.tflite", QUANTISED: "quantised.tflite"}
_OUTPUT = "output_0"
"""LiteRT's name of what a function gives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiteNetwork:
    """A loaded network."""

    runner: Any
    """`SignatureRunner` of LiteRT."""
    one_scores: Lock = field(default_factory=Lock)
    """Every call goes through the same buffers, and MLflow answers on many threads."""

    def score(self, examples: Examples) -> Vector:
        """What the network says of each example."""
        with self.one_scores:
            given = self.runner(numeric=examples.numeric, categorical=examples.categorical)
            return np.array(given[_OUTPUT], np.float64)[:, 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class LiteRT:
    """See `jobs.training.families.light.LightFormat` for what each part is."""

    files: Mapping[Variant, str] = field(default_factory=lambda: _FILES)

    def make(self, model: Network, folder: Path, variant: Variant) -> None:
        """Convert the network: as it is, or quantised.

        Quantised, the weights of large layers are kept in 8 bits, and what goes into such a layer
        is rounded to as many when a row is scored, by the largest number of the row
        ("dynamic range").
        """
        import tensorflow as tf

        network = model.keras_model
        specs = {}
        for one in network.inputs:
            specs[one.name] = tf.TensorSpec(one.shape, one.dtype)
        # TensorFlow follows no Keras 3 model to its variables: without an object that holds them
        # the file is written without weights, and says NaN, without an error.
        holder = tf.Module()
        holder.variables_of_keras = [variable.value for variable in network.variables]
        score = tf.function(_looking_up(network, holder))
        traced = score.get_concrete_function(**specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], holder)
        if variant == QUANTISED:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        (folder / self.files[variant]).write_bytes(converter.convert())

    def load(self, folder: Path, variant: Variant) -> LiteNetwork:
        """The network, for one thread: Spark, or the number of processes, decides how many work."""
        from ai_edge_litert.interpreter import Interpreter

        content = (folder / self.files[variant]).read_bytes()
        with without_chatter():
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
            return LiteNetwork(runner=interpreter.get_signature_runner())


def _looking_up(network: Any, holder: Any) -> Callable[..., Any]:
    """The network as a function that looks the weights of categories up.

    The last unit multiplies one-hot categories, nearly all of them zeros: half of a row's time.

    Args:
        network: A Keras model that `network.build` has built.
        holder: A `tf.Module`, which is given the weights that are the function's own.
    """
    import keras
    import tensorflow as tf

    from jobs.training.families.neural_network.network import LAST

    others = [*tf.nest.flatten(network.get_layer(LAST).input)]
    categories = next(one for one in network.inputs if one.name == "categorical")
    has_categories = categories.shape[-1] > 0
    if has_categories:
        others.pop()
    below = keras.Model(network.inputs, others)
    # Behind the unit there may be a layer without weights, which scales what it says.
    layers = [one for one in network.layers if not isinstance(one, keras.layers.InputLayer)]
    position = max(number for number, one in enumerate(layers) if one.weights)
    unit = layers[position]
    kernel, bias = (weight.value for weight in unit.weights)
    columns = sum(one.shape[-1] for one in others)
    holder.of_others = tf.Variable(kernel[:columns])
    holder.of_categories = tf.Variable(kernel[columns:])

    def score(numeric: tf.Tensor, categorical: tf.Tensor) -> tf.Tensor:
        read = below({"numeric": numeric, "categorical": categorical}, training=False)
        linear = tf.concat(read, axis=1) @ holder.of_others
        if has_categories:
            found = tf.gather(holder.of_categories, categorical)
            linear = linear + tf.reduce_sum(found, axis=1)
        said = unit.activation(linear + bias)
        for scaling in layers[position + 1 :]:
            said = scaling(said)
        return said

    return score
