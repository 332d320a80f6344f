"""Where an interrupted training goes on: what a model has become by the end of an epoch.

What follows a checkpoint is what would have followed without the interruption, bit for bit on as
many ranks: it holds the weights, the optimizer, and the step that dropout has come to.
"""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from pathlib import Path

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from jobs.training.families.neural_network.horovod_keras3 import HOST
from jobs.training.families.neural_network.job import CheckpointAway
from pipelines import places


class Checkpoints(keras.callbacks.Callback):
    """Keeps one, and the curves of all epochs. Rank 0 reads and writes it."""

    def __init__(self, file: Path, seconds: float) -> None:
        """Of a training.

        Args:
            file: On a disk or in a store.
            seconds: From one to the next, at least: to write one takes time too.
        """
        super().__init__()
        self.curves: dict[str, list[float]] = {}
        self._file = file
        self._seconds = seconds
        self._written = time.monotonic()

    def restore(self, model: keras.Model) -> int:
        """Bring a built and compiled model to where an interrupted training was, on rank 0.

        The others get it from there when they begin. Returns the epochs that are done.

        Raises:
            CheckpointAway: it may be there, and cannot be read now.
        """
        if hvd.rank() == 0 and (content := self._content()):
            self._take_if_whole(model, content)
        epochs = max(map(len, self.curves.values()), default=0)
        with tf.device(HOST):
            return int(hvd.broadcast(tf.constant(epochs), root_rank=0).numpy())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after each epoch."""
        for name, value in (logs or {}).items():
            self.curves.setdefault(name, []).append(float(value))
        is_last = epoch + 1 == self.params["epochs"]
        if hvd.rank() == 0 and not is_last and self._is_due():
            self._write()

    def _is_due(self) -> bool:
        return time.monotonic() - self._written >= self._seconds

    def _write(self) -> None:
        values = [variable.numpy() for variable in _variables(self.model)]
        content = io.BytesIO()
        told = np.frombuffer(json.dumps(self.curves).encode(), np.uint8)
        np.savez(content, *values, allow_pickle=False, curves=told)
        try:
            places.write_whole(self._file, content.getvalue())
        except Exception as error:  # each library has its own
            # A night that has no checkpoint is worth more than no night.
            _warn(
                f"the checkpoint {self._file} cannot be written ({error}): the training goes on, "
                "and an interruption would begin at the last one that was."
            )
        self._written = time.monotonic()

    def _content(self) -> bytes:
        """What is there; empty: nothing."""
        try:
            return self._file.read_bytes()
        except FileNotFoundError:
            return b""
        except Exception as error:  # each library has its own
            # As of a store that has no time now: what the file holds may be hours of work.
            raise CheckpointAway(
                f"The checkpoint {self._file} cannot be read now ({error}). Nothing was deleted: "
                "run the stage again when its disk or store answers, or delete it to begin anew."
            ) from error

    def _take_if_whole(self, model: keras.Model, content: bytes) -> None:
        try:
            self._take(model, content)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            # Such as after a power loss. It must not keep the training from ever being done.
            _warn(f"the checkpoint {self._file} cannot be read ({error}): it begins anew.")
            self._file.unlink(missing_ok=True)

    def _take(self, model: keras.Model, content: bytes) -> None:
        variables = _variables(model)
        # No pickle: it could hold code, which loading it would run.
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            values = [kept[f"arr_{number}"] for number in range(len(variables))]
            curves = json.loads(kept["curves"].tobytes())
        pairs = list(zip(variables, values, strict=True))
        if any(variable.shape != value.shape for variable, value in pairs):
            raise ValueError("it is of another network")
        for variable, value in pairs:
            variable.assign(value)
        self.curves = curves


def _warn(told: str) -> None:
    print(f"Warning: {told}", file=sys.stderr, flush=True)


def _variables(model: keras.Model) -> list[tf.Variable]:
    """All that training changes, each once, in one order."""
    optimizer = model.optimizer
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    tensors = [variable.value for variable in (*model.variables, *optimizer.variables)]
    return list({id(tensor): tensor for tensor in tensors}.values())
