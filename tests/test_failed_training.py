"""Whatever ends a training, tomorrow is scored by the model that serves, and the night is red."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobs import night
from jobs.lake import sql
from jobs.training.families.neural_network import launchers
from jobs.training.registry import Registry
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.model import NeuralNetwork
from pipelines.run import Run
from pipelines.stages import STAGES
from tests.conftest import SOAK
from tests.jobs.training.families.neural_network import faulty_rank
from tests.jobs.training.small import NETWORK
from tests.weather import TOMORROW, WEATHER, performed_here

RANKS = replace(NETWORK, ranks=2, restarts=0, checkpoint_seconds=0)
ENDLESS = replace(RANKS, epochs=100_000, timeout_seconds=15)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What ends a training."""

    said: str
    """A part of the night's message."""
    settings: NeuralNetwork = RANKS
    rank: Callable[[dict[str, Any]], None] | None = None
    """What runs in the place of a rank."""
    is_refused: bool = False
    """Whether it is told as refused; else as failed."""


FAULTS = {
    "killed": Fault(said="was killed", rank=faulty_rank.killed),
    "came_apart": Fault(
        said="not finite",
        settings=replace(RANKS, learning_rate=1e30),
        is_refused=True,
    ),
    "hung": Fault(said="still ran", settings=ENDLESS, rank=faulty_rank.hung),
    "time_up": Fault(said="Training was ended after 15 s", settings=ENDLESS),
}
"""Few labels are in `test_weather.py`."""
_SAMPLE, *_OTHERS = FAULTS
NAMES = [_SAMPLE, *(pytest.param(name, marks=SOAK) for name in _OTHERS)]


def _copy(environment: Environment, folder: Path) -> Environment:
    copied = replace(environment, lake=str(folder / "lake"))
    shutil.copytree(environment.lake, copied.lake)
    return copied


def _night(environment: Environment, run_id: str) -> int:
    run = Run(
        pipeline=WEATHER,
        days=Days.of(TOMORROW),
        environment=environment,
        run_id=run_id,
    )
    with performed_here():
        return night.make_true(run, STAGES)


def _require_red_and_scored(environment: Environment, run_id: str, fault: Fault) -> None:
    statement = f"SELECT stage, status, error FROM ops.stage_runs WHERE run_id = '{run_id}'"
    _, stages = sql.query(environment, statement)
    became = {str(name): (status, error) for name, status, error in stages}
    status, error = became.pop("train")
    assert status == ("refused" if fault.is_refused else "failed")
    assert fault.said in str(error)
    done = [name for name, (status, _) in became.items() if status == "done"]
    assert {"predict", "check_predictions", "monitor"} <= set(done)
    _, scored = sql.query(
        environment,
        f"""SELECT model_version, count(*) FROM weather.predictions
            WHERE run_id = '{run_id}' GROUP BY 1""",
    )
    assert scored == [("1", 3 * 24)]
    lines = (environment.logs / "notifications.log").read_text().splitlines()
    alarms = map(json.loads, lines)
    (told,) = [one for one in alarms if one["run_id"] == run_id]
    assert told["stage"] == "train"
    assert fault.said in told["message"]


@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_ends_badly_leaves_the_night_to_the_champion(
    weather_with_features: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    fault = FAULTS[name]
    environment = _copy(weather_with_features, tmp_path)
    # What is searched for are settings of the linear family.
    learned = replace(WEATHER.training, family=fault.settings)
    monkeypatch.setattr("pipelines.weather.PIPELINE", replace(WEATHER, training=learned, search={}))
    if fault.rank is not None:
        function = f"{faulty_rank.__name__}:{fault.rank.__name__}"
        monkeypatch.setattr(launchers, "FUNCTION", function)
    assert _night(environment, name) != 0
    _require_red_and_scored(environment, name, fault)


def test_a_disk_that_is_full_leaves_the_night_to_the_champion(
    weather_with_features: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = _copy(weather_with_features, tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Registry, "keep", full)
    assert _night(environment, "full") != 0
    _require_red_and_scored(environment, "full", Fault(said="No space left on device"))
