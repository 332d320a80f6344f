"""Dropout that is drawn for the whole batch, so that the number of ranks does not change it.

`keras.layers.Dropout` draws for the rows that it is given, and so for a share of the batch: two
ranks would leave out other units than one.
"""

from __future__ import annotations

import keras
import tensorflow as tf

_LEVELS = 256
"""A number is left out by the byte that is drawn for it: a float for each would take as long as the
rest of the step."""
_BYTES_OF_WORD = 4
_WORDS_OF_COUNT = 4
"""Philox (Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405) makes so many 32-bit words
of each number that it counts."""


class SharedDropout(keras.layers.Layer):
    """Leaves out of each step a share of the numbers, scaling the others up.

    Random bytes are a function of the step and of the row's place in the batch of all ranks, so
    that each rank draws for its own rows alone. The share is taken to the nearest 256th.
    """

    def __init__(self, share: float, seed: int, rank: int, ranks: int) -> None:
        super().__init__()
        # Something is always left.
        self._left_out = min(round(share * _LEVELS), _LEVELS - 1)
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
        if not training or not self._left_out:
            return numbers
        self._step.assign_add(1)
        drawn = self._bytes(tf.shape(numbers)[0], numbers.shape[1])
        kept = tf.cast(drawn >= tf.constant(self._left_out, tf.uint8), numbers.dtype)
        return numbers * (kept * (_LEVELS / (_LEVELS - self._left_out)))

    def _bytes(self, rows: tf.Tensor, columns: int) -> tf.Tensor:
        """Random bytes, (rows, columns), of this rank's rows in this step."""
        # A row takes whole counts, so that where the next begins follows from its number.
        counts = -(-columns // (_BYTES_OF_WORD * _WORDS_OF_COUNT))
        rows_before = tf.cast(self._rank * rows, tf.uint64)
        seed = tf.constant(self._seed, tf.int64)
        key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(
            seed=tf.stack([seed, self._step.value]),
        )
        low, high = tf.unstack(counter)
        words = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=(rows, counts * _WORDS_OF_COUNT),
            key=key,
            counter=tf.stack([low + rows_before * counts, high]),
            alg=tf.random.Algorithm.PHILOX.value,
            dtype=tf.uint32,
        )
        of_rows = tf.reshape(tf.bitcast(words, tf.uint8), (rows, -1))
        return of_rows[:, :columns]
