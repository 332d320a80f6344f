"""What a night trains: two models of one recipe, the one that is judged and the one that serves.

The judged one keeps the newest days out, to be calibrated and compared on them. The fresh one
learns from every day up to the night, and is given the calibration of the judged one.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from jobs.lake import snapshots
from jobs.training import dataset
from jobs.training.encoding import ENCODING, Encoding, Examples
from jobs.training.families import family_of
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.lake.snapshots import Snapshot
    from jobs.training.dataset import Dataset, Window
    from jobs.training.families import Fit, ModelFamily
    from pipelines.run import Run

JUDGED = "judged"
"""Folder of the judged model's files, in that of the files that serve."""
_OF_JUDGED = "of the judged"
_OF_FRESH = "of the fresh"


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


def make(run: Run, recipe: Recipe, folder: Path, cores: int = 0) -> Candidate:
    """Train both.

    Args:
        run: Of the night.
        recipe: How.
        folder: Private to this training; its files must last until the candidate is saved.
        cores: Which the processes of both may keep busy; with too few, one training follows the
            other.

    Raises:
        Refused: too few labels are known.
        NightshiftError: the training failed.
    """
    days = recipe.days
    rows = dataset.labelled(run, recipe.snapshot, days.all)
    to_judge = dataset.judged(run, rows, days)
    assert to_judge.validation is not None, "a model is judged by days that it has not seen"
    processes = recipe.family.processes(recipe.settings)
    train_both = _at_once if 0 < 2 * processes <= cores else _in_turn
    judged, fresh = train_both(run, recipe, rows, to_judge, folder)
    return Candidate(judged=judged, fresh=fresh, validation_rows=len(to_judge.validation))


def _in_turn(
    run: Run, recipe: Recipe, rows: pa.Table, to_judge: Dataset, folder: Path
) -> tuple[Member, Member]:
    with ThreadPoolExecutor(1) as meanwhile:
        laid_out = meanwhile.submit(dataset.fresh, run, rows, recipe.days)
        judged = _member(run, recipe, to_judge, folder / _OF_JUDGED)
        newest = laid_out.result()
    slope: Future[float | None] = Future()
    slope.set_result(judged.fit.calibration_slope)
    told = replace(newest, calibration=slope)
    return judged, _member(run, recipe, told, folder / _OF_FRESH)


def _at_once(
    run: Run, recipe: Recipe, rows: pa.Table, to_judge: Dataset, folder: Path
) -> tuple[Member, Member]:
    called_off = Event()
    # Whatever fails, both have ended when it is left: nothing writes into the folder any more.
    with ThreadPoolExecutor(1) as beside:
        judging = beside.submit(_member, run, recipe, to_judge, folder / _OF_JUDGED, called_off)
        try:
            newest = dataset.fresh(run, rows, recipe.days)
            told = replace(newest, calibration=_slope_of(judging))
            fresh = _member(run, recipe, told, folder / _OF_FRESH)
            return judging.result(), fresh
        except BaseException:  # Ctrl-C too
            called_off.set()
            raise


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
    called_off: Event | None = None,
) -> Member:
    folder.mkdir()
    fit = recipe.family.fit(data, recipe.settings, run.environment, folder, called_off)
    return Member(
        fit=fit,
        encoding=data.encoding,
        fit_rows=len(data.fit),
        sample=data.fit.sample(),
    )


def _save(member: Member, folder: Path) -> None:
    member.fit.save(folder)
    (folder / ENCODING).write_text(member.encoding.to_json())
