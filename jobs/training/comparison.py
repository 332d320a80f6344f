"""Candidate, champion and baselines beside one another on the same held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.training import metrics, promotion
from jobs.training.metrics import Vector
from jobs.training.promotion import Evidence, Slice
from jobs.training.tasks import LearningTask

if TYPE_CHECKING:
    import pyarrow as pa

CANDIDATE, CHAMPION = "candidate", "champion"
_DIGITS = 6
"""Of a loss by day: enough to tell models apart, few enough to read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """The held-out rows and what each model says of them."""

    task: LearningTask
    rows: pa.Table
    day: NDArray[Any]
    label: Vector
    models: Mapping[str, Vector]
    """Predictions of `candidate`, and of `champion` when there is one."""
    baselines: Mapping[str, Vector]
    """Predictions by the baseline's name."""

    @property
    def predictions(self) -> Mapping[str, Vector]:
        """Of all."""
        return {**self.models, **self.baselines}

    def loss(self, name: str) -> Vector:
        """Loss of each row by that model or baseline."""
        return self.task.losses(self.label, self.predictions[name])


def measure(held: HeldOut, slices: tuple[str, ...], resamples: int) -> Evidence:
    """What a decision rests on.

    Args:
        slices: Columns by whose values candidate and champion are compared too.
        resamples: Of the days.
    """
    own = held.loss(CANDIDATE)
    measured: dict[str, dict[str, float | None]] = {}
    wins: dict[str, float] = {}
    for name, prediction in held.predictions.items():
        measured[name] = held.task.measure(held.label, prediction)
        if name != CANDIDATE:
            wins[name] = promotion.win_rate(own, held.loss(name), held.day, resamples)
    return Evidence(
        task=held.task,
        candidate=measured[CANDIDATE],
        # None when no model serves yet.
        champion=measured.get(CHAMPION),
        baselines={name: measured[name] for name in held.baselines},
        wins_over_champion=wins.get(CHAMPION),
        wins_over_baselines={name: wins[name] for name in held.baselines},
        slices=tuple(_slices(held, slices)),
    )


def to_json(evidence: Evidence, held: HeldOut) -> dict[str, Any]:
    """The evidence, JSON-able. Equal for the same models on the same rows."""
    task = held.task
    summaries = {
        name: metrics.summary(task, held.label, prediction)
        for name, prediction in held.predictions.items()
    }
    return {
        "rows": len(held.label),
        "days": len(np.unique(held.day)),
        "task": task.name,
        "metrics": list(task.metrics),
        "headline": task.headline,
        "leak_score": task.leak_score,
        "candidate": summaries[CANDIDATE],
        "champion": summaries.get(CHAMPION),
        "baselines": {name: summaries[name] for name in held.baselines},
        "wins_over_champion": evidence.wins_over_champion,
        "wins_over_baselines": dict(evidence.wins_over_baselines),
        "slices": [asdict(one) for one in evidence.slices],
        "by_day": list(_by_day(held)),
    }


def _slices(held: HeldOut, columns: tuple[str, ...]) -> Iterator[Slice]:
    own = held.loss(CANDIDATE)
    rival = held.loss(CHAMPION) if CHAMPION in held.models else None
    for column in columns:
        values = held.rows[column].to_numpy(zero_copy_only=False).astype(str)
        for value, where in metrics.groups(values):
            yield Slice(
                column=column,
                value=str(value),
                rows=int(where.sum()),
                candidate_loss=float(own[where].mean()),
                champion_loss=None if rival is None else float(rival[where].mean()),
            )


def _by_day(held: HeldOut) -> Iterator[dict[str, Any]]:
    losses = {name: held.loss(name) for name in held.predictions}
    for day, where in metrics.groups(held.day):
        means: dict[str, float] = {}
        for name, loss in losses.items():
            means[name] = round(float(loss[where].mean()), _DIGITS)
        yield {"day": str(day), "rows": int(where.sum()), "loss": means}
