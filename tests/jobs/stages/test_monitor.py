from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.lake import model_events, ops, snapshots
from jobs.stages.monitor import monitor
from jobs.training.metrics import summary
from jobs.training.registry import Registry
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.model import Promotion
from pipelines.spec import Pipeline
from tests import empty_registry
from tests.jobs.records import settle
from tests.jobs.training import small

DAYS = Days(date(2013, 1, 23), date(2013, 1, 24))
LABELS = small.rows_of(DAYS)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A lake with the labels of two days, of both pipelines."""
    made = small.environment_at(tmp_path)
    for pipeline in small.PIPELINES:
        small.publish(made, LABELS, pipeline=pipeline)
    return made


def _predict(
    environment: Environment, rows: pa.Table, pipeline: Pipeline = small.SMALL
) -> pa.Table:
    values = pa.array(np.linspace(0.1, 0.9, len(rows)))
    named = rows.select([*pipeline.entity]).append_column(pipeline.prediction, values)
    predictions = named.append_column("model_version", pa.repeat("3", len(rows)))
    small.publish(environment, predictions, "predictions", "batch_date", pipeline=pipeline)
    return predictions


def _measured(environment: Environment) -> list[dict[str, Any]]:
    measured = ops.read(environment, "live_quality").drop_columns(["measured_at", "run_id"])
    rows: list[dict[str, Any]] = measured.to_pylist()
    return sorted(rows, key=lambda row: (row["landed_date"], row["event_date"]))


@pytest.mark.parametrize("pipeline", small.PIPELINES, ids=lambda pipeline: pipeline.training.task)
def test_predictions_are_measured_when_their_labels_arrive(
    environment: Environment, pipeline: Pipeline
) -> None:
    predicted = _predict(environment, LABELS, pipeline)
    task = task_of(pipeline.training.task)
    run = small.run_of(environment, "monitor", DAYS.last, DAYS.first, pipeline=pipeline)
    result = monitor(run)
    assert (result["labels"], result["measured"]) == (78, 2)
    known = LABELS[pipeline.training.label].is_valid().to_numpy()
    for row, day in zip(_measured(environment), DAYS, strict=True):
        rows = known & (LABELS["landed_date"].to_numpy() == np.datetime64(day))
        label = LABELS[pipeline.training.label].to_numpy()[rows].astype(float)
        prediction = predicted[pipeline.prediction].to_numpy()[rows]
        expected = {
            "pipeline": pipeline.name,
            "landed_date": day,
            "event_date": day,
            "model_version": "3",
            **summary(task, label, prediction),
        }
        assert {name: value for name, value in row.items() if value is not None} == expected


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


def _keep(environment: Environment, files: Path, **params: object) -> str:
    """Keep a model that has learned so; returns its version."""
    files.mkdir()
    (files / "model").write_text("nothing is loaded")
    model = Registry(environment, "small").keep(
        files,
        as_of=DAYS.first,
        fingerprint=files.name,
        family="linear",
        recipe="as ever",
        params=params,
        curves={},
        pins={},
    )
    return model.version


@pytest.mark.parametrize(
    ("label", "measured"),
    [("weight", 0), ("failed", 2)],
)
def test_what_was_foretold_of_another_label_is_not_measured(
    environment: Environment,
    tmp_path: Path,
    label: str,
    measured: int,
) -> None:
    empty_registry.put_in(environment.home)
    _predict(environment, LABELS)
    run = small.run_of(environment, "monitor", DAYS.last, DAYS.first)
    # As of its number the record tells of those before.
    settle(run, "2")
    assert _keep(environment, tmp_path / "files", label=label) == "3"
    settle(run, "3")
    assert monitor(run)["measured"] == measured
    assert len(_measured(environment)) == measured


def _told_anew() -> pa.Table:
    """Outcomes of the first day, of line AA, told once more on the second as their opposite."""
    first = LABELS["landed_date"].to_numpy() == np.datetime64(DAYS.first)
    of_line = LABELS["line"].to_numpy(zero_copy_only=False) == "AA"
    again = LABELS.filter(pa.array(first & of_line))
    landed = pa.repeat(pa.scalar(DAYS.last), len(again))
    later = small.with_column(again, "landed_date", landed)
    opposite = pc.subtract(1, later["failed"]).cast(pa.int32())
    return small.with_column(later, "failed", opposite)


@pytest.mark.parametrize(
    "order",
    [(0, 1), (1, 0), (0, 1, 0), "one pass"],
    ids=str,
)
def test_an_outcome_that_is_told_anew_counts_once_and_as_it_was_told_last(
    environment: Environment, order: tuple[int, ...] | str
) -> None:
    _predict(environment, LABELS)
    if order == (0, 1):
        # It had been measured before anybody knew better.
        monitor(small.run_of(environment, "monitor", DAYS.first))
    anew = _told_anew()
    small.publish(environment, pa.concat_tables([LABELS, anew]))
    if isinstance(order, str):
        monitor(small.run_of(environment, "monitor", DAYS.last, DAYS.first))
    else:
        for place in order:
            monitor(small.run_of(environment, "monitor", list(DAYS)[place]))
    measured = _measured(environment)
    told = [(row["landed_date"], row["event_date"], row["rows"]) for row in measured]
    labelled = pc.sum(anew["failed"].is_valid()).as_py()
    assert 5 < labelled < 35
    assert told == [
        (DAYS.first, DAYS.first, 39 - labelled),
        (DAYS.last, DAYS.first, labelled),
        (DAYS.last, DAYS.last, 39),
    ]
    mean = pc.mean(anew["failed"]).as_py()
    assert measured[1]["label_mean"] == pytest.approx(mean)


def test_an_outcome_of_long_ago_that_is_told_anew_leaves_the_measures_of_then(
    environment: Environment,
) -> None:
    long_ago = DAYS.first - timedelta(days=20)
    of_then = small.rows_of(Days.of(long_ago))
    _predict(environment, pa.concat_tables([of_then, LABELS]))
    small.publish(environment, pa.concat_tables([of_then, LABELS]))
    monitor(small.run_of(environment, "monitor", long_ago))
    last_day = pa.repeat(pa.scalar(DAYS.last), len(of_then))
    anew = small.with_column(of_then, "landed_date", last_day)
    small.publish(environment, pa.concat_tables([of_then, LABELS, anew]))
    monitor(small.run_of(environment, "monitor"))
    measured = _measured(environment)
    events = [(row["landed_date"], row["event_date"]) for row in measured]
    assert events == [(DAYS.last, long_ago), (DAYS.last, DAYS.last)]
    assert [row["rows"] for row in measured] == [39, 39]
    # The night of then, measured once more, counts none of them a second time.
    monitor(small.run_of(environment, "monitor", long_ago))
    assert _measured(environment) == measured


def _told_again(rows: pa.Table, line: str, day: date) -> pa.Table:
    """Outcomes of a line as they are told once more on another day."""
    again = rows.filter(pc.equal(rows["line"], line))
    landed = pa.repeat(pa.scalar(day), len(again))
    return small.with_column(again, "landed_date", landed)


def test_a_night_that_is_measured_once_more_counts_what_was_told_anew_long_after_where_it_was(
    environment: Environment,
) -> None:
    first = DAYS.first - timedelta(days=20)
    of_first = small.rows_of(Days.of(first))
    _predict(environment, pa.concat_tables([of_first, LABELS]))
    second = first + timedelta(days=2)
    soon = _told_again(of_first, "AA", second)
    late = _told_again(of_first, "BB", DAYS.last)
    small.publish(environment, pa.concat_tables([of_first, LABELS, soon, late]))
    for night in (first, second, DAYS.last):
        monitor(small.run_of(environment, "monitor", night))
    measured = _measured(environment)
    rows = {(row["landed_date"], row["event_date"]): row["rows"] for row in measured}
    assert len(rows) == 4
    of_then = rows[first, first], rows[second, first], rows[DAYS.last, first]
    assert sum(of_then) == 39
    assert min(of_then) > 0
    # It measures the first one anew too, of which some were told by the last.
    monitor(small.run_of(environment, "monitor", second))
    assert _measured(environment) == measured


def test_what_was_told_long_after_is_read_of_events_of_these_days_alone(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = DAYS.first - timedelta(days=20)
    of_first = small.rows_of(Days.of(first))
    late = _told_again(of_first, "BB", DAYS.last)
    small.publish(environment, pa.concat_tables([of_first, LABELS, late]))
    _predict(environment, pa.concat_tables([of_first, LABELS]))
    read: list[int] = []
    whole = snapshots.read

    def counted(*words: Any) -> pa.Table:
        rows = whole(*words)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(snapshots, "read", counted)
    monitor(small.run_of(environment, "monitor", first))
    assert read[:2] == [len(of_first), len(late)]


def test_labels_that_were_made_with_another_name_are_told_with_the_way_out(
    environment: Environment,
) -> None:
    training = replace(small.TRAINING, label="broke")
    renamed = replace(small.SMALL, training=training)
    run = small.run_of(environment, "monitor", pipeline=renamed)
    with pytest.raises(UsageError, match="small.training has no column 'broke', .* --restate"):
        monitor(run)


def test_labels_of_one_kind_have_no_auc(environment: Environment) -> None:
    failed = LABELS["failed"].to_numpy(zero_copy_only=False) == 1
    last_day = LABELS["landed_date"].to_numpy() == np.datetime64(DAYS.last)
    _predict(environment, LABELS.filter(pa.array(failed & last_day)))
    monitor(small.run_of(environment, "monitor"))
    (row,) = _measured(environment)
    assert row["auc"] is None
    assert row["label_mean"] == 1.0


@pytest.mark.parametrize("pipeline", small.PIPELINES, ids=lambda pipeline: pipeline.training.task)
def test_what_was_foretold_under_another_name_is_not_measured(
    environment: Environment, pipeline: Pipeline
) -> None:
    whole = _predict(environment, LABELS, pipeline)
    monitor(small.run_of(environment, "monitor", pipeline=pipeline))
    (expected,) = _measured(environment)
    # Renamed on the last night: of the night before there is no value of that name.
    is_old = pc.equal(whole["batch_date"], pa.scalar(DAYS.first))
    nothing = pa.scalar(None, pa.float64())
    values = pc.if_else(is_old, nothing, whole[pipeline.prediction])
    renamed = small.with_column(whole, pipeline.prediction, values)
    small.publish(environment, renamed, "predictions", "batch_date", pipeline=pipeline)
    run = small.run_of(environment, "monitor", DAYS.last, DAYS.first, pipeline=pipeline)
    assert monitor(run)["measured"] == 1
    assert _measured(environment) == [expected]
    # Before the first night of the new name the table has no such column.
    newer = replace(pipeline, prediction="another_name")
    run = small.run_of(environment, "monitor", DAYS.last, DAYS.first, pipeline=newer)
    assert monitor(run)["measured"] == 0


def test_before_the_first_prediction_nothing_is_measured(environment: Environment) -> None:
    result = monitor(small.run_of(environment, "monitor"))
    assert (result["labels"], result["measured"]) == (0, 0)
    assert _measured(environment) == []


def test_that_nobody_approved_a_model_is_recorded_also_where_none_is_evaluated(
    environment: Environment,
) -> None:
    promotion = Promotion(needs_approval=True, approval_hours=48)
    expiring = replace(small.SMALL, promotion=promotion)
    run = small.run_of(environment, "monitor", pipeline=expiring)
    settle(run, "4", "awaiting")
    for _ in range(2):
        monitor(run)
    events = model_events.events(environment, expiring.name)
    told = [(one["event"], one["model_version"]) for one in events]
    assert told == [("awaiting", "4"), ("expired", "4")]
