"""The command `nightshift backtest`: how good a model would have been, as declared or otherwise."""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError, no_such
from pipelines.model import FAMILIES
from pipelines.run import new_run_id

if TYPE_CHECKING:
    from jobs.training.backtest import Backtest, Done, Results
    from jobs.training.tasks import LearningTask
    from pipelines.days import Days
    from pipelines.environment import Environment
    from pipelines.model import Training
    from pipelines.spec import Pipeline

_Row = tuple[object, ...]
_MOST_NAMED = 12
"""Of the days that are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a backtest has to tell."""

    header: tuple[str, ...]
    rows: list[_Row]
    """One for the model, and one for each that it is compared with."""
    page: str
    """Path of the page."""


def changed(
    pipeline: Pipeline,
    family: str | None,
    settings: Sequence[str],
    without: Sequence[str] = (),
) -> Pipeline:
    """The pipeline with another model family, other values of settings, and fewer features.

    Args:
        pipeline: As it is declared.
        family: Name of a family, taken with its default settings; None: the declared one.
        settings: Such as `window_days=180` or `hidden=(64, 32)`: of the family, or of its
            `Training`.
        without: Features that the model is not to read, by name or pattern, such as `tail_*`.

    Raises:
        UsageError: there is no such family, setting or feature, or the value makes no sense.
    """
    training = pipeline.training
    if family:
        if family not in FAMILIES:
            raise no_such("model family", family, FAMILIES)
        training = replace(training, family=FAMILIES[family]())
    changes: dict[str, Any] = {}
    for name, value in map(_assigned, settings):
        if name in changes:
            raise UsageError(f"Setting '{name}' is given twice: leave one of the values out.")
        changes[name] = value
    for name in changes:
        if name not in training.settings:
            raise no_such("setting", name, sorted(training.settings))
    made = training.with_settings(changes)
    made = made.without(_features(made, without))
    # What `tune` may try is said of what is declared, and need not fit.
    return replace(pipeline, training=made, search={})


def backtest(
    pipeline: Pipeline,
    environment: Environment,
    days: Days,
    every: int,
    against: str | None = None,
) -> Outcome:
    """Do what is left of a backtest, measure all of it, and write its page.

    Args:
        pipeline: As declared, or `changed`.
        environment: Whose lake it is.
        days: Days that are scored.
        every: Days from one training to the next.
        against: Digest of another backtest to compare with; None: with the baselines alone.

    Raises:
        Refused: too few labels are known.
        UsageError: there is no such other backtest, or it has another label; the feeds do not
            cover the days, or begin too late for a training before them; or the training rows were
            made with another label, or lack what baselines and slices read.
    """
    pipeline.require_days(days)
    from jobs.services.own_server import preloaded
    from jobs.training import backtest as backtests
    from jobs.training import backtest_page
    from jobs.training.families import family_of
    from jobs.training.machine import free_cores
    from jobs.training.tasks import task_of

    asked = backtests.Backtest(
        pipeline=pipeline,
        days=days,
        every=every,
        environment=environment,
        run_id=new_run_id(),
        cores=free_cores(environment),
    )
    backtests.require_start(asked)
    if against:
        # Before anything is trained, which may take hours.
        backtests.files_of_other(asked, against)
    print(f"Backtest {asked.digest}: {len(asked.parts)} trainings", file=sys.stderr, flush=True)
    family = family_of(pipeline.training.family.name)
    with preloaded(environment, family.preload) as ranks_in:
        left_out = _show(asked, backtests.walk(asked, ranks_in))
    results = backtests.read(asked)
    if against:
        other = backtests.read_other(asked, against, results.keys)
        rival = {f"backtest_{against}": other.predictions[backtests.MODEL]}
        results = replace(results, predictions={**results.predictions, **rival})
    task = task_of(pipeline.training.task)
    header, rows = _header(task), list(_rows(task, results))
    facts = (
        f"Backtest {asked.digest}: {len(results.label):,} rows. "
        f"Trained {len(asked.parts) - len(left_out)} times, every {every} days."
    )
    if left_out:
        facts += f" {len(left_out)} left out: {_why(left_out)}."
    title = f"{pipeline.title} Walked forward over {days}"
    figures = backtest_page.pictures(task, results)
    page = asked.folder / "index.html"
    told = backtest_page.page(title, facts, header, rows, figures, asked.settings)
    page.write_text(told, encoding="utf-8")
    return Outcome(header=header, rows=rows, page=str(page))


def _features(training: Training, patterns: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matching = fnmatch.filter(training.features, pattern)
        if not matching:
            raise no_such("feature", pattern, training.features)
        found.update(matching)
    return found


def _assigned(setting: str) -> tuple[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"'{setting}' is no setting: write it as name=value.")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        # A word, which needs no quotes; what is none is told by the setting.
        return name, text
    return name, tuple(value) if isinstance(value, list) else value


def _show(asked: Backtest, walked: Iterator[Done]) -> list[str]:
    """A bar on a terminal; elsewhere a line for each training.

    Returns:
        The parts that are left out, because none of their rows has a label.
    """
    from rich.console import Console
    from rich.progress import track

    is_watched = sys.stderr.isatty()
    console = Console(stderr=True)
    total = len(asked.parts)
    bar = track(walked, "Training", total=total, console=console, disable=not is_watched)
    left_out: list[str] = []
    for done, part in zip(bar, asked.parts, strict=True):
        if not done.rows:
            left_out.append(str(part))
            continue
        took = "done before" if done.seconds is None else f"{done.seconds:.1f} s"
        if not is_watched:
            print(f"{done.as_of}  {done.rows} rows, {took}", file=sys.stderr, flush=True)
    if left_out:
        print(f"{len(left_out)} left out: {_why(left_out)}", file=sys.stderr, flush=True)
    return left_out


def _why(left_out: list[str]) -> str:
    named = ", ".join(left_out[:_MOST_NAMED])
    more = len(left_out) - _MOST_NAMED
    return f"no labelled row about {named}{f' and {more} more' if more > 0 else ''}"


def _header(task: LearningTask) -> tuple[str, ...]:
    return ("model", "rows", *task.metrics.values(), "loss less the model's", "low", "high")


def _rows(task: LearningTask, results: Results) -> Iterator[_Row]:
    from jobs.training import paired
    from jobs.training.backtest import MODEL

    own = task.losses(results.label, results.predictions[MODEL])
    for name, prediction in results.predictions.items():
        measured = task.measure(results.label, prediction)
        figures = [measured[metric] for metric in task.metrics]
        compared: _Row = (None, None, None)
        if name != MODEL:
            worse = paired.difference(task.losses(results.label, prediction), own, results.day)
            compared = (worse.mean, *(worse.interval or (None, None)))
        yield (name, len(results.label), *figures, *compared)
