"""Candidate, champion and baselines beside one another on the same held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.training import metrics, paired, promotion
from jobs.training.metrics import Vector
from jobs.training.promotion import Challenge, Evidence, Slice
from jobs.training.tasks import LearningTask

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.training.paired import Difference

CANDIDATE, CHAMPION = "candidate", "champion"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """The held-out rows and what each model says of them."""

    task: LearningTask
    rows: pa.Table
    day: NDArray[Any]
    """Of the event, which its rows share, and not of the label's landing."""
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


def measure(
    held: HeldOut, slices: tuple[str, ...], resamples: int, challenge: Challenge | None
) -> Evidence:
    """What a decision rests on.

    Args:
        held: What all say of the held-out rows.
        slices: Columns by whose values candidate and champion are compared too.
        resamples: Of the days.
        challenge: What the days since the champion's turn began say; None: there is no champion.
    """
    measured: dict[str, dict[str, float | None]] = {}
    for name, prediction in held.predictions.items():
        measured[name] = held.task.measure(held.label, prediction)
    return Evidence(
        task=held.task,
        candidate=measured[CANDIDATE],
        # None when no model serves yet.
        champion=measured.get(CHAMPION),
        baselines={name: measured[name] for name in held.baselines},
        wins_over_baselines=_wins(held, CANDIDATE, resamples),
        champion_wins=_wins(held, CHAMPION, resamples) if CHAMPION in held.models else {},
        challenge=challenge,
        days=len(np.unique(held.day)),
        score_within_day=_score_within_day(held),
        slices=tuple(_slices(held, slices)),
    )


def _wins(held: HeldOut, model: str, resamples: int) -> dict[str, float]:
    """Share of resamples of the days in which a model's loss is lower, by the baseline's name."""
    own = held.loss(model)
    wins = {}
    for name in held.baselines:
        wins[name] = promotion.win_rate(own, held.loss(name), held.day, resamples)
    return wins


def to_json(evidence: Evidence, held: HeldOut) -> dict[str, Any]:
    """The evidence, JSON-able. Equal for the same models on the same rows."""
    task = held.task
    summaries = {
        name: metrics.summary(task, held.label, prediction)
        for name, prediction in held.predictions.items()
    }
    return {
        "rows": len(held.label),
        "days": evidence.days,
        "task": task.name,
        "metrics": list(task.metrics),
        "headline": task.headline,
        "leak_score": task.leak_score,
        "candidate": summaries[CANDIDATE],
        "champion": summaries.get(CHAMPION),
        "baselines": {name: summaries[name] for name in held.baselines},
        "score_within_day": evidence.score_within_day,
        "wins_over_baselines": dict(evidence.wins_over_baselines),
        "champion_wins": dict(evidence.champion_wins),
        "challenge": asdict(evidence.challenge) if evidence.challenge else None,
        "slices": [asdict(one) for one in evidence.slices],
        "by_day": list(_by_day(held)),
    }


def quantised(held: HeldOut, prediction: Vector, most: float) -> dict[str, Any]:
    """What the candidate's variant with rounded weights costs in quality, JSON-able.

    Args:
        held: With what the candidate says.
        prediction: What the variant says of the same rows.
        most: By which share of itself the mean loss may grow (`Serving.max_quantised_loss`).
    """
    loss = held.task.losses(held.label, prediction)
    exact = held.loss(CANDIDATE)
    more = paired.difference(loss, exact, held.day)
    low, high = more.interval or (None, None)
    return {
        **metrics.summary(held.task, held.label, prediction),
        "exact_loss": float(exact.mean()),
        "more_loss": more.mean,
        "more_loss_low": low,
        "more_loss_high": high,
        "passed": passes(float(exact.mean()), high, most),
    }


def passes(exact_loss: float, high: float | None, most: float) -> bool:
    """Whether a quantised variant may serve.

    Args:
        exact_loss: Mean loss of a row without rounding.
        high: Upper end of the interval by which it grows; None: of too few days to tell.
        most: `Serving.max_quantised_loss`.
    """
    return high is not None and high <= most * exact_loss


def _slices(held: HeldOut, columns: tuple[str, ...]) -> Iterator[Slice]:
    own = held.loss(CANDIDATE)
    rival = held.loss(CHAMPION) if CHAMPION in held.models else None
    for column in columns:
        values = metrics.slice_values(held.rows[column])
        for value, where in metrics.groups(values):
            loss = _interval(own, np.zeros_like(own), held.day, where)
            worse = None if rival is None else _interval(own, rival, held.day, where)
            yield Slice(
                column=column,
                value=str(value),
                rows=int(where.sum()),
                candidate_loss=float(own[where].mean()),
                champion_loss=None if rival is None else float(rival[where].mean()),
                surely_worse_by=worse.low if worse else None,
                worse_by_at_most=worse.high if worse else None,
                candidate_low=loss.low if loss else None,
                candidate_high=loss.high if loss else None,
            )


def _interval(
    own: Vector,
    other: Vector,
    day: NDArray[Any],
    where: NDArray[np.bool_],
) -> Difference | None:
    if len(np.unique(day[where])) < paired.FEWEST_DAYS:
        return None
    return paired.difference(own[where], other[where], day[where])


def _score_within_day(held: HeldOut) -> float | None:
    """The mean of the days' own scores, each with the weight of its rows."""
    scores: list[float] = []
    rows: list[int] = []
    for _, where in metrics.groups(held.day):
        measured = held.task.measure(held.label[where], held.models[CANDIDATE][where])
        score = measured[held.task.leak_score]
        if score is not None:
            scores.append(score)
            rows.append(int(where.sum()))
    return float(np.average(scores, weights=rows)) if rows else None


def _by_day(held: HeldOut) -> Iterator[dict[str, Any]]:
    losses = {name: held.loss(name) for name in held.predictions}
    for day, where in metrics.groups(held.day):
        means: dict[str, float] = {}
        for name, loss in losses.items():
            means[name] = metrics.shortened(float(loss[where].mean()))
        yield {"day": str(day), "rows": int(where.sum()), "loss": means}
