"""Whether one of two models is the better one, by evidence that may be looked at every night.

A game whose stake is the evidence: each day it is bet on one of the models. Where the two are
equally good, a day's difference is as likely to be for the one as for the other, and the bet is
fair whatever the tails are; so much luck is rare. See docs/decisions/0015.
"""

from __future__ import annotations

import numpy as np

from jobs.training.metrics import Vector


def evidence(gains: Vector, effect: float, margin: float = 0.0) -> Vector:
    """The evidence that gains are above 0, after each day: an e-detector, of 1 and more.

    It begins at 1 and never falls below it: a bad month of a recipe is not held against it for
    ever. Among models that are no better, it takes at least c days on average to reach c.

    Args:
        gains: One a day, in the order of the days.
        effect: The mean gain in standard deviations at which the bet grows fastest.
        margin: What must be exceeded instead of 0, in standard deviations.
    """
    after = np.empty(len(gains))
    stake = 1.0
    for day, factor in enumerate(bets(gains, effect, margin)):
        stake = max(stake, 1.0) * factor
        after[day] = stake
    return np.maximum(after, 1.0)


def bets(gains: Vector, effect: float, margin: float = 0.0) -> Vector:
    """By what each day multiplies the stake: between 0 and 2, and 1 on average without a gain.

    The size of a gain is told by the days so far, this one too: only its sign is bet on, so that
    its size may be known.
    """
    days = np.arange(1, len(gains) + 1)
    sizes = np.sqrt(np.cumsum(np.square(gains)) / days)
    # Days on which both were equal tell nothing.
    known = np.where(sizes > 0, sizes, 1.0)
    return 1 + np.tanh(effect * (gains / known - margin))
