"""How often the gate promotes models of known quality, and after how many nights.

`python -m bench.gate` plays nights of candidates whose daily gain over the champion is known, for
the rule of before (75 % of the resamples of the last 14 days) and for the rule of now. Then it
plays years in which each night's candidate is a newer fit of the recipe that serves: what serves
in each, and what a fit that went wrong costs, by how soon a refresh may come.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.output import show
from jobs.training import sequence
from pipelines.model import Promotion

_SEED = 20130101
_NIGHTS = 365
_WINDOW_DAYS = 14
_RESAMPLES = 2000
_OLD_WIN_RATE = 0.75
_FREEDOM = 4
"""Degrees of freedom of Student's t: the tails of the daily differences of real flights."""
_CORRELATION = 0.2
"""Of a day's difference with that of the day before: storms last."""
_SOON = 30
"""Nights within which a better model is to be promoted."""
_GAINS = {
    "worse by 0.25 sd": -0.25,
    "worse by 0.1 sd": -0.1,
    "equal": 0.0,
    "better by 0.1 sd": 0.1,
    "better by 0.25 sd": 0.25,
    "better by 0.5 sd": 0.5,
}
_NEVER = np.iinfo(np.int64).max
_AGING = 0.013
"""What a fit loses with each day of its age: of flights 0.0005 of 0.036 (docs/quality.md)."""
_LUCKS = (0.0, 0.03, 0.1)
"""How much fits of one recipe differ, made of the same days: a standard deviation."""
_REFRESHES: Mapping[str, int | None] = {"by evidence, or age": None, "a week": 7, "a night": 1}
"""How soon a newer fit may take the place of what serves, in nights."""
_REFRESHED = (
    "fits differ by",
    "refreshed",
    "refreshes",
    "age",
    "behind",
    "promoted worse",
    "wrong",
)
_WRONG = 0.5
"""By how much a fit is worse that went wrong, and that no rule refuses."""
_WRONG_EVERY = 50
"""Nights from one such fit to the next."""
_CLEARLY = 0.1
"""A fit that is worse by more is clearly worse."""

Numbers = NDArray[np.float64]
Nights = NDArray[np.bool_]
"""(years, nights): whether the candidate of the night was promoted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nature:
    """How the daily differences are spread."""

    name: str
    freedom: float
    """Of Student's t; infinite: a normal distribution."""
    correlation: float
    """With the day before."""

    def draw(self, years: int, gain: float) -> Numbers:
        """Gains of each night, with a standard deviation of 1."""
        random = np.random.default_rng(_SEED)
        size = (years, _NIGHTS)
        if np.isinf(self.freedom):
            shocks = random.standard_normal(size)
        else:
            # So that their variance is 1.
            scale = np.sqrt((self.freedom - 2) / self.freedom)
            shocks = scale * random.standard_t(self.freedom, size)
        days = np.empty(size)
        days[:, 0] = shocks[:, 0]
        kept, new = self.correlation, np.sqrt(1 - self.correlation**2)
        for night in range(1, _NIGHTS):
            before = days[:, night - 1]
            days[:, night] = kept * before + new * shocks[:, night]
        return days + gain


_NATURES = (
    Nature(name="heavy tails, correlated", freedom=_FREEDOM, correlation=_CORRELATION),
    Nature(name="heavy tails", freedom=_FREEDOM, correlation=0.0),
    Nature(name="normal", freedom=np.inf, correlation=0.0),
)


def old_rule(gains: Numbers) -> Nights:
    """Each night anew: the last 14 days, in 75 % of resamples."""
    drawn = np.random.default_rng(0).integers(0, _WINDOW_DAYS, (_RESAMPLES, _WINDOW_DAYS))
    counts = np.stack([np.bincount(one, minlength=_WINDOW_DAYS) for one in drawn])
    promoted = np.zeros(gains.shape, bool)
    for night in range(_WINDOW_DAYS, gains.shape[1] + 1):
        window = gains[:, night - _WINDOW_DAYS : night]
        rates = ((counts @ window.T) > 0).mean(axis=0)
        promoted[:, night - 1] = rates >= _OLD_WIN_RATE
    return promoted


def new_rule(gains: Numbers, limits: Promotion) -> Nights:
    """Evidence since the turn began; a promotion begins a new one."""
    promoted = np.zeros(gains.shape, bool)
    of_other_recipes = replace(limits, refresh_days=None)
    for year, nights in enumerate(gains):
        began = 0
        while began < len(nights):
            found = _end_of_turn(nights[began:], of_other_recipes)
            if found is None:
                break
            began += found + 1
            promoted[year, began - 1] = True
    return promoted


def _end_of_turn(gains: Numbers, limits: Promotion) -> int | None:
    """The night of the turn in which it ends; None: it does not."""
    better = sequence.evidence(gains, limits.min_effect)
    ends = better >= limits.min_evidence
    days = np.arange(1, len(gains) + 1)
    is_old = np.zeros(len(gains), bool)
    if limits.max_age_days is not None:
        is_old |= days > limits.max_age_days
    if limits.refresh_days is not None:
        is_old |= days >= limits.refresh_days
    worse = sequence.evidence(-gains, limits.min_effect, limits.tolerance)
    ends |= is_old & (worse < limits.min_evidence)
    return int(np.argmax(ends)) if ends.any() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What serves in years of newer fits; each array is (years, nights)."""

    fit: NDArray[np.int64]
    """The night whose fit serves after this one's gate."""
    behind: Numbers
    """By how much it is worse than the night's own fit, in standard deviations."""
    promoted_worse: Nights
    """It has just taken the place of one that is clearly better."""
    went_wrong: Nights
    """It is one that went wrong."""


def refreshed(noise: Numbers, luck: Numbers, limits: Promotion) -> Served:
    """Play nights in each of which a newer fit of the recipe that serves asks for its place.

    Args:
        noise: Of each night's difference between two fits, with a standard deviation of 1.
        luck: By how much each night's fit is better than the recipe's mean.
        limits: When it may.
    """
    nights = np.arange(_NIGHTS)
    is_wrong = nights % _WRONG_EVERY == _WRONG_EVERY - 1
    fresh = luck - _WRONG * is_wrong
    fit = np.zeros(noise.shape, np.int64)
    behind = np.zeros(noise.shape)
    promoted_worse = np.zeros(noise.shape, bool)
    for year in range(len(noise)):
        serves = 0
        while True:
            turn = slice(serves + 1, None)
            aged = fresh[year, serves] - _AGING * (nights[turn] - serves)
            fit[year, serves:] = serves
            behind[year, turn] = fresh[year, turn] - aged
            gains = behind[year, turn] + noise[year, turn]
            ends = _end_of_turn(gains, limits)
            if ends is None:
                break
            serves += ends + 1
            promoted_worse[year, serves] = behind[year, serves] < -_CLEARLY
            behind[year, serves] = 0
    return Served(
        fit=fit,
        behind=behind,
        promoted_worse=promoted_worse,
        went_wrong=is_wrong[fit],
    )


def main() -> int:
    """Play, and print a row for each kind of model and rule."""
    parser = argparse.ArgumentParser(prog="bench.gate", description=__doc__)
    parser.add_argument("--years", type=int, default=400, help="of nights, for each row")
    years = parser.parse_args().years
    names = ("differences", "candidate", "rule", "promoted a night", "within 30", "median nights")
    rows = []
    for nature in _NATURES:
        for candidate, gain in _GAINS.items():
            gains = nature.draw(years, gain)
            for rule, apply in _rules().items():
                rows.append((nature.name, candidate, rule, *_figures(apply(gains))))
    show(names, rows, "table")
    show(_REFRESHED, list(_refreshes(years)), "table")
    return 0


def _refreshes(years: int) -> Iterator[tuple[object, ...]]:
    noise = _NATURES[0].draw(years, gain=0.0)
    for deviation in _LUCKS:
        luck = deviation * np.random.default_rng(_SEED + 1).standard_normal(noise.shape)
        for name, days in _REFRESHES.items():
            served = refreshed(noise, luck, Promotion(refresh_days=days))
            changes = (np.diff(served.fit) > 0).sum(axis=1).mean()
            age = (np.arange(_NIGHTS) - served.fit).mean()
            yield (
                f"{deviation} sd",
                name,
                f"{changes:.0f} a year",
                f"{age:.1f} nights",
                f"{served.behind.mean():.3f} sd",
                f"{served.promoted_worse.mean():.1%}",
                f"{served.went_wrong.mean():.1%}",
            )


def _rules() -> dict[str, Callable[[Numbers], Nights]]:
    declared = Promotion()
    by_evidence = Promotion(max_age_days=None)
    return {
        "before": old_rule,
        "evidence": lambda gains: new_rule(gains, by_evidence),
        "evidence and age": lambda gains: new_rule(gains, declared),
    }


def _figures(promoted: Nights) -> tuple[str, str, str]:
    is_ever = promoted.any(axis=1)
    first = np.where(is_ever, promoted.argmax(axis=1) + 1, _NEVER)
    median = np.median(first)
    return (
        f"{promoted.mean():.1%}",
        f"{(first <= _SOON).mean():.0%}",
        f"{median:.0f}" if median <= _NIGHTS else f"over {_NIGHTS}",
    )


if __name__ == "__main__":
    sys.exit(main())
