"""How good probabilities are: pooled, by day, by slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
_EPSILON = 1e-7
"""Probabilities are kept this far off 0 and 1, where one wrong row would cost infinitely much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Of probabilities against what happened."""

    rows: int
    auc: float | None
    """None when all rows have one label."""
    log_loss: float
    brier: float
    mean_prediction: float
    label_mean: float

    def to_json(self) -> dict[str, Any]:
        """JSON-able, rounded for people."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def measure(label: Vector, probability: Vector) -> Quality:
    """The quality over these rows, of which there is at least one."""
    from sklearn.metrics import roc_auc_score

    one_class = label.min() == label.max()
    return Quality(
        rows=len(label),
        auc=None if one_class else float(roc_auc_score(label, probability)),
        log_loss=float(losses(label, probability).mean()),
        brier=float(np.mean((probability - label) ** 2)),
        mean_prediction=float(probability.mean()),
        label_mean=float(label.mean()),
    )


def losses(label: Vector, probability: Vector) -> Vector:
    """Log loss of each row."""
    p = np.clip(probability, _EPSILON, 1 - _EPSILON)
    return -np.log(np.where(label > 0, p, 1 - p))


def groups(values: NDArray[Any]) -> Iterator[tuple[Any, NDArray[np.bool_]]]:
    """Each distinct value with the rows that have it, sorted."""
    for value in np.unique(values):
        yield value, values == value
