from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.commands import decide
from jobs.commands.decide import Said
from jobs.commands.models import columns, models
from jobs.lake import model_events, ops
from jobs.training.registry import ModelVersion, Registry
from pipelines.environment import Environment
from pipelines.spec import Pipeline
from tests.jobs.training import small

EVIDENCE = {
    "candidate": {"r2": 0.9, "rmse": 1.5},
    "champion": None,
    "baselines": {"usual": {"rmse": 3.0}, "persistence": {"rmse": 2.5}},
}
OLD_EVIDENCE = {
    "candidate": {"auc": 0.7, "log_loss": 0.5},
    "champion": {"auc": 0.6, "log_loss": 0.55},
    "baseline": {"auc": 0.6, "log_loss": 0.6},
}


def test_a_pipeline_without_models_lists_none(tmp_path: Path) -> None:
    listed = models(small.SMALL, small.models_at(tmp_path))
    assert listed == (columns(small.SMALL), [])


def test_the_columns_are_those_of_the_task_and_the_baselines() -> None:
    first = ("version", "as_of", "alias", "family", "event", "decided_at", "who")
    around = first, ("reason", "mlflow_run_id")
    binary = ("auc", "log_loss", "champion_log_loss", "group_mean_log_loss")
    numbers = ("r2", "rmse", "champion_rmse", "usual_rmse", "persistence_rmse")
    assert columns(small.SMALL) == around[0] + binary + around[1]
    assert columns(small.TWIN) == around[0] + numbers + around[1]


def test_a_model_is_listed_with_what_was_measured(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    _keep(environment, small.TWIN, tmp_path)
    model = _keep(environment, small.TWIN, tmp_path)
    _evaluated(environment, small.TWIN, model, EVIDENCE)
    names, (newest, first) = models(small.TWIN, environment)
    shown = dict(zip(names, newest, strict=True))
    assert (shown["version"], shown["family"], shown["event"]) == ("2", "linear", "promoted")
    assert (shown["r2"], shown["rmse"], shown["champion_rmse"]) == (0.9, 1.5, None)
    assert (shown["usual_rmse"], shown["persistence_rmse"]) == (3.0, 2.5)
    assert (shown["alias"], shown["reason"]) == ("challenger champion", "better")
    assert dict(zip(names, first, strict=True))["event"] == "not evaluated"


def test_what_a_person_said_is_listed_with_who_and_why_beside_what_was_measured(
    tmp_path: Path,
) -> None:
    environment = small.models_at(tmp_path)
    for _ in range(2):
        model = _keep(environment, small.TWIN, tmp_path)
        _evaluated(environment, small.TWIN, model, EVIDENCE)
    said = Said(who="alice", why="odd on Mondays")
    decide.rollback(environment, small.TWIN, None, said)
    names, (newest, first) = models(small.TWIN, environment)
    shown = dict(zip(names, newest, strict=True))
    assert (shown["event"], shown["who"]) == ("rolled_back", "alice")
    assert (shown["reason"], shown["r2"]) == ("odd on Mondays", 0.9)
    assert shown["decided_at"] is not None
    assert shown["alias"] == "challenger"
    again = dict(zip(names, first, strict=True))
    assert (again["event"], again["alias"]) == ("restored", "champion")


def test_a_version_that_others_made_is_told_and_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    flights = replace(small.SMALL, name="flights")
    _keep(environment, flights, tmp_path)
    small.registered_by_hand(Registry(environment, "flights"))
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(environment.home))
    assert main(["models", "flights", "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert [row["version"] for row in json.loads(printed.out)] == ["1"]
    assert "Not listed, because others made them in MLflow: version 2\n" in printed.err


def test_a_version_that_serves_and_was_deleted_in_mlflow_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    flights = replace(small.SMALL, name="flights")
    model = _keep(environment, flights, tmp_path)
    _evaluated(environment, flights, model, OLD_EVIDENCE)
    assert main(["models", "flights"]) == 0
    assert "is not in MLflow" not in capsys.readouterr().err
    Registry(environment, "flights")._client.delete_model_version("flights", model.version)
    assert main(["models", "flights"]) == 0
    told = capsys.readouterr().err
    assert f"Version {model.version} serves and is not in MLflow" in told
    assert "nightshift rollback flights --why TEXT" in told


def test_an_event_of_an_older_version_is_listed_without_its_baseline(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    model = _keep(environment, small.SMALL, tmp_path)
    _evaluated(environment, small.SMALL, model, OLD_EVIDENCE)
    names, (row,) = models(small.SMALL, environment)
    shown = dict(zip(names, row, strict=True))
    assert (shown["auc"], shown["champion_log_loss"]) == (0.7, 0.55)
    assert shown["group_mean_log_loss"] is None


@pytest.mark.parametrize("pipeline", small.PIPELINES, ids=lambda pipeline: pipeline.name)
def test_every_row_has_a_value_for_each_column(tmp_path: Path, pipeline: Pipeline) -> None:
    environment = small.models_at(tmp_path)
    _keep(environment, pipeline, tmp_path)
    names, (row,) = models(pipeline, environment)
    assert len(row) == len(names)


def _keep(environment: Environment, pipeline: Pipeline, folder: Path) -> ModelVersion:
    files = folder / "files"
    files.mkdir(exist_ok=True)
    (files / "linear.json").write_text("{}")
    return Registry(environment, pipeline.name).keep(
        files,
        as_of=small.LAST,
        fingerprint="f",
        family="linear",
        recipe="as ever",
        params={},
        curves={},
        pins={},
    )


def _evaluated(
    environment: Environment,
    pipeline: Pipeline,
    model: ModelVersion,
    evidence: Mapping[str, object],
) -> None:
    event = {
        "pipeline": pipeline.name,
        "as_of": small.LAST,
        "event": "promoted",
        "model_version": model.version,
        "metrics": json.dumps(evidence),
        "reason": "better",
        "created_at": ops.now(),
    }
    ops.append(environment, model_events.TABLE, [event])
