"""What one of two ranks does: `python -m …two_ranks FILE` trains small models in several ways.

Rank 0 leaves the weights of each way in the file, by its name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from jobs.training.families.neural_network import horovod_keras3

ROWS, BATCH, EPOCHS = 256, 32, 3
COLUMNS, WORDS = 2, 5
TABLE_ROWS = 4 * BATCH * COLUMNS + 1
"""More than twice what both ranks look up in a step."""
GATHERED = "gathered"
"""Key of how often a way has gathered rows."""
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def _train(
    optimizer: keras.optimizers.Optimizer,
    batch: int,
    **options: Any,
) -> list[np.ndarray]:
    keras.utils.set_random_seed(1)
    words = keras.Input((COLUMNS,), dtype="int32")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(TABLE_ROWS, 3)(words))
    hidden = keras.layers.Dense(4, activation="tanh")(embedded)
    model = keras.Model(words, keras.layers.Dense(1)(hidden))
    model.compile(optimizer, "mse", jit_compile=False, steps_per_execution=2)
    horovod_keras3.distribute(model, **options)
    steps = ROWS // (batch * hvd.size())
    feed = tf.data.Dataset.from_generator(
        lambda: _rows(batch, options.get("accumulated_batches", 1)),
        output_signature=(
            tf.TensorSpec((batch, COLUMNS), tf.int32),
            tf.TensorSpec((batch,), tf.float32),
        ),
    )
    model.fit(
        feed.repeat(),
        steps_per_epoch=steps,
        epochs=EPOCHS,
        callbacks=horovod_keras3.together([]),
        shuffle=False,
        verbose=0,
    )
    horovod_keras3.require_alike(model)
    updates = EPOCHS * steps // options.get("accumulated_batches", 1)
    assert int(optimizer.iterations) == updates, "the weights did not move once a step"
    return model.get_weights()


def _rows(
    batch: int,
    parts: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rank's rows; what all ranks see between two moves of the weights is always the same."""
    draw = np.random.default_rng(0)
    words = draw.integers(0, WORDS, (ROWS, COLUMNS), np.int32)
    labels = draw.normal(size=ROWS).astype(np.float32)
    own = batch * parts
    for start in range(0, ROWS, own * hvd.size()):
        for part in range(parts):
            first = start + hvd.rank() * own + part * batch
            yield words[first : first + batch], labels[first : first + batch]


def _told_of_gathering() -> list[Any]:
    """What ranks gather within a step, from now on: one entry for each time it is traced."""
    gathered: list[Any] = []
    gather = hvd.allgather

    def telling(tensor: Any) -> Any:
        if not tf.executing_eagerly():
            gathered.append(tensor)
        return gather(tensor)

    hvd.allgather = telling
    return gathered


def main(file: str) -> None:
    """Train in every way."""
    hvd.init()
    found: dict[str, np.ndarray] = {}
    gathered = _told_of_gathering()
    fp16 = hvd.Compression.fp16
    ways: dict[str, dict[str, Any]] = {
        "plain": {"batch": BATCH},
        "accumulated": {"batch": BATCH // 4, "accumulated_batches": 4},
        "fp16": {"batch": BATCH, "compression": fp16},
        "by_rows": {"batch": BATCH, "looked_up": BATCH * COLUMNS},
        "by_rows_fp16": {"batch": BATCH, "looked_up": BATCH * COLUMNS, "compression": fp16},
        "of_a_small_table": {"batch": BATCH, "looked_up": BATCH * COLUMNS + 1},
    }
    for optimizer, make in OPTIMIZERS.items():
        for way, options in ways.items():
            gathered.clear()
            for number, weights in enumerate(_train(make(), **options)):
                found[f"{optimizer}/{way}/{number}"] = weights
            found[f"{GATHERED}/{optimizer}/{way}"] = np.array(len(gathered))
    if hvd.rank() == 0:
        np.savez(file, **found)
    hvd.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
