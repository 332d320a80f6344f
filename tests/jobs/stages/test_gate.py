"""Models that must never serve, really trained and really judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.stages import evaluate as stage
from jobs.stages.evaluate import evaluate
from jobs.stages.train import train
from jobs.training.registry import Registry
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from pipelines.spec import Pipeline
from tests.jobs.training import small

NIGHTS = [small.LAST + timedelta(days=number) for number in range(1, 4)]
ROWS = small.rows_of(Days(small.FIRST, NIGHTS[-1]))
LINEAR = small.learned_by(small.SMALL, small.LINEAR)
AGED = replace(LINEAR, promotion=replace(LINEAR.promotion, max_age_days=1))
"""Its champion may be replaced every second night by whatever is not shown to be worse."""
_SHORT = replace(small.NETWORK, ranks=1, epochs=3)
NETWORK = small.learned_by(AGED, _SHORT)
WILD = small.learned_by(AGED, replace(_SHORT, learning_rate=30.0))
"""Whose weights and predictions are numbers all the same."""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nights of which no picture is kept, which takes seconds."""
    monkeypatch.setattr(stage, "_log", lambda *_: None)


def shuffled() -> pa.Table:
    """Labels of other rows, on all days that any night learns from.

    The six held-out days of the last night tell the truth.
    """
    last = np.datetime64(NIGHTS[-1] - timedelta(days=6))
    learned = ROWS["landed_date"].to_numpy() <= last
    label = ROWS["failed"].to_numpy()
    known = np.flatnonzero(learned & ~np.isnan(label))
    mixed = label.copy()
    mixed[known] = label[np.random.default_rng(3).permutation(known)]
    values = pa.array(
        np.nan_to_num(mixed).astype(np.int32),
        mask=np.isnan(label),
    )
    return small.with_column(ROWS, "failed", values)


def leaking() -> pa.Table:
    """A feature that is the label, but for a little noise."""
    label = np.nan_to_num(ROWS["failed"].to_numpy())
    leak = label + np.random.default_rng(3).normal(
        scale=0.2,
        size=len(label),
    )
    return small.with_column(ROWS, "noise", pa.array(leak))


def night(pipeline: Pipeline, environment: Environment, number: int) -> str:
    """What becomes of the candidate of that night."""
    day = NIGHTS[number]
    train(small.run_of(environment, "train", day, pipeline=pipeline))
    event: str = evaluate(small.run_of(environment, "evaluate", day, pipeline=pipeline))["event"]
    return event


@pytest.mark.parametrize("planted", [shuffled, leaking])
def test_shuffled_labels_and_a_planted_leak_never_serve(
    planted: Callable[[], pa.Table], tmp_path: Path
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, planted())
    registry = Registry(environment, "small")
    for number in range(len(NIGHTS)):
        with pytest.raises(Refused, match="was refused, and no other serves"):
            night(AGED, environment, number)
    assert len(registry.versions()) == len(NIGHTS)
    assert registry.champion() is None
    assert small.serving_model(environment, registry, NIGHTS[-1]) is None


@pytest.mark.parametrize("planted", [shuffled, leaking])
def test_they_leave_the_champion_serving_however_old_it_is(
    planted: Callable[[], pa.Table], tmp_path: Path
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS)
    train(small.run_of(environment, "train", pipeline=AGED))
    assert evaluate(small.run_of(environment, "evaluate", pipeline=AGED))["event"] == "promoted"
    small.publish(environment, planted())
    events = [night(AGED, environment, number) for number in range(len(NIGHTS))]
    assert events == ["refused"] * len(NIGHTS)
    registry = Registry(environment, "small")
    serves = small.serving_model(environment, registry, NIGHTS[-1])
    assert serves is not None
    assert serves.version == "1"


@pytest.mark.parametrize("rate", [30.0, 1e30])
def test_a_huge_learning_rate_never_serves(rate: float, ranked: Environment) -> None:
    wild = replace(small.NETWORK, learning_rate=rate)
    pipeline = small.learned_by(small.SMALL, wild)
    small.publish(ranked, ROWS)
    with pytest.raises(NightshiftError, match="not finite|no finite|was refused, and no other"):
        night(pipeline, ranked, 0)
    registry = Registry(ranked, "small")
    assert registry.champion() is None
    assert small.serving_model(ranked, registry, NIGHTS[0]) is None


def test_an_honest_network_of_that_size_serves(ranked: Environment) -> None:
    small.publish(ranked, ROWS)
    assert night(NETWORK, ranked, 0) == "promoted"


@pytest.mark.parametrize(
    ("pipeline", "rows", "why"),
    [
        (NETWORK, shuffled(), "beats baseline group_mean in only"),
        (NETWORK, leaking(), "must have seen the future"),
        (WILD, ROWS, "beats baseline group_mean in only"),
    ],
    ids=["shuffled", "leaking", "wild"],
)
def test_such_a_network_serves_neither_as_the_first_nor_beside_a_champion(
    pipeline: Pipeline, rows: pa.Table, why: str, ranked: Environment
) -> None:
    small.publish(ranked, rows)
    with pytest.raises(Refused, match=f"was refused, and no other serves.*{why}"):
        night(pipeline, ranked, 1)
    # Of two nights before: the network is judged once more, beside one that is old enough.
    small.publish(ranked, ROWS)
    train(small.run_of(ranked, "train", pipeline=AGED))
    assert evaluate(small.run_of(ranked, "evaluate", pipeline=AGED))["event"] == "promoted"
    small.publish(ranked, rows)
    again = evaluate(small.run_of(ranked, "evaluate", NIGHTS[1], pipeline=pipeline))
    assert (again["event"], again["model_version"]) == ("refused", "1")
    assert why in again["reason"]
    assert (again["champion_before"], again["serves"]) == ("2", "2")
