from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.lake import ops
from jobs.stages.monitor import monitor
from jobs.training.quality import measure
from pipelines.days import Days
from pipelines.environment import Environment
from tests.jobs.training import small

DAYS = Days(date(2013, 1, 23), date(2013, 1, 24))
LABELS = small.rows_of(DAYS)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A lake with the labels of two days."""
    made = small.environment_at(tmp_path)
    small.publish(made, LABELS)
    return made


def _predict(environment: Environment, rows: pa.Table, version: str = "3") -> pa.Table:
    given = rows.select([*small.SMALL.entity]).append_column(
        "late_probability", pa.array(np.linspace(0.1, 0.9, len(rows)))
    )
    given = given.append_column("model_version", pa.repeat(version, len(rows)))
    small.publish(environment, given, "predictions", "flight_date")
    return given


def _measured(environment: Environment) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        ops.read(environment, "live_quality").drop_columns(["measured_at", "run_id"]).to_pylist()
    )
    return sorted(rows, key=lambda row: (row["landed_date"], row["event_date"]))


def test_predictions_are_measured_when_their_labels_arrive(environment: Environment) -> None:
    given = _predict(environment, LABELS)
    told = monitor(small.run_of(environment, "monitor", DAYS.last, DAYS.first))
    assert (told["labels"], told["measured"]) == (78, 2)
    known = LABELS["late"].is_valid().to_numpy()
    for row, day in zip(_measured(environment), DAYS, strict=True):
        rows = known & (LABELS["landed_date"].to_numpy() == np.datetime64(day))
        label, probability = (
            LABELS["late"].to_numpy()[rows].astype(float),
            given["late_probability"].to_numpy()[rows],
        )
        expected = measure(label, probability).to_json()
        assert (
            row
            == {
                "pipeline": "small",
                "landed_date": day,
                "event_date": day,
                "model_version": "3",
            }
            | expected
        )


def test_a_rerun_replaces_its_days_and_no_other(environment: Environment) -> None:
    _predict(environment, LABELS)
    monitor(small.run_of(environment, "monitor", DAYS.last, DAYS.first))
    before = _measured(environment)
    monitor(small.run_of(environment, "monitor"))
    assert _measured(environment) == before


def test_one_pass_over_two_days_measures_what_two_nights_do(environment: Environment) -> None:
    _predict(environment, LABELS)
    for day in DAYS:
        monitor(small.run_of(environment, "monitor", day))
    nightly = _measured(environment)
    monitor(small.run_of(environment, "monitor", DAYS.last, DAYS.first))
    assert _measured(environment) == nightly


def test_labels_of_one_kind_have_no_auc(environment: Environment) -> None:
    late = LABELS["late"].to_numpy(zero_copy_only=False) == 1
    _predict(
        environment,
        LABELS.filter(
            pa.array(late & (LABELS["landed_date"].to_numpy() == np.datetime64(DAYS.last)))
        ),
    )
    monitor(small.run_of(environment, "monitor"))
    (row,) = _measured(environment)
    assert row["auc"] is None
    assert row["label_mean"] == 1.0


def test_before_the_first_prediction_nothing_is_measured(environment: Environment) -> None:
    assert monitor(small.run_of(environment, "monitor")) == {"labels": 0, "measured": 0}
    assert _measured(environment) == []
