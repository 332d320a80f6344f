"""Dropout that is drawn for the whole batch, so that the number of ranks does not change it.

`keras.layers.Dropout` draws for the rows that it is given, and so for a share of the batch: two
ranks would leave out other units than one.
"""

from __future__ import annotations

import keras
import tensorflow as tf


class SharedDropout(keras.layers.Layer):
    """Leaves out of each step a share of the numbers, scaling the others up.

    Every rank draws for the rows of all ranks, and takes what belongs to its own.
    """

    def __init__(self, share: float, seed: int, rank: int, ranks: int) -> None:
        super().__init__()
        self._share = share
        self._seed = seed
        self._rank = rank
        self._ranks = ranks

    def build(self, _: tuple[int | None, ...]) -> None:
        """Called by Keras before the first call."""
        self._step = self.add_weight(dtype="int64", initializer="zeros", trainable=False)

    def call(self, numbers: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The numbers, of which training sees a part.

        Args:
            numbers: (rows of this rank, columns).
            training: Whether this is a step of training.
        """
        if not training or not self._share:
            return numbers
        self._step.assign_add(1)
        rows = tf.shape(numbers)[0]
        of_all = (rows * self._ranks, numbers.shape[1])
        drawn = tf.random.stateless_uniform(of_all, (self._seed, self._step.value))
        own = drawn[self._rank * rows : (self._rank + 1) * rows]
        kept = tf.cast(own >= self._share, numbers.dtype)
        return numbers * kept / (1 - self._share)
