"""The command `nightshift tune`: which settings would make a better model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.services import shared_locks
from pipelines.errors import UsageError
from pipelines.run import new_run_id

if TYPE_CHECKING:
    from jobs.training.tuning import Tried
    from pipelines.days import Days
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

HEADER = ("trial", "state", "loss", "gain over declared", "low", "high", "settings", "backtest")


def tune(
    pipeline: Pipeline,
    environment: Environment,
    days: Days,
    *,
    every: int,
    trials: int,
    seconds: float | None,
    at_once: int,
) -> list[tuple[object, ...]]:
    """Try settings; returns a row for each trial by `HEADER`, best first.

    Args:
        pipeline: As declared.
        environment: Whose lake it is.
        days: Days that are scored.
        every: Days from one training to the next.
        trials: In all, with those of earlier times.
        seconds: After which no trial is begun, and those that run are cut off with their current
            night; None: no bound.
        at_once: Trials that run side by side, which share the cores.

    Raises:
        UsageError: the pipeline declares nothing to try, no model can be trained before the days,
            or the training rows were made with another label, or lack what baselines and slices
            read.
        Refused: no row about the days has a label.
        NightshiftError: a training failed, and not by its settings.
    """
    from jobs.services.own_server import preloaded
    from jobs.training.backtest import Backtest, require_start
    from jobs.training.families import family_of
    from jobs.training.machine import free_cores
    from jobs.training.tuning import Tuning
    from jobs.training.tuning import tune as try_settings

    if at_once > 1 and environment.place_of_ranks:
        raise UsageError(
            f"--at-once is of trials on this machine, and {environment.place_of_ranks} names "
            "others: unset it, or try one after the other."
        )
    # Trials side by side share the cores: the number of ranks does not change a model.
    alone = environment if at_once == 1 else replace(environment, ranks=1)
    declared = Backtest(
        pipeline=pipeline,
        days=days,
        every=every,
        environment=alone,
        run_id=new_run_id(),
        cores=free_cores(environment) if at_once == 1 else 0,
    )
    require_start(declared)
    tuning = Tuning(declared=declared)
    told = f"Tuning {tuning.digest}: up to {trials} trials of {len(declared.parts)} trainings"
    print(told, file=sys.stderr, flush=True)
    family = family_of(pipeline.training.family.name)
    # Who tries the same settings at once waits, and then finds them tried.
    waiting = "Waiting for another command that tunes the same."
    lock = shared_locks.hold(environment, f"tune.{tuning.digest}", waiting=waiting)
    with lock, preloaded(alone, family.preload) as ranks_in:
        tried = try_settings(
            tuning, ranks_in, trials=trials, seconds=seconds, at_once=at_once, told=_tell
        )
    return list(_rows(tried))


def advice(pipeline: Pipeline, rows: Iterable[tuple[object, ...]]) -> str:
    """What to do with the best trial."""
    from jobs.training.page_parts import shown

    best = next(iter(rows), None)
    if best is None:
        return "No trial has ended yet: the same command goes on from where it stopped."
    if best[1] != "done":
        return "No trial has ended well."
    number, _, _, gain, low, _, settings, _ = best
    declared = pipeline.training.settings
    if settings == _told({name: declared[name] for name in pipeline.search}):
        return "The declared settings are the best that were tried."
    if gain is None:
        return (
            f"Trial {number} is the best that was tried. By how much it is better than the "
            f"declared settings of '{pipeline.name}' is not known: their own trial was not done, "
            "or results of one of both are gone."
        )
    assert isinstance(low, float | None)
    doubt = ""
    if low is None:
        doubt = " There are too few days for an interval: it might be chance."
    elif low <= 0:
        doubt = " Its interval holds 0: it might be chance."
    return (
        f"Trial {number} is better than the declared settings of '{pipeline.name}' by "
        f"{shown(gain)} a row.{doubt} The best of many trials looks better than it is: before you "
        f"declare it in pipelines/{pipeline.name}.py, try it on other days: nightshift backtest "
        f"{pipeline.name} --set …"
    )


def _tell(tried: Tried) -> None:
    loss = "no loss" if tried.loss is None else f"loss {tried.loss:.5g}"
    why = f": {tried.why}" if tried.why else ""
    print(f"Trial {tried.number} {tried.state}, {loss}{why}", file=sys.stderr, flush=True)


def _rows(tried: Iterable[Tried]) -> Iterator[tuple[object, ...]]:
    for one in tried:
        gain = one.gain
        ends = (gain and gain.interval) or (None, None)
        settings = _told(one.settings)
        told = (gain and gain.mean, *ends, settings, one.backtest)
        yield (one.number, one.state, one.loss, *told)


def _told(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
