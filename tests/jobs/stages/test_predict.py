from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset
from pyspark.sql.types import StructType

from jobs.commands import decide
from jobs.commands.decide import Said
from jobs.lake import model_events, ops, served, tables, unscored
from jobs.lake.commits import publish
from jobs.lake.locations import path
from jobs.night import _record as record_stage
from jobs.stages import check, evaluate, predict, train
from jobs.training import parts, scoring
from jobs.training.dataset import Dataset
from jobs.training.encoding import ENCODING
from jobs.training.families import family_of
from jobs.training.families.light import EXACT, QUANTISED
from jobs.training.registry import ModelVersion, Registry
from jobs.training.scoring import Scorer
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import AwaitsApproval, NightshiftError, Refused
from pipelines.model import LinearModel, Promotion, Serving
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, Pipeline, Table
from tests.jobs.lake import test_commits as commits
from tests.jobs.training import small

LINEAR = small.learned_by(small.SMALL, small.LINEAR)
PIPELINES = (
    LINEAR,
    small.SMALL,
    small.learned_by(small.TWIN, small.LINEAR),
    small.TWIN,
)
NIGHTS = Days(date(2013, 1, 23), date(2013, 1, 25))
ROWS = small.scoring_rows(NIGHTS, per_day=30)


def test_nothing_is_scored_while_what_was_served_is_lost(environment: Environment) -> None:
    run = replace(commits.run_at(environment.home, NIGHTS), environment=environment)
    served = commits.staged(run, {NIGHTS.last: [1]}, PREDICTIONS)
    publish(run, PREDICTIONS, served)
    shutil.rmtree(path(run, PREDICTIONS))
    with pytest.raises(Refused, match=r"toy\.predictions has lost what was served for 1 day"):
        predict.predict(run)
    with pytest.raises(Refused, match="No model of 'toy' was in force"):
        predict.predict(replace(run, rescore=True))


def _title(pipeline: Pipeline) -> str:
    return f"{pipeline.training.task}-{pipeline.training.family.name}"


def _promote(
    environment: Environment, as_of: date, pipeline: Pipeline = LINEAR, evidence: str = "{}"
) -> ModelVersion:
    registry = Registry(environment, pipeline.name)
    data = small.data_of(pipeline.training)
    with TemporaryDirectory() as folder:
        files = Path(folder)
        _save(data, files)
        (files / ENCODING).write_text(data.encoding.to_json())
        model = registry.keep(
            files,
            as_of=as_of,
            fingerprint=str(as_of),
            family=pipeline.training.family.name,
            recipe="as ever",
            params={},
            curves={},
            pins={},
        )
    registry.set_champion(model.version)
    event = {
        "pipeline": pipeline.name,
        "as_of": as_of,
        "event": "promoted",
        "model_version": model.version,
        "metrics": evidence,
        "created_at": ops.now(),
    }
    ops.append(environment, model_events.TABLE, [event])
    return model


def _save(data: Dataset, files: Path) -> None:
    """The files of a model: a fitted linear one, or a network that is drawn."""
    training = data.training
    if isinstance(training.family, LinearModel):
        environment = small.environment_at(files)
        family_of("linear").fit(data, training.family, environment, files).save(files)
    else:
        small.save_network(training, files)


@pytest.fixture(autouse=True)
def no_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small pipelines have none: nothing says what their tables are."""
    monkeypatch.setattr(predict, "definitions", lambda _: {PREDICTIONS: ""})


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[pa.Table]:
    """What was staged, without Spark."""
    collected: list[pa.Table] = []

    def stage_files(
        run: Run,
        name: str,
        writing: Callable[[str], None],
        schema: StructType,
        _days: object,
        _origin: object,
    ) -> int:
        place = tmp_path / f"staged-{len(collected)}"
        writing(str(place))
        partition = run.pipeline.table(name).partition
        day = pa.schema([(partition, pa.date32())])
        days = dataset.partitioning(day, flavor="hive")
        written = dataset.dataset(place, partitioning=days)
        collected.append(written.to_table(schema.names))
        return len(collected[-1])

    monkeypatch.setattr(tables, "stage_files", stage_files)
    return collected


def test_each_night_is_scored_by_the_champion_of_that_night(
    tmp_path: Path, staged: list[pa.Table]
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    first = _promote(environment, date(2013, 1, 24))
    second = _promote(environment, date(2013, 1, 25))
    result = predict.predict(small.run_of(environment, "predict", NIGHTS.last, NIGHTS.first))
    assert result["nights_without_model"] == ["2013-01-23"]
    assert (result["models"], result["predictions"]) == (["1", "2"], 60)
    assert result["scoring_version"] == 0
    rows = staged[0]
    by_date = {(row["batch_date"], row["model_version"]) for row in rows.to_pylist()}
    assert by_date == {
        (date(2013, 1, 25), first.version),
        (date(2013, 1, 26), second.version),
    }
    assert set(rows["model_run_id"].to_pylist()) == {first.run_id, second.run_id}
    assert rows.column_names == [
        *("batch_date", "line", "batch", "oven", "product", "failure_probability"),
        *("model_name", "model_version", "model_run_id"),
        *("run_id", "predicted_at", "scoring_version", "code_version"),
    ]


@pytest.mark.parametrize("pipeline", PIPELINES, ids=_title)
def test_one_pass_over_nights_gives_the_floats_of_each_night_alone(
    tmp_path: Path, staged: list[pa.Table], pipeline: Pipeline
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring", pipeline=pipeline)
    _promote(environment, NIGHTS.first, pipeline)
    for days in (NIGHTS, *(Days.of(day) for day in NIGHTS)):
        run = small.run_of(environment, "predict", days.last, days.first, pipeline=pipeline)
        predict.predict(run)
    own = [*pipeline.entity, pipeline.prediction, "model_version"]
    bulk, *nightly = (rows.select(own) for rows in staged)
    assert bulk == pa.concat_tables(nightly)


@pytest.mark.parametrize("pipeline", PIPELINES, ids=_title)
def test_spark_stages_the_very_rows_that_this_process_does(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline
) -> None:
    small.publish(environment, ROWS, "scoring", pipeline=pipeline)
    _promote(environment, NIGHTS.first, pipeline)
    _promote(environment, NIGHTS.last, pipeline)
    run = small.run_of(environment, "predict", NIGHTS.last, NIGHTS.first, pipeline=pipeline)
    staged = []
    for most, scored_by in ((predict.ROWS_IN_PROCESS, "this process"), (0, "Spark")):
        monkeypatch.setattr(predict, "ROWS_IN_PROCESS", most)
        result = predict.predict(run)
        assert (result["scored_by"], result["predictions"]) == (scored_by, 90)
        rows = tables.staged(run, "predictions").drop("predicted_at")
        staged.append((rows.schema, sorted(map(str, rows.collect()))))
    assert staged[0] == staged[1]


def test_a_quantised_variant_serves_where_it_is_asked_for_and_has_passed(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = small.learned_by(small.SMALL, replace(small.NETWORK, hidden=(128, 64)))
    asks = replace(wide, serving=Serving(quantised=True))
    strict = replace(wide, serving=Serving(quantised=True, max_quantised_loss=1e-9))
    small.publish(environment, ROWS, "scoring", pipeline=wide)
    evidence = {"quantised": {"exact_loss": 0.5, "more_loss_high": 1e-6, "passed": True}}
    model = _promote(environment, NIGHTS.first, wide, json.dumps(evidence))
    night = ROWS.filter(pa.compute.field("landed_date") == NIGHTS.first)
    registry = Registry(environment, wide.name)
    said = {}
    for name in (EXACT, QUANTISED):
        said[name] = scoring.load(registry, model, name).score(night)
    assert np.abs(said[EXACT] - said[QUANTISED]).max() > 1e-4
    for most in (predict.ROWS_IN_PROCESS, 0):
        monkeypatch.setattr(predict, "ROWS_IN_PROCESS", most)
        for pipeline, variant in ((wide, EXACT), (asks, QUANTISED), (strict, EXACT)):
            run = small.run_of(environment, "predict", NIGHTS.first, pipeline=pipeline)
            assert predict.predict(run)["variants"] == {"1": variant}
            rows = tables.staged(run, "predictions").orderBy("batch").collect()
            assert [row["failure_probability"] for row in rows] == said[variant].tolist()


def test_a_network_that_is_certain_costs_no_night(
    tmp_path: Path, staged: list[pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = small.a_network(small.TRAINING)
    last = sure.get_layer("probability")
    kernel, bias = last.get_weights()
    last.set_weights([kernel, bias + 100])
    monkeypatch.setattr(small, "a_network", lambda *_: sure)
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring", pipeline=small.SMALL)
    model = _promote(environment, NIGHTS.first, small.SMALL)
    says = scoring.load(Registry(environment, small.SMALL.name), model).score(ROWS)
    assert (says == 1).all()
    run = small.run_of(environment, "predict", NIGHTS.first, pipeline=small.SMALL)
    predict.predict(run)
    # The suite of predictions refuses the 1.
    assert set(staged[0]["failure_probability"].to_pylist()) == {1 - 1e-7}


def test_predictions_of_another_type_than_is_promised_are_told(
    tmp_path: Path, staged: list[pa.Table], capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    cast = pa.nulls(len(ROWS), pa.decimal128(9, 2))
    small.publish(environment, small.with_column(ROWS, "product", cast), "scoring")
    _promote(environment, NIGHTS.first)
    made = Table(
        name="made",
        made_by="transform",
        key=("line",),
        types={"line": "string", "oven": "string"},
    )
    run = small.run_of(environment, "predict", NIGHTS.last)
    promising = replace(made, types={**made.types, "product": "decimal(9,2)"})
    for table, is_told in ((made, True), (promising, False)):
        predict.predict(replace(run, pipeline=replace(run.pipeline, derived=(table,))))
        told = "Warning: small.predictions: column 'product' is decimal(9,2) in the lake, and is"
        assert (told in capsys.readouterr().err) == is_told


def test_where_others_run_spark_rows_are_scored_here(
    tmp_path: Path, staged: list[pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = replace(small.models_at(tmp_path), spark_remote="sc://elsewhere:15002")
    small.publish(environment, ROWS, "scoring")
    _promote(environment, NIGHTS.first)
    monkeypatch.setattr(predict, "ROWS_IN_PROCESS", 0)
    run = small.run_of(environment, "predict", NIGHTS.last, NIGHTS.first)
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 20)
    at_once = []

    def counted(scorer: Scorer, rows: pa.Table, *others: Any) -> pa.Table:
        at_once.append(len(rows))
        return told(scorer, rows, *others)

    told = scoring.predictions
    monkeypatch.setattr(scoring, "predictions", counted)
    assert predict.predict(run)["scored_by"] == "this process"
    assert len(staged[0]) == 90
    # Few of a night's 30 are in memory.
    assert at_once == [20, 10] * 3


def test_odd_inputs_are_scored_and_told_or_refused(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    oven = pa.array(["?"] * 2 + ROWS["oven"].to_pylist()[2:])
    small.publish(environment, small.with_column(ROWS, "oven", oven), "scoring")
    _promote(environment, NIGHTS.first)
    run = small.run_of(environment, "predict", NIGHTS.last, NIGHTS.first)
    strict = replace(run.pipeline, serving=Serving(odd_inputs="refuse"))
    for most in (predict.ROWS_IN_PROCESS, 0):
        monkeypatch.setattr(predict, "ROWS_IN_PROCESS", most)
        assert predict.predict(run)["odd_inputs"] == ["oven unseen in 2 rows"]
        with pytest.raises(Refused, match=r"no row of training had: oven unseen in 2 rows\."):
            predict.predict(replace(run, pipeline=strict))


def test_without_any_model_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"No model of 'small' was in force on 2013-01-24: nothing can be scored"
    ):
        predict.predict(small.run_of(small.models_at(tmp_path), "predict"))


def test_a_model_that_has_learned_another_label_scores_no_night(
    tmp_path: Path,
    staged: list[pa.Table],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    before = _promote(environment, date(2013, 1, 23))
    _promote(environment, date(2013, 1, 25))
    client = Registry(environment, "small")._client
    client.log_param(before.run_id, "label", "weight")
    client.log_param(before.run_id, "task", "regression")
    result = predict.predict(small.run_of(environment, "predict", NIGHTS.last, NIGHTS.first))
    assert result["nights_without_model"] == ["2013-01-23", "2013-01-24"]
    assert set(staged[0]["model_version"].to_pylist()) == {"2"}
    assert (
        "Warning: version 1 has learned 'weight' (regression) and not 'failed' (binary "
        "classification), which 'small' declares: it scores no night."
    ) in capsys.readouterr().err
    night = small.run_of(environment, "predict", date(2013, 1, 24))
    told = r"No model of 'small' was in force on 2013-01-24.* Version 1 has learned 'weight'"
    with pytest.raises(Refused, match=told) as why:
        predict.predict(night)
    assert str(why.value).endswith(": nightshift run small --date 2013-01-24 --retrain")
    # Caught up by a night that has a model itself, it keeps that one from nothing.
    caught_up = replace(night, as_of=date(2013, 1, 25))
    assert predict.predict(caught_up)["nights_without_model"] == ["2013-01-24"]
    monkeypatch.setattr(check, "suite_of", lambda *_: None)
    judged = check.audit_and_publish(caught_up, [PREDICTIONS])
    assert (judged["tables"], judged["published"]) == (0, {})
    assert check._is_staged(night, PREDICTIONS), "or else its check tells that it is not"


def test_nights_whose_model_was_deleted_after_its_turn_keep_no_others_from_theirs(
    tmp_path: Path, staged: list[pa.Table], capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    first, second, last = NIGHTS
    for night in NIGHTS:
        _promote(environment, night)
    Registry(environment, "small")._client.delete_model_version("small", "2")
    result = predict.predict(small.run_of(environment, "predict", last, first))
    assert result["models"] == ["1", "3"]
    assert result["nights_without_model"] == [str(second)]
    assert set(staged[0]["model_version"].to_pylist()) == {"1", "3"}
    told = (
        "Version 2 of model 'small' scored the nights from 2013-01-24 to 2013-01-24, serves no "
        "more, and is not in MLflow, so they cannot be scored again."
    )
    warned = capsys.readouterr().err
    assert warned == (
        f"Warning: {told} This run leaves them out and scores the others. Once MLflow is restored "
        f"from a backup: nightshift run small --date {second}; or by another model: nightshift run "
        f"small --date {second} --retrain\n"
    )
    night = small.run_of(environment, "predict", second)
    # `monitor` asks for the predictions of the last night of a range.
    for run in (night, small.run_of(environment, "predict", second, first)):
        with pytest.raises(
            NightshiftError, match=f"{told} .*: ask for nights from {last} on"
        ) as why:
            predict.predict(run)
        assert str(why.value).endswith(f": nightshift run small --date {second} --retrain")
    # Caught up, as it was missed, it keeps tonight from nothing.
    caught_up = replace(night, as_of=last)
    assert predict.predict(caught_up)["nights_without_model"] == [str(second)]


def test_nights_whose_model_has_no_files_any_more_keep_no_others_from_theirs(
    tmp_path: Path, staged: list[pa.Table], capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    first, second, last = NIGHTS
    models = [_promote(environment, night) for night in NIGHTS]
    _delete_files(environment, models[1])
    result = predict.predict(small.run_of(environment, "predict", last, first))
    assert result["nights_without_model"] == [str(second)]
    assert set(staged[0]["model_version"].to_pylist()) == {"1", "3"}
    told = r"of model 'small' version 2 cannot be read"
    warned = capsys.readouterr().err
    assert told in warned
    way = f"nightshift run small --date {second} --retrain"
    assert warned.endswith(
        "This run leaves out the nights of its turn, and scores the others. Once its files are as "
        f"they were: nightshift run small --date {second}; or by another model: {way}\n"
    )
    night = small.run_of(environment, "predict", second)
    for run in (night, small.run_of(environment, "predict", second, first)):
        with pytest.raises(NightshiftError, match=f"{told}.* another model trained: {way}$"):
            predict.predict(run)
    # Caught up, as it was missed, it keeps tonight from nothing.
    caught_up = replace(night, as_of=last)
    assert predict.predict(caught_up)["nights_without_model"] == [str(second)]
    # Of what serves now the way out is another.
    _delete_files(environment, models[2])
    with pytest.raises(NightshiftError, match=r"version 3 cannot be read.*nightshift rollback"):
        predict.predict(small.run_of(environment, "predict", last, first))


def test_what_was_found_of_nights_without_a_model_is_what_whoever_plans_is_told(
    tmp_path: Path, staged: list[pa.Table]
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    nights = NIGHTS.since(1)
    models = [_promote(environment, night) for night in nights]
    client = Registry(environment, "small")._client
    client.log_param(models[0].run_id, "label", "weight")
    client.delete_model_version("small", "2")
    _delete_files(environment, models[2])
    run = small.run_of(environment, "predict", nights.last, nights.first)
    began = ops.now().timestamp()
    found = predict.predict(run)
    assert not unscored.reasons(environment, small.SMALL)
    record_stage(run, began, 0.1, status="done", metrics=found)
    told = unscored.reasons(environment, small.SMALL)
    other = (
        "has learned 'weight' (binary classification) and not 'failed' (binary classification), "
        "which 'small' declares"
    )
    whys = {}
    for day, why in told.items():
        whys[day], _, _ = why.partition("; left out. Once that is mended: ")
    assert whys == {
        nights.first: f"version 1 {other}",
        NIGHTS.first: "version 2 is not in MLflow",
        NIGHTS.first + timedelta(days=1): "the files of version 3 cannot be read",
    }


def _delete_files(environment: Environment, model: ModelVersion) -> None:
    (folder,) = environment.models.rglob(model.run_id)
    shutil.rmtree(folder)


@pytest.mark.parametrize("lacks", ["its version", "its files", "the label"])
def test_lost_nights_whose_model_is_gone_are_scored_again_by_the_commands_that_are_told(
    tmp_path: Path, staged: list[pa.Table], lacks: str
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    small.publish(environment, small.rows_of(Days(small.FIRST, small.LAST)))
    first, second, last = NIGHTS
    model = _promote(environment, first)
    _promote(environment, last)
    published = small.run_of(environment, "predict", last, first)
    _publish_predictions(published)
    shutil.rmtree(path(published, PREDICTIONS))
    client = Registry(environment, "small")._client
    if lacks == "the label":
        client.log_param(model.run_id, "label", "weight")
    elif lacks == "its files":
        _delete_files(environment, model)
    else:
        client.delete_model_version("small", "1")
    tonight = small.run_of(environment, "predict", last + timedelta(days=1))
    asked = []
    for _ in range(2):
        with pytest.raises(Refused, match=r"small\.predictions has lost what was served") as lost:
            predict.predict(tonight)
        command = str(lost.value).rpartition("nightshift run small ")[2]
        asked.append(command)
        again = _as_asked(environment, command)
        if again.retrain:
            train.train(again)
            assert evaluate.evaluate(again)["event"] == "promoted"
        assert predict.predict(again)["nights_without_model"] == []
        _publish_predictions(again)
    assert asked == [
        f"--date {first} --retrain --rescore",
        f"--from {second} --to {last} --rescore",
    ]
    served.require_not_lost(tonight)


def _publish_predictions(run: Run) -> None:
    """A row for each of its nights, which is about the day after."""
    ahead = replace(run, days=run.days.shifted(1))
    rows = {day: [1] for day in ahead.days}
    publish(run, PREDICTIONS, commits.staged(ahead, rows, PREDICTIONS))


def _as_asked(environment: Environment, command: str) -> Run:
    """The run of the options of a command."""
    words = command.split()
    last = words[words.index("--to" if "--to" in words else "--date") + 1]
    first = words[words.index("--from") + 1] if "--from" in words else last
    nights = (date.fromisoformat(last), date.fromisoformat(first))
    run = small.run_of(environment, "predict", *nights)
    return replace(run, retrain="--retrain" in words, rescore="--rescore" in words)


def test_after_a_rollback_every_night_is_scored_by_the_model_of_before(
    tmp_path: Path, staged: list[pa.Table], capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    _promote(environment, date(2013, 1, 23))
    _promote(environment, date(2013, 1, 24))
    decide.rollback(environment, LINEAR, None, Said(who="alice", why="odd"))
    result = predict.predict(small.run_of(environment, "predict", NIGHTS.last, NIGHTS.first))
    assert result["models"] == ["1"]
    assert set(staged[0]["model_version"].to_pylist()) == {"1"}
    assert Registry(environment, "small").champion() == "1", "the alias has followed"
    assert result["alias_was_moved_to"] is None
    assert capsys.readouterr().err == "", "nobody has moved it: it had not followed yet"


def test_a_night_that_has_asked_already_goes_on_with_the_model_that_is_rolled_back_meanwhile(
    tmp_path: Path, staged: list[pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    _promote(environment, date(2013, 1, 23))
    _promote(environment, date(2013, 1, 24))
    run = small.run_of(environment, "predict", NIGHTS.last)
    with monkeypatch.context() as meanwhile:

        def load(*arguments: Any) -> Scorer:
            decide.rollback(environment, LINEAR, None, Said(who="alice", why="odd"))
            return real(*arguments)

        real = scoring.load
        meanwhile.setattr(scoring, "load", load)
        assert predict.predict(run)["models"] == ["2"]
    assert set(staged[0]["model_version"].to_pylist()) == {"2"}
    assert predict.predict(run)["models"] == ["1"]


def test_nights_of_before_the_first_model_keep_no_later_part_of_their_run_from_its_own(
    tmp_path: Path, staged: list[pa.Table]
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    _promote(environment, NIGHTS.last)
    first, second, last = NIGHTS
    # As a range is restated over a gap: each part is of the run's last night.
    before = replace(small.run_of(environment, "predict", second, first), as_of=last)
    told = predict.predict(before)
    assert (told["predictions"], told["models"]) == (0, [])
    assert told["nights_without_model"] == [str(first), str(second)]
    assert not staged
    assert predict.predict(small.run_of(environment, "predict", last))["predictions"] == 30


def test_where_a_model_awaits_a_person_the_refusal_says_so(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    row = {"pipeline": "small", "as_of": small.LAST, "event": "awaiting", "model_version": "7"}
    model_events.record(environment, [row])
    with pytest.raises(Refused, match="One awaits a person: nightshift approve small 7 --why TEXT"):
        predict.predict(small.run_of(environment, "predict"))
    with pytest.raises(AwaitsApproval, match="Then the next night scores this one too"):
        predict.predict(small.run_of(environment, "predict"))


@pytest.mark.parametrize(
    ("as_of", "pipeline"),
    [
        (small.LAST + timedelta(days=1), small.SMALL),
        # By the clock nobody may approve it any more.
        (
            small.LAST,
            replace(small.SMALL, promotion=Promotion(needs_approval=True, approval_hours=1e-9)),
        ),
    ],
)
def test_a_model_that_would_not_serve_the_night_if_a_person_agreed_is_not_awaited(
    as_of: date, pipeline: Pipeline, tmp_path: Path
) -> None:
    environment = small.models_at(tmp_path)
    row = {"pipeline": "small", "as_of": as_of, "event": "awaiting", "model_version": "7"}
    model_events.record(environment, [row])
    run = replace(small.run_of(environment, "predict"), pipeline=pipeline)
    with pytest.raises(Refused, match="Run stages train and evaluate") as refused:
        predict.predict(run)
    assert refused.value.exit_code == Refused.exit_code


def test_a_night_without_any_scoring_row_publishes_an_empty_day(
    environment: Environment, tmp_path: Path
) -> None:
    small.publish(environment, ROWS, "scoring")
    _promote(environment, small.LAST)
    full = small.run_of(environment, "predict")
    empty = small.run_of(environment, "predict", NIGHTS.last + timedelta(days=10))
    for run, rows in ((full, 30), (empty, 0)):
        assert predict.predict(run)["predictions"] == rows
        assert tables.publish(run, "predictions").rows == rows
    assert tables.read(empty, "predictions").schema == tables.staged(empty, "predictions").schema


def test_predictions_are_staged_through_spark(environment: Environment, tmp_path: Path) -> None:
    small.publish(environment, ROWS, "scoring")
    _promote(environment, small.LAST)
    run = small.run_of(environment, "predict")
    assert predict.predict(run)["predictions"] == 30
    staged = {
        row["batch"]: row["failure_probability"]
        for row in tables.staged(run, "predictions").collect()
    }
    is_last = pa.compute.equal(ROWS["landed_date"], pa.scalar(small.LAST))
    night = ROWS.filter(is_last)
    registry = Registry(environment, "small")
    expected = scoring.load(registry, registry.version("1")).score(night)
    batches = night["batch"].to_pylist()
    assert staged == dict(zip(batches, expected.tolist(), strict=True))
