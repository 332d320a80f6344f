"""What a night trains: two models of one recipe, the one that is judged and the one that serves.

The judged one keeps the newest days out, to be calibrated and compared on them. The fresh one then
learns from every day up to the night, with the calibration that the judged one was given.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lake import snapshots
from jobs.training import dataset
from jobs.training.encoding import ENCODING, Encoding, Examples
from jobs.training.families import family_of
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    from jobs.lake.snapshots import Snapshot
    from jobs.training.dataset import Dataset, Window
    from jobs.training.families import Fit, ModelFamily
    from pipelines.run import Run

JUDGED = "judged"
"""Folder of the judged model's files, in that of the files that serve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a model is made of a night's rows."""

    family: ModelFamily
    settings: Any
    """Of the family, as the environment has them."""
    days: Window
    snapshot: Snapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One of the two models."""

    fit: Fit
    encoding: Encoding
    fit_rows: int
    sample: Examples
    """Some of the rows that it has learned from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Both models of a night."""

    judged: Member
    fresh: Member
    validation_rows: int

    def save(self, folder: Path) -> None:
        """Write what serves into the folder, and what is judged into one inside it."""
        kept_apart = folder / JUDGED
        kept_apart.mkdir()
        _save(self.fresh, folder)
        _save(self.judged, kept_apart)


def recipe_of(run: Run) -> Recipe:
    """How the pipeline has a model made as of the run's last day.

    Raises:
        Refused: the feeds do not reach back far enough.
        NightshiftError: the training table has never been published.
    """
    declared = run.pipeline.training.family
    family = family_of(declared.name)
    return Recipe(
        family=family,
        settings=family.settings(declared, run.environment),
        days=dataset.window(run.pipeline, run.days.last),
        snapshot=snapshots.newest(run, TRAINING),
    )


def make(run: Run, recipe: Recipe, folder: Path) -> Candidate:
    """Train both.

    Args:
        run: Of the night.
        recipe: How.
        folder: Private to this training; its files must last until the candidate is saved.

    Raises:
        Refused: too few labels are known.
        NightshiftError: the training failed.
    """
    days = recipe.days
    rows = dataset.labelled(run, recipe.snapshot, days.all)
    to_judge = dataset.judged(run, rows, days)
    assert to_judge.validation is not None, "a model is judged by days that it has not seen"
    # Whatever fails, both have ended when it is left: nothing writes into the folder any more.
    with ThreadPoolExecutor(1) as meanwhile:
        judging = meanwhile.submit(_member, run, recipe, to_judge, folder / "of the judged")
        newest = dataset.fresh(run, rows, days)
        if not _may_work_at_once(recipe):
            judging.result()
        told = replace(newest, calibration=_slope_of(judging))
        fresh = _member(run, recipe, told, folder / "of the fresh")
        judged = judging.result()
    return Candidate(judged=judged, fresh=fresh, validation_rows=len(to_judge.validation))


def _may_work_at_once(recipe: Recipe) -> bool:
    """Whether there is a core for each process of both trainings."""
    processes = recipe.family.processes(recipe.settings)
    return 0 < 2 * processes <= len(os.sched_getaffinity(0))


def _slope_of(judging: Future[Member]) -> Future[float | None]:
    """What the judged one's validation days say, or the error that it failed with."""
    slope: Future[float | None] = Future()

    def tell(done: Future[Member]) -> None:
        error = done.exception()
        if error is None:
            slope.set_result(done.result().fit.calibration_slope)
        else:
            slope.set_exception(error)

    judging.add_done_callback(tell)
    return slope


def _member(
    run: Run,
    recipe: Recipe,
    data: Dataset,
    folder: Path,
) -> Member:
    folder.mkdir()
    fit = recipe.family.fit(data, recipe.settings, run.environment, folder)
    return Member(
        fit=fit,
        encoding=data.encoding,
        fit_rows=len(data.fit),
        sample=data.fit.sample(),
    )


def _save(member: Member, folder: Path) -> None:
    member.fit.save(folder)
    (folder / ENCODING).write_text(member.encoding.to_json())
