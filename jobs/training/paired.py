"""By how much one model's loss lies below another's on the same rows, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.training.metrics import Vector

_SEED = 0
"""Of the bootstrap: the same losses give the same interval again."""
_RESAMPLES = 4000
"""With so many the ends of an interval are known to a few percent of its width."""
FEWEST_DAYS = 5
"""For an interval that tells something: of fewer, one odd day is most of it, and of one day both
ends are the mean."""
ENDS = (2.5, 97.5)
"""Percent: what lies between them is the 95 % interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Mean loss of a row by one model less that by the other: below 0 the first one is better."""

    mean: float
    low: float
    high: float
    """Ends of the 95 % interval."""
    days: int
    """That have been drawn from."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its ends; None: there are too few days for one."""
        return (self.low, self.high) if self.days >= FEWEST_DAYS else None


def difference(own: Vector, other: Vector, day: NDArray[Any]) -> Difference:
    """The difference with its interval, by a bootstrap over days.

    Rows of one day share its circumstances, so days are drawn and not rows.

    Args:
        own: Loss of each row by the one model.
        other: Loss of each row by the other.
        day: Day of each row.
    """
    _, position = np.unique(day, return_inverse=True)
    losses = np.bincount(position, weights=own - other)
    rows = np.bincount(position)
    drawn = draws(len(rows))
    means = losses[drawn].sum(axis=1) / rows[drawn].sum(axis=1)
    low, high = np.percentile(means, ENDS)
    return Difference(
        mean=float(np.mean(own - other)),
        low=float(low),
        high=float(high),
        days=len(rows),
    )


def draws(days: int) -> NDArray[np.int64]:
    """The resamples of a bootstrap over days: (resamples, days), each the position of a day."""
    return np.random.default_rng(_SEED).integers(0, days, (_RESAMPLES, days))


def by_day(
    own: Vector,
    other: Vector,
    day: NDArray[Any],
) -> tuple[NDArray[Any], Vector]:
    """Each day, and the mean difference of its rows."""
    days, position = np.unique(day, return_inverse=True)
    losses = np.bincount(position, weights=own - other)
    return days, losses / np.bincount(position)
