"""A worker of TensorFlow's own training on many: `python -m bench.multi_worker FOLDER`.

`TF_CONFIG` tells it which one it is. It prints a line when it is ready. At each line of its input
it learns the network of the job in FOLDER anew, together with the others, and prints the losses of
its epochs as JSON.

The loop is that of TensorFlow's guide to `MultiWorkerMirroredStrategy`: `fit` of Keras 3 refuses
this strategy, as it takes batches that are dealt to workers for a tensor.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.given import Given, loss_of, model_of, ready

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_Batch = tuple[dict[str, Any], Any]


def main() -> int:
    """Learn as often as asked."""
    (folder,) = sys.argv[1:]
    strategy = _strategy()
    given = ready(Path(folder))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(_learned(strategy, given)), flush=True)
    return 0


def _strategy() -> tf.distribute.Strategy:
    """Made before TensorFlow does anything, as it demands."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _learned(strategy: tf.distribute.Strategy, given: Given) -> list[float]:
    """The loss of the validation rows after each epoch."""
    with strategy.scope():
        model = model_of(given)
        model.optimizer.build(model.trainable_variables)
    rows = strategy.distribute_datasets_from_function(partial(_batches, given))
    epoch = _epoch_of(strategy, model, given)
    losses = []
    for _ in range(given.network.epochs):
        epoch(rows)
        losses.append(loss_of(model, given))
    return losses


def _batches(given: Given, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Of the worker's share of the rows, in a new order each epoch.

    Rows are taken from arrays, a batch at once, as `fit` does: as elements of a dataset, each by
    itself, they would take longer than their training.
    """
    import tensorflow as tf

    from jobs.training.families.neural_network import network

    share = slice(context.input_pipeline_id, None, context.num_input_pipelines)
    arrays = network.inputs(given.fit)
    inputs = {name: tf.constant(rows[share]) for name, rows in arrays.items()}
    label = tf.constant(given.fit.label[share])

    def taken(rows: tf.Tensor) -> _Batch:
        own = {name: tf.gather(of_all, rows) for name, of_all in inputs.items()}
        return own, tf.gather(label, rows)

    order = tf.data.Dataset.range(len(label)).shuffle(len(label))
    size = context.get_per_replica_batch_size(given.network.batch_size)
    return order.batch(size, drop_remainder=True).map(taken).prefetch(2)


def _epoch_of(
    strategy: tf.distribute.Strategy, model: keras.Model, given: Given
) -> tf.types.experimental.PolymorphicFunction:
    import keras
    import tensorflow as tf

    from jobs.training.tasks import task_of

    loss = keras.losses.get(task_of(given.task).keras_loss)

    def step(batch: _Batch) -> None:
        inputs, label = batch
        with tf.GradientTape() as tape:
            said = model(inputs, training=True)
            value = tf.nn.compute_average_loss(
                loss(label[:, None], said), global_batch_size=given.network.batch_size
            )
        gradients = tape.gradient(value, model.trainable_variables)
        # Under a strategy it sums up what the workers found.
        model.optimizer.apply(gradients, model.trainable_variables)

    @tf.function
    def epoch(rows: tf.distribute.DistributedDataset) -> None:
        for batch in rows:
            strategy.run(step, args=(batch,))

    return epoch


if __name__ == "__main__":
    sys.exit(main())
