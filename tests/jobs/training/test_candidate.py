"""The two trainings of a night: one after the other, or at once where there are cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from jobs.training import candidate, dataset
from jobs.training.dataset import Dataset, InProcess
from jobs.training.families.linear import LinearFamily
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from pipelines.run import Run
from tests.jobs.training import small

CORES = 4
WAIT_SECONDS = 20
SLOW_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Watched(LinearFamily):
    """A linear model whose trainings tell when they were at work, and what they do meanwhile."""

    ranks: int = 0
    at_work: list[str] = field(default_factory=list)
    during: Callable[[str], None] = lambda _: None
    waits_to_be_called_off: bool = False

    def processes(self, settings: Any) -> int:
        return self.ranks

    def fit(
        self,
        data: Dataset,
        settings: Any,
        environment: Environment,
        folder: Path,
        called_off: Event | None = None,
    ) -> Any:
        name = folder.name.split()[-1]
        self.at_work.append(f"{name} begins")
        self.during(name)
        if self.waits_to_be_called_off and name == "judged":
            assert called_off is not None
            assert called_off.wait(WAIT_SECONDS)
            raise NightshiftError("called off")
        made = super().fit(data, settings, environment, folder)
        self.at_work.append(f"{name} ends")
        return made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, small.LAST)))
    linear = small.learned_by(small.SMALL, small.LINEAR)
    return replace(small.run_of(environment, "train"), pipeline=linear)


def _make(run: Run, family: Watched, folder: Path) -> candidate.Candidate:
    recipe = replace(candidate.recipe_of(run), family=family)
    return candidate.make(run, recipe, folder, CORES)


@pytest.mark.parametrize("ranks", [2, CORES])
def test_trainings_work_at_once_where_two_ranks_at_most_share_a_core(
    run: Run, tmp_path: Path, ranks: int
) -> None:
    both = threading.Barrier(2, timeout=WAIT_SECONDS)
    # Passed by two that are there at once, and by no one else.
    family = Watched(ranks=ranks, during=lambda _: both.wait() and None)
    made = _make(run, family, tmp_path)
    assert made.judged.fit.calibration_slope is not None
    assert made.fresh.fit.calibration_slope == made.judged.fit.calibration_slope


@pytest.mark.parametrize("ranks", [0, CORES + 1])
def test_else_one_follows_the_other(run: Run, tmp_path: Path, ranks: int) -> None:
    family = Watched(ranks=ranks)
    made = _make(run, family, tmp_path)
    assert family.at_work == ["judged begins", "judged ends", "fresh begins", "fresh ends"]
    assert made.fresh.fit.calibration_slope == made.judged.fit.calibration_slope


@dataclass(frozen=True, kw_only=True)
class SlowlyLaidOut(InProcess):
    """Rows that tell when those of the fresh one are laid out."""

    at_work: list[str]

    def fresh(self) -> Dataset:
        time.sleep(SLOW_SECONDS)
        self.at_work.append("laid out")
        return super().fresh()


def test_rows_are_laid_out_before_ranks_ask_the_same_spark_for_cores(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Watched()
    recipe = replace(candidate.recipe_of(run), family=family, on_spark=True)
    known = InProcess.of(run, recipe.snapshot, recipe.days)
    rows = SlowlyLaidOut(
        run=run,
        rows=known.rows,
        days=known.days,
        at_work=family.at_work,
    )
    monkeypatch.setattr(dataset, "on_spark", lambda *_: nullcontext(rows))
    on_executors = replace(run.environment, rank_executors="on")
    candidate.make(run, recipe, tmp_path, ranks_in=on_executors)
    begins_and_ends = ["judged begins", "judged ends", "fresh begins", "fresh ends"]
    assert family.at_work == ["laid out", *begins_and_ends]


@pytest.mark.parametrize("ranks", [0, 2])
def test_too_few_rows_for_the_model_that_serves_are_refused_before_anything_is_trained(
    run: Run, tmp_path: Path, ranks: int
) -> None:
    published_until = small.LAST - timedelta(days=6)
    small.publish(run.environment, small.rows_of(Days(small.FIRST, published_until)))
    short = replace(run.pipeline.training, window_days=6, validation_days=2)
    of_few_days = replace(run, pipeline=replace(run.pipeline, training=short))
    family = Watched(ranks=ranks)
    with pytest.raises(Refused, match="labelled rows for the model that serves"):
        _make(of_few_days, family, tmp_path)
    assert family.at_work == []


def test_single_processes_have_a_core_each(run: Run, tmp_path: Path) -> None:
    family = Watched(ranks=1)
    recipe = replace(candidate.recipe_of(run), family=family)
    candidate.make(run, recipe, tmp_path, 1)
    assert family.at_work == ["judged begins", "judged ends", "fresh begins", "fresh ends"]


@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize("fails", ["judged", "fresh"])
def test_what_one_training_fails_of_is_told(
    run: Run, tmp_path: Path, fails: str, ranks: int
) -> None:
    def fail(name: str) -> None:
        if name == fails:
            raise NightshiftError(f"{name} came apart")
        time.sleep(SLOW_SECONDS)

    family = Watched(ranks=ranks, during=fail)
    with pytest.raises(NightshiftError, match=f"{fails} came apart"):
        _make(run, family, tmp_path)
    # The other is not left at work, in a folder that is deleted now.
    if fails == "fresh":
        assert "judged ends" in family.at_work


@pytest.mark.parametrize("error", [NightshiftError("came apart"), KeyboardInterrupt()])
def test_a_judged_one_that_nobody_wants_any_more_is_called_off(
    run: Run, tmp_path: Path, error: BaseException
) -> None:
    def fail(name: str) -> None:
        if name == "fresh":
            raise error

    family = Watched(ranks=2, during=fail, waits_to_be_called_off=True)
    started = time.monotonic()
    with pytest.raises(type(error)):
        _make(run, family, tmp_path)
    assert time.monotonic() - started < WAIT_SECONDS
