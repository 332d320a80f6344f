from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.stages.evaluate import evaluate
from jobs.training import scoring, serving
from jobs.training.registry import ModelVersion, Registry
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from tests.jobs.training import small

NEXT = small.LAST + timedelta(days=1)
GOOD, BAD, FAIR, LEAKING = 1.0, 0.0, 0.6, 50.0


class Fake:
    """Knows how the labels were made, and trusts it as much as it is told to."""

    def __init__(self, trust: float) -> None:
        self._trust = trust

    def score(self, rows: pa.Table) -> np.ndarray:
        if self._trust == LEAKING:
            return np.asarray(0.02 + 0.96 * rows["late"].to_numpy())
        carrier = np.array(rows["carrier"].to_pylist())
        return np.asarray(
            1 / (1 + np.exp(1 - self._trust * (2 * rows["x"].to_numpy() + (carrier == "BB"))))
        )


class House:
    """A registry of fakes."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment, self.registry = environment, Registry(environment, "small")
        self._files, self.trust = folder / "files", dict[str, float]()
        self._files.mkdir()

    def train(self, trust: float, as_of: date = small.LAST) -> ModelVersion:
        """A candidate of that quality."""
        (self._files / "model.keras").write_text(str(trust))
        model = self.registry.keep(
            self._files, as_of, f"{as_of} {trust}", {}, {"loss": [0.6], "val_loss": [0.6]}, {}
        )
        self.trust[model.version] = trust
        return model

    def evaluate(self, as_of: date = small.LAST) -> Mapping[str, Any]:
        """The stage's metrics."""
        return evaluate(small.run_of(self.environment, "evaluate", as_of))

    def events(self) -> list[tuple[str, str, str | None]]:
        """Event, model and rival, oldest first."""
        return [
            (e["event"], e["model_version"], e["rival_version"])
            for e in serving.events(self.environment, "small")
        ]

    def champion(self) -> str | None:
        """Version of the alias."""
        found = self.registry.champion()
        return found.version if found else None


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, NEXT)))
    made = House(environment, tmp_path)

    def load(_: Registry, model: ModelVersion) -> Fake:
        return Fake(made.trust[model.version])

    monkeypatch.setattr(scoring, "load", load)
    return made


def test_the_first_good_model_becomes_champion(house: House) -> None:
    house.train(GOOD)
    told = house.evaluate()
    assert (told["event"], told["serves"], told["champion"], told["rows"], told["days"]) == (
        "promoted",
        "1",
        None,
        39 * 6,
        6,
    )
    assert told["candidate"]["log_loss"] < told["baseline"]["log_loss"]
    assert house.champion() == "1"
    (event,) = serving.events(house.environment, "small")
    assert (event["event"], event["as_of"], event["model_version"], event["rival_version"]) == (
        "promoted",
        small.LAST,
        "1",
        None,
    )
    assert json.loads(event["metrics"])["candidate"] == told["candidate"]
    assert {p.name for p in (house.environment.home / "mlartifacts").rglob("*.png")} == {
        "learning_curve.png",
        "calibration.png",
        "roc.png",
    }


def test_a_bad_first_model_is_refused_and_serves_nothing(house: House) -> None:
    house.train(BAD)
    with pytest.raises(
        Refused,
        match=r"Model 1 of 'small' was refused, and no other serves. It beats the baseline in only",
    ):
        house.evaluate()
    assert (house.champion(), house.events()) == (None, [("refused", "1", None)])


def test_a_bad_model_leaves_the_champion_serving(house: House) -> None:
    house.train(GOOD)
    house.evaluate()
    house.train(BAD, NEXT)
    told = house.evaluate(NEXT)
    assert (told["event"], told["serves"], told["champion_before"]) == ("refused", "1", "1")
    assert (house.champion(), house.events()) == (
        "1",
        [("promoted", "1", None), ("refused", "2", "1")],
    )


def test_a_better_model_takes_the_champions_place_and_an_equal_one_does_not(house: House) -> None:
    house.train(FAIR)
    house.evaluate()
    house.train(GOOD, NEXT)
    assert house.evaluate(NEXT)["event"] == "promoted"
    house.train(GOOD - 1e-9, NEXT)
    assert house.evaluate(NEXT)["event"] in ("kept", "refused")
    assert house.champion() == "2"


def test_a_leak_is_refused(house: House) -> None:
    house.train(LEAKING)
    with pytest.raises(Refused, match=r"must have seen the future"):
        house.evaluate()


def test_evaluating_again_changes_nothing(house: House) -> None:
    house.train(FAIR)
    house.evaluate()
    house.train(GOOD, NEXT)
    first, events = house.evaluate(NEXT), house.events()
    assert (house.evaluate(NEXT), house.events(), house.champion()) == (first, events, "2")


def test_an_old_night_run_again_never_takes_the_alias_back(house: House) -> None:
    house.train(FAIR)
    house.evaluate()
    house.train(GOOD, NEXT)
    house.evaluate(NEXT)
    better = house.train(GOOD)
    assert house.evaluate()["event"] == "promoted"
    assert house.champion() == "2"
    found = serving.in_force(house.environment, house.registry, small.LAST)
    assert found is not None
    assert found.version == better.version


def test_a_rollback_survives_a_rerun_of_the_night(house: House) -> None:
    first = house.train(FAIR)
    house.evaluate()
    house.train(GOOD, NEXT)
    house.evaluate(NEXT)
    house.registry.promote(first)
    house.evaluate(NEXT)
    assert house.champion() == "1"


def test_no_model_serves_a_night_before_it_was_trained(house: House) -> None:
    house.train(GOOD)
    house.evaluate()
    assert (
        serving.in_force(house.environment, house.registry, small.LAST - timedelta(days=1)) is None
    )


def test_a_night_that_was_not_trained_tells_what_to_run(house: House) -> None:
    with pytest.raises(
        NightshiftError,
        match=r"No model of 'small' was trained as of 2013-01-24. Run stage train first",
    ):
        house.evaluate()
