"""The rows of a training as TensorFlow takes them: each rank's slices, and the validation rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from jobs.training.encoding import Examples
from jobs.training.families.neural_network import network
from pipelines.errors import NightshiftError

_InputsAndLabel = tuple[dict[str, tf.Tensor], tf.Tensor]

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


def slices(examples: Examples, shares: Shares, rank: int, seed: int) -> tf.data.Dataset:
    """The rank's slices for ever, in a new order each epoch that is the same on all ranks."""
    arrays = {**network.inputs(examples), "label": examples.label}
    own = {name: tf.constant(shares.of_rank(array, rank)) for name, array in arrays.items()}

    def one(step: tf.Tensor) -> _InputsAndLabel:
        row = {name: part[step] for name, part in own.items()}
        label = row.pop("label")
        return row, label

    steps = tf.data.Dataset.range(shares.steps)
    order = steps.shuffle(shares.steps, seed=seed, reshuffle_each_iteration=True)
    if shares.parts > 1:
        order = order.flat_map(partial(_parts_of, shares.parts))
    return _untuned(order.repeat().map(one).prefetch(2))


def whole(examples: Examples) -> tf.data.Dataset:
    """All examples as one batch."""
    return _untuned(tf.data.Dataset.from_tensors((network.inputs(examples), examples.label)))


def _parts_of(parts: int, step: tf.Tensor) -> tf.data.Dataset:
    """The numbers of the parts of a step."""
    return tf.data.Dataset.range(step * parts, (step + 1) * parts)


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset without the thread that would tune it, and that must end before it can.

    That thread may sleep through the news that all is over: of 9 trainings 4 so ended 5 to 22
    seconds late.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
