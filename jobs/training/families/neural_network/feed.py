"""The rows of a training as TensorFlow takes them: each rank's slices, and the validation rows.

A rank holds its rows in memory when they are few, and else reads each slice when its step comes:
the same slices in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from jobs.training.encoding import Examples
from jobs.training.families.neural_network import network
from jobs.training.shards import Shards
from pipelines.errors import Refused

_InputsAndLabel = tuple[dict[str, tf.Tensor], tf.Tensor]

IN_MEMORY_BYTES = 64_000_000
"""Of a rank's rows: more of them are read anew each epoch. Three months of New York's airports take
20 MB of it."""
WHOLE_ROWS = 131_072
"""Of a validation: more of them are dealt to the ranks, piece by piece."""
PIECE_ROWS = 8192
_READERS = 2
"""Slices of a rank that are read at once, while it computes: a store takes its time for each."""
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
            Refused: there are fewer rows than ranks, or than parts of all ranks.
        """
        shares = ranks * parts
        if rows < shares:
            times = f" with {parts} accumulated batches" if parts > 1 else ""
            # In words, where a fault of a rank is told by its traceback.
            raise Refused(f"{rows} rows are too few for {ranks} ranks{times}: take fewer ranks.")
        steps = max(1, min(round(rows / wanted), rows // shares))
        batch = rows // steps
        even = batch - batch % _EVEN
        of_part = (even or batch) // shares or 1
        return cls(steps=steps, batch=batch, rows=of_part * parts, parts=parts)

    def first(self, step: int, rank: int) -> int:
        """The first row of the rank's slice of a step."""
        return step * self.batch + rank * self.rows


def slices(
    rows: Shards, shares: Shares, rank: int, seed: int, epochs_done: int = 0
) -> tf.data.Dataset:
    """The rank's slices for ever, in a new order each epoch that is the same on all ranks.

    Args:
        rows: Of the training.
        shares: How they are dealt.
        rank: Whose slices.
        seed: Of the orders.
        epochs_done: Those that an interrupted training has had: the next one's order comes first.
    """
    steps = tf.data.Dataset.range(shares.steps)
    order = steps.shuffle(shares.steps, seed=seed, reshuffle_each_iteration=True)
    endless = order.repeat().skip(epochs_done * shares.steps)
    if shares.parts > 1:
        endless = endless.flat_map(partial(_parts_of, shares.parts))
    own_bytes = shares.steps * shares.rows * rows.row_bytes
    if own_bytes <= IN_MEMORY_BYTES:
        return _untuned(endless.map(_held(rows, shares, rank)).prefetch(2))
    read = _read(rows, shares, rank)
    return _untuned(endless.map(read, num_parallel_calls=_READERS, deterministic=True).prefetch(2))


def validation(rows: Shards, rank: int, ranks: int) -> tf.data.Dataset:
    """All rows as one batch where they are few, else the rank's own, in pieces."""
    if len(rows) <= WHOLE_ROWS:
        return whole(rows.read(0, len(rows)))
    first, count = own_rows(rows, rank, ranks)
    starts = tf.data.Dataset.range(first, first + count, PIECE_ROWS)
    last = first + count

    def piece(start: np.int64) -> NDArray[np.int32]:
        return rows.words(int(start), min(PIECE_ROWS, last - int(start)))

    def one(start: tf.Tensor) -> _InputsAndLabel:
        return _told(tf.numpy_function(piece, [start], tf.int32), rows, None)

    return _untuned(starts.map(one).prefetch(2))


def own_rows(rows: Shards, rank: int, ranks: int) -> tuple[int, int]:
    """The first of the rows that a rank looks at alone, and how many: as others, or one more."""
    first = rank * len(rows) // ranks
    return first, (rank + 1) * len(rows) // ranks - first


def whole(examples: Examples) -> tf.data.Dataset:
    """All examples as one batch."""
    return _untuned(tf.data.Dataset.from_tensors((network.inputs(examples), examples.label)))


def _held(
    rows: Shards,
    shares: Shares,
    rank: int,
) -> Callable[[tf.Tensor], _InputsAndLabel]:
    """Gives parts of steps from the rank's rows, all of which are in memory."""
    words = np.empty((shares.steps, shares.rows, rows.width), np.int32)
    for step in range(shares.steps):
        words[step] = rows.words(shares.first(step, rank), shares.rows)
    examples = rows.examples(words.reshape(-1, rows.width))
    arrays = {**network.inputs(examples), "label": examples.label}
    in_parts = (shares.steps * shares.parts, shares.rows // shares.parts)
    own = {
        name: tf.constant(array.reshape(*in_parts, *array.shape[1:]))
        for name, array in arrays.items()
    }

    def one(part: tf.Tensor) -> _InputsAndLabel:
        row = {name: of_all[part] for name, of_all in own.items()}
        label = row.pop("label")
        return row, label

    return one


def _read(
    rows: Shards,
    shares: Shares,
    rank: int,
) -> Callable[[tf.Tensor], _InputsAndLabel]:
    """Gives parts of steps from the files."""
    part_rows = shares.rows // shares.parts

    def words(number: np.int64) -> NDArray[np.int32]:
        step, part = divmod(int(number), shares.parts)
        return rows.words(shares.first(step, rank) + part * part_rows, part_rows)

    def one(number: tf.Tensor) -> _InputsAndLabel:
        return _told(tf.numpy_function(words, [number], tf.int32), rows, part_rows)

    return one


def _told(words: tf.Tensor, rows: Shards, count: int | None) -> _InputsAndLabel:
    """What words of so many rows say; None: of any number."""
    words.set_shape((count, rows.width))
    numbers = tf.bitcast(words, tf.float32)
    inputs = {
        "numeric": numbers[:, : rows.numeric],
        "categorical": words[:, rows.numeric : -1],
    }
    return inputs, numbers[:, -1]


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
