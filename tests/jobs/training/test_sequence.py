from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import gate
from bench.gate import Nature
from jobs.training import sequence
from pipelines.model import Promotion

EFFECT = 0.25
GAINS = st.lists(
    st.floats(-5, 5).map(lambda gain: round(gain, 3)),
    min_size=1,
    max_size=60,
)
YEARS = 200
NATURES = (
    Nature(name="normal", freedom=np.inf, correlation=0.0),
    Nature(name="heavy tails", freedom=4, correlation=0.0),
    Nature(name="heavy tails, correlated", freedom=4, correlation=0.2),
)


def test_evidence_by_hand() -> None:
    # Of the size of all days so far: 1 and 1, then 2 and the root of the mean of 1, 1 and 4.
    factors = [
        1 + np.tanh(0.25),
        1 - np.tanh(0.25),
        1 + np.tanh(0.25 * 2 / np.sqrt(2)),
    ]
    gains = np.array([1.0, -1.0, 2.0])
    np.testing.assert_allclose(sequence.bets(gains, EFFECT), factors)
    after = [factors[0], 1.0, factors[2]]
    np.testing.assert_allclose(sequence.evidence(gains, EFFECT), after)


def test_without_a_day_there_is_no_evidence_and_equal_days_tell_nothing() -> None:
    assert len(sequence.evidence(np.array([]), EFFECT)) == 0
    np.testing.assert_array_equal(
        sequence.evidence(np.zeros(9), EFFECT),
        np.ones(9),
    )


@given(GAINS)
def test_what_speaks_for_one_speaks_against_the_other(gains: list[float]) -> None:
    ours = sequence.bets(np.array(gains), EFFECT)
    theirs = sequence.bets(-np.array(gains), EFFECT)
    np.testing.assert_allclose(ours + theirs, 2)


@given(GAINS, st.floats(0.001, 1000))
def test_evidence_does_not_depend_on_the_unit_of_the_loss(gains: list[float], unit: float) -> None:
    values = np.array(gains)
    ours = sequence.evidence(values, EFFECT)
    np.testing.assert_allclose(sequence.evidence(unit * values, EFFECT), ours, rtol=1e-6)


@given(GAINS, st.floats(0, 5))
def test_a_greater_gain_of_the_last_day_is_more_evidence(gains: list[float], more: float) -> None:
    higher = np.array([*gains[:-1], gains[-1] + more])
    before = sequence.evidence(np.array(gains), EFFECT)[-1]
    assert sequence.evidence(higher, EFFECT)[-1] >= before - 1e-9


@given(GAINS, GAINS)
def test_what_a_night_has_seen_does_not_change_when_days_follow(
    gains: list[float], later: list[float]
) -> None:
    seen = sequence.evidence(np.array(gains), EFFECT)
    all_days = sequence.evidence(np.array([*gains, *later]), EFFECT)
    np.testing.assert_array_equal(all_days[: len(gains)], seen)


@given(GAINS)
def test_a_margin_makes_evidence_harder(gains: list[float]) -> None:
    values = np.array(gains)
    plain = sequence.evidence(values, EFFECT)
    assert (sequence.evidence(values, EFFECT, margin=0.1) <= plain + 1e-9).all()


@given(st.lists(st.floats(0.001, 1000), min_size=3, max_size=3))
def test_three_days_are_never_enough(gains: list[float]) -> None:
    declared = Promotion()
    reached = sequence.evidence(np.array(gains), declared.min_effect)
    assert reached[-1] < declared.min_evidence


def test_no_single_day_is_enough() -> None:
    gains = np.array([0.001] * 5 + [1000.0])
    before, after = sequence.evidence(gains, EFFECT)[-2:]
    assert after <= 2 * before


@pytest.mark.parametrize("threshold", [2.0, 4.0, 10.0])
@pytest.mark.parametrize("nature", NATURES[:2], ids=lambda nature: nature.name)
def test_the_product_of_the_bets_obeys_villes_inequality(nature: Nature, threshold: float) -> None:
    years = 1000
    drawn = nature.draw(years, 0.0)
    products = [np.cumprod(sequence.bets(year, EFFECT)) for year in drawn]
    reached = np.mean([product.max() >= threshold for product in products])
    # Three standard errors of the simulation.
    slack = 3 * np.sqrt(0.25 / years)
    assert reached <= 1 / threshold + slack


@pytest.mark.parametrize("threshold", [2.5, 5.0, 10.0])
@pytest.mark.parametrize("nature", NATURES[:2], ids=lambda nature: nature.name)
def test_among_equals_it_takes_at_least_as_many_days_as_the_threshold(
    nature: Nature, threshold: float
) -> None:
    limits = Promotion(min_evidence=threshold, max_age_days=None)
    promoted = gate.new_rule(nature.draw(YEARS, 0.0), limits)
    assert promoted.mean() <= 1 / threshold


@pytest.mark.parametrize("nature", NATURES, ids=lambda nature: nature.name)
def test_the_declared_gate_seldom_promotes_a_worse_model_and_soon_a_better_one(
    nature: Nature,
) -> None:
    for limits in (Promotion(), Promotion(max_age_days=None)):
        worse = gate.new_rule(nature.draw(YEARS, -0.1), limits)
        assert worse.mean() <= 0.05
        better = gate.new_rule(nature.draw(YEARS, 0.25), limits)
        within_30 = better[:, :30].any(axis=1)
        assert within_30.mean() >= 0.8


def test_the_rule_of_before_promoted_a_worse_model_in_every_seventh_night() -> None:
    promoted = gate.old_rule(NATURES[1].draw(YEARS, -0.1))
    assert 0.12 < promoted.mean() < 0.18
