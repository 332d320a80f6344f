"""How much of a model's linear number comes from each feature, measured from a base row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.training.bends import unbent
from jobs.training.encoding import Encoding, Examples
from jobs.training.metrics import Vector

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribution:
    """Of some rows, in the unit of the linear number: log-odds, or the label's own unit."""

    base: float
    """Linear number of the base row."""
    of_features: Matrix
    """(rows, features): how far each takes a row from the base; features as `Encoding.columns`."""
    linear: Vector
    """(rows,): the linear number that the model itself has for each row."""

    @property
    def totals(self) -> Vector:
        """(rows,): base and attributions together, which must be the model's linear numbers."""
        totals: Vector = self.base + self.of_features.sum(axis=1)
        return totals


def base_row(encoding: Encoding) -> Examples:
    """The row that all others are compared with: nothing is known of it.

    Each number is the mean of the rows that the model was trained on, and each category is the
    unknown one. It follows from the files of a model alone.
    """
    unknown: list[int] = []
    first = 0  # row of the table of categories
    for values in encoding.vocabularies.values():
        unknown.append(first)
        first += len(values) + 1
    return Examples(
        numeric=np.array([encoding.means], np.float32),
        categorical=np.array([unknown], np.int32),
        label=np.full(1, np.nan, np.float32),
    )


def base_values(encoding: Encoding) -> dict[str, float | str]:
    """What each feature is in the base row, in its own unit."""
    values: dict[str, float | str] = {}
    for name, mean in zip(encoding.numeric, encoding.means, strict=True):
        # The mean of a feature that is read by its logarithm is the mean of the logarithms.
        values[name] = unbent(mean, encoding.bends.get(name))
    return values | dict.fromkeys(encoding.categorical, "unknown")


def owners_of_numbers(encoding: Encoding) -> list[int]:
    """For each scaled number, then for each missing-value indicator, whose feature it is."""
    gaps = [encoding.numeric.index(name) for name in encoding.indicators]
    return [*range(len(encoding.numeric)), *gaps]


def owners_of_one_hot(encoding: Encoding) -> list[int]:
    """For each column of one-hot categories, whose feature it is."""
    owners: list[int] = []
    for position, values in enumerate(encoding.vocabularies.values(), len(encoding.numeric)):
        owners += [position] * (len(values) + 1)
    return owners


def summed(parts: Matrix, owners: Sequence[int], encoding: Encoding) -> Matrix:
    """The parts of each feature together.

    Args:
        parts: (rows, columns).
        owners: Of each column its feature, as a position in `Encoding.columns`.
        encoding: Whose features they are.

    Returns:
        (rows, features).
    """
    together = np.zeros((len(parts), len(encoding.columns)))
    for column, owner in enumerate(owners):
        together[:, owner] += parts[:, column]
    return together
