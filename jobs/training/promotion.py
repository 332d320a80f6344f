"""Whether a candidate may serve: a pure function of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from jobs.training import sequence
from jobs.training.metrics import Metrics, Vector
from jobs.training.page_parts import shown
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
    surely_worse_by: float | None
    """Lower end of the 95 % interval of the difference; None: there is no champion, or too few days
    for an interval."""
    worse_by_at_most: float | None = None
    """Its upper end."""
    candidate_low: float | None = None
    candidate_high: float | None = None
    """Ends of the 95 % interval of the candidate's loss; None: too few days."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenge:
    """The recipe's newest models against the champion, over the days since its turn began."""

    days: int
    gain: float
    """By how much the champion's mean loss of a row lay above theirs, a mean of days."""
    better: float
    """Evidence (`jobs.training.sequence`) that there is a gain."""
    worse: float
    """Evidence that there is a loss, and one of more than `Promotion.tolerance`."""
    champion_days: int
    """Since the champion's turn began."""
    is_refresh: bool = False
    """Whether the candidate is of the champion's recipe, fitted to newer rows."""
    days_held_out: int = 0
    """Of the days: those that no candidate was there to score, told by the judged models."""


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
    challenge: Challenge | None
    """None when no model serves yet."""
    days: int
    """Held-out days that have labels."""
    score_within_day: float | None
    """Mean over days of the score by which leaks show; None: it can be told of no day."""
    slices: tuple[Slice, ...] = ()
    champion_wins: Mapping[str, float] = field(default_factory=dict)
    """`wins_over_baselines` of the champion; nothing where no model serves yet."""

    def fares_better(self, baseline: str) -> bool:
        """Whether the champion, which serves otherwise, beats a baseline in fewer resamples."""
        return self.champion_wins.get(baseline, 1.0) < self.wins_over_baselines[baseline]


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What is in alarm (`Watch`), in words; None: nothing of the kind."""

    holds: str | None = None
    """No candidate takes the champion's place."""
    retrains: str | None = None
    """The champion counts as too old."""


CALM = Watched()
"""Nothing is."""


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
    within = limits.max_score_within_day
    loss = task.max_slice_loss(label) if limits.max_slice_loss is None else limits.max_slice_loss
    return replace(
        limits,
        max_score=score,
        max_score_within_day=task.max_leak_score if within is None else within,
        max_slice_loss=loss,
    )


def decide(evidence: Evidence, limits: Promotion, watched: Watched = CALM) -> Decision:
    """The decision: every reason for refusing is told, not only the first.

    Args:
        evidence: What was measured.
        limits: With the `thresholds` of the task.
        watched: Counts where a champion serves: without one, a candidate is better than nothing.
    """
    answers = [rule(evidence, limits) for rule in RULES]
    reasons = [answer for answer in answers if answer]
    too_few = _too_few_days(evidence, limits)
    if too_few and evidence.challenge is None:
        reasons.append(too_few)
    if reasons:
        return Decision(event="refused", reason=" ".join(reasons))
    if too_few:
        return Decision(event="kept", reason=too_few)
    if evidence.challenge is None:
        return Decision(event="promoted", reason=_first_champion(evidence))
    told = _told(evidence.task, evidence.challenge, limits) + _lost_by_both(evidence, limits)
    if watched.holds:
        return Decision(event="kept", reason=f"Promotions are held: {watched.holds}. {told}")
    return _against_the_champion(evidence.challenge, limits, told, watched.retrains)


def _against_the_champion(
    challenge: Challenge,
    limits: Promotion,
    told: str,
    retrains: str | None,
) -> Decision:
    if challenge.better >= limits.min_evidence:
        return Decision(event="promoted", reason=f"Better than the champion. {told}")
    age = _age_in_words(challenge, limits)
    if age is None and retrains:
        age = f"A new model is asked for: {retrains}"
    if age is None:
        return Decision(event="kept", reason=f"Not shown to be better than the champion. {told}")
    worse = f"(evidence of a loss {challenge.worse:.2f})"
    if challenge.worse >= limits.min_evidence:
        return Decision(
            event="kept", reason=f"{age}, but this one is shown to be worse {worse}. {told}"
        )
    return Decision(
        event="promoted", reason=f"{age}, and this one is not shown to be worse {worse}. {told}"
    )


def _age_in_words(challenge: Challenge, limits: Promotion) -> str | None:
    """Why the champion has served for long enough; None: it has not."""
    days = challenge.champion_days
    served = f"The champion has served for {'1 day' if days == 1 else f'{days} days'}"
    if limits.max_age_days is not None and days > limits.max_age_days:
        return f"{served}, {limits.max_age_days} are allowed"
    if challenge.is_refresh and limits.refresh_days is not None and days >= limits.refresh_days:
        return f"{served}, and this is the same recipe with newer rows"
    return None


def _told(task: LearningTask, challenge: Challenge, limits: Promotion) -> str:
    if not challenge.days:
        return "No day has told the two apart yet."
    days = "1 day" if challenge.days == 1 else f"{challenge.days} days"
    if challenge.days_held_out:
        days += f" ({challenge.days_held_out} of them by the judged models)"
    lower = "below" if challenge.gain >= 0 else "above"
    return (
        f"Over {days} its {task.loss_title} lies {abs(challenge.gain):.4g} "
        f"{lower} the champion's: evidence {challenge.better:.2f}, "
        f"{limits.min_evidence:g} is needed."
    )


def leaks(evidence: Evidence, limits: Promotion) -> str | None:
    """Too good to be true."""
    task = evidence.task
    title = task.metrics[task.leak_score]
    scores = (
        ("max_score", title, evidence.candidate[task.leak_score]),
        ("max_score_within_day", f"{title} within a day", evidence.score_within_day),
    )
    told, broken = [], []
    for limit, name, score in scores:
        highest = getattr(limits, limit)
        assert highest is not None, "limits without their thresholds"
        if score is not None and score > highest:
            told.append(f"{name} of {score:.3f} is above {highest}")
            broken.append(f"Promotion.{limit}")
    if not told:
        return None
    return (
        f"Its {' and its '.join(told)}: it must have seen the future. Look for a feature that "
        "knows the label; where what is foretold is as plain as that, raise "
        f"{' and '.join(broken)}."
    )


def loses_to_a_baseline(evidence: Evidence, limits: Promotion) -> str | None:
    """No better than what anyone could say, while the champion fares as well against that."""
    if _too_few_days(evidence, limits):
        # Of one day a share of resamples is 0 or 1, whatever the model.
        return None
    needed = limits.needed_win_rate(is_first=evidence.challenge is None)
    # Refused, one that fares better would leave the nights to a champion that does worse.
    lost = [name for name in _lost_to(evidence, limits) if not evidence.fares_better(name)]
    return " ".join(_loss_to(name, evidence, needed) for name in lost) or None


def _lost_to(evidence: Evidence, limits: Promotion) -> list[str]:
    """The baselines that are beaten in too few resamples."""
    needed = limits.needed_win_rate(is_first=evidence.challenge is None)
    return [name for name, wins in evidence.wins_over_baselines.items() if wins < needed]


def harms_a_slice(evidence: Evidence, limits: Promotion) -> str | None:
    """Surely much worse than the champion for some."""
    assert limits.max_slice_loss is not None, "limits without their thresholds"
    harmed = [
        f"{one.column}={one.value} "
        f"({shown(one.candidate_loss)} against {shown(one.champion_loss)}, {one.rows} rows)"
        for one in evidence.slices
        if one.surely_worse_by is not None
        and one.rows >= limits.min_slice_rows
        and one.surely_worse_by > limits.max_slice_loss
    ]
    if not harmed:
        return None
    return (
        f"Its {evidence.task.loss_title} is worse than the champion's by more than "
        f"{limits.max_slice_loss:.4g}, with 95 % certainty, on {', '.join(harmed)}."
    )


RULES: tuple[Callable[[Evidence, Promotion], str | None], ...] = (
    leaks,
    loses_to_a_baseline,
    harms_a_slice,
)
"""Each gives a reason against serving the candidate at all, or None."""


def challenge(
    gains: Vector,
    champion_days: int,
    limits: Promotion,
    *,
    is_refresh: bool = False,
    days_held_out: int = 0,
) -> Challenge:
    """What the days say of the newest models of a recipe, and of the champion.

    Args:
        gains: By how much the champion's loss of a row was higher, for each day in order.
        champion_days: Since the champion's turn began.
        limits: Of the pipeline.
        is_refresh: Whether the candidate is of the champion's recipe.
        days_held_out: Of the days those that the judged models tell.
    """
    better = sequence.evidence(gains, limits.min_effect)
    worse = sequence.evidence(-gains, limits.min_effect, limits.tolerance)
    return Challenge(
        days=len(gains),
        gain=float(gains.mean()) if len(gains) else 0.0,
        better=float(better[-1]) if len(gains) else 1.0,
        worse=float(worse[-1]) if len(gains) else 1.0,
        champion_days=champion_days,
        is_refresh=is_refresh,
        days_held_out=days_held_out,
    )


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


def _too_few_days(evidence: Evidence, limits: Promotion) -> str | None:
    """Why the baselines tell nothing of the candidate; None: there are days enough."""
    needed = limits.fewest_days(is_first=evidence.challenge is None)
    if evidence.days >= needed:
        return None
    known = "1 held-out day" if evidence.days == 1 else f"{evidence.days} held-out days"
    return (
        f"Labels are known of {known}, and {needed} are needed to tell it from a baseline by more "
        "than chance. Later nights, with more of them, decide; where labels are always so rare, "
        "raise Training.holdout_days."
    )


def _first_champion(evidence: Evidence) -> str:
    wins = [f"{name} in {wins:.1%}" for name, wins in evidence.wins_over_baselines.items()]
    return f"The first champion: better than {' and '.join(wins)} of resamples."


def _lost_by_both(evidence: Evidence, limits: Promotion) -> str:
    """Of each baseline that neither beats as it should."""
    lost = [
        f" It beats baseline {name} in only {evidence.wins_over_baselines[name]:.1%} of "
        f"resamples, the champion in {evidence.champion_wins[name]:.1%}."
        for name in _lost_to(evidence, limits)
    ]
    return "".join(lost)


def _loss_to(name: str, evidence: Evidence, needed: float) -> str:
    task = evidence.task
    own = evidence.candidate[task.headline]
    other = evidence.baselines[name][task.headline]
    return (
        f"It beats baseline {name} in only {evidence.wins_over_baselines[name]:.1%} of resamples, "
        f"{needed:.0%} are needed "
        f"({task.metrics[task.headline]} {shown(own)} against {shown(other)})."
    )
