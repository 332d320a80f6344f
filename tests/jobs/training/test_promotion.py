from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import promotion
from jobs.training.metrics import Metrics
from jobs.training.promotion import Decision, Evidence, Slice, decide
from jobs.training.tasks import task_of
from pipelines.model import Promotion

BINARY, REGRESSION = task_of("binary_classification"), task_of("regression")
LABEL = np.array([0.0, 10.0])
LIMITS = promotion.thresholds(Promotion(), BINARY, LABEL)


def measured(log_loss: float, auc: float | None = 0.7) -> Metrics:
    return {"auc": auc, "log_loss": log_loss, "brier": 0.2}


FIRST = Evidence(
    task=BINARY,
    candidate=measured(0.50),
    baselines={"group_mean": measured(0.55)},
    champion=None,
    wins_over_baselines={"group_mean": 0.99},
    wins_over_champion=None,
)
RIVALLED = replace(FIRST, champion=measured(0.51), wins_over_champion=0.8)
NUMBERS = Evidence(
    task=REGRESSION,
    candidate={"r2": 0.8, "rmse": 4.0},
    baselines={
        "usual": {"r2": 0.5, "rmse": 6.0},
        "persistence": {"r2": 0.6, "rmse": 5.0},
    },
    champion=None,
    wins_over_baselines={"usual": 1.0, "persistence": 0.9},
    wins_over_champion=None,
)


def test_the_first_model_that_beats_the_baseline_is_promoted() -> None:
    assert decide(FIRST, LIMITS) == Decision(
        event="promoted",
        reason="The first champion: better than group_mean in 99.0% of resamples.",
    )


def test_a_model_that_beats_the_champion_is_promoted() -> None:
    assert decide(RIVALLED, LIMITS) == Decision(
        event="promoted", reason="Better than the champion in 80.0% of resamples; 75% are needed."
    )


def test_a_model_that_is_only_as_good_as_the_champion_is_kept() -> None:
    assert decide(replace(RIVALLED, wins_over_champion=0.74), LIMITS) == Decision(
        event="kept", reason="Better than the champion in 74.0% of resamples; 75% are needed."
    )


@pytest.mark.parametrize("evidence", [FIRST, RIVALLED])
def test_a_model_that_does_not_beat_the_baseline_is_refused(evidence: Evidence) -> None:
    decision = decide(replace(evidence, wins_over_baselines={"group_mean": 0.5}), LIMITS)
    assert decision == Decision(
        event="refused",
        reason=(
            "It beats baseline group_mean in only 50.0% of resamples, "
            "75% are needed (log loss 0.5000 against 0.5500)."
        ),
    )


def test_a_model_must_beat_every_baseline() -> None:
    limits = promotion.thresholds(Promotion(), REGRESSION, LABEL)
    assert decide(NUMBERS, limits) == Decision(
        event="promoted",
        reason=(
            "The first champion: better than usual in 100.0% and persistence in 90.0% of resamples."
        ),
    )
    lost = replace(NUMBERS, wins_over_baselines={"usual": 1.0, "persistence": 0.3})
    assert decide(lost, limits) == Decision(
        event="refused",
        reason=(
            "It beats baseline persistence in only 30.0% of resamples, "
            "75% are needed (RMSE 4.0000 against 5.0000)."
        ),
    )


def test_a_model_that_is_too_good_to_be_true_is_refused() -> None:
    decision = decide(replace(FIRST, candidate=measured(0.1, auc=0.97)), LIMITS)
    assert decision == Decision(
        event="refused", reason="Its AUC of 0.970 is above 0.9: it must have seen the future."
    )


def test_days_with_one_label_only_have_no_auc_to_suspect() -> None:
    assert decide(replace(FIRST, candidate=measured(0.1, auc=None)), LIMITS).event == "promoted"


def test_a_model_that_is_better_on_average_and_harms_a_slice_is_refused() -> None:
    harmed = Slice(column="line", value="EV", rows=500, candidate_loss=0.58, champion_loss=0.55)
    small = replace(harmed, value="OO", rows=499)
    better = replace(harmed, value="UA", candidate_loss=0.40)
    decision = decide(replace(RIVALLED, slices=(harmed, small, better)), LIMITS)
    reason = (
        "Its log loss is worse than the champion's by more than "
        "0.02 on line=EV (0.5800 against 0.5500, 500 rows)."
    )
    assert decision == Decision(event="refused", reason=reason)


def test_every_reason_is_told() -> None:
    both = replace(
        FIRST, candidate=measured(0.1, auc=0.97), wins_over_baselines={"group_mean": 0.0}
    )
    reason = decide(both, LIMITS).reason
    assert "seen the future" in reason
    assert "beats baseline group_mean in only 0.0%" in reason


def test_limits_that_name_no_thresholds_have_those_of_the_task() -> None:
    assert (LIMITS.max_score, LIMITS.max_slice_loss) == (0.9, 0.02)
    numbers = promotion.thresholds(Promotion(), REGRESSION, LABEL)
    # A fiftieth of the labels' variance, which is 25.
    assert (numbers.max_score, numbers.max_slice_loss) == (0.99, 0.5)


def test_limits_keep_the_thresholds_that_they_name() -> None:
    own = Promotion(max_score=0.0, max_slice_loss=0.0)
    assert promotion.thresholds(own, BINARY, LABEL) == own


def test_winning_every_day_is_winning_every_resample() -> None:
    day = np.repeat(np.arange(14), 50)
    rival = np.full(700, 0.5)
    assert promotion.win_rate(rival - 0.01, rival, day, resamples=500) == 1.0
    assert promotion.win_rate(rival + 0.01, rival, day, resamples=500) == 0.0


def test_one_very_good_day_does_not_make_a_model_better() -> None:
    day = np.repeat(np.arange(14), 50)
    rival = np.full(700, 0.5)
    candidate = np.where(day == 0, 0.1, 0.52)
    assert candidate.mean() < rival.mean()
    assert promotion.win_rate(candidate, rival, day, resamples=2000) < 0.75


_LOSSES = st.lists(st.floats(0, 5), min_size=20, max_size=60)
_SEEDS = st.integers(0, 2**32 - 1)


@given(_LOSSES, _SEEDS)
def test_the_win_rate_does_not_depend_on_the_order_of_rows_within_days(
    losses: list[float], seed: int
) -> None:
    candidate = np.round(np.array(losses), 2)
    day = np.sort(np.arange(len(candidate)) % 7)
    rival = np.ones(len(candidate))
    within_day = np.random.default_rng(seed).random(len(day))
    order = np.lexsort((within_day, day))
    shuffled = promotion.win_rate(candidate[order], rival[order], day[order], 200)
    ordered = promotion.win_rate(candidate, rival, day, 200)
    assert shuffled == pytest.approx(ordered, abs=0.02)
