"""The one place that loads a model, of whatever family, and scores rows with it.

The rows go through the encoding that training used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from jobs.training.candidate import JUDGED
from jobs.training.encoding import ENCODING, Encoding, Examples, encode
from jobs.training.families import Model, family_of

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.training.families import ModelFamily
    from jobs.training.metrics import Vector
    from jobs.training.registry import ModelVersion, Registry

_ROWS = 4096
"""Rows of every call. Always as many, padded at the end: the last bits of a float must not depend
on how many rows there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """A loaded model."""

    model: Model
    encoding: Encoding

    def score(self, rows: pa.Table) -> Vector:
        """The prediction of each row, in order."""
        examples = encode(rows, self.encoding)
        parts = [np.empty(0)]
        for start in range(0, len(rows), _ROWS):
            chunk = np.arange(start, min(start + _ROWS, len(rows)))
            parts.append(self._chunk(examples.take(chunk)))
        return np.concatenate(parts)

    def _chunk(self, examples: Examples) -> Vector:
        padded = examples.take(np.arange(_ROWS) % len(examples))
        return self.model.score(padded)[: len(examples)]


def load(registry: Registry, model: ModelVersion) -> Scorer:
    """The scorer of a registered model that serves.

    Raises:
        NightshiftError: its files are not those that were registered.
    """
    return _fetched(registry, model, Path())


def load_judged(registry: Registry, model: ModelVersion) -> Scorer:
    """The scorer of the model by which a registered one is judged.

    Versions that were registered when there was but one model are judged by the one that serves.

    Raises:
        NightshiftError: its files are not those that were registered.
    """
    part = Path(JUDGED)
    is_there = (part / ENCODING).as_posix() in model.sha256
    return _fetched(registry, model, part if is_there else Path())


def load_from(folder: Path, family: ModelFamily) -> Scorer:
    """The scorer of the model whose files lie in the folder."""
    encoding = Encoding.from_json((folder / ENCODING).read_text())
    return Scorer(model=family.load(folder, encoding), encoding=encoding)


def _fetched(registry: Registry, model: ModelVersion, part: Path) -> Scorer:
    family = family_of(model.family)
    files = [(part / name).as_posix() for name in (ENCODING, *family.files)]
    with TemporaryDirectory() as path:
        folder = Path(path)
        registry.fetch(model, files, folder)
        return load_from(folder / part, family)
