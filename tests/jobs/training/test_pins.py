from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.lake.snapshots import Snapshot
from jobs.training import dataset, pins
from jobs.training.families import family_of
from pipelines.model import LinearModel, Training
from tests.jobs.training.small import LAST, LINEAR, NETWORK, SMALL, TRAINING, TWIN, data_of


def _pins(
    training: Training = TRAINING, settings: Any = NETWORK, version: int = 3
) -> dict[str, object]:
    family = family_of(settings.name)
    days = dataset.window(SMALL, LAST)
    snapshot = Snapshot(table="training", version=version)
    return pins.pins(data_of(training), family, settings, LAST, days, snapshot)


FIRST = pins.fingerprint(_pins())


def test_equal_trainings_have_one_fingerprint_whatever_the_version_of_the_table() -> None:
    assert pins.fingerprint(_pins(version=4)) == FIRST


@pytest.mark.parametrize(
    "changed",
    [
        _pins(settings=LINEAR),
        _pins(settings=replace(NETWORK, ranks=3)),
        _pins(training=replace(TRAINING, seed=1)),
        _pins(training=TWIN.training),
    ],
    ids=["family", "ranks", "seed", "task"],
)
def test_what_decides_over_the_weights_changes_the_fingerprint(changed: dict[str, object]) -> None:
    assert pins.fingerprint(changed) != FIRST


def test_the_pins_of_a_family_are_its_own() -> None:
    network: dict[str, Any] = _pins()
    linear: dict[str, Any] = _pins(settings=LINEAR)
    assert network["libraries"].keys() == {"tensorflow", "keras", "horovod", "numpy"}
    assert linear["libraries"].keys() == {"scikit-learn", "scipy", "numpy"}
    assert network["sources"] != linear["sources"]
    assert linear["family"] == {"name": "linear", "l2": 1.0, "max_iterations": 500}


def test_a_setting_of_another_family_decides_nothing() -> None:
    declared = replace(TRAINING, family=LinearModel(l2=7))
    assert pins.fingerprint(_pins(training=declared)) == FIRST
