"""A training of flights' network: a window of rows, learned by two ranks of Horovod."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bench import like_flights
from bench.given import Given, loss_of, model_of, ready, steps_of
from bench.harness import Answer, Case, Peer, Work
from bench.like_flights import TRAINING
from jobs.services.own_server import preloaded
from jobs.services.processes import LOOPBACK, free_port
from jobs.training import encoding
from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.launch import launch
from jobs.training.tasks import task_of
from pipelines.environment import Environment

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

LIBRARIES = ("numpy", "tensorflow", "keras", "horovod.tensorflow")
_RANKS = 2
_VALIDATION = 0.08
"""Share of the rows: 7 days of 90."""
_ALIKE = 0.02
"""By how much, of the last validation loss, a training of other random numbers may differ."""
_JOB = "job"


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    own, other = (one["loss"].to_pylist() for one in (ours, theirs))
    # As many epochs: the last ones gain less than what chance differs by.
    is_as_long = len(own) == len(other) > 1
    has_learned = is_as_long and own[-1] < own[0] and other[-1] < other[0]
    return has_learned and abs(other[-1] / own[-1] - 1) < _ALIKE


CASE = Case(
    name="training",
    what="two ranks of Horovod, a thread each, while the platform is up",
    peers=(
        Peer(
            name="fit",
            what="Keras' `fit` in one process on all cores, as TensorFlow shares them out",
            goal=0.67,
        ),
        Peer(
            name="raw_loop",
            what="the same by a loop of one's own: a compiled step, all of an epoch in one call",
            goal=1.15,
        ),
        Peer(
            name="multi_worker",
            what="`MultiWorkerMirroredStrategy` of TensorFlow: two workers, a thread each, which "
            "are up and know each other before it is timed",
            goal=1.0,
        ),
    ),
    sizes=(80_000,),
    quick_size=20_000,
    repeats=5,
    same=_same,
)


def prepare(folder: Path, size: int) -> None:
    """The job of a window of so many rows, whose label follows from some of the numbers."""
    draw = np.random.default_rng(like_flights.SEED)
    rows = like_flights.rows(draw, 0, size)
    logit = np.zeros(size)
    for name in TRAINING.numeric[:8]:
        values = rows[name].to_numpy(zero_copy_only=False)
        scaled = (np.nan_to_num(values, nan=20.0) - 20.0) / 14.0
        logit += draw.normal(0, 0.5) * scaled
    label = draw.random(size) < 1 / (1 + np.exp(1.5 - logit))
    rows = rows.append_column(TRAINING.label, pa.array(label.astype(np.int32)))
    learned = encoding.learn(rows, TRAINING)
    examples = encoding.encode(rows, learned, TRAINING.label)
    first_of_validation = int(size * (1 - _VALIDATION))
    parted = np.split(np.arange(size), [first_of_validation])
    place = folder / _JOB
    place.mkdir()
    job.write(
        place,
        job.Job(
            task=TRAINING.task,
            seed=TRAINING.seed,
            network=like_flights.network_settings(),
            encoding=learned,
            fit=examples.take(parted[0]),
            validation=examples.take(parted[1]),
            expected_slope=TRAINING.expected_slope,
            checkpoint=folder / "checkpoint",
        ),
    )


def ours(folder: Path) -> Work:
    """As stage `train` has a model learned: ranks are forked by the stage server."""
    own = Environment.read({"NIGHTSHIFT_HOME": str(folder / "home")})
    with preloaded(own, LIBRARIES) as environment:

        def work() -> Answer:
            launch(environment, folder / _JOB, _RANKS, timeout_seconds=600)
            return lambda: _curve(job.read_outcome(folder / _JOB).history["val_loss"])

        yield work


def fit(folder: Path) -> Work:
    """What a tutorial shows; the libraries are imported before it is timed, as ours are."""
    given = ready(folder / _JOB)

    def work() -> Answer:
        from jobs.training.families.neural_network import network

        model = model_of(given)
        history = model.fit(
            network.inputs(given.fit),
            given.fit.label,
            batch_size=given.network.batch_size,
            epochs=given.network.epochs,
            validation_data=(network.inputs(given.validation), given.validation.label),
            validation_batch_size=len(given.validation),
            verbose=0,
        )
        return lambda: _curve(history.history["val_loss"])

    yield work


def raw_loop(folder: Path) -> Work:
    """Nothing of `fit`: rows as constants, an epoch as one compiled call."""
    given = ready(folder / _JOB)

    def work() -> Answer:
        import tensorflow as tf

        model = model_of(given)
        epoch = _epoch_of(model, given)
        losses = []
        for _ in range(given.network.epochs):
            epoch(tf.random.shuffle(tf.range(len(given.fit))))
            losses.append(loss_of(model, given))
        return lambda: _curve(losses)

    yield work


def multi_worker(folder: Path) -> Work:
    """The loop of TensorFlow's guide, in workers that learn again each time they are asked."""
    with ExitStack() as stack:
        addresses = [f"{LOOPBACK}:{free_port()}" for _ in range(_RANKS)]
        workers = [
            stack.enter_context(_worker(folder, addresses, number)) for number in range(_RANKS)
        ]
        for worker in workers:
            # Once it has told so, it knows the others.
            _line_of(worker)

        def work() -> Answer:
            for worker in workers:
                assert worker.stdin is not None
                print("go", file=worker.stdin, flush=True)
            curves = [json.loads(_line_of(worker)) for worker in workers]
            if any(curve != curves[0] for curve in curves):
                raise SystemExit("The workers have learned different networks.")
            return lambda: _curve(curves[0])

        yield work


@contextmanager
def _worker(
    folder: Path,
    addresses: Sequence[str],
    number: int,
) -> Iterator[subprocess.Popen[str]]:
    task = {"type": "worker", "index": number}
    told = {"cluster": {"worker": addresses}, "task": task}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.multi_worker", str(folder / _JOB)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CONFIG": json.dumps(told)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _line_of(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"A worker ended with exit code {worker.wait()}.")
    return line


def _epoch_of(model: keras.Model, given: Given) -> tf.types.experimental.PolymorphicFunction:
    import keras
    import tensorflow as tf

    from jobs.training.families.neural_network import network

    arrays = network.inputs(given.fit)
    inputs = {name: tf.constant(array) for name, array in arrays.items()}
    label = tf.constant(given.fit.label)
    size = given.network.batch_size
    loss = keras.losses.get(task_of(given.task).keras_loss)
    model.optimizer.build(model.trainable_variables)

    @tf.function
    def epoch(order: tf.Tensor) -> None:
        for step in tf.range(steps_of(given)):
            rows = order[step * size : (step + 1) * size]
            batch = {name: tf.gather(array, rows) for name, array in inputs.items()}
            wanted = tf.gather(label, rows)
            with tf.GradientTape() as tape:
                said = model(batch, training=True)
                value = tf.reduce_mean(loss(wanted[:, None], said))
            gradients = tape.gradient(value, model.trainable_variables)
            model.optimizer.apply(gradients, model.trainable_variables)

    return epoch


def _curve(losses: Any) -> pa.Table:
    column = pa.array(list(map(float, losses)), pa.float64())
    return pa.table({"loss": column})
