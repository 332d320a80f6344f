"""The page of nights: the state of every table on every night, and the run that was last at it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jobs.lake import ops
from jobs.notifications.message import first_words
from jobs.planning.reasons import of_all, without_days
from jobs.planning.survey import AWAITS, Finding, Survey
from pipelines import replay
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.places import below, is_url
from pipelines.run import Run
from pipelines.spec import Pipeline
from pipelines.stages import STAGES

REFUSED = "refused"
HOLE = "hole"
TO_DO = frozenset({"missing", "stale", REFUSED})
"""States of what a run of the night would make."""
_UNDONE = TO_DO | {HOLE, AWAITS}
"""Those of what is to be done, or cannot be."""
_WORST_FIRST = (REFUSED, "failed", "not landed", AWAITS, "done", "current")
"""Outcomes of stages; that of a run is the worst of them."""
_AHEAD = timedelta(days=31)
"""A night that ended badly farther ahead was a slip, such as 2103 for 2013: it shows no years of
missing nights."""
_BADLY = frozenset({REFUSED, "failed"})
"""Outcomes that nobody must overlook."""
_COLUMNS = (
    *("run_id", "stage", "first_day", "last_day", "status", "started_at"),
    *("metrics", "error"),
)
_Row = Mapping[str, Any]
_Place = tuple[date, str]
"""A night, and a table by its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One table on one night."""

    table: str
    """Its name, without the pipeline."""
    state: str
    """One of the plan's states, `hole` or `refused`; empty: nothing is said of it."""
    reason: str = ""


_Said = tuple[date, Cell]
"""What is said of a table, and of which night."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One row of the page."""

    day: date
    cells: tuple[Cell, ...]
    run_id: str | None = None
    """The last run that was about the night; None: there was none."""
    outcome: str = ""
    """How that run ended: the worst of its stages, each as its last attempt ended."""
    report: str | None = None
    """Path of the last report of that run, below the folder of reports; None: there is none, or
    it was deleted since."""

    @property
    def is_to_do(self) -> bool:
        """Whether a run of this night would make a table."""
        return any(cell.state in TO_DO for cell in self.cells)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is to be done, cannot be, or stays as it is, for one reason."""

    state: str
    reason: str
    tables: tuple[str, ...]
    first: date
    """Of its nights, which need not all follow each other."""
    last: date
    nights: int
    """How many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nights:
    """All that the page shows."""

    tables: tuple[str, ...]
    nights: tuple[Night, ...]
    """The newest first."""
    from_start: bool
    """Whether nights since the pipeline's first day count as missed, though nothing was published
    yet: a run that is to make what is missing has to be told."""

    @property
    def counts(self) -> dict[str, int]:
        """For each state the number of its cells."""
        found: dict[str, int] = defaultdict(int)
        for night in self.nights:
            for cell in night.cells:
                found[cell.state] += 1
        return dict(found)

    @property
    def work(self) -> tuple[Work, ...]:
        """What is to do or cannot be and why, the newest first; alike what has the same reason."""
        return self._alike(lambda cell: cell.state in _UNDONE)

    @property
    def stays(self) -> tuple[Work, ...]:
        """The same of what stays as it is, though not for nothing."""
        return self._alike(lambda cell: cell.state not in _UNDONE and bool(cell.reason))

    def _alike(self, is_meant: Callable[[Cell], bool]) -> tuple[Work, ...]:
        alike: dict[tuple[str, str], list[_Said]] = defaultdict(list)
        for night in self.nights:
            for cell in filter(is_meant, night.cells):
                said = without_days(cell.reason)
                alike[cell.state, said].append((night.day, cell))
        return tuple(_work(state, places) for (state, _), places in alike.items())

    @property
    def to_make(self) -> date | None:
        """The night whose run makes all that is missing or stale; None: there is nothing."""
        return next((night.day for night in self.nights if night.is_to_do), None)


def _work(state: str, places: Sequence[_Said]) -> Work:
    days = {day for day, _ in places}
    tables = dict.fromkeys(cell.table for _, cell in places)
    return Work(
        state=state,
        reason=of_all([cell.reason for _, cell in places]),
        tables=tuple(tables),
        first=min(days),
        last=max(days),
        nights=len(days),
    )


def nights(environment: Environment, pipeline: Pipeline, now: datetime) -> Nights:
    """The nights up to `last_night`.

    Args:
        environment: Whose lake is read.
        pipeline: Whose nights they are.
        now: This instant, with an offset from UTC: which nights are over follows from it.
    """
    last = last_night(environment, pipeline, now)
    run = Run(
        pipeline=pipeline,
        days=Days.of(last),
        environment=environment,
        # As a night does that names no day.
        from_start=pipeline.replay is not None,
    )
    survey = Survey(run)
    ran = _StageRuns(environment, pipeline, survey.nights)
    cells = _cells(survey, ran)
    names = tuple(table.name for table in pipeline.tables)
    nothing = {name: Cell(table=name, state="") for name in names}
    shown = []
    for night in sorted(survey.nights, reverse=True):
        of_night = [cells.get((night, name), nothing[name]) for name in names]
        shown.append(ran.night(night, tuple(of_night)))
    return Nights(tables=names, nights=tuple(shown), from_start=run.from_start)


def last_night(environment: Environment, pipeline: Pipeline, now: datetime) -> date:
    """The last night that is due, that was published, or that ended badly: whichever is later.

    People run nights ahead of those that are due, and look here for what became of them.
    """
    published = ops.read(
        environment, "publications", [("pipeline", "=", pipeline.name)], ["table_name", "day"]
    )
    feeds = {f"{pipeline.name}.{feed.name}" for feed in pipeline.feeds}
    days = [_due(environment, pipeline, now)]
    days += [row["day"] for row in published.to_pylist() if row["table_name"] in feeds]
    last = max(days)
    # Not those that wait for their files: everything before such a night would count as missing.
    of_pipeline = [("pipeline", "=", pipeline.name), ("last_day", ">", last)]
    ended = ops.read(environment, "stage_runs", of_pipeline, ["last_day", "status"]).to_pylist()
    badly = [row["last_day"] for row in ended if row["status"] in _BADLY]
    return max((night for night in badly if night <= last + _AHEAD), default=last)


def _due(environment: Environment, pipeline: Pipeline, now: datetime) -> date:
    """The last night that is over; the first day where none is."""
    if pipeline.replay is None:
        yesterday = now.astimezone(ZoneInfo(pipeline.timezone)).date() - timedelta(days=1)
        latest = min(yesterday, pipeline.last_day or yesterday)
        return max(pipeline.first_day, latest)
    try:
        calendar = replay.calendar(pipeline, environment)
    except replay.NothingDue:
        return pipeline.first_day
    return calendar.delivered_by(calendar.day_before(now))


class _StageRuns:
    """What stages did on each night: by night and stage the last attempt."""

    def __init__(self, environment: Environment, pipeline: Pipeline, nights: Days) -> None:
        self._environment = environment
        self._last: dict[date, dict[str, _Row]] = defaultdict(dict)
        """By night, of each stage the last attempt of any run."""
        self._newest: dict[date, str] = {}
        """By night the run that was about it last."""
        self._of_run: dict[tuple[date, str], dict[str, _Row]] = defaultdict(dict)
        self._add(environment, pipeline, nights)

    def _add(self, environment: Environment, pipeline: Pipeline, nights: Days) -> None:
        of_pipeline = [("pipeline", "=", pipeline.name)]
        rows = ops.read(environment, "stage_runs", of_pipeline, _COLUMNS).to_pylist()
        for row in sorted(rows, key=itemgetter("started_at")):
            days = Days(row["first_day"], row["last_day"])
            for night in days.within(nights.first, nights.last) or ():
                self._last[night][row["stage"]] = row
                self._newest[night] = row["run_id"]
                self._of_run[night, row["run_id"]][row["stage"]] = row

    def refusal(self, night: date, maker: str, table: str) -> str | None:
        """Why the last attempt to make a table was refused; None: it was not.

        Args:
            night: That was to be made.
            maker: The stage that makes the table.
            table: SQL name.
        """
        judges = [stage.name for stage in STAGES if stage.audits == maker]
        for name in (*judges, maker):
            row = self._last[night].get(name)
            if row is not None and row["status"] == REFUSED:
                return _why(row, table)
        return None

    def night(self, night: date, cells: tuple[Cell, ...]) -> Night:
        """A row of the page."""
        run_id = self._newest.get(night)
        if run_id is None:
            return Night(day=night, cells=cells)
        stages = self._of_run[night, run_id]
        return Night(
            day=night,
            cells=cells,
            run_id=run_id,
            outcome=_worst(row["status"] for row in stages.values()),
            report=self._report(stages.values()),
        )

    def _report(self, rows: Iterable[_Row]) -> str | None:
        found = None
        for row in sorted(rows, key=itemgetter("started_at")):
            found = json.loads(row["metrics"] or "{}").get("report") or found
        return below_reports(self._environment, found)


def below_reports(environment: Environment, report: str | None) -> str | None:
    """Path of a report below the folder of reports; None: it is not there, or lies elsewhere.

    In a store nobody looks: that takes its time, and a report that is gone says so itself.
    """
    found = environment.report(report) if report else None
    if found is None or not (is_url(found) or Path(found).is_file()):
        # `nightshift maintain` has deleted it.
        return None
    return below(found, environment.reports)


def _cells(survey: Survey, ran: _StageRuns) -> dict[_Place, Cell]:
    """What is said of a table on a night, by the plan and by the stages."""
    found: dict[_Place, Cell] = {}
    for hole in survey.holes:
        reason = f"{', '.join(hole.files)} has not landed"
        for feed in survey.daily_feeds:
            found[hole.night, feed] = Cell(table=feed, state=HOLE, reason=reason)
    for one in chain.from_iterable(survey.foreseen_by_record()):
        found[one.night, one.table.name] = _cell(one, survey, ran)
    return found


def _cell(one: Finding, survey: Survey, ran: _StageRuns) -> Cell:
    """What the plan says; but refused, where that is why the table is not there."""
    name = one.table.name
    why = None
    if one.state in TO_DO:
        why = ran.refusal(one.night, one.table.made_by, f"{survey.pipeline.name}.{name}")
    if why is None:
        return Cell(table=name, state=one.state, reason=one.reason)
    return Cell(table=name, state=REFUSED, reason=why)


def _why(row: _Row, table: str) -> str | None:
    """What a refused stage says of a table; None: it says it of others."""
    metrics = json.loads(row["metrics"] or "{}")
    failures: Sequence[_Row] = metrics.get("failures", ())
    if not failures:
        return first_words(row["error"] or "")
    said = [str(one["says"]) for one in failures if one["table"] == table]
    return "; ".join(said) or None


def _worst(outcomes: Iterable[str]) -> str:
    found = set(outcomes)
    known = [one for one in _WORST_FIRST if one in found]
    return known[0] if known else ", ".join(sorted(found))
