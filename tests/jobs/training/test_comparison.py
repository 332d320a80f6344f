from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from jobs.training import comparison
from jobs.training.comparison import HeldOut
from jobs.training.tasks import task_of

LABEL = np.array([10.0, 20.0, 30.0, 40.0])
HELD = HeldOut(
    task=task_of("regression"),
    rows=pa.table({"line": ["AA", "BB", "AA", "BB"]}),
    day=np.array(["2013-01-01", "2013-01-01", "2013-01-02", "2013-01-02"], "datetime64[D]"),
    label=LABEL,
    models={"candidate": LABEL + 1, "champion": LABEL - 2},
    baselines={"usual": np.full(4, 25.0), "persistence": LABEL + 3},
)


def test_every_rival_is_measured_and_compared_by_its_name() -> None:
    evidence = comparison.measure(HELD, ("line",), resamples=10)
    assert evidence.candidate["rmse"] == 1
    assert evidence.champion is not None
    assert evidence.champion["rmse"] == 2
    assert evidence.baselines["persistence"]["bias"] == 3
    assert evidence.wins_over_baselines == {"usual": 1.0, "persistence": 1.0}
    assert evidence.wins_over_champion == 1.0
    losses = [(one.value, one.candidate_loss, one.champion_loss) for one in evidence.slices]
    assert losses == [("AA", 1.0, 4.0), ("BB", 1.0, 4.0)]


def test_the_record_says_what_it_holds() -> None:
    record = comparison.to_json(comparison.measure(HELD, ("line",), resamples=10), HELD)
    assert json.loads(json.dumps(record)) == record
    assert record["metrics"] == ["r2", "rmse", "mae", "bias"]
    assert (record["task"], record["headline"], record["leak_score"]) == (
        "regression",
        "rmse",
        "r2",
    )
    assert (record["rows"], record["days"]) == (4, 2)
    assert list(record["baselines"]) == ["usual", "persistence"]
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


def test_without_a_champion_nothing_is_said_of_one() -> None:
    alone = HeldOut(
        task=HELD.task,
        rows=HELD.rows,
        day=HELD.day,
        label=LABEL,
        models={"candidate": LABEL + 1},
        baselines=HELD.baselines,
    )
    evidence = comparison.measure(alone, ("line",), resamples=10)
    assert (evidence.champion, evidence.wins_over_champion) == (None, None)
    assert {one.champion_loss for one in evidence.slices} == {None}
    assert comparison.to_json(evidence, alone)["champion"] is None
