"""The one place that loads a model, of whatever family, and scores rows with it.

The rows go through the encoding that training used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from jobs.training.candidate import JUDGED
from jobs.training.encoding import ENCODING, Encoding, Examples, doubles, encode
from jobs.training.families import family_of
from jobs.training.families.light import EXACT, Model, Variant
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    from jobs.training.families import ModelFamily
    from jobs.training.metrics import Vector
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.tasks import LearningTask

_ROWS = 1024
"""Rows of every call. Always as many, padded at the end: the last bits of a float must not depend
on how many rows there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """A loaded model."""

    model: Model
    encoding: Encoding

    def score(self, rows: pa.Table) -> Vector:
        """The prediction of each row, in order.

        Raises:
            NightshiftError: a column that the model reads is not there, or no number any more.
        """
        examples = _encoded(rows, self.encoding)
        starts = range(0, len(rows), _ROWS)
        chunks = [examples.read(start, _ROWS) for start in starts]
        return np.concatenate([np.empty(0), *map(self._chunk, chunks)])

    def _chunk(self, examples: Examples) -> Vector:
        if len(examples) == _ROWS:
            return self.model.score(examples)
        padded = examples.take(np.arange(_ROWS) % len(examples))
        return self.model.score(padded)[: len(examples)]


def _encoded(rows: pa.Table, encoding: Encoding) -> Examples:
    try:
        return encode(rows, encoding)
    except pa.ArrowException as error:
        unlike = (name for name in encoding.numeric if not _is_number(rows, name))
        odd = next(unlike, None)
        if odd is None:
            told = f"The model cannot read the rows as they are now: {error}"
            raise NightshiftError(told) from error
        raise NightshiftError(
            f"The model reads '{odd}' as a number, and the rows have it as "
            f"{rows[odd].type} ({error}): it was declared otherwise when the model was trained."
        ) from error


def _is_number(rows: pa.Table, name: str) -> bool:
    try:
        doubles(rows[name])
    except pa.ArrowException:
        return False
    return True


def load(registry: Registry, model: ModelVersion, variant: Variant = EXACT) -> Scorer:
    """The scorer of a registered model that serves.

    Raises:
        NightshiftError: its files are not those that were registered, or it has no such variant.
    """
    return _fetched(registry, model, Path(), variant)


def prove(registry: Registry, model: ModelVersion, variant: Variant = EXACT) -> None:
    """Fetch the files by which a registered model serves, and load nothing.

    Raises:
        NightshiftError: one is gone, or not the one that was registered.
    """
    with TemporaryDirectory() as folder:
        registry.fetch(model, model_files(model, variant), Path(folder))


def load_judged(registry: Registry, model: ModelVersion, variant: Variant = EXACT) -> Scorer:
    """The scorer of the model by which a registered one is judged.

    Versions that were registered when there was but one model are judged by the one that serves.

    Raises:
        NightshiftError: its files are not those that were registered, or it has no such variant.
    """
    part = Path(JUDGED)
    is_there = (part / ENCODING).as_posix() in model.sha256
    return _fetched(registry, model, part if is_there else Path(), variant)


def load_trained(registry: Registry, model: ModelVersion) -> Scorer:
    """The registered model that serves as it was trained, whose weights can be looked at.

    Raises:
        NightshiftError: its files are not those that were registered.
    """
    family = family_of(model.family)
    with TemporaryDirectory() as folder:
        registry.fetch(model, [ENCODING, *family.files], Path(folder))
        return load_trained_from(Path(folder), family)


def load_from(folder: Path, family: ModelFamily, variant: Variant = EXACT) -> Scorer:
    """The scorer of the model whose files lie in the folder: by its light file if it has one."""
    light = family.light
    if light is None or not (folder / light.files[variant]).exists():
        return load_trained_from(folder, family)
    return Scorer(model=light.load(folder, variant), encoding=_encoding(folder))


def load_trained_from(folder: Path, family: ModelFamily) -> Scorer:
    """The model as it was trained, whose files lie in the folder."""
    encoding = _encoding(folder)
    return Scorer(model=family.load(folder, encoding), encoding=encoding)


def predictions(
    scorer: Scorer,
    rows: pa.Table,
    shown: Sequence[str],
    task: LearningTask,
    prediction: str,
    constants: Mapping[str, object],
) -> pa.Table:
    """What a model says of rows, as a table of predictions has it.

    Args:
        scorer: The model.
        rows: What it is asked about.
        shown: Columns of the rows that stay.
        task: What the predictions are.
        prediction: Column of what the model says.
        constants: Columns that are the same in all rows.
    """
    scores = pa.array(task.publishable(scorer.score(rows)), pa.float64())
    told = rows.select(list(shown)).append_column(prediction, scores)
    for name, value in constants.items():
        told = told.append_column(name, pa.repeat(value, len(rows)))
    return told


def model_files(
    model: ModelVersion,
    variant: Variant = EXACT,
    part: Path = Path(),
) -> list[str]:
    """What a scorer of a registered model is made of: as little as there is.

    Raises:
        NightshiftError: it has no such variant.
    """
    name = _light_file(model, variant)
    if name is None and variant != EXACT:
        raise NightshiftError(
            f"Version {model.version} of model '{model.name}' has no {variant} variant: it was "
            "registered without one. Train again with --retrain."
        )
    needed = family_of(model.family).files if name is None else (name,)
    return [(part / file).as_posix() for file in (ENCODING, *needed)]


def has_variant(model: ModelVersion, variant: Variant) -> bool:
    """Whether a registered model has a light file of the variant."""
    return _light_file(model, variant) is not None


def _light_file(model: ModelVersion, variant: Variant) -> str | None:
    light = family_of(model.family).light
    if light is None:
        return None
    name = light.files[variant]
    # Both models of a version have one, or none of them.
    return name if name in model.sha256 else None


def _fetched(registry: Registry, model: ModelVersion, part: Path, variant: Variant) -> Scorer:
    with TemporaryDirectory() as path:
        folder = Path(path)
        registry.fetch(model, model_files(model, variant, part), folder)
        return load_from(folder / part, family_of(model.family), variant)


def _encoding(folder: Path) -> Encoding:
    return Encoding.from_json((folder / ENCODING).read_text())
