"""What a night trains: two models of one recipe, the one that is judged and the one that serves.

The judged one keeps the newest days out, to be calibrated and compared on them. The fresh one then
learns from every day up to the night, with the calibration that the judged one was given.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
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
    with ThreadPoolExecutor(1) as meanwhile:
        laid_out = meanwhile.submit(dataset.fresh, run, rows, days)
        judged = _member(run, recipe, to_judge, folder / "of the judged")
        newest = replace(laid_out.result(), calibration_slope=judged.fit.calibration_slope)
    return Candidate(
        judged=judged,
        fresh=_member(run, recipe, newest, folder / "of the fresh"),
        validation_rows=len(to_judge.validation),
    )


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
