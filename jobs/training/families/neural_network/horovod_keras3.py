"""Horovod under `model.fit` of Keras 3.

`horovod.tensorflow.keras` (its optimizer and callbacks) is written for Keras 2 and fails on Keras
3; upstream calls TensorFlow 2.16 and newer unsupported:
https://github.com/horovod/horovod/issues/4290. `horovod.tensorflow` itself works on the
`tf.Variable` behind each Keras variable. Delete this file when that issue is closed by a release
whose `horovod.tensorflow.keras.DistributedOptimizer` trains a Keras 3 model with an Embedding, and
use that instead.

Use: `model.compile(…, jit_compile=False)`, `distribute(model)`, `model.fit(…,
callbacks=together(…))`. Every rank must take the same number of steps: ranks that disagree wait for
each other for ever.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from pipelines.errors import NightshiftError

_LARGE = 2
"""A table with more than so many times the rows that are looked up of it is exchanged by these: two
ranks of one machine took as long by either way there, and 14.1 ms instead of 16.9 at six times."""
_Apply = Callable[..., None]
"""Takes gradients, and the variables that they are of."""
HOST = "CPU:0"
"""Where all else meets: it is small, and a Horovod with NCCL would send it from GPU to GPU, which a
rank may not have."""
_NO_GPU = bytes(32)
_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Of this host, in its containers too."""
_DRIVER = "libcuda.so.1"
_PLACE_BYTES = 16
"""Of where a GPU sits, as in `0000:3b:00.0`."""


def distribute(
    model: keras.Model,
    *,
    compression: Any = hvd.Compression.none,
    accumulated_batches: int = 1,
    looked_up: int | None = None,
) -> None:
    """Average the gradients over all ranks in front of the optimizer's `apply`.

    The instance is patched and not its class, so a saved model carries the plain optimizer and
    loads without Horovod. In front of `apply` means before loss scaling is undone and before
    clipping and weight decay, which so see one gradient.

    Embedding gradients arrive as IndexedSlices. Keras's Adam squares them without first adding up
    the duplicate rows, so the update would depend on how a batch was split; as dense tensors 2
    ranks x B train like 1 rank x 2B. They are made dense on one rank too. Of a table with many more
    rows than all ranks look up in a step the ranks exchange those rows alone, each summed up, and
    make it dense after that: on two ranks the weights are the same, bit for bit.

    Args:
        model: Built and compiled.
        compression: Of gradients between ranks: one of `hvd.Compression`.
        accumulated_batches: Batches whose gradients are averaged on each rank before the ranks
            exchange them and the weights move. Steps of an epoch must be a multiple of it.
        looked_up: Rows of an Embedding that a rank looks up in a batch at most, for example rows of
            the batch times columns; each rank must say the same. None: all gradients are exchanged
            whole, as those of accumulated batches are.
    """
    local_apply = model.optimizer.apply
    exchange = _Exchange(compression, gradients_meet_on(), looked_up)

    def apply(grads: Iterable[Any], trainable_variables: Any = None) -> None:
        variables = trainable_variables or model.trainable_variables
        local_apply(exchange.averaged(list(grads), list(variables)), trainable_variables)

    if accumulated_batches > 1:
        apply = _accumulating(apply, model, accumulated_batches)
    model.optimizer.apply = apply


def gradients_meet_on() -> str:
    """The device from which gradients go to the other ranks; empty: where they are.

    NCCL takes them from GPUs, one of each rank. Where ranks share a GPU, or one has none, all go
    through their hosts' memory: each rank must say the same, and NCCL refuses a GPU that comes
    twice. Ranks of one host may not know of each other, as those on executors: each tells its GPU.
    """
    if not hvd.nccl_built():
        return ""
    with tf.device(HOST):
        own = tf.constant([list(_own_gpu())], tf.uint8)
        of_all = hvd.allgather(own).numpy()
    gpus = {gpu.tobytes() for gpu in of_all}
    has_each = len(gpus) == len(of_all) and _NO_GPU not in gpus
    return "" if has_each else HOST


def together(callbacks: Sequence[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    """The callbacks in the order that keeps ranks alike.

    One start, logs averaged before anyone reads them, one end.
    """
    return [Broadcast(), AverageLogs(), *callbacks, StopTogether()]


def agree_on(value: int) -> int:
    """The least of the ranks' values, for example of the steps that each could take."""
    with tf.device(HOST):
        own = tf.constant(value, tf.int64)
        return int(hvd.allreduce(own, op=hvd.Min).numpy())


def require_alike(model: keras.Model) -> None:
    """Refuse a training after which the ranks hold different models.

    Raises:
        NightshiftError: they do; every rank raises it, and names those that differ from rank 0.
    """
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    with tf.device(HOST):
        own = tf.constant([list(digest.digest())], tf.uint8)
        of_all = hvd.allgather(own).numpy()
    differs = (of_all != of_all[0]).any(axis=1)
    others = np.flatnonzero(differs).tolist()
    if others:
        raise NightshiftError(
            f"The ranks have trained different models: the weights of ranks {others} are not "
            "those of rank 0. Ranks must have the same code, libraries and kind of processor; "
            "train on one rank (NIGHTSHIFT_RANKS=1) until they do."
        )


class Broadcast(keras.callbacks.Callback):
    """Starts every rank with rank 0's weights and optimizer state."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Called by Keras before the first step."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        tensors = _tensors([*self.model.variables, *optimizer.variables])
        unique = {id(tensor): tensor for tensor in tensors}
        _take_those_of_rank_0(list(unique.values()))


class AverageLogs(keras.callbacks.Callback):
    """Replaces each rank's epoch logs, in place, by their mean over ranks.

    Statistics that are not trained are averaged too.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after each epoch."""
        if logs:
            # One order on all ranks: the reduction knows numbers and no names.
            names = sorted(logs)
            with tf.device(HOST):
                own = tf.constant([float(logs[name]) for name in names], tf.float64)
                means = hvd.allreduce(own, op=hvd.Average).numpy()
            logs.update(zip(names, means.tolist(), strict=True))
        tensors = _tensors(self.model.non_trainable_variables)
        statistics = [tensor for tensor in tensors if tensor.dtype.is_floating]
        if statistics:
            copies = [tf.identity(tensor) for tensor in statistics]
            averaged = hvd.grouped_allreduce(copies, op=hvd.Average, device_dense=HOST)
            for variable, mean in zip(statistics, averaged, strict=True):
                variable.assign(mean)


class StopTogether(keras.callbacks.Callback):
    """Ends training on all ranks at the end of the epoch in which one of them wanted to stop."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after each epoch."""
        with tf.device(HOST):
            wanted = tf.constant(int(bool(self.model.stop_training)), tf.int32)
            self.model.stop_training = bool(hvd.allreduce(wanted, op=hvd.Max).numpy())


def _take_those_of_rank_0(variables: Sequence[tf.Variable]) -> None:
    """Give all variables the values that rank 0 has.

    By one exchange of all their bytes: `hvd.broadcast_variables` takes one for each, and traces a
    function for them first.
    """
    values = [np.ravel(variable.numpy()) for variable in variables]
    own = np.concatenate([value.view(np.uint8) for value in values])
    with tf.device(HOST):
        given = hvd.broadcast(tf.constant(own), root_rank=0).numpy()
    ends = np.cumsum([value.nbytes for value in values])
    parts = np.split(given, ends[:-1])
    for variable, value, part in zip(variables, values, parts, strict=True):
        variable.assign(part.view(value.dtype).reshape(variable.shape))


@dataclass(frozen=True, slots=True)
class _Exchange:
    """How gradients become their mean over ranks; see `distribute`."""

    compression: Any
    device: str
    looked_up: int | None

    def averaged(self, grads: list[Any], variables: list[Any]) -> list[Any]:
        """The means, all of them dense; None stays None."""
        whole = []
        for i, grad in enumerate(grads):
            if self._is_by_rows(grad, variables[i]):
                grads[i] = self._mean_of_rows(grad, variables[i].shape)
            elif grad is not None:
                grads[i] = tf.convert_to_tensor(grad)
                whole.append(i)
        if whole and hvd.size() > 1:
            means = hvd.grouped_allreduce(
                [grads[i] for i in whole],
                op=hvd.Average,
                compression=self.compression,
                device_dense=self.device,
            )
            for i, mean in zip(whole, means, strict=True):
                grads[i] = mean
        return grads

    def _is_by_rows(self, grad: Any, variable: Any) -> bool:
        """Whether the rows that were looked up are far fewer than those of the table.

        By what all ranks know alike: one that waited for another exchange would wait for ever.
        """
        if self.looked_up is None or hvd.size() == 1 or not isinstance(grad, tf.IndexedSlices):
            return False
        return bool(_LARGE * self.looked_up * hvd.size() < variable.shape[0])

    def _mean_of_rows(self, grad: tf.IndexedSlices, shape: tuple[int, ...]) -> tf.Tensor:
        rows, positions = tf.unique(grad.indices)
        # As they are summed up when a gradient is made dense: a row after the other.
        sums = tf.math.unsorted_segment_sum(grad.values, positions, tf.size(rows))
        sent, how = self.compression.compress(sums)
        with tf.device(self.device):
            counts = hvd.allgather(tf.size(rows)[tf.newaxis])
            rows_of_all = hvd.allgather(rows)
            sums_of_all = self.compression.decompress(hvd.allgather(sent), how)
        ranks = hvd.size()
        mean = tf.zeros(shape, grad.values.dtype)
        # A rank after the other, of each of which a row comes once: all in one call a GPU would add
        # in any order, unless told otherwise, and ranks would end with other last bits.
        for of_rank, sums in zip(
            tf.split(rows_of_all, counts, num=ranks),
            tf.split(sums_of_all, counts, num=ranks),
            strict=True,
        ):
            mean += tf.math.unsorted_segment_sum(sums / ranks, of_rank, shape[0])
        return mean


def _accumulating(apply: _Apply, model: keras.Model, batches: int) -> _Apply:
    """An `apply` that averages its gradients, and gives each mean of so many calls to the other.

    Keras's `gradient_accumulation_steps` does so behind `apply`, where the ranks have exchanged
    every batch already.
    """
    zeros = [tf.zeros_like(tensor) for tensor in _tensors(model.trainable_variables)]
    means = [tf.Variable(zero, trainable=False) for zero in zeros]
    seen = tf.Variable(0, trainable=False)

    def accumulate(grads: Iterable[Any], trainable_variables: Any = None) -> None:
        given = list(grads)
        for mean, grad in zip(means, given, strict=True):
            if grad is not None:
                mean.assign_add(tf.convert_to_tensor(grad) / batches)
        seen.assign((seen + 1) % batches)

        def move() -> None:
            grads_of_all: list[Any] = []
            for mean, grad in zip(means, given, strict=True):
                grads_of_all.append(None if grad is None else tf.identity(mean))
            apply(grads_of_all, trainable_variables)
            for mean in means:
                mean.assign(tf.zeros_like(mean))

        tf.cond(tf.equal(seen, 0), move, lambda: None)

    return accumulate


def _own_gpu() -> bytes:
    """What tells the GPU of this rank from all others, of any host; `_NO_GPU`: it has none."""
    seen = tf.config.get_visible_devices("GPU")
    if not seen:
        return _NO_GPU
    # TensorFlow takes the first, and numbers them as CUDA does.
    _, _, number = seen[0].name.rpartition(":")
    place = _place_of_gpu(int(number))
    if not place:
        return _NO_GPU
    return hashlib.sha256(_BOOT.read_bytes() + place).digest()


def _place_of_gpu(number: int) -> bytes:
    """Where it sits in its host, which is what NCCL compares; empty: the driver does not say.

    The numbers of CUDA begin with 0 in each container, and where a process sees some GPUs alone.
    """
    driver = ctypes.CDLL(_DRIVER)
    device = ctypes.c_int()
    place = ctypes.create_string_buffer(_PLACE_BYTES)
    driver.cuInit(0)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetPCIBusId(place, _PLACE_BYTES, device)
    return place.value


def _tensors(variables: Iterable[Any]) -> list[tf.Variable]:
    return [variable.value for variable in variables]
