"""What a night has to do: which days of which tables are missing or stale, and why.

Everything follows from the publications (`jobs/lake/publications.py`) and the landed files; nothing
is assumed. A night of a table is missing when it was never published, stale when what it was made
from has changed since, and current otherwise. Predictions are never stale: they stay as they were
served, until a person has them scored again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from jobs.lake import approvals, model_events, ops, publications, served, unscored
from jobs.lake.knowledge import (
    Knowledge,
    is_reference_announced,
)
from jobs.lake.locations import sql_name
from jobs.lake.quarantine import moved_by_rules
from jobs.lake.transforms import definitions
from jobs.planning.landed_files import LandedFiles
from jobs.planning.quarantines import Quarantines
from jobs.planning.reasons import listed
from jobs.planning.seen import Seen
from pipelines.days import Days
from pipelines.landing import expected_files
from pipelines.spec import PREDICTIONS, QUARANTINE_SUFFIX, SCORING
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from jobs.lake.publications import Input, Publication, Told
    from pipelines.feeds import Feed
    from pipelines.run import Run
    from pipelines.spec import Pipeline, Table
    from pipelines.stages import Stage

_OUTDATED = "made by another definition"
_DECLARED_LATER = "made without the feed, which has no drop of these nights"
_GONE = "its file is gone; its rows stay. To withdraw them, land a file without rows"
_REFERENCE_GONE = "its file is gone; nights that are made keep its last rows, and a new one waits"
_NOT_DUE = "its feed is declared to have no drop of that day; its rows stay"
_LOST = "was published, and is not in the table any more"
_Pending = dict[str, dict[date, date]]
"""By SQL name the days that are about to change, and from when each will be known."""
AWAITS: Final = "awaits approval"
"""State of predictions for which no model serves, and one that would awaits a person."""
UNSCORED: Final = "unscored"
"""State of predictions that were tried once, as the model whose turn it was can score none."""
State = Literal[
    "missing",
    "stale",
    "awaits approval",
    "unscored",
    "outdated",
    "served",
    "current",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One table on one night."""

    table: Table
    night: date
    state: State
    reason: str = ""
    """Why it is not current, or why it stays so."""
    keeps_rows: bool = False
    """What is to be made anew is beside the table: nothing follows from it."""
    is_made_twice: bool = False
    """It is made as it was before a correction that was found late, and then anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hole:
    """A night that is not made, or not whole, and cannot be: files of it are not there."""

    night: date
    files: tuple[str, ...]
    """Below the landing folder."""


class Survey:
    """The state of every table on every night up to the last of a run, as of now."""

    def __init__(
        self,
        run: Run,
        told: Mapping[str, Told] | None = None,
        *,
        allow_gap: bool = False,
    ) -> None:
        """Look.

        Args:
            run: Up to whose last night.
            told: By table its publications in their order, where they are known; see `after`.
            allow_gap: Take a night of the run itself that lacks files for a hole too, as it is for
                the nights after it; the last one has none.
        """
        self._run = run
        self._allow_gap = allow_gap
        self._told = publications.all_told(run) if told is None else told
        self._latest: dict[str, dict[date, Publication]] = {}
        self._knowledge = Knowledge(run, self._told)
        self.files = LandedFiles(run, self._told, self._known)
        """Those that have landed."""
        self._quarantines = Quarantines(run)
        self.seen = Seen(run, self._told, self._known, self._knowledge)
        """By stages that make no table."""
        self._have_landed: dict[date, bool] = {}
        self._to_make: dict[tuple[str, ...], list[Finding]] = {}
        self.nights = self._nights()
        self.holes = self._find_holes()
        """Nights that are not published, or not whole, and whose files are not there: those before
        the run's first, or where gaps are allowed before its last."""

    def after(self, unit: tuple[Stage, ...]) -> Survey:
        """How things stand when the run has performed some stages.

        Only what these make is looked up anew: what is told of the other tables is known already,
        and a run holds its pipeline's lock.
        """
        maker = unit[0].name
        made = [table.name for table in self.pipeline.tables if table.made_by == maker]
        told = {**self._told, **publications.told_of(self._run, made)}
        return Survey(self._run, told, allow_gap=self._allow_gap)

    @property
    def pipeline(self) -> Pipeline:
        """Whose tables they are."""
        return self._run.pipeline

    @property
    def daily_feeds(self) -> list[str]:
        """Names of the feeds that drop a file a day."""
        return [feed.name for feed in self.pipeline.feeds if not feed.is_reference]

    @property
    def new_feeds(self) -> list[str]:
        """Daily feeds of which nothing was ever published, beside others of which something was."""
        daily = self.daily_feeds
        new = [name for name in daily if self._is_new(name)]
        return new if len(new) < len(daily) else []

    def unread(self) -> dict[date, str]:
        """The run's nights of which nothing can be made, as no file was ever read; and why not.

        A gap that is allowed is none of them.
        """
        holes = {hole.night for hole in self.holes}
        found: dict[date, str] = {}
        for night in self._run.days:
            if night in holes or self.has_landed(night):
                continue
            if self._is_read(night):
                continue
            files = self.files.absent(night, self.daily_feeds)
            if files:
                found[night] = f"{', '.join(files)} is not there"
            else:
                found[night] = f"'{STAGES[0].name}' has not read its files"
        return found

    def _is_read(self, night: date) -> bool:
        """Whether raw rows of a night are there: of all feeds that it can have known."""
        daily = self.daily_feeds
        without = [name for name in daily if night not in self._known(name)]
        lacking = [name for name in without if self._was_to_be_read(self._feeds[name], night)]
        return len(without) < len(daily) and not lacking

    def _was_to_be_read(self, feed: Feed, night: date) -> bool:
        """Whether a feed was declared by that night already, as far as is recorded."""
        if not self.files.is_due(feed, night):
            return False
        if self._is_new(feed.name):
            return self._was_staged(feed.name, night)
        begun = self._all_told(feed.name)
        return any(day <= night for day in begun)

    def _was_staged(self, feed: str, night: date) -> bool:
        """Whether the run that published a night had staged files of a feed beside the others."""
        known = [self._known(name).get(night) for name in self.daily_feeds]
        publishers = {one.run_id for one in known if one}
        return any(night in days for days in self._staged_by(feed, publishers))

    def _staged_by(self, feed: str, run_ids: Set[str]) -> list[Days]:
        """The ranges on which these runs have staged files of a feed."""
        found = []
        for row in self._readings:
            if row["run_id"] not in run_ids:
                continue
            read = json.loads(row["metrics"]).get("feeds", {}).get(feed)
            if read and read["files"]:
                found.append(Days(row["first_day"], row["last_day"]))
        return found

    @cached_property
    def _readings(self) -> list[dict[str, Any]]:
        """Every success of the stage that reads files."""
        of_stage = [
            ("pipeline", "=", self.pipeline.name),
            ("stage", "=", STAGES[0].name),
            ("status", "=", "done"),
        ]
        columns = ["run_id", "first_day", "last_day", "metrics"]
        rows = ops.read(self._run.environment, "stage_runs", of_stage, columns)
        found: list[dict[str, Any]] = rows.to_pylist()
        return found

    def _is_new(self, feed: str) -> bool:
        return not self._known(feed) and not self._told[feed].lost

    def findings(self, table: Table) -> list[Finding]:
        """The state of a table on each night that it can be made for, oldest first."""
        found = self._findings(table)
        self.files.keep()
        return found

    def _findings(self, table: Table) -> list[Finding]:
        feed = self._feeds.get(table.name)
        if feed is None:
            return [self._finding(table, night) for night in self._made_nights(table)]
        if feed.is_reference:
            return [self._of_reference(table, feed)]
        holes = {hole.night for hole in self.holes}
        landed = [night for night in self.nights if night not in holes]
        return [self._of_drop(table, feed, night) for night in landed]

    def to_make(self, tables: Sequence[Table]) -> list[Finding]:
        """What is missing or stale of tables that one stage makes, in their order.

        With what follows: a night made from days that the stage makes anew is stale too.
        """
        # Asked for the same ones again.
        asked = tuple(table.name for table in tables)
        if asked not in self._to_make:
            self._to_make[asked] = self._find_to_make(tables)
        return self._to_make[asked]

    def _find_to_make(self, tables: Sequence[Table]) -> list[Finding]:
        pending: _Pending = {}
        found: list[Finding] = []
        for table in tables:
            findings = [self._with_what_follows(one, pending) for one in self.findings(table)]
            self._add_pending(pending, table, findings)
            to_make = filter(self._is_to_be_made, findings)
            found += [self._if_made_twice(one, pending) for one in to_make]
        return found

    def _if_made_twice(self, one: Finding, pending: _Pending) -> Finding:
        """As `Knowledge.made_as_of` has it, with what the stage makes before."""
        table = one.table
        follows = table.made_by == "transform" and not table.is_of_the_moment
        if one.state != "missing" or not follows:
            return one
        first = self._known_day(table, one.night, pending)
        last = self._known_day_of_last(table, one.night, pending)
        return replace(one, is_made_twice=first < last)

    def foreseen(self) -> list[list[Finding]]:
        """The findings of every table, in the order in which a night makes them.

        With what follows: a night made from days that will be made anew is stale, and one that
        another definition made is told as outdated.
        """
        return self._foreseen(definitions(self._run.pipeline))

    def foreseen_by_record(self) -> list[list[Finding]]:
        """As `foreseen`, by what is recorded alone.

        What the code makes today nobody knows without the code, and Spark with it: of each table
        the definition that was used last stands for that of today.
        """
        used: dict[str, str] = {}
        for name in self._told:
            told = [one for one in self._known(name).values() if one.definition]
            if told:
                used[name] = max(told, key=lambda one: one.attempt).definition
        return self._foreseen(used)

    def _foreseen(self, defined: Mapping[str, str]) -> list[list[Finding]]:
        """The findings of every table; those of which no definition is given are not outdated."""
        pending: _Pending = {}
        found: list[list[Finding]] = []
        for table in self._run.pipeline.tables:
            findings = []
            for one in self._expected(table):
                followed = self._with_what_follows(one, pending)
                told = self._if_outdated(followed, defined.get(table.name))
                findings.append(self._if_rescored(self._if_over_share(told)))
            self._add_pending(pending, table, findings)
            found.append(findings)
        return found

    def _is_to_be_made(self, one: Finding) -> bool:
        return one.state in ("missing", "stale", AWAITS) or self._is_rescored(one)

    def _is_rescored(self, one: Finding) -> bool:
        run = self._run
        return one.table.name == PREDICTIONS and run.rescore and one.night in run.days

    def _add_pending(self, pending: _Pending, table: Table, findings: Iterable[Finding]) -> None:
        stale = [one for one in findings if one.state in ("missing", "stale")]
        changing = [one.night for one in stale if not one.keeps_rows]
        pending[sql_name(self._run, table.name)] = {
            table.day_of(night): self._known_day(table, night, pending) for night in changing
        }

    def _expected(self, table: Table) -> list[Finding]:
        """The findings of a table, and nights that will be missing once their drops are there."""
        if table.name in self._feeds:
            return self.findings(table)
        holes = {hole.night for hole in self.holes}
        known = {one.night: one for one in self.findings(table)}
        coming = [night for night in self.nights if night not in holes and night not in known]
        if table.name == PREDICTIONS:
            coming = self._scored(coming)
        for night in coming:
            known[night] = self._finding(table, night)
        return [known[night] for night in sorted(known)]

    def _with_what_follows(self, one: Finding, pending: _Pending) -> Finding:
        made = self._publication(one.table, one.night)
        if one.state != "current" or made is None:
            return one
        for given in _followed(one.table, made):
            coming = _seen_in(given, pending)
            if coming:
                reason = f"{given.name} of {listed(coming)} will change"
                return _overtaken(one.table, one.night, reason)
        return one

    def _if_rescored(self, one: Finding) -> Finding:
        if one.state == "missing" or not self._is_rescored(one):
            return one
        return replace(one, state="stale", reason="--rescore scores it again")

    def _if_outdated(self, one: Finding, definition: str | None) -> Finding:
        is_current = one.state == "current"
        if not (is_current and self._is_of_another(one.table, one.night, definition)):
            return one
        if one.table.name == PREDICTIONS:
            return _overtaken(one.table, one.night, _OUTDATED)
        reason = f"{_OUTDATED}; --restate makes these days anew"
        return replace(one, state="outdated", reason=reason)

    def _if_over_share(self, one: Finding) -> Finding:
        """Of days that were accepted when their feed allowed more bad rows people are told.

        What is judged otherwise by now stays, as where a suite has changed.
        """
        feed = self._feeds.get(one.table.name)
        if feed is None or one.state != "current" or one.reason:
            return one
        known = self._known(feed.name)
        # Of a reference feed it is the last snapshot that counts.
        days = [day for day in known if day <= one.night] if feed.is_reference else [one.night]
        day = max(days, default=one.night)
        of_day = self._quarantines.of(feed).get(day)
        if day not in known or not of_day:
            return one
        bad = of_day[-1].rows
        rows = known[day].rows + bad
        most = feed.max_quarantine_share
        if not bad or bad / rows <= most:
            return one
        bad -= moved_by_rules(self._run, feed.name, day)
        if bad / rows <= most:
            return one
        reason = (
            f"more of its rows are bad than the {feed.share_allowed} that it allows by now "
            "(max_quarantine_share); they were accepted and stay, and --restate refuses them"
        )
        return replace(one, reason=reason)

    def _is_of_another(self, table: Table, night: date, definition: str | None) -> bool:
        """Whether a night was made by another definition than that one; None: nobody knows it."""
        made = self._publication(table, night)
        if made is None or definition is None:
            return False
        return made.definition not in ("", definition)

    def is_outdated(self, table: Table, night: date) -> bool:
        """Whether a night would be made by another definition today."""
        return self._is_of_another(table, night, self._defined.get(table.name))

    @cached_property
    def _defined(self) -> Mapping[str, str]:
        """What each table is today; nothing where that cannot be told."""
        try:
            return definitions(self.pipeline)
        except Exception:  # a transform is code, which may raise anything: its stage will tell
            return {}

    def _known_day(self, table: Table, night: date, pending: _Pending) -> date:
        """From when the rows will be known that a night of a table is about to get."""
        feed = self._feeds.get(table.name)
        if feed is not None:
            return self._known_day_of_drop(feed, night)
        if table.is_of_the_moment:
            known_now = self._knowledge.known_day_of_moment(table, night)
            return max([known_now, *self._coming(table, night, pending)])
        if table.day_of(night) not in self._knowledge.latest(table.name):
            # What was found late since then follows.
            known_now = self._knowledge.first_known(table, night)
            return max([known_now, *self._coming(table, night, pending)])
        return self._known_day_of_last(table, night, pending)

    def _known_day_of_last(self, table: Table, night: date, pending: _Pending) -> date:
        """From when rows will be known that are made from the last versions of a night's window."""
        window = Days.of(night).since(table.window_days - 1)
        known = [self._known_input(name, day, pending) for name in table.reads for day in window]
        return max([night, *known])

    def _coming(self, table: Table, night: date, pending: _Pending) -> list[date]:
        """From when those inputs of a night will be known of which there is no version yet."""
        if table.day_of(night) != night:
            return []
        coming = []
        for name in table.reads:
            known = pending.get(sql_name(self._run, name), {}).get(night)
            if known is not None and night not in self._knowledge.latest(name):
                coming.append(known)
        return coming

    def _known_input(self, name: str, night: date, pending: _Pending) -> date:
        """From when that day of an input is known, as it will be; the day itself if it has none."""
        coming = pending.get(sql_name(self._run, name), {})
        latest = self._knowledge.latest(name).get(night)
        return coming.get(night) or (latest and latest.known_day) or night

    def _known_day_of_drop(self, feed: Feed, night: date) -> date:
        if feed.is_reference:
            return night
        return self._knowledge.day_of_drop(feed.name, night)

    def _known(self, name: str) -> dict[date, Publication]:
        """The publications of a table that are in force, by partition date."""
        if name not in self._latest:
            self._latest[name] = publications.latest(self._told[name])
        return self._latest[name]

    @cached_property
    def _turns(self) -> list[model_events.Turn]:
        """Which model serves from which night on."""
        return model_events.turns(self._run.environment, self.pipeline.name)

    @cached_property
    def _undecided(self) -> list[model_events.Row]:
        """The models that await a person."""
        recorded = model_events.events(self._run.environment, self.pipeline.name)
        return approvals.undecided(recorded, self.pipeline, ops.now())

    @cached_property
    def _first_served(self) -> date | None:
        """The first night that has a model to score with, or will have when a person agrees."""
        served = [turn.night for turn in self._turns]
        nights = served or [one["as_of"] for one in self._undecided]
        return nights[0] if nights else None

    def begun(self, nights: Iterable[date]) -> set[date]:
        """Those of which rows of some feed are in force, and the others need not be read anew.

        Of one of the run's own, rows of all: what a kill has left of it is read as a whole.
        """
        return {night for night in nights if self._is_in_part(night) or self.has_landed(night)}

    def _is_in_part(self, night: date) -> bool:
        """Whether rows of some feed are in force of a night before the run's."""
        is_before = night < self._run.days.first
        return is_before and any(night in self._known(name) for name in self.daily_feeds)

    def corrected(self, nights: Iterable[date]) -> set[date]:
        """Those before the run's first that are published: new files of theirs are a correction."""
        before = [night for night in nights if night < self._run.days.first]
        return set(filter(self.has_landed, before))

    def last_made(self) -> date | None:
        """The last night before the run's first whose drops are published."""
        before = [night for night in self.nights if night < self._run.days.first]
        return max(filter(self.has_landed, before), default=None)

    def accepted_holes(self) -> list[Hole]:
        """Those before a night that was made, lost or not: it was made without them."""
        if not self.holes:
            return []
        made = self.last_made() or date.min
        gone_over = self._gone_over_before_a_loss()
        return [hole for hole in self.holes if hole.night <= made or hole.night in gone_over]

    def _gone_over_before_a_loss(self) -> set[date]:
        """Holes that were never read, before a night that was made and may have lost its rows."""
        told = [self._all_told(name) for name in self.daily_feeds]
        read = set.union(*told)
        whole = set.intersection(*told)
        before = [night for night in whole if night < self._run.days.first]
        last = max(before, default=date.min)
        unread = {hole.night for hole in self.holes} - read
        return {night for night in unread if night <= last}

    def _all_told(self, name: str) -> set[date]:
        """The nights of a table that were published, lost since or not."""
        return self._known(name).keys() | self._told[name].lost.keys()

    def _find_holes(self) -> list[Hole]:
        found = []
        days = self._run.days
        until = days.last if self._allow_gap else days.first
        for night in self.nights:
            if night >= until or self.has_landed(night):
                continue
            files = self.files.absent(night, self._feeds_to_read(night))
            if files:
                found.append(Hole(night=night, files=files))
        return found

    def _feeds_to_read(self, night: date) -> list[str]:
        """The daily feeds whose files are read of a night that is not made, or not whole."""
        daily = self.daily_feeds
        lacking = [name for name in daily if night not in self._known(name)]
        return lacking if self._is_in_part(night) else daily

    def lacking(self, name: str) -> tuple[Table, date] | None:
        """The first table that lacks one of the run's own nights, up to this one; and the night.

        Of a run that does exactly its days only where this one lacks it.
        """
        # A gap that is allowed is left out of what follows.
        nights = set(self._run.days) - {hole.night for hole in self.holes}
        needed = self.pipeline.table(name)
        if self._run.is_exact and not self._nights_without(needed, nights):
            # What this one was made from is asked for by the stages that read it.
            return None
        for table in self.pipeline.tables:
            without = self._nights_without(table, nights)
            if without:
                return table, without[0]
            if table == needed:
                break
        return None

    def _nights_without(self, table: Table, nights: Set[date]) -> list[date]:
        if table.name == PREDICTIONS:
            # Earlier ones may have no model, or one of another label, which scores none.
            nights = nights & {self._run.days.last}
        return sorted(night for night in nights if self._lacks(table, night))

    def _lacks(self, table: Table, night: date) -> bool:
        if self._publication(table, night) is not None:
            return False
        feed = self._feeds.get(table.name)
        if feed is None:
            return True
        # A night that was made before a feed was declared lacks nothing of it.
        return not (feed.is_reference or self.has_landed(night))

    def _finding(self, table: Table, night: date) -> Finding:
        one = self._publication(table, night)
        # Also where an older revision of what was served is there.
        is_lost = table.name == PREDICTIONS and night in self.lost_nights
        if one is None or is_lost:
            return self._if_unscored(self._if_awaiting(self._missing(table, night)))
        changed = [given for given in self._inputs(table, one) if self._has_changed(given)]
        if not changed and self._quarantines.has_lost(table, one):
            reason = f"{sql_name(self._run, table.name)}{QUARANTINE_SUFFIX} {_LOST}"
            return _overtaken(table, night, reason, keeps_rows=True)
        if not changed:
            return Finding(table=table, night=night, state="current")
        reasons = [self._in_words(given, one) for given in changed]
        return _overtaken(table, night, "; ".join(reasons))

    def _missing(self, table: Table, night: date) -> Finding:
        reason = self._why_missing(table, table.day_of(night))
        if table.name == PREDICTIONS and night in self.lost_nights:
            reason += "; --rescore publishes what is said now as a later revision"
        return Finding(table=table, night=night, state="missing", reason=reason)

    def _if_awaiting(self, one: Finding) -> Finding:
        """Of predictions that are missing: whether they await that a person lets a model serve."""
        if one.table.name != PREDICTIONS or model_events.in_turn(self._turns, one.night):
            return one
        awaited = approvals.awaited_on(self._undecided, one.night)
        if awaited is None:
            return one
        way = approvals.command(self.pipeline, awaited["model_version"])
        return replace(one, state=AWAITS, reason=f"no model serves yet: {way}")

    def _if_unscored(self, one: Finding) -> Finding:
        """Of predictions that are missing: whether `predict` has tried, and would find the same."""
        if one.table.name != PREDICTIONS or one.state != "missing":
            return one
        # Who names a night asks for it; and what is lost is refused, that nothing takes its place.
        if one.night in self._run.days or one.night in self.lost_nights:
            return one
        why = self._unscored.get(one.night)
        return replace(one, state=UNSCORED, reason=why) if why else one

    @cached_property
    def _unscored(self) -> Mapping[date, str]:
        """Why nights are left out that have no model."""
        run = self._run
        # A person has done something for models, or is about to.
        if run.retrain or run.rescore:
            return {}
        return unscored.reasons(run.environment, self.pipeline)

    def _of_drop(self, table: Table, feed: Feed, night: date) -> Finding:
        found = self._by_its_file(self._finding(table, night), feed)
        would_change = found.state == "stale" or found.reason == _GONE
        if would_change and not self.files.is_due(feed, night):
            return Finding(table=table, night=night, state="current", reason=_NOT_DUE)
        return found

    def _by_its_file(self, found: Finding, feed: Feed) -> Finding:
        """The finding of a drop, by what became of its file."""
        table, night = found.table, found.night
        one = self._publication(table, night)
        name = f"{self._run.pipeline.name}/{feed.file(night)}"
        if found.state == "missing" and self.has_landed(night):
            # The same of all such nights: then they are one line of the plan.
            reason = _DECLARED_LATER
            if self.files.is_there(name):
                why = self.files.why_unreadable(night)
                reason = f"{name} has landed, and cannot be read: {why}"
            return replace(found, state="current", reason=reason)
        if found.state == "current" and one and not one.inputs:
            found = self._without_file(found, feed, one)
        elif found.state == "current" and one:
            if other := self._quarantines.refused_with(feed, one):
                found = self._with_other_quarantine(table, night, other)
            elif name in self.files.gone:
                found = replace(found, reason=self._why_not_read(one, name))
        if found.state != "stale":
            return found
        # Files of other feeds are not asked for: it is read alone.
        if why := self.files.why_unreadable(night, [feed.name]):
            reason = f"{found.reason}, and cannot be read: {why}"
            return replace(found, state="current", reason=reason)
        # Rows that stay are known from when they are.
        known = night if found.keeps_rows else self._known_day_of_drop(feed, night)
        late = f"; known from {known}" if known > night else ""
        return replace(found, reason=found.reason + late)

    def _why_not_read(self, made: Publication, name: str) -> str:
        """Why a day whose file is not where its feed drops it by now stays; '': it has nothing new.

        Of a feed that names its drops otherwise from some day on, no file of before need be moved.
        """
        before = [given for given in made.inputs if given.name != name]
        changed = [given.name for given in before if self.files.has_changed(given)]
        if changed:
            return f"{changed[0]} has changed; its feed drops it as {name} by now"
        is_left = any(given.name not in self.files.gone for given in before)
        return "" if is_left else _GONE

    def _without_file(self, found: Finding, feed: Feed, made: Publication) -> Finding:
        """The finding of a day of an optional feed that had no file."""
        name = f"{self.pipeline.name}/{feed.file(found.night)}"
        if self.files.is_due(feed, found.night) and self.files.is_there(name):
            return replace(found, state="stale", reason=f"{name} has landed")
        of_day = self._quarantines.of(feed).get(made.day, ())
        if not made.rows and of_day and of_day[-1].rows:
            # The file that was refused was withdrawn.
            return self._with_other_quarantine(found.table, found.night)
        return found

    def _of_reference(self, table: Table, feed: Feed) -> Finding:
        """Of the night that finds it changed, else of the run's last: there is one file."""
        night = self._run.days.last
        name = f"{self._run.pipeline.name}/{feed.file(None)}"
        known = self._known(table.name)
        snapshots = [one for one in known.values() if one.day <= night]
        if not snapshots:
            reason = self._why_missing(table, *Days(self.nights.first, night))
            return Finding(table=table, night=night, state="missing", reason=reason)
        last = max(snapshots, key=lambda one: one.day)
        finds = self._finds_reference()
        # An old night sees the file of its own time, which is gone.
        has_passed = finds > night or (self.has_landed(finds) and self.files.why_unreadable(finds))
        if not self.files.is_there(name):
            return Finding(table=table, night=night, state="current", reason=_REFERENCE_GONE)
        is_lost = bool(publications.lost_snapshots(self._told[table.name], night))
        if not has_passed and (is_lost or self.files.has_other(feed, last)):
            reason = _LOST if is_lost else f"{name} has changed"
            folder = self._run.environment.landing / self.pipeline.name
            if is_reference_announced(folder, feed):
                return Finding(table=table, night=finds, state="stale", reason=reason)
            marker = f"{self.pipeline.name}/{feed.marker_file(None)}"
            reason += f": its rows of before stay until {marker} comes again"
            return Finding(table=table, night=night, state="current", reason=reason)
        refused = self._refused_snapshot(feed)
        if not has_passed and refused:
            return self._with_other_quarantine(table, refused)
        if not has_passed and self._quarantines.has_lost(table, last):
            reason = f"{sql_name(self._run, table.name)}{QUARANTINE_SUFFIX} {_LOST}"
            return _overtaken(table, finds, reason, keeps_rows=True)
        return Finding(table=table, night=night, state="current")

    def _finds_reference(self) -> date:
        """The night that finds a reference file changed: one that reads its files."""
        night = self._knowledge.day_of_reference()
        holes = {hole.night for hole in self.holes}
        while night in holes:
            night += timedelta(days=1)
        return night

    def first_snapshots(self) -> set[date]:
        """The night of the first snapshot of each reference feed that has one.

        The file is dated to the first of the nights that have none; later ones have their own.
        """
        feeds = [feed.name for feed in self.pipeline.feeds if feed.is_reference]
        known = filter(None, map(self._known, feeds))
        return set(map(min, known))

    def _refused_snapshot(self, feed: Feed) -> date | None:
        """The last night whose quarantine is that of a reference file that was taken back."""
        known = self._known(feed.name)
        told = self._quarantines.of(feed)
        with_rows = [day for day, made in told.items() if made[-1].rows]
        left = [day for day in with_rows if day not in known]
        readable = [
            day for day in left if self.has_landed(day) and not self.files.why_unreadable(day)
        ]
        return max((day for day in readable if day in self.nights), default=None)

    def _with_other_quarantine(self, table: Table, night: date, what: str = "file") -> Finding:
        reason = f"{sql_name(self._run, table.name)}{QUARANTINE_SUFFIX} is of another {what}"
        return Finding(table=table, night=night, state="stale", reason=reason, keeps_rows=True)

    def _why_missing(self, table: Table, *days: date) -> str:
        lost = self._told[table.name].lost
        is_lost = any(day in lost for day in days)
        return _LOST if is_lost else "never published"

    def _nights(self) -> Days:
        """From the first night that was ever published, or the run's first, to the run's last.

        Where the run is to begin at the start, from the pipeline's first day; and from none before
        it, which a home may have made before another was declared.
        """
        first = self._run.pipeline.first_day if self._run.from_start else self._run.days.first
        # By what was to be scored there were nights also where all feeds are named anew.
        for name in (*self.daily_feeds, SCORING):
            # What a table has lost was asked for once, too.
            first = min(first, self._told[name].first_day or first)
        return Days(max(first, self._run.pipeline.first_day), self._run.days.last)

    def _made_nights(self, table: Table) -> list[date]:
        """Nights whose drops are published: of others nothing can be made."""
        nights = [night for night in self.nights if self.has_landed(night)]
        return self._scored(nights) if table.name == PREDICTIONS else nights

    def _scored(self, nights: list[date]) -> list[date]:
        """Of the nights those with a model: before the first there was nothing to score with."""
        first = self._first_served or self._run.days.last
        return [night for night in nights if night >= min(first, self._run.days.last)]

    @cached_property
    def lost_nights(self) -> set[date]:
        """Those of which predictions were served and are lost: nobody has said --rescore."""
        return served.lost_nights(self._run, self._told[PREDICTIONS])

    def has_landed(self, night: date) -> bool:
        """Whether all of a night's drops are published."""
        if night in self._whole_nights:
            return True
        # Asked for each table; and where feeds were declared later, files are looked at.
        if night not in self._have_landed:
            self._have_landed[night] = self._find_landed(night)
        return self._have_landed[night]

    def _find_landed(self, night: date) -> bool:
        daily = self.daily_feeds
        lacking = {name for name in daily if night not in self._known(name)}
        return not lacking or (len(lacking) < len(daily) and self._is_whole_without(lacking, night))

    @cached_property
    def _whole_nights(self) -> set[date]:
        """Those of which every daily feed is published."""
        published = [set(self._known(name)) for name in self.daily_feeds]
        return set.intersection(*published)

    def _is_whole_without(self, feeds: Set[str], night: date) -> bool:
        """Whether feeds that were declared later have nothing to tell of a night that was made.

        A night of the run itself is read, all feeds together, as long as its files are there: so
        these feeds have a table, though no row.
        """
        if any(night in self._told[name].lost for name in feeds):
            return False
        landing = self._run.environment.landing
        expected = expected_files(self.pipeline, Days.of(night))
        due = [file for file in expected if file.feed.name in feeds]
        is_of_run = night >= self._run.days.first
        if not (due or is_of_run):
            # No look at a file: there may be many such nights.
            return True
        wanted = [file.feed for file in due if not file.is_waived(landing)]
        if self.files.why_unreadable(night, None if is_of_run else feeds):
            # What comes after all has come too late.
            wanted = [feed for feed in wanted if not feed.is_optional]
        elif is_of_run:
            return False
        return not wanted

    def _inputs(self, table: Table, made: Publication) -> list[Input]:
        """What a day was made from, as it counts by now."""
        feed = self._feeds.get(table.name)
        return self.files.of(feed, made) if feed else _followed(table, made)

    def _publication(self, table: Table, night: date) -> Publication | None:
        return self._known(table.name).get(table.day_of(night))

    def _has_changed(self, given: Input) -> bool:
        if self._knowledge.table_of(given):
            return self._knowledge.digest(given) != given.digest
        if given.table_of(self.pipeline.name):
            # A table that is declared no more says nothing new.
            return False
        return self.files.has_changed(given)

    def _in_words(self, given: Input, made: Publication) -> str:
        table = self._knowledge.table_of(given)
        if table is None:
            names = {one.name for one in made.inputs}
            return f"{given.name} has {'changed' if given.name in names else 'landed'}"
        days = Days(given.first_day, given.last_day)
        later = [
            day
            for day, one in self._known(table).items()
            if day in days and one.changed and one.attempt > made.attempt
        ]
        return f"{given.name} of {listed(later) or days} has changed"

    @property
    def _feeds(self) -> dict[str, Feed]:
        return {feed.name: feed for feed in self._run.pipeline.feeds}


def _followed(table: Table, made: Publication) -> list[Input]:
    """What a day was made from, each as what becomes known of it counts.

    A table that follows corrections by now may have been made from what its night knew.
    """
    follows = table.made_by == "transform" and not table.is_of_the_moment
    found = []
    for given in made.inputs:
        of_moment = follows and given.known_by
        found.append(replace(given, known_from=None, known_by=None) if of_moment else given)
    return found


def _seen_in(given: Input, pending: _Pending) -> list[date]:
    """The days of an input that are about to change for those who see it."""
    coming = pending.get(given.name)
    if not coming:
        return []
    days = Days(given.first_day, given.last_day)
    about_to = {day: known for day, known in coming.items() if day in days}
    if given.known_by:
        about_to = {day: known for day, known in about_to.items() if known <= given.known_by}
    return sorted(about_to)


def _overtaken(
    table: Table,
    night: date,
    reason: str,
    *,
    keeps_rows: bool = False,
) -> Finding:
    """A night whose rows, or those refused of it, would be others today."""
    if table.name == PREDICTIONS:
        reason = f"{reason}; stays as it was served, --rescore makes a new revision"
        return Finding(table=table, night=night, state="served", reason=reason)
    return Finding(table=table, night=night, state="stale", reason=reason, keeps_rows=keeps_rows)
