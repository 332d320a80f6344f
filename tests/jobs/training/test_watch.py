"""Planted changes of known size are found in the lake within k nights, and calm nights are not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.lake import model_events, ops, snapshots
from jobs.lake.snapshots import Snapshot
from jobs.stages.monitor import monitor
from jobs.training import alarms
from jobs.training import watch as watching
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.model import Watch
from pipelines.run import Run
from pipelines.spec import Pipeline
from tests.jobs.records import record, stage_row
from tests.jobs.training import small

WATCH = Watch(nights=4, min_nights=3, reference_nights=14, quality_days=14)
NIGHTS = Days(date(2013, 1, 1), date(2013, 2, 3))
CHANGE = date(2013, 1, 30)
"""From this night on something is planted."""
PER_NIGHT = 300
ONE_DAY = timedelta(days=1)
Rows = dict[str, pa.Table]
"""By the table's name."""


def tables(pipeline: Pipeline) -> Rows:
    """A calm month: what is scored in a night is labelled a day later, and was foretold."""
    scoring = small.scoring_rows(NIGHTS, PER_NIGHT)
    labelled = small.rows_of(NIGHTS, PER_NIGHT, seed=2)
    features = pipeline.training.features
    columns = {name: scoring[name] for name in scoring.column_names}
    for name in ("failed", "weight"):
        columns[name] = labelled[name]
    training = pa.table({**columns, "landed_date": scoring["batch_date"]})
    assert set(features) <= set(training.column_names)
    chance = np.random.default_rng(3).normal(0, 0.5, len(scoring))
    log_odds = 2 * scoring["x"].to_numpy() + chance - 1
    says = 1 / (1 + np.exp(-log_odds))
    if pipeline.training.task == "regression":
        says = 50 + 5 * log_odds
    keys = scoring.select([*pipeline.entity])
    named = keys.append_column(pipeline.prediction, pa.array(says))
    predictions = named.append_column("model_version", pa.repeat("3", len(named)))
    return {"scoring": scoring, "training": training, "predictions": predictions}


def publish(environment: Environment, pipeline: Pipeline, made: Rows) -> None:
    for name, rows in made.items():
        partition = pipeline.table(name).partition
        small.publish(environment, rows, name, partition, pipeline=pipeline)


def serve(
    environment: Environment,
    pipeline: Pipeline,
    promised: dict[str, float],
    night: date = NIGHTS.first - ONE_DAY,
    version: str = "3",
    is_refresh: bool = False,
) -> None:
    """A model serves from that night, by that evidence."""
    evidence = {"candidate": promised, "challenge": {"is_refresh": is_refresh}}
    event = {
        "pipeline": pipeline.name,
        "as_of": night,
        "event": "promoted",
        "model_version": version,
        "metrics": json.dumps(evidence),
    }
    model_events.record(environment, [event])


PROMISED = {
    "small": {"log_loss": 0.45, "label_mean": 0.4},
    "twin": {"rmse": 5.0, "r2": 0.7, "label_mean": 50.0},
}


@pytest.fixture(params=small.PIPELINES, ids=lambda pipeline: pipeline.name)
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    declared: Pipeline = request.param
    return replace(declared, watch=WATCH)


@pytest.fixture
def environment(tmp_path: Path, pipeline: Pipeline) -> Environment:
    made = small.environment_at(tmp_path)
    serve(made, pipeline, PROMISED[pipeline.name])
    # A model of long ago, whose evidence says less.
    old = {"pipeline": pipeline.name, "as_of": NIGHTS.last, "event": "kept", "model_version": "2"}
    evidence = {"candidate": {"auc": 0.7, "log_loss": 0.5, "r2": 0.5, "rmse": 4.0}}
    model_events.record(made, [old | {"metrics": json.dumps(evidence)}])
    return made


def watch(
    environment: Environment,
    pipeline: Pipeline,
    first: date,
    last: date,
    *,
    is_recorded: bool = True,
) -> dict[str, Any]:
    run = small.run_of(environment, "monitor", last, first, pipeline=pipeline)
    told = monitor(run)
    if is_recorded:
        record(run, stage_row(run, "monitor"))
    return told


def rows(environment: Environment) -> list[dict[str, Any]]:
    found = ops.read(environment, "drift").drop_columns(["run_id", "measured_at"]).to_pylist()
    return sorted(
        found,
        key=lambda row: (row["night"], *alarms.Measure.of(row)),
    )


def last_quality(environment: Environment) -> dict[str, Any]:
    """The row of the last night."""
    return [row for row in rows(environment) if row["kind"] == "quality"][-1]


def since(rows_: pa.Table, column: str, first: date = CHANGE) -> np.ndarray:
    return np.asarray(pc.greater_equal(rows_[column], pa.scalar(first)))


def is_of(rows_: pa.Table, night: date) -> np.ndarray:
    return np.asarray(pc.equal(rows_["landed_date"], pa.scalar(night)))


def one_in(number: int, rows_: pa.Table) -> np.ndarray:
    return np.arange(len(rows_)) % number == 0


def shifted(made: Rows, _: Pipeline) -> None:
    """Half a standard deviation of one feature, learned and scored alike."""
    for name, day in (("scoring", "landed_date"), ("training", "batch_date")):
        first = CHANGE if name == "scoring" else CHANGE + ONE_DAY
        more = 0.5 * since(made[name], day, first)
        values = made[name]["noise"].to_numpy() + more
        made[name] = small.with_column(made[name], "noise", pa.array(values))


def doubled(made: Rows, _: Pipeline) -> None:
    """Two thirds of the batches are made on line AA, where it was one third."""
    is_new = since(made["scoring"], "landed_date") & one_in(2, made["scoring"])
    line = np.where(is_new, "AA", made["scoring"]["line"].to_numpy(zero_copy_only=False))
    made["scoring"] = small.with_column(made["scoring"], "line", pa.array(line))


def emptied(made: Rows, _: Pipeline) -> None:
    """A quarter of one feature is missing."""
    gone = since(made["scoring"], "landed_date") & one_in(4, made["scoring"])
    values = pa.array(made["scoring"]["noise"].to_numpy(), mask=gone)
    made["scoring"] = small.with_column(made["scoring"], "noise", values)


def foretold_higher(made: Rows, pipeline: Pipeline) -> None:
    """Predictions lie half a standard deviation higher."""
    says = made["predictions"][pipeline.prediction].to_numpy()
    says = says + 0.5 * says.std() * since(made["predictions"], "batch_date", CHANGE + ONE_DAY)
    inside = np.clip(says, 0.001, 0.999) if pipeline.training.task != "regression" else says
    column = pa.array(inside)
    made["predictions"] = small.with_column(made["predictions"], pipeline.prediction, column)


def skewed(made: Rows, _: Pipeline) -> None:
    """One in twenty rows is learned from with another value than it was scored by."""
    other = since(made["training"], "landed_date") & one_in(20, made["training"])
    values = made["training"]["x"].to_numpy() + 0.01 * other
    made["training"] = small.with_column(made["training"], "x", pa.array(values))


def unpredicted(made: Rows, _: Pipeline) -> None:
    """One in ten events that are labelled was never foretold."""
    kept = ~since(made["predictions"], "batch_date") | (
        np.arange(len(made["predictions"])) % 10 > 0
    )
    made["predictions"] = made["predictions"].filter(pa.array(kept))


def unlabelled(made: Rows, pipeline: Pipeline) -> None:
    """Of half of the predictions the label does not come."""
    label = pipeline.training.label
    lost = since(made["training"], "landed_date") & one_in(2, made["training"])
    values = pc.if_else(pa.array(lost), None, made["training"][label])
    made["training"] = small.with_column(made["training"], label, values)


PLANTED = {
    shifted: alarms.Measure("feature", "noise", "wasserstein"),
    doubled: alarms.Measure("feature", "line", "jensen_shannon"),
    emptied: alarms.Measure("feature", "noise", "null_share"),
    foretold_higher: alarms.Measure("prediction", "", "wasserstein"),
    skewed: alarms.Measure("skew", "x", "share_differing"),
    unpredicted: alarms.Measure("coverage", "labels", "share_unpredicted"),
    unlabelled: alarms.Measure("coverage", "predictions", "share_unlabelled"),
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_change_is_found_within_k_nights_and_nothing_else_is(
    plant: Any, environment: Environment, pipeline: Pipeline
) -> None:
    made = tables(pipeline)
    plant(made, pipeline)
    publish(environment, pipeline, made)
    watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    expected = PLANTED[plant]
    if expected.kind == "prediction":
        expected = expected._replace(feature=pipeline.prediction)
    before = CHANGE + timedelta(days=WATCH.min_nights - 2)
    assert alarms.of_night(environment, pipeline, before) == []
    found = alarms.of_night(environment, pipeline, before + ONE_DAY)
    assert expected in found
    # A line is part of the key: of another one, labels and predictions have lost each other.
    others = {"skew", "coverage"} if plant is doubled else set()
    assert {one.kind for one in found} <= {expected.kind} | others


def test_calm_nights_raise_no_alarm(environment: Environment, pipeline: Pipeline) -> None:
    publish(environment, pipeline, tables(pipeline))
    result = watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    told = rows(environment)
    kinds = {row["kind"] for row in told}
    assert kinds == {"feature", "prediction", "skew", "coverage", "quality"}
    assert not any(alarms.of_night(environment, pipeline, night) for night in NIGHTS)
    assert (result["watched"], result["alarms"]) == (len(told), 0)
    assert (result["drift_began"], result["drift_ended"]) == ([], [])


def test_one_pass_tells_what_nights_do_and_a_rerun_changes_nothing(
    environment: Environment, pipeline: Pipeline
) -> None:
    made = tables(pipeline)
    shifted(made, pipeline)
    publish(environment, pipeline, made)
    few = Days(NIGHTS.last - timedelta(days=4), NIGHTS.last)
    # Quality is told of nights whose days were measured.
    watch(environment, pipeline, NIGHTS.first, few.first - ONE_DAY)
    for night in few:
        watch(environment, pipeline, night, night)
    nightly = rows(environment)
    watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    assert rows(environment) == nightly
    watch(environment, pipeline, few.first, few.first)
    assert rows(environment) == nightly


def test_few_nights_are_in_memory_at_once_where_they_have_many_rows(
    environment: Environment, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tables(pipeline)
    shifted(made, pipeline)
    publish(environment, pipeline, made)
    # Each line is one of few nights, so that no two of them know the same categories.
    lines = made["scoring"]["line"].to_pylist()
    lines = [f"{line}{number // (3 * PER_NIGHT)}" for number, line in enumerate(lines)]
    made["scoring"] = small.with_column(made["scoring"], "line", pa.array(lines))
    is_first = pa.array(is_of(made["scoring"], NIGHTS.first))
    publish(environment, pipeline, {"scoring": made["scoring"].filter(pc.invert(is_first))})
    watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    together = rows(environment)
    most: dict[str, int] = {}

    def read(run: Run, snapshot: Snapshot, *others: Any) -> pa.Table:
        found = real(run, snapshot, *others)
        most[snapshot.table] = max(most.get(snapshot.table, 0), len(found))
        return found

    real = snapshots.read
    monkeypatch.setattr(snapshots, "read", read)
    monkeypatch.setattr(watching, "_ROWS_AT_ONCE", 2 * PER_NIGHT + 1, raising=False)
    watch(environment, pipeline, NIGHTS.last, NIGHTS.last)
    assert rows(environment) == together
    assert most["scoring"] == 2 * PER_NIGHT


def test_the_night_in_which_an_alarm_begins_and_that_in_which_it_has_ended_tell_it(
    environment: Environment, pipeline: Pipeline
) -> None:
    made = tables(pipeline)
    before = made["training"]
    skewed(made, pipeline)
    is_over = pa.array(since(before, "landed_date", CHANGE + WATCH.min_nights * ONE_DAY))
    mended = pc.if_else(is_over, before["x"], made["training"]["x"])
    made["training"] = small.with_column(made["training"], "x", mended)
    publish(environment, pipeline, made)
    watch(environment, pipeline, NIGHTS.first, CHANGE - ONE_DAY)
    results = [watch(environment, pipeline, night, night) for night in Days(CHANGE, NIGHTS.last)]
    assert [result["alarms"] for result in results] == [0, 0, 1, 1, 0]
    began = [result["drift_began"] for result in results]
    assert began == [[], [], ["skew x (share_differing)"], [], []]
    ended = [result["drift_ended"] for result in results]
    assert ended == [[], [], [], [], ["skew"]]


def test_a_pass_over_nights_tells_an_alarm_that_began_before_its_last_night_and_lasts(
    environment: Environment, pipeline: Pipeline
) -> None:
    made = tables(pipeline)
    skewed(made, pipeline)
    publish(environment, pipeline, made)
    watch(environment, pipeline, NIGHTS.first, CHANGE - ONE_DAY)
    last = CHANGE + WATCH.min_nights * ONE_DAY
    # The first attempt was killed before it was on record, and could tell nobody.
    for is_recorded in (False, True):
        caught_up = watch(environment, pipeline, CHANGE, last, is_recorded=is_recorded)
        assert caught_up["drift_began"] == ["skew x (share_differing)"]
    # People know of it when these nights are made anew.
    again = watch(environment, pipeline, CHANGE, last)
    assert again["alarms"] == 1
    assert (again["drift_began"], again["drift_ended"]) == ([], [])


def test_quality_below_what_the_gate_promised_is_over(tmp_path: Path, pipeline: Pipeline) -> None:
    made = tables(pipeline)
    published = made["predictions"]
    says = published[pipeline.prediction].to_numpy()
    # What is foretold says nothing of what happens, with the right mean.
    mixed = np.random.default_rng(5).permutation(says)
    made["predictions"] = small.with_column(published, pipeline.prediction, pa.array(mixed))
    environment = small.environment_at(tmp_path)
    serve(environment, pipeline, PROMISED[pipeline.name])
    publish(environment, pipeline, made)
    watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    quality = [row for row in rows(environment) if row["kind"] == "quality"]
    # From the seventh day of labels.
    assert quality[0]["night"] == NIGHTS.first + timedelta(days=7)
    assert all(row["is_over"] for row in quality)
    last = quality[-1]
    assert last["low"] < last["value"] < last["high"]
    assert alarms.Measure.of(last) in alarms.of_night(environment, pipeline, NIGHTS.last)


def test_a_shortfall_that_may_be_chance_is_not_over(
    environment: Environment, pipeline: Pipeline
) -> None:
    allowed = 0.1
    strict = replace(pipeline, watch=replace(WATCH, max_quality_loss=allowed))
    publish(environment, pipeline, tables(pipeline))
    watch(environment, strict, NIGHTS.first, NIGHTS.last)
    sure = last_quality(environment)
    promised = sure["threshold"] / allowed
    live, best = promised - sure["value"], promised - sure["low"]
    # Then what is allowed lies between what was saved and the upper end of its interval.
    other = (live + best) / 2 / (1 - allowed)
    entropy = -(0.4 * np.log(0.4) + 0.6 * np.log(0.6))
    evidence = {"log_loss": entropy * (1 - other), "rmse": 5.0, "r2": other, "label_mean": 0.4}
    serve(environment, pipeline, evidence)
    watch(environment, strict, NIGHTS.last, NIGHTS.last)
    row = last_quality(environment)
    assert row["low"] < row["threshold"] < row["value"]
    assert not row["is_over"]


@pytest.mark.parametrize("is_refresh", [False, True])
def test_what_another_recipe_has_lost_is_not_told_of_the_new_one(
    environment: Environment, pipeline: Pipeline, is_refresh: bool
) -> None:
    made = tables(pipeline)
    says = made["predictions"]
    is_new = since(says, "batch_date", CHANGE + ONE_DAY)
    versions = pa.array(np.where(is_new, "4", "3"))
    made["predictions"] = small.with_column(says, "model_version", versions)
    publish(environment, pipeline, made)
    serve(environment, pipeline, PROMISED[pipeline.name], CHANGE, "4", is_refresh)
    watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    nights = [row["night"] for row in rows(environment) if row["kind"] == "quality"]
    # The days of another recipe are too few for an interval yet.
    last = NIGHTS.last if is_refresh else CHANGE - ONE_DAY
    assert nights == list(Days(NIGHTS.first + timedelta(days=7), last))


def test_labels_that_come_late_tell_of_the_fits_that_foretold_them(
    environment: Environment, pipeline: Pipeline
) -> None:
    # As long as live quality looks back: no fit of these weeks has foretold a label of them.
    lag = WATCH.quality_days
    late, made = labelled_late(pipeline, lag)
    refreshed = list(Days(NIGHTS.first, NIGHTS.last))
    for number, night in enumerate(refreshed, 4):
        serve(environment, late, PROMISED[pipeline.name], night, str(number), is_refresh=True)
    says = made["predictions"]
    # What is about a day was foretold in the night before it.
    since_first = [(day - NIGHTS.first).days for day in says["batch_date"].to_pylist()]
    fits = pa.array([str(days + 3) for days in since_first])
    made["predictions"] = small.with_column(says, "model_version", fits)
    publish(environment, late, made)
    watch(environment, late, NIGHTS.first, NIGHTS.last)
    nights = [row["night"] for row in rows(environment) if row["kind"] == "quality"]
    # From the seventh day of labels.
    assert nights[0] == NIGHTS.first + timedelta(days=lag + 7)
    assert nights == list(Days(nights[0], NIGHTS.last))


def test_labels_that_come_a_day_later_are_awaited(
    environment: Environment, pipeline: Pipeline
) -> None:
    late = replace(pipeline, promotion=replace(pipeline.promotion, label_lag_days=1))
    made = tables(pipeline)
    publish(environment, pipeline, made)
    watch(environment, late, NIGHTS.last, NIGHTS.last)
    found = {row["feature"]: row for row in rows(environment) if row["kind"] == "coverage"}
    # One batch of each day has no label.
    assert found["predictions"]["value"] == pytest.approx(1 / PER_NIGHT, abs=0.01)
    assert found["labels"]["value"] == 0


@pytest.mark.parametrize("more", [-1, 0, 5])
def test_labels_that_come_later_than_the_reference_are_beside_what_was_scored_and_foretold(
    environment: Environment, pipeline: Pipeline, more: int
) -> None:
    compared = WATCH.nights - 1 + WATCH.reference_nights
    late, made = labelled_late(pipeline, compared + more)
    publish(environment, pipeline, made)
    watch(environment, late, NIGHTS.last, NIGHTS.last)
    found: dict[tuple[str, str], float] = {}
    for row in rows(environment):
        found[row["kind"], row["feature"]] = row["value"]
    # One batch of each day has no label.
    assert found["coverage", "predictions"] == pytest.approx(1 / PER_NIGHT, abs=0.01)
    assert found["coverage", "labels"] == 0
    for feature in pipeline.training.features:
        assert found["skew", feature] == 0


def labelled_late(pipeline: Pipeline, lag: int) -> tuple[Pipeline, Rows]:
    """The pipeline and its month, with labels that come so many days after the event."""
    late = replace(
        pipeline,
        promotion=replace(pipeline.promotion, label_lag_days=lag),
        training=replace(pipeline.training, holdout_days=lag + 1),
    )
    made = tables(pipeline)
    days = made["training"]["batch_date"].to_pylist()
    landed = [day + timedelta(days=lag) for day in days]
    place = made["training"].column_names.index("landed_date")
    made["training"] = made["training"].set_column(place, "landed_date", pa.array(landed))
    return late, made


def test_labels_that_come_later_than_the_watch_looks_back_are_missed_where_nothing_foretold_them(
    environment: Environment, pipeline: Pipeline
) -> None:
    lag = WATCH.nights + 2
    late, made = labelled_late(pipeline, lag)
    # Of the day whose labels come tonight.
    about = NIGHTS.last - timedelta(days=lag)
    is_other = pc.not_equal(made["predictions"]["batch_date"], pa.scalar(about))
    made["predictions"] = made["predictions"].filter(is_other)
    publish(environment, pipeline, made)
    watch(environment, late, NIGHTS.last, NIGHTS.last)
    found = {row["feature"]: row for row in rows(environment) if row["kind"] == "coverage"}
    assert found["labels"]["value"] == 1


def test_what_happened_before_a_model_served_was_not_to_be_foretold(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    environment = small.environment_at(tmp_path)
    serve(environment, pipeline, PROMISED[pipeline.name], night=CHANGE)
    made = tables(pipeline)
    first = CHANGE + ONE_DAY
    is_foretold = since(made["predictions"], "batch_date", first)
    made["predictions"] = made["predictions"].filter(pa.array(is_foretold))
    publish(environment, pipeline, made)
    watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    coverage = [row for row in rows(environment) if row["kind"] == "coverage"]
    assert {row["night"] for row in coverage} == set(Days(first, NIGHTS.last))
    assert not any(row["is_over"] for row in coverage)


def test_without_a_promise_there_is_none_to_fall_short_of(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    environment = small.environment_at(tmp_path)
    publish(environment, pipeline, tables(pipeline))
    watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    # Nor was anything foretold before a model served.
    assert {row["kind"] for row in rows(environment)} == {"feature", "prediction", "skew"}


def test_labels_that_are_all_alike_tell_nothing_of_quality(
    environment: Environment, pipeline: Pipeline
) -> None:
    made = tables(pipeline)
    label = pipeline.training.label
    known = made["training"][label]
    alike = pc.if_else(
        pc.is_valid(known),
        pa.scalar(0, known.type),
        known,
    )
    made["training"] = small.with_column(made["training"], label, alike)
    publish(environment, pipeline, made)
    watch(environment, pipeline, NIGHTS.first, NIGHTS.last)
    # The best constant is right about every row, and nobody could do as well.
    assert not [row for row in rows(environment) if row["kind"] == "quality"]


def test_days_whose_labels_are_all_alike_do_not_blow_up_the_interval_of_quality(
    environment: Environment, pipeline: Pipeline
) -> None:
    made = tables(pipeline)
    label = pipeline.training.label
    training = made["training"]
    # As rain in a dry month: many a draw of its days has none.
    is_dry = pc.not_equal(training["landed_date"], pa.scalar(NIGHTS.last))
    is_to_change = pc.and_(is_dry, pc.is_valid(training[label]))
    none = pa.scalar(0, training[label].type)
    changed = pc.if_else(is_to_change, none, training[label])
    made["training"] = small.with_column(training, label, changed)
    publish(environment, pipeline, made)
    first = NIGHTS.last - (pipeline.watch.quality_days - 1) * ONE_DAY
    watch(environment, pipeline, first, NIGHTS.last)
    row = last_quality(environment)
    assert row["low"] < row["value"] < row["high"] < 100


def test_a_feature_that_is_not_watched_drifts_untold(
    environment: Environment, pipeline: Pipeline
) -> None:
    made = tables(pipeline)
    shifted(made, pipeline)
    publish(environment, pipeline, made)
    unwatched = replace(pipeline, watch=replace(WATCH, unwatched=("noise",)))
    watch(environment, unwatched, NIGHTS.first, NIGHTS.last)
    kinds = {row["kind"] for row in rows(environment) if row["feature"] == "noise"}
    assert kinds == {"skew"}


def test_a_feature_that_no_row_has_yet_is_not_watched(
    environment: Environment, pipeline: Pipeline
) -> None:
    publish(environment, pipeline, tables(pipeline))
    watch(environment, pipeline, NIGHTS.last, NIGHTS.last)
    before = rows(environment)
    numeric = (*pipeline.training.numeric, "declared_since")
    declared = replace(pipeline, training=replace(pipeline.training, numeric=numeric))
    watch(environment, declared, NIGHTS.last, NIGHTS.last)
    assert rows(environment) == before


def test_an_empty_lake_is_watched_in_vain(tmp_path: Path, pipeline: Pipeline) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, tables(pipeline)["training"], pipeline=pipeline)
    result = watch(environment, pipeline, NIGHTS.first, NIGHTS.first)
    assert (result["watched"], result["alarms"]) == (0, 0)
