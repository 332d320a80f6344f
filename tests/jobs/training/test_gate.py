from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import gate
from jobs.training.gate import Evidence, Slice, Verdict, judge
from jobs.training.quality import Quality
from pipelines.model import Gate

GATE = Gate(min_win_rate=0.75, max_slice_loss=0.02, min_slice_rows=500, max_auc=0.9)


def quality(log_loss: float, auc: float | None = 0.7) -> Quality:
    return Quality(
        rows=1000, auc=auc, log_loss=log_loss, brier=0.2, mean_prediction=0.2, label_mean=0.2
    )


FIRST = Evidence(
    candidate=quality(0.50),
    baseline=quality(0.55),
    champion=None,
    wins_over_baseline=0.99,
    wins_over_champion=None,
)
RIVALLED = replace(FIRST, champion=quality(0.51), wins_over_champion=0.8)


def test_the_first_model_that_beats_the_baseline_is_promoted() -> None:
    assert judge(FIRST, GATE) == Verdict(
        event="promoted",
        reason="The first champion: better than the baseline in 99.0% of resamples.",
    )


def test_a_model_that_beats_the_champion_is_promoted() -> None:
    assert judge(RIVALLED, GATE) == Verdict(
        event="promoted", reason="Better than the champion in 80.0% of resamples; 75% are needed."
    )


def test_a_model_that_is_only_as_good_as_the_champion_is_kept() -> None:
    verdict = judge(replace(RIVALLED, wins_over_champion=0.74), GATE)
    assert verdict == Verdict(
        event="kept", reason="Better than the champion in 74.0% of resamples; 75% are needed."
    )


@pytest.mark.parametrize("evidence", [FIRST, RIVALLED])
def test_a_model_that_does_not_beat_the_baseline_is_refused(evidence: Evidence) -> None:
    verdict = judge(replace(evidence, wins_over_baseline=0.5), GATE)
    assert verdict == Verdict(
        event="refused",
        reason=(
            "It beats the baseline in only 50.0% of resamples, "
            "75% are needed (log loss 0.5000 against 0.5500)."
        ),
    )


def test_a_model_that_is_too_good_to_be_true_is_refused() -> None:
    verdict = judge(replace(FIRST, candidate=quality(0.1, auc=0.97)), GATE)
    assert verdict == Verdict(
        event="refused", reason="Its AUC of 0.970 is above 0.9: it must have seen the future."
    )


def test_days_with_one_label_only_have_no_auc_to_suspect() -> None:
    assert judge(replace(FIRST, candidate=quality(0.1, auc=None)), GATE).event == "promoted"


def test_a_model_that_is_better_on_average_and_harms_a_slice_is_refused() -> None:
    harmed = Slice(
        column="carrier", value="EV", rows=500, candidate_log_loss=0.58, champion_log_loss=0.55
    )
    small = replace(harmed, value="OO", rows=499)
    better = replace(harmed, value="UA", candidate_log_loss=0.40)
    verdict = judge(replace(RIVALLED, slices=(harmed, small, better)), GATE)
    reason = (
        "Its log loss is worse than the champion's by more than "
        "0.02 on carrier=EV (0.5800 against 0.5500, 500 rows)."
    )
    assert verdict == Verdict(event="refused", reason=reason)


def test_every_reason_is_told() -> None:
    verdict = judge(replace(FIRST, candidate=quality(0.1, auc=0.97), wins_over_baseline=0.0), GATE)
    assert "seen the future" in verdict.reason
    assert "beats the baseline in only 0.0%" in verdict.reason


def test_winning_every_day_is_winning_every_resample() -> None:
    day, rival = np.repeat(np.arange(14), 50), np.full(700, 0.5)
    assert gate.win_rate(rival - 0.01, rival, day, resamples=500) == 1.0
    assert gate.win_rate(rival + 0.01, rival, day, resamples=500) == 0.0


def test_one_very_good_day_does_not_make_a_model_better() -> None:
    day, rival = np.repeat(np.arange(14), 50), np.full(700, 0.5)
    candidate = np.where(day == 0, 0.1, 0.52)
    assert candidate.mean() < rival.mean()
    assert gate.win_rate(candidate, rival, day, resamples=2000) < 0.75


@given(st.lists(st.floats(0, 5), min_size=20, max_size=60), st.integers(0, 2**32 - 1))
def test_the_win_rate_does_not_depend_on_the_order_of_rows_within_days(
    losses: list[float], seed: int
) -> None:
    candidate = np.round(np.array(losses), 2)
    day, rival = np.sort(np.arange(len(candidate)) % 7), np.ones(len(candidate))
    order = np.lexsort((np.random.default_rng(seed).random(len(day)), day))
    shuffled = gate.win_rate(candidate[order], rival[order], day[order], 200)
    assert shuffled == pytest.approx(gate.win_rate(candidate, rival, day, 200), abs=0.02)
