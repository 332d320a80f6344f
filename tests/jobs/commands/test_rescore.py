"""Published nights are scored again, and the difference is told; nothing else happens."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from sklearn.metrics import log_loss, roc_auc_score

from jobs.__main__ import main, parser
from jobs.commands import rescore as command
from jobs.commands.rescore import PARTS, Asked, rescore, tell
from jobs.lake import model_events, publications
from jobs.services import child
from jobs.stages import train as stage
from jobs.training import rescoring, scoring
from jobs.training.explanations import served
from jobs.training.registry import ModelVersion, Registry
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.run import Run
from pipelines.spec import Pipeline
from tests.jobs.commands.conftest import StageServer
from tests.jobs.commands.test_explain import (
    DAY_RENAMED,
    RENAMED,
    day_renamed,
    have_foretold_nothing_by,
    publish_predictions,
    serve,
)
from tests.jobs.training import small

NIGHT = small.LAST
NIGHTS = Days.of(NIGHT)
TWO = Days(NIGHT, NIGHT + timedelta(days=1))
LINEAR = small.learned_by(small.SMALL, small.LINEAR)
WEIGHED = small.learned_by(small.TWIN, small.LINEAR)
Shown = list[dict[str, Any]]
Told = Callable[..., tuple[Shown, str]]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return small.models_at(tmp_path)


@pytest.fixture
def told(environment: Environment, capsys: pytest.CaptureFixture[str]) -> Told:
    """Rows and words of a comparison."""

    def compare(
        part: str = "days",
        *,
        pipeline: Pipeline = LINEAR,
        nights: Days = NIGHTS,
        model: str | None = None,
        top: int = 10,
    ) -> tuple[Shown, str]:
        capsys.readouterr()
        asked = Asked(model=model, form="json", part=part, top=top)
        tell(environment, pipeline, nights, asked)
        printed = capsys.readouterr()
        return json.loads(printed.out), printed.err

    return compare


def promote(
    environment: Environment,
    version: str = "1",
    as_of: date = NIGHT,
    pipeline: Pipeline = LINEAR,
    event: str = model_events.PROMOTED,
) -> None:
    row = {
        "pipeline": pipeline.name,
        "event": event,
        "as_of": as_of,
        "model_version": version,
        "metrics": "{}",
    }
    model_events.record(environment, [row])


def train(
    environment: Environment, as_of: date, pipeline: Pipeline = LINEAR, *, seed: int = 7
) -> ModelVersion:
    """One more version, which has learned from other rows."""
    days = Days(as_of - timedelta(days=23), as_of)
    small.publish(environment, small.rows_of(days, seed=seed), pipeline=pipeline)
    stage.train(small.run_of(environment, "train", as_of, pipeline=pipeline, retrain=True))
    return Registry(environment, pipeline.name).versions()[0]


def says(
    environment: Environment, model: ModelVersion, rows: pa.Table
) -> np.ndarray[Any, np.dtype[np.float64]]:
    registry = Registry(environment, model.name)
    return scoring.load(registry, model).score(rows)


def have_labels_landed(
    environment: Environment,
    pipeline: Pipeline = LINEAR,
    nights: Days = NIGHTS,
    without: int = 0,
) -> pa.Table:
    """Labels of what was scored, all but the first so many; returns the rows with them."""
    rows = small.rows_of(nights, seed=2)
    tomorrow = small.scoring_rows(nights)["batch_date"]
    for day in ("landed_date", "batch_date"):
        rows = small.with_column(rows, day, tomorrow)
    label = pipeline.training.label
    unknown = np.arange(len(rows)) < without
    labels = pa.array(
        rows[label].to_pylist(),
        rows.schema.field(label).type,
    )
    known = pc.if_else(pa.array(unknown), None, labels)
    rows = small.with_column(rows, label, known)
    small.publish(environment, rows, pipeline=pipeline)
    return rows.filter(pc.is_valid(rows[label]))


def have_scored_without(environment: Environment, *columns: str) -> None:
    """Put a scoring table in place of the one that the predictions name, without some columns."""
    rows = small.scoring_rows(NIGHTS).drop_columns([*columns])
    place = Path(environment.table_path("small.scoring"))
    shutil.rmtree(place)
    small.publish(environment, rows, "scoring")


def test_the_model_that_served_says_the_very_same(environment: Environment, told: Told) -> None:
    said = serve(environment, LINEAR)
    promote(environment)
    (night,), words = told()
    assert (night["night"], night["served_by"], night["rows"]) == ("2013-01-24", "1", 40)
    assert (night["largest"], night["mean_absolute"], night["share_changed"]) == (0, 0, 0)
    published = said["failure_probability"].to_numpy()
    assert night["mean_now"] == night["mean_published"] == pytest.approx(published.mean())
    assert (night["labels"], night["log_loss_now"], night["auc_now"]) == (0, None, None)
    assert night["unseen"] is True
    assert "small 2013-01-24: 40 predictions of 1 night(s), published by version 1, scored" in words
    assert "0 predictions changed. No label is known yet." in words
    assert "Nothing was published." in words
    assert told("changes")[0] == []
    slices, _ = told("slices")
    assert {one["largest"] for one in slices} == {0}


def test_a_network_says_the_very_same(ranked: Environment, told: Told) -> None:
    serve(ranked, small.SMALL)
    promote(ranked)
    registry = Registry(ranked, "small")
    model = rescoring.asked_for(ranked, registry, None)
    rescorer = rescoring.Rescorer.of(ranked, small.SMALL, registry, model)
    assert rescorer.compare(NIGHT, 10).difference.largest < 1e-6


def test_another_model_is_told_by_night(environment: Environment, told: Told) -> None:
    said = serve(environment, LINEAR)
    other = train(environment, NIGHT - timedelta(days=1))
    known = have_labels_landed(environment, without=5)
    (night,), words = told(model=other.version)
    published = said["failure_probability"].to_numpy()
    now = says(environment, other, small.scoring_rows(NIGHTS))
    sizes = np.abs(now - published)
    assert night["mean_published"] == pytest.approx(published.mean())
    assert night["mean_now"] == pytest.approx(now.mean())
    assert night["mean_absolute"] == pytest.approx(sizes.mean())
    assert night["largest"] == pytest.approx(sizes.max())
    assert night["share_changed"] == 1
    label = known["failed"].to_numpy()
    # The last row of a day has no label either.
    assert night["labels"] == len(label) == 34
    before, after = published[5:39], now[5:39]
    assert night["log_loss_published"] == pytest.approx(log_loss(label, before))
    assert night["log_loss_now"] == pytest.approx(log_loss(label, after))
    assert night["auc_published"] == pytest.approx(roc_auc_score(label, before))
    assert night["auc_now"] == pytest.approx(roc_auc_score(label, after))
    assert f"scored again by version {other.version} (linear, trained as of 2013-01-23)" in words
    assert " Mean log loss of 34 labels: " in words
    assert "40 predictions changed." in words


def test_a_change_below_a_millionth_is_none(environment: Environment, told: Told) -> None:
    said = serve(environment, LINEAR)
    served_ = said["failure_probability"].to_numpy().copy()
    served_[0] += 2e-6
    served_[1] -= 5e-7
    moved = small.with_column(said, "failure_probability", pa.array(served_))
    publish_predictions(environment, LINEAR, moved, version=1)
    (night,), _ = told(model="1")
    assert night["share_changed"] == 1 / 40
    assert night["largest"] == pytest.approx(2e-6)
    (change,) = told("changes", model="1")[0]
    assert change["batch"] == 0
    assert change["difference"] == pytest.approx(-2e-6)


def test_slices_add_up_over_the_nights(environment: Environment, told: Told) -> None:
    said = serve(environment, LINEAR, TWO)
    other = train(environment, NIGHT)
    known = have_labels_landed(environment, nights=TWO)
    slices, _ = told("slices", model=other.version, nights=TWO)
    nights, _ = told(model=other.version, nights=TWO)
    assert [night["night"] for night in nights] == ["2013-01-24", "2013-01-25"]
    assert [(one["slice"], one["value"]) for one in slices] == [
        ("line", "AA"),
        ("line", "BB"),
        ("line", "CC"),
    ]
    assert sum(one["rows"] for one in slices) == 80
    assert sum(one["labels"] for one in slices) == 78
    assert sum(one["labels"] for one in nights) == 78
    whole = sum(one["mean_absolute"] * one["rows"] for one in slices) / 80
    assert whole == pytest.approx(np.mean([night["mean_absolute"] for night in nights]))
    assert max(one["largest"] for one in slices) == max(night["largest"] for night in nights)
    is_bb = known["line"].to_numpy() == "BB"
    label = known["failed"].to_numpy()[is_bb]
    published = said["failure_probability"].to_numpy()
    labelled = published[np.arange(80) % 40 < 39]
    assert slices[1]["loss_published"] == pytest.approx(log_loss(label, labelled[is_bb]))
    assert slices[1]["loss_now"] != slices[1]["loss_published"]


def test_differences_of_parts_add_up_to_that_of_all() -> None:
    draw = np.random.default_rng(3)
    published = draw.random(50)
    now = np.where(draw.random(50) < 0.4, published, draw.random(50))
    label = np.where(
        draw.random(50) < 0.3,
        np.nan,
        draw.integers(0, 2, 50),
    )
    pairs = rescoring.Pairs(published=published, now=now, label=label)
    is_first = np.arange(50) < 20
    task = task_of("binary_classification")
    first = rescoring.Difference.of(task, pairs.where(is_first))
    others = rescoring.Difference.of(task, pairs.where(~is_first))
    whole = rescoring.Difference.of(task, pairs)
    assert asdict(first + others) == pytest.approx(asdict(whole))
    assert asdict(others + first) == pytest.approx(asdict(whole))
    assert 0 < whole.changed < whole.rows


def test_what_counts_as_changed_follows_the_unit_of_the_predictions() -> None:
    task = task_of("regression")
    unknown = np.full(2, np.nan)
    for unit in (1e-9, 1.0, 1e9):
        published = np.array([3.0, -4.0]) * unit
        now = np.array([3.0 + 1e-7, -4.1]) * unit
        pairs = rescoring.Pairs(published=published, now=now, label=unknown, largest=4 * unit)
        assert rescoring.Difference.of(task, pairs).changed == 1


def test_the_largest_changes_of_all_nights_are_told_with_their_keys(
    environment: Environment, told: Told
) -> None:
    said = serve(environment, LINEAR, TWO)
    other = train(environment, NIGHT)
    have_labels_landed(environment, nights=TWO)
    changes, _ = told("changes", model=other.version, nights=TWO, top=7)
    now = says(environment, other, small.scoring_rows(TWO))
    by_key = {
        (
            str(row["batch_date"]),
            row["line"],
            row["batch"],
            row["oven"],
        ): place
        for place, row in enumerate(said.to_pylist())
    }
    differences = now - said["failure_probability"].to_numpy()
    order = np.argsort(-np.abs(differences), kind="stable")[:7]
    places = [by_key[tuple(one[name] for name in LINEAR.entity)] for one in changes]
    assert places == order.tolist()
    assert {one["batch_date"] for one in changes} == {"2013-01-25", "2013-01-26"}
    assert [one["difference"] for one in changes] == pytest.approx(differences[order].tolist())
    assert {one["label"] for one in changes} <= {0, 1, None}
    assert {one["served_by"] for one in changes} == {"1"}


def test_numbers_are_told_by_the_metrics_of_numbers(environment: Environment, told: Told) -> None:
    said = serve(environment, WEIGHED)
    other = train(environment, NIGHT, WEIGHED)
    known = have_labels_landed(environment, WEIGHED)
    (night,), _ = told(pipeline=WEIGHED, model=other.version)
    now = says(environment, other, small.scoring_rows(NIGHTS))[:39]
    weight = known["weight"].to_numpy()
    published = said["expected_weight"].to_numpy()[:39]
    of_published = np.mean((published - weight) ** 2)
    of_now = np.mean((now - weight) ** 2)
    assert night["rmse_published"] == pytest.approx(np.sqrt(of_published))
    assert night["rmse_now"] == pytest.approx(np.sqrt(of_now))
    assert night["r2_now"] == pytest.approx(1 - of_now / np.var(weight))


def test_rows_are_those_that_were_scored_though_the_table_says_others_by_now(
    environment: Environment, told: Told
) -> None:
    serve(environment, LINEAR)
    scored = small.scoring_rows(NIGHTS)
    other = small.with_column(scored, "x", pa.array(np.ones(len(scored))))
    small.publish(environment, other, "scoring", pipeline=LINEAR)
    (night,), _ = told(model="1")
    assert night["largest"] == 0


def test_a_model_that_knew_better_is_told_as_such(environment: Environment, told: Told) -> None:
    serve(environment, LINEAR)
    later = train(environment, NIGHT + timedelta(days=2))
    have_labels_landed(environment)
    (night,), words = told(model=later.version)
    assert night["unseen"] is False
    assert "has learned from what became known after 1 of these nights (unseen=false)" in words
    _, words = told(model="1")
    assert "has learned" not in words


def test_nights_without_predictions_are_told(environment: Environment, told: Told) -> None:
    with pytest.raises(UsageError, match="no prediction on 2013-01-24. Its last nights: none yet"):
        told(model=train(environment, NIGHT).version)
    serve(environment, LINEAR)
    days = Days(NIGHT - timedelta(days=6), NIGHT)
    nights, words = told(nights=days, model="1")
    assert [night["night"] for night in nights] == ["2013-01-24"]
    assert "6 night(s) have published none: 2013-01-18, 2013-01-19, " in words
    assert "2013-01-22, …." in words
    with pytest.raises(UsageError, match="no prediction on 2013-01-02. Its last nights: 2013-01-2"):
        told(nights=Days.of(date(2013, 1, 2)), model="1")


def test_a_night_of_before_the_prediction_was_named_anew_is_told(
    environment: Environment, told: Told
) -> None:
    said = serve(environment, LINEAR)
    newer = replace(LINEAR, prediction="risk")
    have_foretold_nothing_by(environment, said, newer.prediction)
    with pytest.raises(UsageError, match=RENAMED):
        told(pipeline=newer, model="1")


def test_a_night_of_before_its_day_was_named_anew_is_told(
    environment: Environment, told: Told
) -> None:
    serve(environment, LINEAR)
    with pytest.raises(NightshiftError, match=DAY_RENAMED):
        told(pipeline=day_renamed(LINEAR), model="1")


def test_what_foretells_something_else_is_not_compared(
    environment: Environment, told: Told
) -> None:
    serve(environment, LINEAR)
    declared = replace(LINEAR, training=WEIGHED.training)
    foretells = r"foretells 'failed' \(binary_classification\), and 'weight' \(regression\) is"
    with pytest.raises(UsageError, match=f"^Version 1 of model 'small' {foretells} .*models small"):
        told(pipeline=declared, model="1")
    newer = train(environment, NIGHT, declared)
    with pytest.raises(UsageError, match=f", which made the .* of 2013-01-24, {foretells} .*score"):
        told(pipeline=declared, model=newer.version)
    labelled = replace(LINEAR, training=replace(LINEAR.training, label="overdone"))
    with pytest.raises(UsageError, match=r"foretells 'failed' .* 'overdone' \(binary_class"):
        told(pipeline=labelled, model="1")


def test_a_night_that_has_published_no_row_is_a_row(environment: Environment, told: Told) -> None:
    said = serve(environment, LINEAR)
    publish_predictions(environment, LINEAR, said, TWO, version=1)
    nights, words = told(nights=TWO, model="1")
    assert [night["rows"] for night in nights] == [40, 0]
    assert nights[1]["served_by"] == ""
    assert nights[1]["mean_now"] is None
    assert nights[1]["largest"] is None
    assert "40 predictions of 2 night(s)" in words


def test_a_model_that_is_not_there_is_told(environment: Environment, told: Told) -> None:
    serve(environment, LINEAR)
    with pytest.raises(UsageError, match=r"No version of model 'small' named '9'.* Known: 1\."):
        told(model="9")
    with pytest.raises(UsageError, match=r"No model of 'small' serves: .*--model VERSION"):
        told()
    promote(environment)
    for file in (environment.home / "mlartifacts").rglob("linear.json"):
        file.unlink()
    with pytest.raises(NightshiftError, match=r"linear.json of model 'small' version 1 cannot be"):
        told()


def test_rows_without_a_column_of_the_model_are_told(environment: Environment, told: Told) -> None:
    serve(environment, LINEAR)
    have_scored_without(environment, "gappy", "noise")
    with pytest.raises(
        UsageError,
        match="Version 1 of model 'small' reads gappy, noise, and small.scoring has no such column "
        "in version 0, from which the predictions of 2013-01-24 were made.*nightshift models small",
    ):
        told(model="1")


def test_a_slice_that_was_declared_since_is_left_out(environment: Environment, told: Told) -> None:
    serve(environment, LINEAR)
    declared = replace(LINEAR, training=replace(LINEAR.training, slices=("line", "product")))
    slices, _ = told("slices", pipeline=declared, model="1")
    assert {one["slice"] for one in slices} == {"line", "product"}
    have_scored_without(environment, "product")
    slices, _ = told("slices", pipeline=declared, model="1")
    assert {one["slice"] for one in slices} == {"line"}


def test_rows_that_are_gone_are_told(environment: Environment, told: Told) -> None:
    serve(environment, LINEAR)
    other = small.scoring_rows(NIGHTS, per_day=30)
    small.publish(environment, other, "scoring", pipeline=LINEAR)
    for file in sorted(Path(environment.table_path("small.scoring")).rglob("*.parquet")):
        file.unlink()
    with pytest.raises(UsageError, match=r"in version 0.*Score anew: nightshift run small --date"):
        told(model="1")


def test_predictions_of_rows_that_nobody_knows_are_told(
    environment: Environment, told: Told
) -> None:
    said = serve(environment, LINEAR)
    strange = small.with_column(said, "oven", pa.repeat("none", len(said)))
    publish_predictions(environment, LINEAR, strange, version=1)
    with pytest.raises(
        NightshiftError, match="no row for 40 predictions of 2013-01-24, such as batch_date=2013-01"
    ):
        told(model="1")


def test_the_place_of_a_key_is_that_of_its_last_row() -> None:
    wanted = pa.table(
        {
            "a": ["y", "x", "z", "x"],
            "b": [1, 1, 1, 2],
        }
    )
    rows = pa.table(
        {
            "b": pa.array([1, 1, 2, 1], pa.int32()),
            "a": ["x", "y", "x", "x"],
        }
    )
    found = served.places_of(wanted, rows, ("a", "b")).tolist()
    assert found == [1, 3, -1, 2]


def test_a_table_has_all_parts_and_a_program_one(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(environment, LINEAR)
    other = train(environment, NIGHT)
    capsys.readouterr()
    tell(environment, LINEAR, NIGHTS, Asked(model=other.version, top=3))
    out = capsys.readouterr().out
    assert "\nBy night:\n" in out
    assert "\nBy slice; loss is the log loss of a row:\n" in out
    assert "\nThe 3 largest changes:\n" in out
    assert out.endswith("Nothing was published.\n")
    tell(environment, LINEAR, NIGHTS, Asked(model=other.version, part="slices"))
    out = capsys.readouterr().out
    assert "| line  | AA " in out
    assert "log_loss" not in out
    for part, rows in (
        (None, 1),
        ("days", 1),
        ("slices", 3),
        ("changes", 10),
    ):
        tell(environment, LINEAR, NIGHTS, Asked(model=other.version, form="csv", part=part))
        found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert len(found) == rows


def test_nothing_is_published(environment: Environment, told: Told) -> None:
    serve(environment, LINEAR)
    other = train(environment, NIGHT)
    promote(environment)

    def state() -> object:
        tables = ("predictions", "scoring", "training")
        run = small.run_of(environment, "check_predictions", pipeline=LINEAR)
        versions = [DeltaTable(environment.table_path(f"small.{one}")).version() for one in tables]
        events = len(model_events.events(environment, "small"))
        return versions, events, publications.every(run, "predictions")

    before = state()
    told(model=other.version)
    assert state() == before


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The nights that would have been run; the first words of one go to stdout."""
    nights: list[Run] = []

    def make_true(run: Run, _stages: object) -> int:
        nights.append(run)
        print("predict  1.0 s")
        return 0

    monkeypatch.setattr("jobs.night.make_true", make_true)
    return nights


def test_what_serves_is_published_as_by_a_run_that_scores_again(
    environment: Environment, performed: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    serve(environment, LINEAR, TWO)
    promote(environment)
    capsys.readouterr()
    assert rescore(environment, LINEAR, TWO, Asked(form="csv", publish=True)) == 0
    (run,) = performed
    assert (run.days, run.rescore, run.retrain) == (TWO, True, False)
    printed = capsys.readouterr()
    assert len(list(csv.DictReader(io.StringIO(printed.out)))) == 2, "rows alone"
    assert f"small 2013-01-24..2013-01-25  run {run.run_id}" in printed.err
    assert "Nothing was published" not in printed.err
    assert rescore(environment, LINEAR, TWO, Asked(publish=True)) == 0
    assert "predict  1.0 s" in capsys.readouterr().out


def test_what_does_not_serve_is_never_published(
    environment: Environment, performed: list[Run]
) -> None:
    serve(environment, LINEAR)
    train(environment, NIGHT)
    promote(environment)
    with pytest.raises(
        Refused, match="Version 2 of 'small' does not serve, .* never let into service"
    ):
        rescore(environment, LINEAR, NIGHTS, Asked(model="2", publish=True))
    promote(environment, "2")
    with pytest.raises(
        Refused, match="Version 1 of .*: nightshift rollback small --to 1 --why TEXT"
    ):
        rescore(environment, LINEAR, NIGHTS, Asked(model="1", publish=True))
    assert performed == []
    assert rescore(environment, LINEAR, NIGHTS, Asked(model="2", publish=True)) == 0
    assert len(performed) == 1


def test_a_night_that_was_never_run_is_not_published(
    environment: Environment, performed: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    serve(environment, LINEAR, TWO)
    promote(environment)
    capsys.readouterr()
    days = Days(NIGHT, NIGHT + timedelta(days=3))
    with pytest.raises(
        UsageError,
        match=r"2 night\(s\) of 'small' 2013-01-24..2013-01-27 have published no predictions: "
        r"2013-01-26, 2013-01-27\. .* --date 2013-01-25, .*run small --date 2013-01-26",
    ):
        rescore(environment, LINEAR, days, Asked(publish=True))
    assert performed == []
    assert capsys.readouterr().out == "", "before anything is scored"
    assert rescore(environment, LINEAR, days, Asked()) == 0


def test_a_night_of_another_turn_is_not_published(
    environment: Environment, performed: list[Run]
) -> None:
    serve(environment, LINEAR, TWO)
    train(environment, TWO.last)
    promote(environment, "2", TWO.last)
    with pytest.raises(Refused, match="Night 2013-01-24 is no model's turn.* from 2013-01-25 on"):
        rescore(environment, LINEAR, TWO, Asked(model="2", publish=True))
    promote(environment, "1")
    with pytest.raises(Refused, match="Night 2013-01-24 is version 1's turn"):
        rescore(environment, LINEAR, TWO, Asked(model="2", publish=True))
    assert performed == []
    assert rescore(environment, LINEAR, Days.of(TWO.last), Asked(publish=True)) == 0


def test_the_command_asks_the_stage_server_where_one_is_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    performed: list[Run],
    stage_server: StageServer,
) -> None:
    stage_server.codes = [2, 0]
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    line = ["rescore", "flights", "--date", "2013-02-08", "--model", "3", "--top", "5"]
    assert main([*line, "--publish"]) == 2
    assert performed == [], "what could not be told is not published"
    assert main([*line, "--publish"]) == 0
    assert len(performed) == 1
    function, argument = stage_server.asked[0]
    assert function in child.ALLOWED
    given = Asked(**json.loads(json.dumps(argument["asked"])))
    assert given == Asked(model="3", top=5, publish=True)
    monkeypatch.setattr("jobs.services.stage_client.available", lambda _: False)
    capsys.readouterr()
    assert main(line) == 2, "no model was kept in this home"
    here = capsys.readouterr()
    assert here.err.startswith("Usage: No version of model 'flights' named '3'")
    assert command.in_child(argument) == 2
    assert capsys.readouterr() == here


def test_the_parts_are_those_of_the_command_line() -> None:
    for part in PARTS:
        given = parser().parse_args(["rescore", "flights", "--date", "2013-02-08", "--show", part])
        assert given.part == part
    with pytest.raises(UsageError, match="No part named 'slice'. Did you mean 'slices'"):
        parser().parse_args(["rescore", "flights", "--show", "slice"])
