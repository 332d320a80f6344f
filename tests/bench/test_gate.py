"""What the simulated gate lets serve."""

from __future__ import annotations

import numpy as np
import pytest

from bench import gate
from jobs.training import sequence
from pipelines.model import Promotion

NIGHTS = 365
FIRST_WRONG = 49
"""The first night whose fit goes wrong."""
QUIET = np.zeros((1, NIGHTS))


@pytest.mark.parametrize("days", [1, 7])
def test_a_fit_is_as_old_as_its_refresh_allows(days: int) -> None:
    oldest = days - 1
    limits = Promotion(refresh_days=days, min_evidence=100)
    served = gate.refreshed(QUIET, QUIET, limits)
    before = slice(FIRST_WRONG)
    ages = (np.arange(NIGHTS) - served.fit)[:, before]
    assert ages.max() == oldest
    assert served.behind[:, before].max() == pytest.approx(oldest * 0.013)


def test_a_fit_that_went_wrong_serves_for_one_night_where_each_night_refreshes() -> None:
    served = gate.refreshed(QUIET, QUIET, Promotion(refresh_days=1))
    (wrong,) = np.nonzero(served.went_wrong[0])
    assert wrong.tolist() == list(range(FIRST_WRONG, NIGHTS, 50))
    (promoted_worse,) = np.nonzero(served.promoted_worse[0])
    assert promoted_worse.tolist() == wrong.tolist()


def test_of_two_equal_recipes_few_nights_promote() -> None:
    limits = Promotion(max_age_days=None)
    nature = gate.Nature(name="normal", freedom=np.inf, correlation=0)
    gains = nature.draw(50, gain=0)
    promoted = gate.new_rule(gains, limits)
    for year, own in zip(gains, promoted, strict=True):
        reached = sequence.evidence(year, limits.min_effect) >= limits.min_evidence
        # Up to the first night, the turns are the same.
        assert own.any() == reached.any()
        assert own.argmax() == reached.argmax()
    assert 0.01 < promoted.mean() < 0.05
