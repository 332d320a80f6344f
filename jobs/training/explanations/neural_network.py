"""Attributions of the network: integrated gradients, without an error of integration.

Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017)
go in a straight line from the base to the row, and give each input its distance times the mean
gradient on the way. The line lies in the space of scaled numbers and embedded categories, where a
network of ReLUs is linear between the points at which one of its units turns on or off. These
points are found, so that the mean over the pieces is the integral itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.training.encoding import Encoding, Examples
from jobs.training.explanations.attribution import (
    Attribution,
    Matrix,
    base_row,
    owners_of_numbers,
    owners_of_one_hot,
    summed,
)
from jobs.training.families.neural_network import Network
from jobs.training.metrics import Vector
from jobs.training.tasks import LearningTask
from pipelines.errors import Refused

if TYPE_CHECKING:
    import keras

_HIDDEN = "hidden_"
"""How names of hidden layers begin."""
_EMBEDDING = "embedding"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """A hidden layer, of ReLUs."""

    kernel: Matrix
    bias: Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weights:
    """What a row goes through behind its encoding, in double precision."""

    hidden: list[_Layer]
    deep: Vector
    """Of the last unit, for what the hidden layers give; without any, for the inputs of the deep
    part."""
    wide: Vector
    """Of the last unit, for the inputs of the wide part."""
    bias: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inputs:
    """Encoded rows, as the network itself encodes them."""

    deep: Matrix
    """(rows, scaled numbers, indicators and embedded categories)."""
    wide: Matrix
    """(rows, scaled numbers, indicators and one-hot categories)."""
    linear: Vector
    """(rows,): what the last unit says of each before its activation."""


def attribute(
    model: Network, encoding: Encoding, task: LearningTask, rows: Examples
) -> Attribution:
    """Of each row.

    Raises:
        Refused: the network has other layers than those of today.
    """
    keras_model = model.keras_model
    weights = _weights(keras_model, encoding, task)
    start = _inputs(keras_model, weights, task, base_row(encoding))
    end = _inputs(keras_model, weights, task, rows)
    gradients = _mean_gradients(weights, start.deep[0], end.deep)
    deep = (end.deep - start.deep) * gradients
    wide = (end.wide - start.wide) * weights.wide
    numbers = owners_of_numbers(encoding)
    of_deep = summed(deep, [*numbers, *_owners_of_embedded(keras_model, encoding)], encoding)
    of_wide = summed(wide, numbers + owners_of_one_hot(encoding), encoding)
    head = task.head(encoding.label_mean, encoding.label_scale)
    return Attribution(
        base=head.offset + head.scale * _forward(weights, start),
        of_features=head.scale * (of_deep + of_wide),
        linear=head.offset + head.scale * end.linear,
    )


def _owners_of_embedded(model: keras.Model, encoding: Encoding) -> list[int]:
    """For each column of embedded categories, whose feature it is."""
    if not encoding.categorical:
        return []
    first = len(encoding.numeric)
    features = np.arange(first, len(encoding.columns))
    embedded_as = model.get_layer(_EMBEDDING).output_dim
    owners: list[int] = np.repeat(features, embedded_as).tolist()
    return owners


def _weights(model: keras.Model, encoding: Encoding, task: LearningTask) -> _Weights:
    names = [layer.name for layer in model.layers]
    hidden: list[_Layer] = []
    for name in names:
        if name.startswith(_HIDDEN):
            kernel, bias = _doubles(model.get_layer(name))
            hidden.append(_Layer(kernel=kernel, bias=bias))
    needed = {_EMBEDDING, task.unit} if encoding.categorical else {task.unit}
    if not needed <= set(names):
        raise _other_network(names)
    kernel, bias = _doubles(model.get_layer(task.unit))
    width = len(owners_of_numbers(encoding)) + encoding.embedding_rows
    if len(kernel) <= width:
        raise _other_network(names)
    return _Weights(
        hidden=hidden,
        deep=kernel[:-width, 0],
        wide=kernel[-width:, 0],
        bias=float(bias[0]),
    )


def _other_network(names: list[str]) -> Refused:
    return Refused(
        f"The network has the layers {', '.join(names)}, which is not the wide and deep network "
        "of today: a version that was trained by older code is not explained."
    )


def _doubles(layer: keras.Layer) -> list[Matrix]:
    return [array.astype(np.float64) for array in layer.get_weights()]


def _inputs(model: keras.Model, weights: _Weights, task: LearningTask, rows: Examples) -> _Inputs:
    import keras

    from jobs.training.families.neural_network import network

    last = model.get_layer(task.unit).input
    first = model.get_layer(f"{_HIDDEN}1").input if weights.hidden else last
    given = {tensor.name: tensor for tensor in model.inputs}
    encoder = keras.Model(given, [first, last])
    outputs = encoder(network.inputs(rows), training=False)
    deep, reached = (np.asarray(output, np.float64) for output in outputs)
    width = len(weights.wide)
    kernel = np.concatenate([weights.deep, weights.wide])
    return _Inputs(
        deep=deep if weights.hidden else deep[:, :-width],
        wide=reached[:, -width:],
        linear=reached @ kernel + weights.bias,
    )


def _forward(weights: _Weights, start: _Inputs) -> float:
    """What the last unit says of one row, in double precision throughout."""
    values = start.deep
    for layer in weights.hidden:
        values = _relu(values @ layer.kernel + layer.bias)
    said = values @ weights.deep + start.wide @ weights.wide
    return float(said[0]) + weights.bias


def _mean_gradients(weights: _Weights, start: Vector, ends: Matrix) -> Matrix:
    """The mean gradient of the deep part on the way from the base to each row.

    Args:
        weights: Of the network.
        start: (inputs,) of the base.
        ends: (rows, inputs).

    Returns:
        (rows, inputs).
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if not weights.hidden:
        return np.broadcast_to(weights.deep, ends.shape)
    first = weights.hidden[0]
    begins = start @ first.kernel + first.bias
    stops = ends @ first.kernel + first.bias
    # Threads that wait for one another cost ten times what these small products do.
    with threadpool_limits(1):
        means = [_mean_gradient(weights, begins, of_row) for of_row in stops]
    return np.reshape(means, (len(ends), len(begins))) @ first.kernel.T


def _mean_gradient(weights: _Weights, begins: Vector, stops: Vector) -> Vector:
    """Of one row: by the inputs of the first layer's units, at both ends of the way."""
    times = np.array([0.0, 1.0])
    for depth in range(len(weights.hidden)):
        before = _on_the_way(weights, begins, stops, times)
        # Until here every layer below is linear between two of these times, and so is this one.
        times = _with_crossings(times, before[depth])
    middles = (times[:-1] + times[1:]) / 2
    reached = _on_the_way(weights, begins, stops, middles)
    gradients = np.broadcast_to(weights.deep, (len(middles), len(weights.deep)))
    for depth in reversed(range(len(weights.hidden))):
        gradients = gradients * (reached[depth] > 0)
        if depth:
            gradients = gradients @ weights.hidden[depth].kernel.T
    return np.diff(times) @ gradients


def _on_the_way(weights: _Weights, begins: Vector, stops: Vector, times: Vector) -> list[Matrix]:
    """For each hidden layer what its units are given at these times: (times, units)."""
    given = begins + np.outer(times, stops - begins)
    all_given = [given]
    for layer in weights.hidden[1:]:
        given = _relu(given) @ layer.kernel + layer.bias
        all_given.append(given)
    return all_given


def _with_crossings(times: Vector, given: Matrix) -> Vector:
    """The times, and those at which what a unit is given passes 0; it is linear in between."""
    before, after = given[:-1], given[1:]
    crosses = before * after < 0
    # Where none is, any number that can be divided by will do.
    rise = np.where(crosses, after - before, 1.0)
    shares = -before / rise
    passed = times[:-1, None] + np.diff(times)[:, None] * shares
    return np.unique(np.concatenate([times, passed[crosses]]))


def _relu(values: Matrix) -> Matrix:
    return np.maximum(values, 0.0)
