"""The one place that loads a model and scores rows with it.

The rows go through the encoding that training used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jobs.training import job
from jobs.training.encoding import Encoding, Examples, encode
from jobs.training.quiet import import_tensorflow

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

    from jobs.training.registry import ModelVersion, Registry

_ROWS = 4096
"""Rows of every call. Always as many, padded at the end: the last bits of a float must not depend
on how many rows there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """A loaded model."""

    model: keras.Model
    encoding: Encoding

    def score(self, rows: pa.Table) -> NDArray[np.float64]:
        """The probability of each row, in order."""
        examples = encode(rows, self.encoding)
        parts = [
            self._chunk(examples.take(np.arange(start, min(start + _ROWS, len(rows)))))
            for start in range(0, len(rows), _ROWS)
        ]
        return np.concatenate([np.empty(0), *parts])

    def _chunk(self, examples: Examples) -> NDArray[np.float64]:
        padded = examples.take(np.arange(_ROWS) % len(examples))
        given = self.model(
            {"numeric": padded.numeric, "categorical": padded.categorical}, training=False
        )
        return np.asarray(given, np.float64)[: len(examples), 0]


def load(registry: Registry, model: ModelVersion) -> Scorer:
    """The scorer of a registered model.

    Raises:
        NightshiftError: its files are not those that were registered.
    """
    import_tensorflow()
    from jobs.training import model as network

    with TemporaryDirectory() as folder:
        path = registry.fetch(model, job.MODEL, Path(folder))
        encoding = Encoding.from_json(registry.fetch(model, job.ENCODING, Path(folder)).read_text())
        return Scorer(model=network.load(path), encoding=encoding)
