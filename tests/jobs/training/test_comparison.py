from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest

from jobs.training import comparison
from jobs.training.comparison import HeldOut
from jobs.training.promotion import Challenge
from jobs.training.tasks import task_of

LABEL = np.array([10.0, 20.0, 30.0, 40.0])
CHALLENGE = Challenge(days=3, gain=0.5, better=1.5, worse=1.0, champion_days=4)
HELD = HeldOut(
    task=task_of("regression"),
    rows=pa.table({"line": ["AA", "BB", "AA", "BB"]}),
    day=np.array(["2013-01-01", "2013-01-01", "2013-01-02", "2013-01-02"], "datetime64[D]"),
    label=LABEL,
    models={"candidate": LABEL + 1, "champion": LABEL - 2},
    baselines={"usual": np.full(4, 25.0), "persistence": LABEL + 3},
)


def test_every_rival_is_measured_and_compared_by_its_name() -> None:
    evidence = comparison.measure(HELD, ("line",), 10, CHALLENGE)
    assert evidence.candidate["rmse"] == 1
    assert evidence.champion is not None
    assert evidence.champion["rmse"] == 2
    assert evidence.baselines["persistence"]["bias"] == 3
    assert evidence.wins_over_baselines == {"usual": 1.0, "persistence": 1.0}
    assert evidence.champion_wins == {"usual": 1.0, "persistence": 1.0}
    worse = replace(HELD, models={"candidate": LABEL + 1, "champion": LABEL + 4})
    assert comparison.measure(worse, (), 10, CHALLENGE).champion_wins["persistence"] == 0.0
    first = replace(HELD, models={"candidate": LABEL + 1})
    assert comparison.measure(first, (), 10, None).champion_wins == {}
    assert evidence.challenge is CHALLENGE
    losses = [(one.value, one.candidate_loss, one.champion_loss) for one in evidence.slices]
    assert losses == [("AA", 1.0, 4.0), ("BB", 1.0, 4.0)]
    # Two days are too few for an interval.
    for one in evidence.slices:
        ends = (one.surely_worse_by, one.worse_by_at_most, one.candidate_low, one.candidate_high)
        assert set(ends) == {None}


def test_the_record_says_what_it_holds() -> None:
    record = comparison.to_json(comparison.measure(HELD, ("line",), 10, CHALLENGE), HELD)
    assert json.loads(json.dumps(record)) == record
    assert record["metrics"] == ["r2", "rmse", "mae", "bias"]
    assert (record["task"], record["headline"], record["leak_score"]) == (
        "regression",
        "rmse",
        "r2",
    )
    assert (record["rows"], record["days"]) == (4, 2)
    assert list(record["baselines"]) == ["usual", "persistence"]
    assert record["challenge"] == asdict(CHALLENGE)
    assert record["candidate"] == {
        "rows": 4,
        "r2": pytest.approx(1 - 1 / 125),
        "rmse": 1.0,
        "mae": 1.0,
        "bias": 1.0,
        "mean_prediction": 26.0,
        "label_mean": 25.0,
    }
    assert record["by_day"][0] == {
        "day": "2013-01-01",
        "rows": 2,
        "loss": {"candidate": 1.0, "champion": 4.0, "usual": 125.0, "persistence": 9.0},
    }


def test_losses_of_labels_in_a_small_unit_are_told_by_day() -> None:
    unit = 1e-4
    models = {name: unit * says for name, says in HELD.models.items()}
    baselines = {name: unit * says for name, says in HELD.baselines.items()}
    small = replace(HELD, label=unit * LABEL, models=models, baselines=baselines)
    record = comparison.to_json(comparison.measure(small, ("line",), 10, CHALLENGE), small)
    first = record["by_day"][0]["loss"]
    assert first["champion"] == pytest.approx(4 * unit**2)
    assert first["candidate"] == pytest.approx(unit**2)


def test_without_a_champion_nothing_is_said_of_one() -> None:
    alone = HeldOut(
        task=HELD.task,
        rows=HELD.rows,
        day=HELD.day,
        label=LABEL,
        models={"candidate": LABEL + 1},
        baselines=HELD.baselines,
    )
    evidence = comparison.measure(alone, ("line",), 10, None)
    assert (evidence.champion, evidence.challenge) == (None, None)
    assert {one.champion_loss for one in evidence.slices} == {None}
    assert comparison.to_json(evidence, alone)["champion"] is None


def test_a_slice_is_surely_worse_by_the_lower_end_of_its_interval_over_days() -> None:
    days = 12
    draw = np.random.default_rng(7)
    of_line = {
        "AA": np.full(days, 0.5),
        "BB": draw.normal(0.1, 1.0, days),
    }
    day = np.repeat(np.arange(days), 2)
    line = np.tile(["AA", "BB"], days)
    # By that much the squared error of the candidate is above the champion's, which is 9.
    more = np.where(
        line == "AA",
        of_line["AA"][day],
        of_line["BB"][day],
    )
    label = np.linspace(0.0, 50.0, 2 * days)
    held = HeldOut(
        task=HELD.task,
        rows=pa.table({"line": line}),
        day=day,
        label=label,
        models={"candidate": label + np.sqrt(9 + more), "champion": label + 3},
        baselines={"usual": np.full(2 * days, 25.0)},
    )
    aa, bb = comparison.measure(held, ("line",), 10, CHALLENGE).slices
    assert aa.surely_worse_by == pytest.approx(0.5)
    assert bb.surely_worse_by is not None
    assert bb.surely_worse_by < of_line["BB"].mean() - 0.3
    assert bb.worse_by_at_most is not None
    assert bb.worse_by_at_most > of_line["BB"].mean() + 0.3
    # The champion's loss is the same in each row.
    assert bb.candidate_low == pytest.approx(9 + bb.surely_worse_by)
    assert bb.candidate_high == pytest.approx(9 + bb.worse_by_at_most)
    alone = replace(held, models={"candidate": held.models["candidate"]})
    _, bb_alone = comparison.measure(alone, ("line",), 10, None).slices
    assert (bb_alone.surely_worse_by, bb_alone.worse_by_at_most) == (None, None)
    assert bb_alone.candidate_high == bb.candidate_high


def test_the_score_within_a_day_is_not_raised_by_what_tells_days_apart() -> None:
    label = np.array([0, 0, 0, 1, 1, 1, 1, 0.0])
    # It knows the day, and of its rows nothing.
    said = np.where(np.arange(8) < 4, 0.25, 0.75)
    held = HeldOut(
        task=task_of("binary_classification"),
        rows=pa.table({"line": ["AA"] * 8}),
        day=np.repeat([1, 2], 4),
        label=label,
        models={"candidate": said},
        baselines={"usual": np.full(8, 0.5)},
    )
    evidence = comparison.measure(held, (), 10, None)
    assert evidence.candidate["auc"] == 0.75
    assert evidence.score_within_day == 0.5


def test_a_day_whose_labels_are_all_alike_says_nothing_within_days() -> None:
    label = np.array([10.0, 20.0, 0.1, 0.1, 0.1])
    held = replace(
        HELD,
        rows=pa.table({"line": ["AA"] * 5}),
        day=np.array(["2013-01-01"] * 2 + ["2013-01-02"] * 3, "datetime64[D]"),
        label=label,
        models={"candidate": label + 1},
        baselines={},
    )
    evidence = comparison.measure(held, (), 10, None)
    # Of a variance of 25 an error of 1 is left on the other day.
    assert evidence.score_within_day == pytest.approx(0.96)
