"""On which nights, and for which tables, each stage of a run is performed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

from jobs.lake import ops
from jobs.planning.seen import seen_by
from jobs.planning.survey import Survey
from pipelines.days import Days, ranges
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from jobs.planning.survey import Finding
    from pipelines.run import Run
    from pipelines.spec import Table
    from pipelines.stages import Stage

_OF_THE_LAST = ("train", "evaluate")
"""Stages of which the nights before the run's are not asked for."""
_Asked = Mapping[date, Set[str]]
"""By night the names of the tables that are to be made for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """Nights on which a stage is performed at once."""

    days: Days
    tables: tuple[str, ...] = ()
    """Those that it makes; (): all of its own."""


def units() -> tuple[tuple[Stage, ...], ...]:
    """The stages of a night, each together with the check that publishes what it stages."""
    found: list[tuple[Stage, ...]] = []
    for stage in STAGES:
        if stage.audits:
            found[-1] = (*found[-1], stage)
        else:
            found.append((stage,))
    return tuple(found)


def of_stage(run: Run, stage: Stage, survey: Survey) -> list[Pass]:
    """The nights on which a stage has something to do, as ranges of consecutive days.

    Each with the tables that need it: of the others these days stay as they are.

    Args:
        run: Up to whose last night everything shall be true.
        stage: One that makes tables or models; or a check, which has to judge what this run has
            staged and nobody has published since.
        survey: How things stand.
    """
    maker = stage.audits or stage.name
    made = [table for table in run.pipeline.tables if table.made_by == maker]
    if stage.name == "monitor":
        return _whole(ranges(_nights_to_measure(run, stage, survey)))
    if not made:
        due = set(run.days) if why_due(run, stage, survey) else set()
        # A model is of the last night alone, whichever were missed.
        missed = set() if stage.name in _OF_THE_LAST else survey.seen.missed_by(stage)
        return _whole(ranges(due | missed))
    found = survey.to_make(made)
    nights = {one.night for one in found}
    if stage.audits:
        return _staged(run, maker, nights)
    if stage.name == "predict":
        # Last, because they are refused: what a person has scored again is published before.
        lost = nights & survey.lost_nights
        return _whole([*ranges(nights - lost), *ranges(lost)])
    if stage != STAGES[0]:
        return _of_tables(survey, made, found)
    begun = survey.begun(nights)
    corrected = survey.corrected(nights)
    # Files of days that are in force are read apart: when they are bad, the night goes on.
    apart = [begun & corrected, begun - corrected]
    parts: list[Pass] = []
    for part in apart:
        parts += _of_feeds(made, [one for one in found if one.night in part])
    others = ranges(nights - begun)
    return [*parts, *_whole(_cut(others, survey.first_snapshots()))]


def _whole(parts: Iterable[Days]) -> list[Pass]:
    """Each with all tables of the stage."""
    return [Pass(days=days) for days in parts]


def _of_feeds(feeds: Sequence[Table], found: Iterable[Finding]) -> list[Pass]:
    """Nights in force, each with the feeds alone of which there is something new to be read.

    The others stay as they were read, also where they would be read otherwise, or refused, today.
    """
    asked = _asked_by_night(found)
    parts = _cut(ranges(asked), _changes(asked, sorted(asked)))
    return [_with_tables(feeds, asked, days) for days in parts]


def _of_tables(
    survey: Survey,
    tables: Sequence[Table],
    found: Iterable[Finding],
) -> list[Pass]:
    """The nights of what is to be made, each range with the tables that need it.

    A range is one pass also where a table needs some of its nights alone: the others are made as
    they are. But not where one of these is outdated, and would get the definition of today by it.
    """
    asked = _asked_by_night(found)
    parts: list[Days] = []
    for days in ranges(asked):
        wanted = _wanted(tables, asked, days)
        is_spread = any(_spreads(survey, wanted, asked, night) for night in days)
        parts += _cut([days], _changes(asked, days)) if is_spread else [days]
    return [_with_tables(tables, asked, days) for days in parts]


def _asked_by_night(found: Iterable[Finding]) -> _Asked:
    asked: dict[date, set[str]] = {}
    for one in found:
        asked.setdefault(one.night, set()).add(one.table.name)
    return asked


def _with_tables(tables: Sequence[Table], asked: _Asked, days: Days) -> Pass:
    names = [table.name for table in _wanted(tables, asked, days)]
    return Pass(days=days, tables=tuple(names))


def _wanted(tables: Sequence[Table], asked: _Asked, days: Days) -> list[Table]:
    """The tables that some of the days ask for."""
    names = set(chain.from_iterable(asked[night] for night in days))
    return [table for table in tables if table.name in names]


def _spreads(survey: Survey, tables: Sequence[Table], asked: _Asked, night: date) -> bool:
    """Whether one of the tables would be made anew for a night that is only outdated."""
    others = [table for table in tables if table.name not in asked[night]]
    return any(survey.is_outdated(table, night) for table in others)


def _changes(asked: _Asked, days: Iterable[date]) -> list[date]:
    """The days that ask for other tables than the one before."""
    pairs = pairwise(days)
    return [night for before, night in pairs if asked[before] != asked[night]]


def _cut(parts: list[Days], firsts: Iterable[date]) -> list[Days]:
    """The ranges, each of which that goes over one of these days begun anew with it."""
    for first in firsts:
        before = first - timedelta(days=1)
        halves: list[Days | None] = []
        for part in parts:
            halves += [part.within(None, before), part.within(first, None)]
        parts = [half for half in halves if half]
    return parts


def first_of_stage(run: Run, stage: Stage, survey: Survey) -> list[Pass]:
    """As `of_stage`, where the stage makes nights twice: what it does before it makes them anew."""
    made = [table for table in run.pipeline.tables if table.made_by == stage.name]
    is_any_made_twice = any(one.is_made_twice for one in survey.to_make(made))
    return of_stage(run, stage, survey) if is_any_made_twice else []


def asked_of(stage: Stage, parts: list[Days]) -> list[Days]:
    """Those parts of a run's nights that a stage is given: a model is of the last one alone."""
    return parts[-1:] if stage.name in _OF_THE_LAST else parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The nights of a run that does exactly its days, where gaps are allowed."""

    read: list[Days]
    """Those whose files are read."""
    made: list[Days]
    """Those of which tables are made: of rows that were read now or long ago."""
    kept: Mapping[date, str]
    """Nights that are not read, and why."""


def parts_over_gaps(run: Run) -> Parts:
    """The run's nights without those that lack files; a last night that was never made waits."""
    found = Survey(run)
    feeds = [feed.name for feed in run.pipeline.feeds]
    # A reference file too: all that a night reads is read together.
    absent = {night: found.files.absent(night, feeds) for night in run.days}
    lacking = {night: files for night, files in absent.items() if files}
    if not found.has_landed(run.days.last):
        lacking.pop(run.days.last, None)
    unmade = {night for night in lacking if not found.has_landed(night)}
    kept = {}
    for night, files in lacking.items():
        what = "is left out" if night in unmade else "keeps its raw rows"
        kept[night] = f"{night} {what}: {', '.join(files)} is not there"
    nights = set(run.days)
    return Parts(
        read=ranges(nights - lacking.keys()),
        made=ranges(nights - unmade),
        kept=kept,
    )


def _nights_to_measure(run: Run, monitor: Stage, survey: Survey) -> set[date]:
    """Those whose labels or predictions have changed since, and the run's last."""
    measured = seen_by(run, monitor)
    nights = survey.seen.learned_since(measured) | survey.seen.foretold_since(measured)
    return nights if "monitor" in survey.seen.last_done else nights | {run.days.last}


def _staged(run: Run, maker: str, nights: set[date]) -> list[Pass]:
    """For each of the nights the last range on which a stage of this run has staged it."""
    last: dict[date, Pass] = {}
    for one in _done(run, maker):
        last.update(dict.fromkeys(one.days, one))
    found = {last[night] for night in nights if night in last}
    return sorted(found, key=lambda one: one.days)


def last_staged(run: Run, check: Stage) -> list[Pass]:
    """The last range on which this run has staged what a check judges, if it has staged any."""
    assert check.audits, "only a check judges what was staged"
    return _done(run, check.audits)[-1:]


def _done(run: Run, maker: str) -> list[Pass]:
    """The ranges on which a stage of this run has staged tables, in the order in which it did."""
    of_run = [
        ("pipeline", "=", run.pipeline.name),
        ("run_id", "=", run.run_id),
        ("stage", "=", maker),
        ("status", "=", "done"),
    ]
    columns = ["first_day", "last_day", "started_at", "metrics"]
    rows = ops.read(run.environment, "stage_runs", of_run, columns).to_pylist()
    found = []
    for row in sorted(rows, key=itemgetter("started_at")):
        days = Days(row["first_day"], row["last_day"])
        # Stages that stage all of their tables do not name them.
        names = json.loads(row["metrics"]).get("tables", ())
        found.append(Pass(days=days, tables=tuple(names)))
    return found


def why_due(run: Run, stage: Stage, survey: Survey) -> str | None:
    """Why a stage that makes no table has not seen what it works on; None: it has."""
    last = survey.seen.last_done
    if stage.name not in last:
        return f"not done yet as of {run.days.last}"
    if stage.name == "train":
        if run.retrain:
            return "--retrain trains again"
        has_learned = survey.seen.has_learned_since(last["train"])
        return "what it learns, or learns from, has changed" if has_learned else None
    if stage.name == "evaluate":
        trained = last.get("train")
        is_older = trained is not None and trained["started_at"] > last["evaluate"]["started_at"]
        return "a model was trained since" if is_older else None
    published = survey.seen.published_since(stage.reads, last[stage.name]["started_at"])
    return f"{', '.join(published)} was published since" if published else None


def has_work(run: Run, survey: Survey, stages: tuple[Stage, ...] = STAGES) -> bool:
    """Whether any of the stages has something to do: when none has, a night changes nothing."""
    asked = [unit[0] for unit in units() if any(one in stages for one in unit)]
    return any(of_stage(run, first, survey) for first in asked)
