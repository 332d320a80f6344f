"""What was served stays: where it is lost, nothing takes its place unless a person says so.

The record tells which predictions were published. A folder that was deleted, or a lake that was
restored from a backup, has them no more; what a model says of these nights today is something else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from jobs.lake import publications
from jobs.lake.locations import path, sql_name
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.spec import PREDICTIONS

if TYPE_CHECKING:
    from jobs.lake.publications import Publication, Told
    from pipelines.run import Run

_BY_ANOTHER = ", by another model: that of the first night is gone, or has learned another label"
"""Why lost nights are asked for with a training."""


def lost_nights(run: Run, told: Told) -> set[date]:
    """Nights whose predictions are lost, and that the run was not asked to score again.

    None of before the pipeline's first day: nobody could have them scored, nor is asked to.

    Args:
        run: Up to whose night everything shall be true.
        told: The publications of the pipeline's predictions.
    """
    if not told.lost:
        return set()
    table = run.pipeline.table(PREDICTIONS)
    there = publications.latest(told)
    nights = set()
    for day, one in told.lost.items():
        night = table.night_of(day)
        if night >= run.pipeline.first_day and _is_lost(one, there.get(day)):
            nights.add(night)
    return nights - set(Days(run.named_from, run.night)) if run.rescore else nights


def require_not_lost(
    run: Run,
    without_model: Callable[[Days], Collection[date]] = lambda _: (),
) -> None:
    """Refuse to score anything while predictions that were published are lost.

    What is published now would not be in the folder that a person brings back. One who has nights
    scored again brings none back: then the others are refused alone.

    Args:
        run: That is about to score.
        without_model: Of nights those whose model is gone, or has learned another label, so that
            none can score them again.

    Raises:
        Refused: some are; the message tells which, and the ways out.
    """
    lost = sorted(lost_nights(run, publications.told(run, PREDICTIONS)))
    if run.rescore:
        lost = [night for night in lost if night in run.days]
    if not lost:
        return
    table = run.pipeline.table(PREDICTIONS)
    first = _first_range(lost)
    first, ask = _ask_for(first, sorted(without_model(first)))
    nights = f"--from {first.first} --to {first.last}" if len(first) > 1 else f"--date {first.last}"
    of_warehouse = ""
    if run.environment.warehouse_url is not None:
        of_warehouse = "PostgreSQL keeps what it was given of them. "
    raise Refused(
        f"{sql_name(run, PREDICTIONS)} has lost what was served for {len(lost)} day(s), the first "
        f"is {table.day_of(lost[0])}: ops.publications tells of it, and {path(run, PREDICTIONS)} "
        "does not hold it any more. What models say of these days now would pass as what was "
        "served. Nothing was published. Restore that folder from a backup, and run again. "
        f"{of_warehouse}Or publish what is said now, as a later revision{ask.why}: "
        f"nightshift run {run.pipeline.name} {nights} {ask.options}"
    )


@dataclass(frozen=True, slots=True)
class _Ask:
    """How lost nights are asked for."""

    options: str
    """Of `nightshift run`, beside the nights."""
    why: str = ""
    """Why another model has to be trained."""


def _ask_for(nights: Days, without_model: Sequence[date]) -> tuple[Days, _Ask]:
    """Those of the nights that one command can have scored again, and how it asks for them.

    Args:
        nights: That are lost.
        without_model: Those whose model can score none, in order.
    """
    if not without_model:
        return nights, _Ask("--rescore")
    first = without_model[0]
    if nights.first < first:
        return Days(nights.first, first - timedelta(days=1)), _Ask("--rescore")
    # It serves from that night on, in the place of the one that can score none.
    return Days.of(first), _Ask("--retrain --rescore", _BY_ANOTHER)


def _is_lost(one: Publication, there: Publication | None) -> bool:
    """Whether a publication that the table has no more was the last one, and of other rows.

    Args:
        one: The last of its day that the table has lost.
        there: The last of the day that the table has; None: it has none.
    """
    if there is None:
        return one.rows > 0
    is_newer = one.published_at > there.published_at
    return is_newer and (one.rows, one.checksum) != (there.rows, there.checksum)


def _first_range(nights: Sequence[date]) -> Days:
    """The first of these nights, in order, with those that follow it without a gap."""
    last = nights[0]
    while last + timedelta(days=1) in nights:
        last += timedelta(days=1)
    return Days(nights[0], last)
