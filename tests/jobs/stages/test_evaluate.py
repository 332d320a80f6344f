from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.commands import decide
from jobs.commands.decide import Said
from jobs.lake import model_events
from jobs.stages.evaluate import evaluate
from jobs.stages.train import train
from jobs.training import scoring, serving
from jobs.training.encoding import ENCODING
from jobs.training.families.neural_network import MODEL, network
from jobs.training.registry import ModelVersion, Registry
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from pipelines.spec import Pipeline
from tests.jobs.training import small

NEXT = small.LAST + timedelta(days=1)
SAID = Said(who="alice", why="it was odd")
GOOD, BAD, FAIR, LEAKING = 1.0, 0.0, 0.6, 50.0


class Fake:
    """Knows how the labels were made, and trusts it as much as it is told to."""

    def __init__(self, pipeline: Pipeline, trust: float) -> None:
        self._label = pipeline.training.label
        self._trust = trust

    def score(self, rows: pa.Table) -> np.ndarray:
        label = rows[self._label].to_numpy()
        line = np.array(rows["line"].to_pylist())
        signal = 2 * rows["x"].to_numpy() + (line == "BB")
        log_odds = self._trust * signal - 1
        if self._label == "weight":
            return np.asarray(label if self._trust == LEAKING else 50 + 5 * log_odds)
        if self._trust == LEAKING:
            return np.asarray(0.02 + 0.96 * label)
        return np.asarray(1 / (1 + np.exp(-log_odds)))


class Platform:
    """A lake and a registry of fakes."""

    def __init__(self, pipeline: Pipeline, environment: Environment, folder: Path) -> None:
        self.pipeline = pipeline
        self.environment = environment
        self.registry = Registry(environment, pipeline.name)
        self.trust: dict[str, float] = {}
        self._files = folder / "files"
        self._files.mkdir()

    def train(self, trust: float, as_of: date = small.LAST) -> ModelVersion:
        """A candidate of that quality."""
        (self._files / "model.keras").write_text(str(trust))
        model = self.registry.keep(
            self._files,
            as_of=as_of,
            fingerprint=f"{as_of} {trust}",
            family="neural_network",
            params={},
            curves={"loss": [0.6], "val_loss": [0.6]},
            pins={},
        )
        self.trust[model.version] = trust
        return model

    def evaluate(self, as_of: date = small.LAST) -> Mapping[str, Any]:
        """The stage's metrics."""
        return evaluate(small.run_of(self.environment, "evaluate", as_of, pipeline=self.pipeline))

    def roll_back(self) -> None:
        """As a person does."""
        decide.rollback(self.environment, self.pipeline, None, SAID)

    def needs_approval(self) -> None:
        """From now on a person must agree."""
        asked = replace(self.pipeline.promotion, needs_approval=True)
        self.pipeline = replace(self.pipeline, promotion=asked)

    def events(self) -> list[tuple[str, str, str | None]]:
        """Event, model and rival, oldest first."""
        return [
            (event["event"], event["model_version"], event["rival_version"])
            for event in model_events.events(self.environment, self.pipeline.name)
        ]

    def champion(self) -> str | None:
        """Version of the alias."""
        champion = self.registry.champion()
        return champion.version if champion else None


@pytest.fixture(params=small.PIPELINES, ids=lambda pipeline: pipeline.name)
def platform(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Platform:
    pipeline: Pipeline = request.param
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, NEXT)), pipeline=pipeline)
    made = Platform(pipeline, environment, tmp_path)

    def load(_: Registry, model: ModelVersion) -> Fake:
        return Fake(pipeline, made.trust[model.version])

    monkeypatch.setattr(scoring, "load_judged", load)
    return made


def test_the_first_good_model_becomes_champion(platform: Platform) -> None:
    platform.train(GOOD)
    result = platform.evaluate()
    assert (result["event"], result["serves"], result["champion"]) == ("promoted", "1", None)
    assert (result["rows"], result["days"]) == (39 * 6, 6)
    headline = task_of(platform.pipeline.training.task).headline
    names = [baseline.name for baseline in platform.pipeline.training.baselines]
    assert list(result["baselines"]) == names
    for baseline in result["baselines"].values():
        assert result["candidate"][headline] < baseline[headline]
    assert platform.champion() == "1"
    (event,) = model_events.events(platform.environment, platform.pipeline.name)
    assert (event["event"], event["model_version"]) == ("promoted", "1")
    assert (event["as_of"], event["rival_version"]) == (small.LAST, None)
    assert json.loads(event["metrics"])["candidate"] == result["candidate"]


def test_an_evaluation_is_kept_with_the_models_run(platform: Platform) -> None:
    model = platform.train(GOOD)
    platform.evaluate()
    pictures = {path.stem for path in platform.environment.home.rglob("*.png")}
    kept = platform.registry._client.get_run(model.run_id).data.metrics
    if platform.pipeline is small.SMALL:
        assert pictures == {"learning_curve", "calibration", "roc"}
        assert {"held_out_candidate_auc", "held_out_group_mean_log_loss"} < set(kept)
    else:
        assert pictures == {"learning_curve", "predicted_and_observed", "error_by_day"}
        assert {"held_out_candidate_r2", "held_out_persistence_rmse"} < set(kept)


def test_a_bad_first_model_is_refused_and_serves_nothing(platform: Platform) -> None:
    platform.train(BAD)
    with pytest.raises(
        Refused,
        match=r"Model 1 of '\w+' was refused, and no other serves. It beats baseline \w+ in only",
    ):
        platform.evaluate()
    assert platform.champion() is None
    assert platform.events() == [("refused", "1", None)]


def test_a_bad_model_leaves_the_champion_serving(platform: Platform) -> None:
    platform.train(GOOD)
    platform.evaluate()
    platform.train(BAD, NEXT)
    result = platform.evaluate(NEXT)
    assert (result["event"], result["serves"], result["champion_before"]) == ("refused", "1", "1")
    assert platform.champion() == "1"
    assert platform.events() == [("promoted", "1", None), ("refused", "2", "1")]


def test_a_better_model_takes_the_champions_place_and_an_equal_one_does_not(
    platform: Platform,
) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.train(GOOD, NEXT)
    assert platform.evaluate(NEXT)["event"] == "promoted"
    platform.train(GOOD - 1e-9, NEXT)
    assert platform.evaluate(NEXT)["event"] in ("kept", "refused")
    assert platform.champion() == "2"


def test_a_leak_is_refused(platform: Platform) -> None:
    platform.train(LEAKING)
    with pytest.raises(Refused, match=r"must have seen the future"):
        platform.evaluate()


def test_evaluating_again_changes_nothing(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.train(GOOD, NEXT)
    first = platform.evaluate(NEXT)
    events = platform.events()
    assert platform.evaluate(NEXT) == first
    assert platform.events() == events
    assert platform.champion() == "2"


def test_an_old_night_run_again_never_takes_the_alias_back(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.train(GOOD, NEXT)
    platform.evaluate(NEXT)
    better = platform.train(GOOD)
    assert platform.evaluate()["event"] == "promoted"
    assert platform.champion() == "2"
    then = serving.serving_model(platform.environment, platform.registry, small.LAST)
    assert then is not None
    assert then.version == better.version


def test_an_alias_moved_by_hand_is_put_back(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    first = platform.train(FAIR)
    platform.evaluate()
    platform.train(GOOD, NEXT)
    platform.evaluate(NEXT)
    platform.registry.set_champion(first.version)
    result = platform.evaluate(NEXT)
    assert (result["serves"], result["alias_was_moved_to"]) == ("2", "1")
    assert platform.champion() == "2"
    assert "pointed to version 1" in capsys.readouterr().err


def test_a_rollback_survives_a_rerun_of_the_night_and_a_training_from_the_same_pins(
    platform: Platform,
) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.train(GOOD, NEXT)
    platform.evaluate(NEXT)
    platform.roll_back()
    for _ in range(2):
        again = platform.evaluate(NEXT)
        assert (again["event"], again["reason"]) == ("rolled_back", "it was odd")
        assert (again["serves"], platform.champion()) == ("1", "1")
        # As --retrain does: the same model, by another number.
        platform.train(GOOD, NEXT)


def test_a_better_model_is_promoted_over_the_one_that_was_rolled_back_to(
    platform: Platform,
) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.train(GOOD, NEXT)
    platform.evaluate(NEXT)
    platform.roll_back()
    platform.train(GOOD + 1e-9, NEXT)
    result = platform.evaluate(NEXT)
    assert (result["event"], result["champion_before"]) == ("promoted", "1")
    assert platform.champion() == "3"


def test_an_old_night_run_again_never_takes_the_place_of_the_one_rolled_back_to(
    platform: Platform,
) -> None:
    platform.train(FAIR, small.LAST)
    platform.evaluate()
    platform.train(GOOD, NEXT)
    platform.evaluate(NEXT)
    platform.roll_back()
    platform.train(GOOD)
    assert platform.evaluate()["event"] == "promoted"
    assert platform.champion() == "1", "it serves the night that was rolled back, and what follows"
    then = serving.serving_model(platform.environment, platform.registry, small.LAST)
    assert then == platform.registry.version("3")


def test_a_model_that_needs_approval_awaits_a_person_who_has_the_last_word(
    platform: Platform,
) -> None:
    platform.needs_approval()
    platform.train(GOOD)
    first = platform.evaluate()
    name = platform.pipeline.name
    assert (first["event"], first["serves"]) == ("awaiting", None)
    assert f"It awaits a person: nightshift approve {name} 1 --why TEXT" in first["reason"]
    assert platform.champion() is None
    decide.approve(platform.environment, platform.pipeline, "1", SAID)
    again = platform.evaluate()
    assert (again["event"], again["serves"]) == ("approved", "1")
    assert platform.champion() == "1"
    assert platform.events() == [("awaiting", "1", None), ("approved", "1", None)]


def test_a_model_that_was_rejected_never_serves(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.needs_approval()
    platform.train(GOOD, NEXT)
    assert platform.evaluate(NEXT)["event"] == "awaiting"
    decide.reject(platform.environment, platform.pipeline, "2", SAID)
    assert platform.evaluate(NEXT)["event"] == "rejected"
    platform.train(GOOD, NEXT)
    assert platform.evaluate(NEXT)["event"] == "rejected"
    assert platform.champion() == "1"
    events = [event for event, _, _ in platform.events()]
    assert events == ["promoted", "awaiting", "rejected"]


def test_no_model_serves_a_night_before_it_was_trained(platform: Platform) -> None:
    platform.train(GOOD)
    platform.evaluate()
    before = small.LAST - timedelta(days=1)
    assert serving.serving_model(platform.environment, platform.registry, before) is None


def test_a_night_that_was_not_trained_tells_what_to_run(platform: Platform) -> None:
    with pytest.raises(
        NightshiftError,
        match=r"No model of '\w+' was trained as of 2013-01-24. Run stage train first",
    ):
        platform.evaluate()


def test_a_champion_of_another_family_is_still_compared_with(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, NEXT)))
    linear = small.learned_by(small.SMALL, small.LINEAR)
    train(small.run_of(environment, "train", pipeline=linear))
    evaluate(small.run_of(environment, "evaluate", pipeline=linear))
    candidate = _untrained_network(Registry(environment, "small"), tmp_path)
    result = evaluate(small.run_of(environment, "evaluate", NEXT))
    assert (result["champion_before"], result["model_version"]) == ("1", candidate.version)
    assert result["serves"] == "1"


def _untrained_network(registry: Registry, folder: Path) -> ModelVersion:
    job = small.job_of()
    files = folder / "network"
    files.mkdir()
    model = network.build(job.encoding, job.network, task_of(job.task))
    network.save(model, files / MODEL)
    (files / ENCODING).write_text(job.encoding.to_json())
    return registry.keep(
        files,
        as_of=NEXT,
        fingerprint="untrained",
        family="neural_network",
        params={},
        curves={},
        pins={},
    )
