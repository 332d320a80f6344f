"""Whether a candidate may serve: a pure function of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from jobs.training.metrics import Metrics, Vector
from pipelines.model import Promotion

if TYPE_CHECKING:
    from jobs.training.tasks import LearningTask

Event = Literal["promoted", "kept", "refused"]
_SEED = 0
"""Of the bootstrap: the same losses must give the same decision again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Candidate and champion on the rows with one value of one column."""

    column: str
    value: str
    rows: int
    candidate_loss: float
    """Mean loss per row."""
    champion_loss: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What was measured on the held-out days."""

    task: LearningTask
    candidate: Metrics
    baselines: Mapping[str, Metrics]
    """By the baseline's name."""
    champion: Metrics | None
    """None when no model serves yet."""
    wins_over_baselines: Mapping[str, float]
    """Share of bootstrap resamples in which the candidate's loss is the lower one."""
    wins_over_champion: float | None
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of the candidate.

    `refused` is not fit to serve, `kept` is fit and not better than the champion.
    """

    event: Event
    reason: str


def thresholds(limits: Promotion, task: LearningTask, label: Vector) -> Promotion:
    """The limits with what the task takes for too good and for much, where it names neither.

    Args:
        label: Of the held-out rows.
    """
    score = task.max_leak_score if limits.max_score is None else limits.max_score
    loss = task.max_slice_loss(label) if limits.max_slice_loss is None else limits.max_slice_loss
    return replace(limits, max_score=score, max_slice_loss=loss)


def decide(evidence: Evidence, limits: Promotion) -> Decision:
    """The decision: every reason for refusing is told, not only the first.

    Args:
        limits: With the `thresholds` of the task.
    """
    answers = [rule(evidence, limits) for rule in RULES]
    reasons = [answer for answer in answers if answer]
    if reasons:
        return Decision(event="refused", reason=" ".join(reasons))
    wins = evidence.wins_over_champion
    if wins is None:
        return Decision(event="promoted", reason=_first_champion(evidence))
    return Decision(
        event="promoted" if wins >= limits.min_win_rate else "kept",
        reason=(
            f"Better than the champion in {wins:.1%} of resamples; "
            f"{limits.min_win_rate:.0%} are needed."
        ),
    )


def leaks(evidence: Evidence, limits: Promotion) -> str | None:
    """Too good to be true."""
    assert limits.max_score is not None, "limits without their thresholds"
    task = evidence.task
    score = evidence.candidate[task.leak_score]
    if score is None or score <= limits.max_score:
        return None
    title = task.metrics[task.leak_score]
    return f"Its {title} of {score:.3f} is above {limits.max_score}: it must have seen the future."


def loses_to_a_baseline(evidence: Evidence, limits: Promotion) -> str | None:
    """No better than what anyone could say."""
    lost = [
        _loss_to(name, evidence, limits)
        for name, wins in evidence.wins_over_baselines.items()
        if wins < limits.min_win_rate
    ]
    return " ".join(lost) or None


def harms_a_slice(evidence: Evidence, limits: Promotion) -> str | None:
    """Much worse than the champion for some."""
    assert limits.max_slice_loss is not None, "limits without their thresholds"
    harmed = [
        f"{one.column}={one.value} "
        f"({one.candidate_loss:.4f} against {one.champion_loss:.4f}, {one.rows} rows)"
        for one in evidence.slices
        if one.champion_loss is not None
        and one.rows >= limits.min_slice_rows
        and one.candidate_loss - one.champion_loss > limits.max_slice_loss
    ]
    if not harmed:
        return None
    return (
        f"Its {evidence.task.loss_title} is worse than the champion's "
        f"by more than {limits.max_slice_loss:.4g} on {', '.join(harmed)}."
    )


RULES: tuple[Callable[[Evidence, Promotion], str | None], ...] = (
    leaks,
    loses_to_a_baseline,
    harms_a_slice,
)
"""Each gives a reason against serving the candidate at all, or None."""


def win_rate(candidate: Vector, rival: Vector, day: NDArray[Any], resamples: int) -> float:
    """In which share of resamples of the days the candidate's mean loss is below the rival's.

    Rows of one day share its circumstances, so days are drawn and not rows; both models are drawn
    the same days.

    Args:
        candidate: Loss of each row.
        rival: Loss of each row.
        day: Day of each row.
    """
    _, position = np.unique(day, return_inverse=True)
    gain = np.bincount(position, weights=rival - candidate)
    draw = np.random.default_rng(_SEED)
    drawn = draw.integers(0, len(gain), (resamples, len(gain)))
    # Both models have the same rows: the sign of a sum of gains is that of the mean.
    return float(np.mean(gain[drawn].sum(axis=1) > 0))


def _first_champion(evidence: Evidence) -> str:
    wins = [f"{name} in {wins:.1%}" for name, wins in evidence.wins_over_baselines.items()]
    return f"The first champion: better than {' and '.join(wins)} of resamples."


def _loss_to(name: str, evidence: Evidence, limits: Promotion) -> str:
    task = evidence.task
    own = evidence.candidate[task.headline]
    other = evidence.baselines[name][task.headline]
    return (
        f"It beats baseline {name} in only {evidence.wins_over_baselines[name]:.1%} of resamples, "
        f"{limits.min_win_rate:.0%} are needed "
        f"({task.metrics[task.headline]} {own:.4f} against {other:.4f})."
    )
