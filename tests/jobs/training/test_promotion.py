from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import promotion
from jobs.training.metrics import Metrics
from jobs.training.promotion import Challenge, Decision, Evidence, Slice, Watched, decide
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
    challenge=None,
    days=14,
    score_within_day=0.68,
)
BETTER = Challenge(days=12, gain=0.004, better=2.6, worse=1.0, champion_days=12)
RIVALLED = replace(FIRST, champion=measured(0.51), challenge=BETTER)
NUMBERS = Evidence(
    task=REGRESSION,
    candidate={"r2": 0.8, "rmse": 4.0},
    baselines={
        "usual": {"r2": 0.5, "rmse": 6.0},
        "persistence": {"r2": 0.6, "rmse": 5.0},
    },
    champion=None,
    wins_over_baselines={"usual": 1.0, "persistence": 0.96},
    challenge=None,
    days=14,
    score_within_day=0.7,
)


def test_the_first_model_that_beats_the_baseline_is_promoted() -> None:
    assert decide(FIRST, LIMITS) == Decision(
        event="promoted",
        reason="The first champion: better than group_mean in 99.0% of resamples.",
    )


def test_a_first_model_waits_for_the_days_that_its_win_rate_needs() -> None:
    assert LIMITS.fewest_days(is_first=True) == 5
    assert decide(replace(FIRST, days=5), LIMITS).event == "promoted"
    sure = replace(FIRST, days=1, wins_over_baselines={"group_mean": 1.0})
    told = decide(sure, LIMITS)
    assert told.event == "refused"
    assert told.reason.startswith("Labels are known of 1 held-out day, and 5 are needed")
    assert "Later nights" in told.reason
    # Of one day nothing is said of baselines, for it or against it.
    unsure = replace(sure, wins_over_baselines={"group_mean": 0.0})
    assert decide(unsure, LIMITS) == told
    leaking = replace(sure, candidate=measured(0.01, auc=0.99))
    assert "must have seen the future" in decide(leaking, LIMITS).reason


@pytest.mark.parametrize("wins", [0.0, 1.0])
def test_on_one_day_a_champion_is_kept_whatever_its_age(wins: float) -> None:
    assert LIMITS.fewest_days(is_first=False) == 2
    lucky = replace(
        rivalled(champion_days=99, better=99.0), days=1, wins_over_baselines={"group_mean": wins}
    )
    told = decide(lucky, LIMITS)
    assert (told.event, "1 held-out day, and 2 are needed" in told.reason) == ("kept", True)
    two = decide(replace(lucky, days=2), LIMITS)
    assert two.event == ("promoted" if wins else "refused")


@pytest.mark.parametrize(
    ("share", "days"),
    [
        (0.5, 1),
        (0.75, 2),
        (0.8, 3),
        (0.95, 5),
        (0.99, 7),
        (1.0, 11),
    ],
)
def test_the_surer_a_win_must_be_the_more_days_it_needs(share: float, days: int) -> None:
    assert Promotion(min_first_win_rate=share).fewest_days(is_first=True) == days


def rivalled(**changes: float) -> Evidence:
    return replace(FIRST, champion=measured(0.51), challenge=replace(BETTER, **changes))


def test_a_model_with_enough_evidence_takes_the_champions_place() -> None:
    assert decide(RIVALLED, LIMITS) == Decision(
        event="promoted",
        reason=(
            "Better than the champion. Over 12 days its log loss lies 0.004 below the champion's: "
            "evidence 2.60, 2.5 is needed."
        ),
    )


def test_days_that_no_candidate_was_there_to_score_are_told_as_such() -> None:
    caught_up = promotion.challenge(np.full(12, 0.004), 12, LIMITS, days_held_out=7)
    decision = decide(replace(RIVALLED, challenge=caught_up), LIMITS)
    assert "Over 12 days (7 of them by the judged models) its log loss lies" in decision.reason


def test_a_model_without_enough_evidence_is_kept() -> None:
    assert decide(rivalled(better=2.4, gain=-0.001), LIMITS) == Decision(
        event="kept",
        reason=(
            "Not shown to be better than the champion. Over 12 days its log loss lies 0.001 above "
            "the champion's: evidence 2.40, 2.5 is needed."
        ),
    )
    none_yet = rivalled(days=0, gain=0.0, better=1.0, champion_days=0)
    assert decide(none_yet, LIMITS).reason == (
        "Not shown to be better than the champion. No day has told the two apart yet."
    )


def test_a_champion_that_is_too_old_is_replaced_unless_its_successor_is_shown_to_be_worse() -> None:
    aged = rivalled(better=1.0, worse=2.4, champion_days=29)
    decision = decide(aged, LIMITS)
    assert decision.event == "promoted"
    assert decision.reason.startswith(
        "The champion has served for 29 days, 28 are allowed, and this one is not shown to be "
        "worse (evidence of a loss 2.40)."
    )
    assert decide(rivalled(better=1.0, champion_days=28), LIMITS).event == "kept"
    worse = decide(rivalled(better=1.0, worse=2.5, champion_days=29), LIMITS)
    assert worse.event == "kept"
    assert "but this one is shown to be worse (evidence of a loss 2.50)." in worse.reason
    for_ever = replace(LIMITS, max_age_days=None)
    assert decide(rivalled(better=1.0, champion_days=400), for_ever).event == "kept"


def test_a_champion_is_refreshed_by_its_own_recipe_sooner_than_by_another() -> None:
    refresh = rivalled(better=1.0, worse=2.4, champion_days=7, is_refresh=True)
    decision = decide(refresh, LIMITS)
    assert decision.event == "promoted"
    assert decision.reason.startswith(
        "The champion has served for 7 days, and this is the same recipe with newer rows, and this "
        "one is not shown to be worse (evidence of a loss 2.40)."
    )
    sooner = rivalled(better=1.0, champion_days=6, is_refresh=True)
    assert decide(sooner, LIMITS).event == "kept"
    other = rivalled(better=1.0, champion_days=7)
    assert decide(other, LIMITS).event == "kept"
    worse = rivalled(better=1.0, worse=2.5, champion_days=7, is_refresh=True)
    assert decide(worse, LIMITS).event == "kept"
    assert decide(refresh, replace(LIMITS, refresh_days=None)).event == "kept"
    losing = replace(refresh, wins_over_baselines={"group_mean": 0.7})
    assert decide(losing, LIMITS).event == "refused"


def test_a_champion_that_is_too_old_is_never_replaced_by_a_model_that_breaks_a_rule() -> None:
    aged = rivalled(better=9.0, champion_days=400)
    leaking = replace(aged, candidate=measured(0.1, auc=0.97))
    losing = replace(aged, wins_over_baselines={"group_mean": 0.7})
    assert decide(leaking, LIMITS).event == "refused"
    assert decide(losing, LIMITS).event == "refused"


def test_what_days_say_becomes_a_challenge() -> None:
    gains = np.full(6, 0.01)
    told = promotion.challenge(gains, 9, LIMITS)
    assert told.days == 6
    assert told.gain == pytest.approx(0.01)
    assert told.champion_days == 9
    assert told.better == pytest.approx((1 + np.tanh(0.25)) ** 6)
    assert told.worse == 1.0
    other = promotion.challenge(-gains, 9, LIMITS)
    assert other.better == 1.0
    assert 1.0 < other.worse < told.better, "it must be worse by more than the tolerance"
    nothing = promotion.challenge(np.array([]), 0, LIMITS)
    assert (nothing.days, nothing.better, nothing.worse) == (0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("evidence", "needed"),
    [(FIRST, 95), (RIVALLED, 75)],
)
def test_a_model_that_does_not_beat_the_baseline_is_refused(
    evidence: Evidence, needed: int
) -> None:
    decision = decide(replace(evidence, wins_over_baselines={"group_mean": 0.5}), LIMITS)
    assert decision == Decision(
        event="refused",
        reason=(
            "It beats baseline group_mean in only 50.0% of resamples, "
            f"{needed}% are needed (log loss 0.5000 against 0.5500)."
        ),
    )


def test_a_champion_that_fares_worse_against_a_baseline_is_no_reason_to_refuse() -> None:
    losing = replace(
        RIVALLED, wins_over_baselines={"group_mean": 0.4}, champion_wins={"group_mean": 0.3}
    )
    decision = decide(losing, LIMITS)
    assert decision.event == "promoted"
    assert decision.reason.endswith(
        " It beats baseline group_mean in only 40.0% of resamples, the champion in 30.0%."
    )
    # It has to be better than the champion all the same.
    unsure = replace(losing, challenge=replace(BETTER, better=1.0))
    assert decide(unsure, LIMITS).event == "kept"
    # A champion that fares as well or better serves on.
    for wins in (0.4, 0.6, 1.0):
        other = replace(losing, champion_wins={"group_mean": wins})
        assert decide(other, LIMITS).event == "refused"


def test_a_baseline_that_is_beaten_is_not_told_beside_the_champion() -> None:
    told = decide(replace(RIVALLED, champion_wins={"group_mean": 0.1}), LIMITS)
    assert told.event == "promoted"
    assert "group_mean" not in told.reason


def test_a_first_model_must_beat_the_baseline_more_surely_than_a_later_one() -> None:
    wins = {"group_mean": 0.9}
    assert decide(replace(FIRST, wins_over_baselines=wins), LIMITS).event == "refused"
    assert decide(replace(RIVALLED, wins_over_baselines=wins), LIMITS).event == "promoted"


def test_a_model_must_beat_every_baseline() -> None:
    limits = promotion.thresholds(Promotion(), REGRESSION, LABEL)
    assert decide(NUMBERS, limits) == Decision(
        event="promoted",
        reason=(
            "The first champion: better than usual in 100.0% and persistence in 96.0% of resamples."
        ),
    )
    lost = replace(NUMBERS, wins_over_baselines={"usual": 1.0, "persistence": 0.3})
    assert decide(lost, limits) == Decision(
        event="refused",
        reason=(
            "It beats baseline persistence in only 30.0% of resamples, "
            "95% are needed (RMSE 4.0000 against 5.0000)."
        ),
    )
    small = replace(
        lost,
        candidate={"r2": 0.8, "rmse": 4e-5},
        baselines={**NUMBERS.baselines, "persistence": {"r2": 0.6, "rmse": 5.4321e-5}},
    )
    assert "(RMSE 4e-05 against 5.432e-05)." in decide(small, limits).reason


_LOOK = (
    "it must have seen the future. Look for a feature that knows the label; "
    "where what is foretold is as plain as that, raise"
)


def test_a_model_that_is_too_good_to_be_true_is_refused() -> None:
    decision = decide(replace(FIRST, candidate=measured(0.1, auc=0.97)), LIMITS)
    assert decision == Decision(
        event="refused",
        reason=f"Its AUC of 0.970 is above 0.9: {_LOOK} Promotion.max_score.",
    )


def test_a_model_that_is_too_good_within_a_day_is_refused() -> None:
    limits = replace(LIMITS, max_score_within_day=0.75)
    assert decide(replace(FIRST, score_within_day=0.75), limits).event == "promoted"
    assert decide(replace(FIRST, score_within_day=0.76), limits) == Decision(
        event="refused",
        reason=(
            f"Its AUC within a day of 0.760 is above 0.75: {_LOOK} Promotion.max_score_within_day."
        ),
    )
    both = replace(FIRST, candidate=measured(0.1, auc=0.97), score_within_day=0.95)
    assert decide(both, LIMITS).reason == (
        "Its AUC of 0.970 is above 0.9 and its AUC within a day of 0.950 is above 0.9: "
        f"{_LOOK} Promotion.max_score and Promotion.max_score_within_day."
    )


def test_days_with_one_label_only_have_no_auc_to_suspect() -> None:
    untold = replace(FIRST, candidate=measured(0.1, auc=None), score_within_day=None)
    assert decide(untold, LIMITS).event == "promoted"


def test_a_model_that_is_better_on_average_and_surely_harms_a_slice_is_refused() -> None:
    harmed = Slice(
        column="line",
        value="EV",
        rows=500,
        candidate_loss=0.58,
        champion_loss=0.55,
        surely_worse_by=0.021,
    )
    others = (
        replace(harmed, value="OO", rows=499),
        replace(harmed, value="UA", candidate_loss=0.40, surely_worse_by=-0.2),
        # By luck, as far as the days can tell.
        replace(harmed, value="AA", surely_worse_by=0.019),
        replace(harmed, value="B6", surely_worse_by=None),
    )
    decision = decide(replace(RIVALLED, slices=(harmed, *others)), LIMITS)
    reason = (
        "Its log loss is worse than the champion's by more than 0.02, with 95 % certainty, "
        "on line=EV (0.5800 against 0.5500, 500 rows)."
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
    assert LIMITS.max_score_within_day == 0.9
    numbers = promotion.thresholds(Promotion(), REGRESSION, LABEL)
    # A fiftieth of the labels' variance, which is 25.
    assert (numbers.max_score, numbers.max_slice_loss) == (0.99, 0.5)


def test_limits_keep_the_thresholds_that_they_name() -> None:
    own = Promotion(max_score=0.0, max_score_within_day=0.1, max_slice_loss=0.0)
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


def test_while_promotions_are_held_the_champion_serves_on() -> None:
    held = Watched(holds="skew x (share_differing), over in 5 of the last 7 nights")
    decision = decide(RIVALLED, LIMITS, held)
    assert decision.event == "kept"
    assert decision.reason.startswith(
        "Promotions are held: skew x (share_differing), over in 5 of the last 7 nights. Over 12 "
    )
    aged = rivalled(better=1.0, champion_days=400)
    assert decide(aged, LIMITS, held).event == "kept"
    assert decide(FIRST, LIMITS, held).event == "promoted", "better than nothing that serves"
    leaking = replace(RIVALLED, candidate=measured(0.50, auc=0.99))
    assert decide(leaking, LIMITS, held).event == "refused"


def test_a_champion_of_which_quality_is_lost_is_replaced_as_if_it_were_old() -> None:
    asked = Watched(retrains="quality loss_saved (shortfall)")
    young = rivalled(better=1.0, champion_days=3)
    assert decide(young, LIMITS).event == "kept"
    decision = decide(young, LIMITS, asked)
    assert decision.event == "promoted"
    assert decision.reason.startswith(
        "A new model is asked for: quality loss_saved (shortfall), and this one is not shown to be "
    )
    worse = rivalled(better=1.0, worse=2.6, champion_days=3)
    assert decide(worse, LIMITS, asked).event == "kept"
