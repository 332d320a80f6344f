"""What each family must do, whichever it is: a new one is tested by being there."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from jobs.training.explanations import attribute
from jobs.training.families import FAMILIES, Fit, ModelFamily, family_of
from jobs.training.replay import _WEIGHTS
from jobs.training.scoring import Scorer
from jobs.training.tasks import task_of
from pipelines import model
from pipelines.days import Days
from pipelines.errors import UsageError
from pipelines.model import Family, Training
from tests.jobs.training.small import (
    LAST,
    LINEAR,
    NETWORK,
    TRAINING,
    TWIN,
    data_of,
    environment_at,
    rows_of,
)

EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
IN_PROCESS = [family for family in FAMILIES.values() if not family.preload]
"""The others start processes, which takes long: they have tests of their own."""
EACH_IN_PROCESS = pytest.mark.parametrize("family", IN_PROCESS, ids=lambda one: one.name)
BOTH_TASKS = pytest.mark.parametrize(
    "training", [TRAINING, TWIN.training], ids=["binary_classification", "regression"]
)


def test_every_family_that_can_be_declared_is_there() -> None:
    assert set(FAMILIES) == {family.name for family in get_args(Family)}


def test_a_family_is_known_by_the_name_of_its_settings() -> None:
    assert set(model.FAMILIES.values()) == set(get_args(Family))
    assert all(family.name == name for name, family in model.FAMILIES.items())


def test_what_is_no_family_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match="is 'linear'. Known: NeuralNetwork, LinearModel"):
        replace(TRAINING, family="linear")  # type: ignore[arg-type]


@EACH_FAMILY
def test_the_sources_of_a_family_are_files(family: ModelFamily) -> None:
    assert all(source.is_file() for source in family.sources)


@EACH_FAMILY
def test_the_libraries_of_a_family_are_installed(family: ModelFamily) -> None:
    assert all(version(library) for library in family.libraries)


@EACH_FAMILY
def test_every_setting_of_a_family_has_a_default(family: ModelFamily) -> None:
    # A backtest with --family takes the defaults.
    settings = model.FAMILIES[family.name]()
    assert set(settings.decides_nothing) <= {one.name for one in fields(settings)}


@EACH_IN_PROCESS
@BOTH_TASKS
def test_a_loaded_model_says_what_the_fitted_one_said(
    family: ModelFamily, training: Training, tmp_path: Path
) -> None:
    fit = _fit(family, training, tmp_path)
    fit.save(tmp_path)
    data = data_of(training)
    loaded = family.load(tmp_path, data.encoding)
    np.testing.assert_allclose(
        loaded.score(data.fit.sample()),
        fit.sample_scores,
        rtol=1e-6,
    )
    curves = [*fit.curves["loss"], *fit.curves["val_loss"]]
    assert np.isfinite(curves).all()


@EACH_IN_PROCESS
@BOTH_TASKS
def test_it_tells_more_than_the_mean_label(
    family: ModelFamily, training: Training, tmp_path: Path
) -> None:
    data = data_of(training)
    label = data.validation.label.astype(np.float64)
    means = np.full(len(label), data.encoding.label_mean)
    last = _fit(family, training, tmp_path).curves["val_loss"][-1]
    assert last < 0.95 * task_of(training.task).losses(label, means).mean()


@EACH_IN_PROCESS
def test_the_same_data_gives_the_same_files_and_no_pickle(
    family: ModelFamily, tmp_path: Path
) -> None:
    saved: list[dict[str, bytes]] = []
    for folder in (tmp_path / "first", tmp_path / "again"):
        folder.mkdir()
        _fit(family, TRAINING, tmp_path).save(folder)
        saved.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert set(saved[0]) == set(family.files)
    assert saved[0] == saved[1]
    # Every pickle of today's protocols begins so.
    assert not any(content.startswith(b"\x80") for content in saved[0].values())


@EACH_IN_PROCESS
@BOTH_TASKS
def test_a_model_is_explained_and_has_arrays_to_compare_by(
    family: ModelFamily, training: Training, tmp_path: Path
) -> None:
    data = data_of(training)
    _fit(family, training, tmp_path).save(tmp_path)
    loaded = family.load(tmp_path, data.encoding)
    scorer = Scorer(model=loaded, encoding=data.encoding)
    # It refuses attributions that do not add up to what the model says.
    found = attribute(
        scorer,
        family.name,
        task_of(training.task),
        rows_of(Days.of(LAST), 20),
    )
    assert found.of_features.shape == (20, len(data.encoding.columns))
    assert all(array.size for array in _WEIGHTS[family.name](loaded).values())


def test_an_unknown_family_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match="Did you mean 'linear'"):
        family_of("linaer")


def test_the_environment_decides_over_the_ranks_of_a_network_alone(tmp_path: Path) -> None:
    environment = replace(environment_at(tmp_path), ranks=5)
    assert family_of("neural_network").settings(NETWORK, environment) == replace(NETWORK, ranks=5)
    assert family_of("linear").settings(LINEAR, environment) == LINEAR
    unchanged = replace(environment, ranks=None)
    assert family_of("neural_network").settings(NETWORK, unchanged) == NETWORK


def _fit(family: ModelFamily, training: Training, folder: Path) -> Fit:
    settings = model.FAMILIES[family.name]()
    return family.fit(data_of(training), settings, environment_at(folder), folder)
