"""What a night trains: two models of one recipe, the one that is judged and the one that serves.

The judged one keeps the newest days out, to be calibrated and compared on them. The fresh one
learns from every day up to the night, and is given the calibration of the judged one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from jobs.lake import snapshots
from jobs.training import dataset
from jobs.training.dataset import InProcess
from jobs.training.encoding import ENCODING, Encoding, Examples
from jobs.training.families import family_of
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    from jobs.lake.snapshots import Snapshot
    from jobs.training.dataset import Dataset, LaidOut, Window
    from jobs.training.families import Fit, ModelFamily
    from pipelines.environment import Environment
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
    on_spark: bool = False
    """Whether Spark lays the rows out, which do not fit into memory."""


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
    days = dataset.window(run.pipeline, run.days.last)
    snapshot = snapshots.newest(run, TRAINING)
    is_large = dataset.is_large(run, snapshot, days)
    # A cluster that others run need not have our code.
    is_own = not run.environment.spark_remote
    if is_large and not (family.streams and is_own):
        _tell_of_memory(run, family)
    return Recipe(
        family=family,
        settings=family.settings(declared, run.environment),
        days=days,
        snapshot=snapshot,
        on_spark=is_large and family.streams and is_own,
    )


def _tell_of_memory(run: Run, family: ModelFamily) -> None:
    why = "the Spark of SPARK_REMOTE need not have our code"
    if not family.streams:
        why = f"family '{family.name}' reads all rows at once"
    most = run.pipeline.training.rows_in_process
    print(
        f"The window of '{run.pipeline.name}' has more than rows_in_process={most} rows, and is "
        f"read into this process all the same: {why}.",
        file=sys.stderr,
        flush=True,
    )


def make(
    run: Run,
    recipe: Recipe,
    folder: Path,
    cores: int = 0,
    ranks_in: Environment | None = None,
) -> Candidate:
    """Train both.

    Args:
        run: Of the night.
        recipe: How.
        folder: Private to this training; its files must last until the candidate is saved.
        cores: Which the processes of both may keep busy; with too few, one training follows the
            other.
        ranks_in: Where the processes of a training are started; None: in the run's environment.

    Raises:
        Refused: too few labels are known.
        NightshiftError: the training failed.
    """
    with _laid_out(run, recipe) as rows:
        to_judge = rows.judged()
        assert to_judge.validation is not None, "a model is judged by days that it has not seen"
        # A training may take hours.
        rows.require_fresh()
        work = _Work(
            recipe=recipe,
            rows=rows,
            to_judge=to_judge,
            folder=folder,
            ranks_in=ranks_in or run.environment,
        )
        processes = recipe.family.processes(recipe.settings)
        judged, fresh = work.at_once() if _are_enough(cores, processes) else work.in_turn()
        return Candidate(judged=judged, fresh=fresh, validation_rows=len(to_judge.validation))


def _are_enough(cores: int, processes: int) -> bool:
    """Whether two trainings of so many processes each are faster at once than in turn."""
    # Ranks mostly wait for each other's gradients, so that two share a core (docs/performance.md).
    processes_a_core = 2 if processes > 1 else 1
    return 0 < 2 * processes <= cores * processes_a_core


@contextmanager
def _laid_out(run: Run, recipe: Recipe) -> Iterator[LaidOut]:
    if not recipe.on_spark:
        yield InProcess.of(run, recipe.snapshot, recipe.days)
        return
    with dataset.on_spark(run, recipe.snapshot, recipe.days) as rows:
        yield rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """The two trainings."""

    recipe: Recipe
    rows: LaidOut
    to_judge: Dataset
    folder: Path
    ranks_in: Environment

    def in_turn(self) -> tuple[Member, Member]:
        """The judged one, then the fresh one, whose rows are laid out meanwhile or before."""
        with ThreadPoolExecutor(1) as meanwhile:
            laid_out = meanwhile.submit(self.rows.fresh)
            if self.recipe.on_spark and self.ranks_in.rank_executors == "on":
                # Spark gives each free core to what asked first: ranks would be given up before
                # they have one.
                laid_out.result()
            judged = self._member(self.to_judge, _OF_JUDGED)
            newest = laid_out.result()
        slope: Future[float | None] = Future()
        slope.set_result(judged.fit.calibration_slope)
        told = replace(newest, calibration=slope)
        return judged, self._member(told, _OF_FRESH)

    def at_once(self) -> tuple[Member, Member]:
        """Both."""
        called_off = Event()
        # Whatever fails, both have ended when it is left: nothing writes into the folder any more.
        with ThreadPoolExecutor(1) as beside:
            judging = beside.submit(self._member, self.to_judge, _OF_JUDGED, called_off)
            try:
                newest = self.rows.fresh()
                told = replace(newest, calibration=_slope_of(judging))
                fresh = self._member(told, _OF_FRESH)
                return judging.result(), fresh
            except BaseException:  # Ctrl-C too
                called_off.set()
                raise

    def _member(self, data: Dataset, name: str, called_off: Event | None = None) -> Member:
        folder = self.folder / name
        folder.mkdir()
        recipe = self.recipe
        fit = recipe.family.fit(data, recipe.settings, self.ranks_in, folder, called_off)
        return Member(
            fit=fit,
            encoding=data.encoding,
            fit_rows=len(data.fit),
            sample=data.fit.sample(),
        )


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


def _save(member: Member, folder: Path) -> None:
    member.fit.save(folder)
    (folder / ENCODING).write_text(member.encoding.to_json())
