"""Whether a candidate may serve: a pure function of what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jobs.training.quality import Quality, Vector
from pipelines.model import Gate

Event = Literal["promoted", "kept", "refused"]
_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Candidate and champion on the rows with one value of one column."""

    column: str
    value: str
    rows: int
    candidate_log_loss: float
    champion_log_loss: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What was measured on the held-out days."""

    candidate: Quality
    baseline: Quality
    champion: Quality | None
    """None when no model serves yet."""
    wins_over_baseline: float
    """Share of bootstrap resamples in which the candidate's log loss is the lower one."""
    wins_over_champion: float | None
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What becomes of the candidate.

    `refused` is not fit to serve, `kept` is fit and not better than the champion.
    """

    event: Event
    reason: str


def judge(evidence: Evidence, gate: Gate) -> Verdict:
    """The verdict: every reason for refusing is told, not only the first."""
    against = [reason for rule in RULES if (reason := rule(evidence, gate))]
    if against:
        return Verdict(event="refused", reason=" ".join(against))
    if evidence.wins_over_champion is None:
        reason = (
            "The first champion: "
            f"better than the baseline in {evidence.wins_over_baseline:.1%} of resamples."
        )
        return Verdict(event="promoted", reason=reason)
    told = (
        f"Better than the champion in {evidence.wins_over_champion:.1%} of resamples; "
        f"{gate.min_win_rate:.0%} are needed."
    )
    return Verdict(
        event="promoted" if evidence.wins_over_champion >= gate.min_win_rate else "kept",
        reason=told,
    )


def leaks(evidence: Evidence, gate: Gate) -> str | None:
    """Too good to be true."""
    auc = evidence.candidate.auc
    if auc is None or auc <= gate.max_auc:
        return None
    return f"Its AUC of {auc:.3f} is above {gate.max_auc}: it must have seen the future."


def loses_to_baseline(evidence: Evidence, gate: Gate) -> str | None:
    """No better than a historical rate."""
    if evidence.wins_over_baseline >= gate.min_win_rate:
        return None
    return (
        f"It beats the baseline in only {evidence.wins_over_baseline:.1%} of resamples, "
        f"{gate.min_win_rate:.0%} are needed "
        f"(log loss {evidence.candidate.log_loss:.4f} against {evidence.baseline.log_loss:.4f})."
    )


def harms_a_slice(evidence: Evidence, gate: Gate) -> str | None:
    """Much worse than the champion for some."""
    judged = [
        s
        for s in evidence.slices
        if s.champion_log_loss is not None and s.rows >= gate.min_slice_rows
    ]
    harmed = [
        s
        for s in judged
        if s.candidate_log_loss - (s.champion_log_loss or 0.0) > gate.max_slice_loss
    ]
    told = ", ".join(
        f"{s.column}={s.value} "
        f"({s.candidate_log_loss:.4f} against {s.champion_log_loss:.4f}, {s.rows} rows)"
        for s in harmed
    )
    return (
        f"Its log loss is worse than the champion's by more than {gate.max_slice_loss} on {told}."
        if harmed
        else None
    )


RULES: tuple[Callable[[Evidence, Gate], str | None], ...] = (
    leaks,
    loses_to_baseline,
    harms_a_slice,
)
"""Each gives a reason against serving the candidate at all, or None."""


def win_rate(candidate: Vector, rival: Vector, day: NDArray[Any], resamples: int) -> float:
    """In which share of resamples of the days the candidate's mean loss is below the rival's.

    Flights of one day share its weather, so days are drawn and not rows; both models are drawn the
    same days.

    Args:
        candidate: Loss of each row.
        rival: Loss of each row.
        day: Day of each row.
    """
    _, position = np.unique(day, return_inverse=True)
    gain = np.bincount(position, weights=rival - candidate)
    drawn = np.random.default_rng(_SEED).integers(0, len(gain), (resamples, len(gain)))
    return float(np.mean(gain[drawn].sum(axis=1) > 0))
