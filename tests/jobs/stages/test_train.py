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

from jobs.lake import publications
from jobs.lake.publications import Input, Publication
from jobs.stages import train as stage
from jobs.training import dataset
from jobs.training.families.linear import LinearFamily, LinearFit
from jobs.training.registry import Registry
from jobs.training.scoring import load, load_judged
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from pipelines.features import Feature, FeatureView
from pipelines.model import Family
from pipelines.run import Run
from pipelines.spec import Pipeline, Table
from tests.conftest import SOAK
from tests.jobs.training import small

ALL_DAYS = Days(small.FIRST, small.LAST)
NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [
        (small.SMALL, small.NETWORK),
        (small.SMALL, small.LINEAR),
        (small.TWIN, small.LINEAR),
    ],
    ids=lambda value: value.name,
)
def test_a_night_is_trained_once_and_a_forced_retraining_gives_the_same_model(
    ranked: Environment, pipeline: Pipeline, family: Family
) -> None:
    declared = small.learned_by(pipeline, family)
    small.publish(ranked, small.rows_of(ALL_DAYS), pipeline=declared)
    run = small.run_of(ranked, "train", pipeline=declared)
    first = stage.train(run)
    again = stage.train(run)
    forced = stage.train(replace(run, retrain=True))
    outcomes = [(result["model_version"], result["reused"]) for result in (first, again, forced)]
    assert outcomes == [("1", False), ("1", True), ("2", False)]
    assert (first["family"], first["fit_rows"]) == (family.name, 39 * 12)
    registry = Registry(ranked, declared.name)
    rows = small.rows_of(Days.of(small.LAST))
    one, two = registry.version("1"), registry.version("2")
    scores = load(registry, one).score(rows)
    np.testing.assert_array_equal(load(registry, two).score(rows), scores)
    assert one.fingerprint == two.fingerprint
    assert one.family == family.name
    assert list((ranked.home / "training" / declared.name).iterdir()) == []


@pytest.mark.parametrize("retrain", [False, True])
def test_an_experiment_that_was_deleted_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retrain: bool
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    client = Registry(environment, "small")._client
    client.delete_experiment(client.create_experiment("small"))
    monkeypatch.setattr(stage.candidate, "make", None)
    run = small.run_of(environment, "train")
    with pytest.raises(NightshiftError, match="Experiment 'small' was deleted in MLflow"):
        stage.train(replace(run, retrain=retrain))


WILD = replace(small.NETWORK, learning_rate=1e30)
NOT_FINITE = "went to infinity|no finite number|not finite"


def test_a_network_that_came_apart_is_refused_at_every_attempt_and_never_kept(
    ranked: Environment,
) -> None:
    declared = small.learned_by(small.SMALL, WILD)
    small.publish(ranked, small.rows_of(ALL_DAYS), pipeline=declared)
    run = small.run_of(ranked, "train", pipeline=declared)
    for _ in range(2):
        with pytest.raises(Refused, match=NOT_FINITE):
            stage.train(run)
    assert Registry(ranked, declared.name).versions() == []


@pytest.mark.parametrize(
    ("broken", "value"),
    [
        ("loss", NAN),
        ("val_loss", INFINITE),
        ("coefficients", NAN),
        pytest.param("loss", INFINITE, marks=SOAK),
        pytest.param("val_loss", NAN, marks=SOAK),
    ],
)
def test_a_model_of_any_family_that_is_not_finite_is_refused_and_not_kept(
    broken: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    pipeline = small.learned_by(small.SMALL, small.LINEAR)
    run = small.run_of(environment, "train", pipeline=pipeline)
    fit = LinearFamily.fit

    def odd(*arguments: Any) -> LinearFit:
        good = fit(*arguments)
        if broken == "coefficients":
            return replace(good, model=replace(good.model, intercept=value))
        return replace(good, curves={**good.curves, broken: [value]})

    monkeypatch.setattr(LinearFamily, "fit", odd)
    with pytest.raises(Refused, match=rf"as of {small.LAST} is not kept"):
        stage.train(run)
    monkeypatch.undo()
    assert Registry(environment, "small").versions() == []
    assert stage.train(run)["reused"] is False


def test_a_family_of_a_new_choice_is_trained_beside_the_old_one(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    tight = replace(small.LINEAR, l2=100.0)
    versions = []
    for family in (small.LINEAR, tight, small.LINEAR):
        pipeline = small.learned_by(small.SMALL, family)
        versions.append(stage.train(small.run_of(environment, "train", pipeline=pipeline)))
    assert [result["model_version"] for result in versions] == ["1", "2", "1"]


def test_labels_of_the_held_out_days_change_what_serves_and_not_what_is_judged(
    tmp_path: Path,
) -> None:
    environment = small.models_at(tmp_path)
    declared = small.learned_by(small.SMALL, small.LINEAR)
    rows = small.rows_of(ALL_DAYS)
    held_out = rows["landed_date"].to_numpy() > np.datetime64("2013-01-18")
    failed = rows["failed"].fill_null(0).to_numpy()
    turned = np.where(held_out, 1 - failed, failed)
    unlabelled = rows["failed"].is_null().to_numpy()
    labels = pa.array(turned, pa.int32(), mask=unlabelled)
    changed = small.with_column(rows, "failed", labels)
    registry = Registry(environment, declared.name)
    judged, serving = [], []
    for number, published in enumerate((rows, changed), 1):
        small.publish(environment, published)
        stage.train(small.run_of(environment, "train", pipeline=declared))
        model = registry.version(str(number))
        judged.append(load_judged(registry, model).score(rows))
        serving.append(load(registry, model).score(rows))
    np.testing.assert_array_equal(judged[0], judged[1])
    assert np.abs(serving[0] - serving[1]).max() > 0.1


def test_a_model_that_is_there_is_found_without_reading_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    run = small.run_of(environment, "train", pipeline=small.learned_by(small.SMALL, small.LINEAR))
    stage.train(run)

    def read(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(dataset, "labelled", read)
    assert stage.train(run)["reused"]


def test_a_model_of_the_time_before_there_were_two_is_judged_by_the_one(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    stage.train(
        small.run_of(environment, "train", pipeline=small.learned_by(small.SMALL, small.LINEAR))
    )
    registry = Registry(environment, "small")
    model = registry.version("1")
    of_then = {name: digest for name, digest in model.sha256.items() if "/" not in name}
    assert set(model.sha256) - set(of_then) == {"judged/linear.json", "judged/encoding.json"}
    rows = small.rows_of(Days.of(small.LAST))
    before = replace(model, sha256=of_then)
    expected = load(registry, model).score(rows)
    np.testing.assert_array_equal(load_judged(registry, before).score(rows), expected)


def test_what_a_person_compares_models_by_is_kept_with_the_run(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    learned = small.learned_by(small.SMALL, small.LINEAR)
    late = replace(learned, promotion=replace(learned.promotion, label_lag_days=1))
    run: Run = small.run_of(environment, "train", pipeline=late)
    stage.train(run)
    registry = Registry(environment, "small")
    params = registry._client.get_run(registry.version("1").run_id).data.params
    assert (params["family"], params["l2"], params["window_days"]) == ("linear", "1.0", "16")
    assert params["label_lag_days"] == "1"
    assert params["run_id"] == run.run_id


def test_the_timelines_of_both_trainings_are_kept_with_the_model_when_asked_for(
    ranked: Environment, tmp_path: Path
) -> None:
    watched = replace(ranked, timeline="on")
    small.publish(watched, small.rows_of(ALL_DAYS))
    stage.train(small.run_of(watched, "train"))
    registry = Registry(watched, "small")
    run_id = registry.version("1").run_id
    for name in ("judged", "fresh"):
        folder = f"timelines/{name}"
        artifacts = registry._client.list_artifacts(run_id, folder)
        assert [one.path for one in artifacts] == [f"{folder}/timeline.json"]
        kept = registry._client.download_artifacts(run_id, artifacts[0].path, str(tmp_path))
        assert len(json.loads(Path(kept).read_text())) > 1


def test_too_few_labels_are_refused_with_both_numbers(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS, per_day=5))
    with pytest.raises(
        Refused,
        match=(
            r"as of 2013-01-24 has 48 labelled rows to fit on 2013-01-03..2013-01-14, and needs 100"
        ),
    ):
        stage.train(small.run_of(environment, "train"))


def test_days_without_any_label_are_refused(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    days_to_fit_on = Days(small.FIRST, date(2013, 1, 14))
    small.publish(environment, small.rows_of(days_to_fit_on))
    with pytest.raises(
        Refused, match=r"0 labelled rows to validate on 2013-01-15..2013-01-18, and needs 1"
    ):
        stage.train(small.run_of(environment, "train"))


@pytest.mark.parametrize("per_day", [0, 5])
def test_the_model_that_serves_is_not_trained_on_too_few_labels(
    per_day: int, tmp_path: Path
) -> None:
    environment = small.models_at(tmp_path)
    learned = small.learned_by(small.SMALL, small.LINEAR)
    short = replace(learned.training, window_days=6, validation_days=2)
    pipeline = replace(learned, training=short)
    before = small.rows_of(Days(small.FIRST, date(2013, 1, 18)))
    parts = [before]
    if per_day:
        since = Days(date(2013, 1, 19), small.LAST)
        parts.append(small.rows_of(since, per_day=per_day))
    small.publish(environment, pa.concat_tables(parts))
    with pytest.raises(
        Refused,
        match=r"labelled rows for the model that serves, on 2013-01-19..2013-01-24, and needs 100",
    ):
        stage.train(small.run_of(environment, "train", pipeline=pipeline))


def test_what_would_help_is_said_of_the_rows_that_are_too_few(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    rows = small.rows_of(ALL_DAYS)
    validated = Days(date(2013, 1, 15), date(2013, 1, 18))
    days = pa.array([*validated], pa.date32())
    is_validated = pc.is_in(rows["landed_date"], days)
    few = small.rows_of(ALL_DAYS, per_day=5)
    to_fit, to_validate = "raise Training.window_days, or lower min_rows", "validation_days"
    for published, help_ in (
        (few, rf"are published: {to_fit}\.$"),
        (rows.filter(pc.invert(is_validated)), rf"are published: raise Training.{to_validate}\.$"),
        (rows.slice(0, 40), rf"are published: {to_fit}, and raise Training.{to_validate}\.$"),
    ):
        small.publish(environment, published)
        with pytest.raises(Refused, match=help_):
            stage.train(small.run_of(environment, "train"))


def test_days_of_two_definitions_are_not_learned_from_as_one_unless_told(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    run = small.run_of(environment, "train", pipeline=small.learned_by(small.SMALL, small.LINEAR))
    changed_on = small.LAST - timedelta(days=2)
    made = []
    for day in ALL_DAYS:
        definition = "before" if day < changed_on else "after"
        made.append(_publication(day, definition))
    publications.record(run, "training", made)
    last_before = changed_on - timedelta(days=1)
    told = rf"2 definitions: .* until {last_before} .* --restate --from"
    first = stage.recipe_of(run).days.all.first
    with pytest.raises(Refused, match=rf"{told} {first} "):
        stage.train(run)
    # A day of this table sums up the day before too, which is then as it was.
    sums = Table(name="sums", made_by="transform", key=("line",), window_days=2)
    summed = replace(
        run.pipeline,
        derived=(sums,),
        first_day=ALL_DAYS.first - timedelta(days=9),
    )
    with pytest.raises(Refused, match=rf"{told} {first - timedelta(days=1)} "):
        stage.train(replace(run, pipeline=summed))
    assert stage.train(replace(run, allow_mixed=True))["model_version"] == "1"
    publications.record(run, "training", [_publication(day, "after") for day in ALL_DAYS])
    assert stage.train(run)["reused"]


def test_what_is_to_be_made_anew_reaches_back_to_what_the_oldest_evening_sums_up(
    tmp_path: Path,
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    tiles = Table(name="tiles", made_by="transform", key=("line",), window_days=2)
    sums = replace(tiles, name="sums", reads=("tiles",), window_days=7)
    long_ago = ALL_DAYS.first - timedelta(days=99)
    pipeline = replace(small.SMALL, derived=(tiles, sums), first_day=long_ago)
    run = small.run_of(environment, "train", pipeline=pipeline)
    days = Days(ALL_DAYS.first, small.LAST)
    made = [_publication(day, f"of {day}") for day in ALL_DAYS]
    # Its labels came four days after the evening in which their rows were scored.
    evening = days.first - timedelta(days=4)
    name = f"{run.pipeline.name}.{run.pipeline.entity_table}"
    scored = Input(name=name, first_day=evening, last_day=evening, digest="1")
    made[0] = replace(made[0], inputs=(scored,))
    publications.record(run, "training", made)
    with pytest.raises(Refused, match=rf"--restate --from {evening - timedelta(days=7)} "):
        stage._require_one_definition(run, days)
    # A fact of 48 hours ago may have landed on the day before that.
    far_back = evening - timedelta(days=7 + 3)
    for hours, first in ((48, far_back), (None, long_ago)):
        view = FeatureView(
            name="sums",
            table="sums",
            keys={"line": "line"},
            features=(Feature(name="spent", doc="spent"),),
            max_age_hours=hours,
        )
        numeric = (*pipeline.training.numeric, "spent")
        training = replace(pipeline.training, numeric=numeric)
        looking = replace(run, pipeline=replace(pipeline, views=(view,), training=training))
        with pytest.raises(Refused, match=rf"--restate --from {first} "):
            stage._require_one_definition(looking, days)


def test_what_is_to_be_made_anew_begins_with_the_first_night_that_was_made(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    long_ago = ALL_DAYS.first - timedelta(days=99)
    sums = Table(name="sums", made_by="transform", key=("line",), window_days=7)
    pipeline = replace(small.SMALL, derived=(sums,), first_day=long_ago)
    run = small.run_of(environment, "train", pipeline=pipeline)
    publications.record(run, "training", [_publication(day, f"of {day}") for day in ALL_DAYS])
    (feed,) = pipeline.feeds
    first = ALL_DAYS.first - timedelta(days=2)
    landed = [_publication(day, "") for day in (first, ALL_DAYS.last)]
    publications.record(run, feed.name, landed)
    with pytest.raises(Refused, match=rf"--restate --from {first} "):
        stage._require_one_definition(run, Days(ALL_DAYS.first, small.LAST))
    # A feed that was named anew begins later than what was made of it by its old name.
    renamed = replace(pipeline, feeds=(replace(feed, name="anew"),), entity_table="anew")
    again = small.run_of(environment, "train", pipeline=renamed)
    publications.record(again, "anew", [_publication(ALL_DAYS.last, "")])
    with pytest.raises(Refused, match=rf"--restate --from {ALL_DAYS.first} "):
        stage._require_one_definition(again, Days(ALL_DAYS.first, small.LAST))


def test_what_became_known_later_by_another_definition_refuses_no_night_of_before(
    tmp_path: Path,
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(ALL_DAYS))
    run = small.run_of(environment, "train", pipeline=small.learned_by(small.SMALL, small.LINEAR))
    days = stage.recipe_of(run).days.all
    made = [_publication(day, "before") for day in ALL_DAYS]
    next_night = small.LAST + timedelta(days=1)
    corrected = replace(_publication(days.first, "after"), attempt=2, known_day=next_night)
    publications.record(run, "training", [*made, corrected])
    stage._require_one_definition(run, days)
    # The night that knows of it learns from both.
    after = replace(run, days=Days.of(next_night))
    with pytest.raises(Refused, match="were made by 2 definitions"):
        stage._require_one_definition(after, days)


def _publication(day: date, definition: str) -> Publication:
    return small.publication(day, definition=definition)
