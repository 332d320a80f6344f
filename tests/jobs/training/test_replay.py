"""A model is trained again from its pins to the same weights, or what is not as it was is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from jobs.commands.replay import HEADER
from jobs.commands.replay import replay as replay_command
from jobs.lake import model_events, ops, publications
from jobs.lake.publications import Publication
from jobs.stages import train as stage
from jobs.training import pins
from jobs.training.explanations import METHODS
from jobs.training.families import linear
from jobs.training.registry import Registry
from jobs.training.replay import _WEIGHTS, digest
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.model import FAMILIES, Family, GroupMean, LinearModel, OneOf
from pipelines.spec import Pipeline
from tests.jobs.training import small

ALL_DAYS = Days(small.FIRST, small.LAST)
LINEAR = small.learned_by(small.SMALL, small.LINEAR)


def trained(environment: Environment, pipeline: Pipeline = LINEAR, seed: int = 1) -> None:
    """Version 1 of the pipeline, trained by the stage."""
    small.publish(environment, small.rows_of(ALL_DAYS, seed=seed), pipeline=pipeline)
    stage.train(small.run_of(environment, "train", pipeline=pipeline))


def replayed(
    environment: Environment, capsys: pytest.CaptureFixture[str], pipeline: Pipeline = LINEAR
) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, rows and words of the command."""
    capsys.readouterr()
    code = replay_command(environment, pipeline, "1", "json")
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err


def pin(environment: Environment, changes: Mapping[str, Any]) -> None:
    """Change what version 1 has pinned."""
    registry = Registry(environment, "small")
    model = registry.version("1")
    client = MlflowClient(environment.mlflow_uri)
    folder = unquote(urlparse(client.get_run(model.run_id).info.artifact_uri).path)
    file = Path(folder) / "pins.json"
    pinned = json.loads(file.read_text()) | changes
    told = {name: value for name, value in pinned.items() if value is not None}
    file.write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [
        (small.SMALL, small.NETWORK),
        (small.SMALL, small.LINEAR),
        (small.TWIN, small.LINEAR),
    ],
    ids=lambda value: value.name,
)
def test_the_same_pins_give_the_same_weights_and_touch_nothing(
    ranked: Environment,
    pipeline: Pipeline,
    family: Family,
    capsys: pytest.CaptureFixture[str],
) -> None:
    declared = small.learned_by(pipeline, family)
    trained(ranked, declared)
    registry = Registry(ranked, declared.name)
    before = registry.versions()
    code, rows, words = replayed(ranked, capsys, declared)
    assert code == 0
    assert all(row["same"] for row in rows)
    assert tuple(rows[0]) == HEADER
    assert {row["model"] for row in rows} == {"serving", "judged"}
    assert words.count("The same weights of the") == 2
    assert "Not as then" not in words
    assert registry.versions() == before
    assert len(MlflowClient(ranked.mlflow_uri).search_runs(["0", "1", "2"])) == 1
    assert not ops.exists(ranked, model_events.TABLE)


def test_what_is_declared_by_now_decides_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    curved = replace(LINEAR.training, shared=("noise",), seed=7, expected_slope=0.8)
    trained(environment, replace(LINEAR, training=curved))
    other = replace(small.TRAINING, window_days=12, holdout_days=2, seed=1)
    code, _, words = replayed(environment, capsys, replace(small.SMALL, training=other))
    assert (code, "Not as then" in words) == (0, False)


def test_rows_that_were_published_later_are_not_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    small.publish(environment, small.rows_of(ALL_DAYS, seed=9))
    code, _, words = replayed(environment, capsys)
    assert (code, "Not as then" in words) == (0, False)


def test_a_correction_that_is_restated_as_it_is_later_is_not_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    run = small.run_of(environment, "train")
    small.publish(environment, small.rows_of(ALL_DAYS))
    first = _published(small.LAST, 0, known=small.LAST)
    correction = _published(small.LAST, 1, known=small.LAST + timedelta(days=1))
    publications.record(run, "training", [first, correction])
    trained(environment, seed=9)
    registry = Registry(environment, "small")
    (made_from,) = registry.pinned()
    assert made_from.taken_at == correction.published_at
    restated = _published(small.LAST, 1, known=small.LAST)
    publications.record(run, "training", [replace(restated, changed=False)])
    assert registry.pinned() == {made_from}
    code, _, words = replayed(environment, capsys)
    assert (code, "Not as then" in words) == (0, False)


def _published(day: date, version: int, known: date) -> Publication:
    made = small.publication(day, version=version, attempt=version, checksum=str(version))
    return replace(made, known_day=known)


def test_other_code_that_gives_other_weights_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    monkeypatch.setattr(linear, "_TOLERANCE", 10.0)
    monkeypatch.setattr(pins, "_SHARED_SOURCES", ("encoding.py",))
    code, rows, words = replayed(environment, capsys)
    assert code == 1
    differ = {}
    for row in rows:
        if not row["same"]:
            differ[row["model"], row["weights"]] = row["largest_difference"]
    assert ("serving", "coefficients") in differ
    assert ("serving", "encoding") not in differ
    assert differ["serving", "coefficients"] > 0
    assert "Not the same weights: 4 of 6 arrays of version 1 differ." in words
    assert "Not as then: sources was " in words


def test_a_difference_that_no_pin_explains_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    monkeypatch.setattr(linear, "_TOLERANCE", 10.0)
    code, _, words = replayed(environment, capsys)
    assert code == 1
    assert "All pins are as then: something that is not pinned decides over the weights." in words


def test_another_machine_and_other_libraries_are_told_though_the_weights_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    machine = {"cpu": "Abacus 3", "python": "3.9.1"}
    libraries = {"numpy": "1.0", "scipy": "1.0"}
    pin(environment, {"machine": machine, "libraries": libraries})
    code, _, words = replayed(environment, capsys)
    assert code == 0
    assert "Not as then: machine.cpu was Abacus 3, is " in words
    assert "Not as then: libraries.numpy was 1.0, is " in words
    assert "Not as then: libraries.scikit-learn was not pinned, is " in words


def test_the_machine_is_pinned_and_changes_no_fingerprint(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    registry = Registry(environment, "small")
    model = registry.version("1")
    pinned = registry.pins(model)
    assert pinned["machine"].keys() == {"architecture", "cpu", "cpu_flags", "python", "variables"}
    assert pinned["machine"]["cpu"]
    elsewhere = pinned | {"machine": {"cpu": "Abacus 3"}}
    assert pins.fingerprint(elsewhere) == pins.fingerprint(pinned) == model.fingerprint


@pytest.mark.parametrize(
    "today",
    [
        {"min_rows": 100_000},
        {"slices": ("hour",), "baselines": (GroupMean(columns=("hour",)),)},
        {"numeric": ("x", "noise", "hour"), "unread": ("gappy",)},
        {"window_days": 5, "validation_days": 3},
        {"max_categories": 1},
    ],
    ids=[
        *("more rows", "other slices and baselines", "other features", "other days"),
        "fewer categories",
    ],
)
def test_what_is_declared_by_now_changes_nothing(
    today: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    # Of a column that the rows of then have not.
    declared = replace(
        LINEAR,
        feeds=tuple(feed.with_new(["hour"]) for feed in LINEAR.feeds),
        carried=(*LINEAR.carried, "hour"),
        training=replace(LINEAR.training, **today),
        search={"l2": OneOf(values=(LinearModel().l2, 7.0))},
    )
    code, rows, _ = replayed(environment, capsys, declared)
    assert code == 0
    assert all(row["same"] for row in rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table_version": "x"}, "cannot be trained again by this code: invalid literal for int"),
        ({"fresh_days": None}, r"cannot be trained again by this code: its pins have no 'fresh_d"),
        ({"family": {"name": "linear", "patience": 3}}, "unexpected keyword argument 'patience'"),
        ({"family": {"name": "forest"}}, "its pins have no 'forest'"),
    ],
    ids=["a number is none", "a pin lacks", "a setting is gone", "a family is gone"],
)
def test_pins_that_do_not_fit_this_code_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    pin(environment, changes)
    with pytest.raises(Refused, match=message):
        replay_command(environment, LINEAR, "1", "json")


_CORES = (
    "NIGHTSHIFT_SPARK_CORES takes 2 cores of the cluster, of which each rank needs one: raise it"
)
_HOSTS = "NIGHTSHIFT_RANK_HOSTS has places for 1: name more hosts"


@pytest.mark.parametrize(
    ("places", "lacking", "variable"),
    [
        ({"rank_hosts": "one:1"}, _HOSTS, "NIGHTSHIFT_RANK_HOSTS"),
        (
            {"rank_executors": "on", "spark_master": "spark://one:7077", "spark_cores": 2},
            _CORES,
            "NIGHTSHIFT_RANK_EXECUTORS",
        ),
    ],
    ids=["hosts", "executors"],
)
def test_a_model_of_more_ranks_than_there_are_places_for_says_so(
    places: dict[str, Any], lacking: str, variable: str, tmp_path: Path
) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    network = {"name": "neural_network", **asdict(small.NETWORK), "ranks": 3}
    pin(environment, {"family": network, "decides_nothing": {}})
    # The number of ranks that is set decides nothing here.
    elsewhere = replace(environment, rendezvous_address="127.0.0.1", ranks=1, **places)
    with pytest.raises(UsageError) as told:
        replay_command(elsewhere, LINEAR, "1", "json")
    assert str(told.value) == (
        "Version 1 of 'small' was trained by 3 ranks, and is trained again by as many, whatever "
        f"NIGHTSHIFT_RANKS says; {lacking}, or unset {variable}, so that they are on this machine."
    )


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    with pytest.raises(UsageError, match="No version of model 'small' named '2'"):
        replay_command(environment, LINEAR, "2", "json")
    table = Path(environment.table_path("small.training"))
    first = sorted(table.rglob("*.parquet"))
    small.publish(environment, small.rows_of(ALL_DAYS, seed=9))
    first[0].unlink()
    gone = (
        "cannot be read any more as it was in version 0: 1 of its.*Train anew: nightshift run small"
    )
    with pytest.raises(UsageError, match=gone):
        replay_command(environment, LINEAR, "1", "json")


def test_files_that_were_changed_are_not_compared(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    trained(environment)
    (file,) = (environment.home / "mlartifacts").rglob("judged/linear.json")
    file.write_text(file.read_text() + " ")
    with pytest.raises(NightshiftError, match="was changed after it was registered"):
        replay_command(environment, LINEAR, "1", "json")


def test_every_family_can_be_replayed_and_explained() -> None:
    assert set(_WEIGHTS) == set(METHODS) == set(FAMILIES)


def test_a_digest_tells_names_types_shapes_and_bytes_apart() -> None:
    arrays = {"a": np.zeros(4, np.float32), "b": np.ones(2)}
    others = [
        {"a": np.zeros(4, np.float64), "b": np.ones(2)},
        {
            "a": np.zeros((2, 2), np.float32),
            "b": np.ones(2),
        },
        {"a": np.zeros(4, np.float32), "c": np.ones(2)},
        {"a": -np.zeros(4, np.float32), "b": np.ones(2)},
    ]
    assert digest(dict(reversed(arrays.items()))) == digest(arrays)
    assert len({digest(one) for one in [arrays, *others]}) == 5
