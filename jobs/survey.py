"""What a night has to do: which days of which tables are missing or stale, and why.

Everything follows from the publications (`jobs/lake/publications.py`) and the landed files; nothing
is assumed. A night of a table is missing when it was never published, stale when what it was made
from has changed since, and current otherwise. Predictions are never stale: they stay as they were
served, until a person has them scored again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal

from jobs.lake import approvals, model_events, ops, publications, served, unscored
from jobs.lake.definition import digest
from jobs.lake.knowledge import (
    Knowledge,
    is_announced,
    is_reference_announced,
    newest_version,
)
from jobs.lake.locations import path, sql_name
from jobs.lake.log import are_there
from jobs.lake.quarantine import moved_by_rules
from jobs.lake.read_before import ReadBefore
from jobs.lake.transforms import definitions
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.landing import expected_files, marks, stamp
from pipelines.places import is_url
from pipelines.spec import PREDICTIONS, QUARANTINE_SUFFIX, SCORING, TRAINING
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from jobs.lake.publications import Input, Publication, Told
    from pipelines.feeds import Feed
    from pipelines.landing import ExpectedFile
    from pipelines.run import Run
    from pipelines.spec import Pipeline, Table
    from pipelines.stages import Stage

_HOLES_SHOWN = 12
_DAYS_LISTED = 3
NEEDED = {"predict": SCORING, "monitor": PREDICTIONS}
"""By stage the table that must have the run's own nights, as all before it: without them it would
leave them out."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DAYS_OF_INPUT = re.compile(rf"(?<= of ){_DAY.pattern}(?:(?: to |, |\.\.){_DAY.pattern})*")
"""As `_listed` and `Days` tell them in a reason: each night has other days of what it is made
from."""
_OF_THE_LAST = ("train", "evaluate")
"""Stages of which the nights before the run's are not asked for."""
_OUTDATED = "made by another definition"
_DECLARED_LATER = "made without the feed, which has no drop of these nights"
_GONE = "its file is gone; its rows stay. To withdraw them, land a file without rows"
_REFERENCE_GONE = "its file is gone; nights that are made keep its last rows, and a new one waits"
_NOT_DUE = "its feed is declared to have no drop of that day; its rows stay"
_LOST = "was published, and is not in the table any more"
_Pending = dict[str, dict[date, date]]
"""By SQL name the days that are about to change, and from when each will be known."""
_Asked = Mapping[date, Set[str]]
"""By night the names of the tables that are to be made for it."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """Nights on which a stage is performed at once."""

    days: Days
    tables: tuple[str, ...] = ()
    """Those that it makes; (): all of its own."""


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
        self._quarantines: dict[str, Mapping[date, Sequence[Publication]]] = {}
        self._lost_of_quarantines: dict[str, Mapping[date, Sequence[Publication]]] = {}
        self._knowledge = Knowledge(run, self._told)
        self._read_before = ReadBefore(run.environment, run.pipeline.name)
        self._gone: set[str] = set()
        """Names of files that were read for a publication, and are not there any more."""
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
            files = self.absent_files(night, self.daily_feeds)
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
        if not self._is_due(feed, night):
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
        self._read_before.keep()
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
                reason = f"{given.name} of {_listed(coming)} will change"
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
        of_day = self._quarantined(feed).get(day)
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

    @cached_property
    def last_done(self) -> dict[str, dict[str, Any]]:
        """For each stage its last success as of the run's last night."""
        return _last_done(self._run)

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
            # All of them, published or not: the files of a night are read together.
            files = self.absent_files(night, self.daily_feeds)
            if files:
                found.append(Hole(night=night, files=files))
        return found

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

    def has_learned_since(self, trained: dict[str, Any]) -> bool:
        """Whether rows to learn from, or what is learned, have changed since that training."""
        told = json.loads(trained["metrics"])
        if told.get("definition") != training_definition(self._run.pipeline):
            return True
        until = self._run.days.last
        seen: int = told["table_version"]
        if seen > newest_version(self._knowledge.latest(TRAINING)) and not self._has_version(seen):
            return True
        seen_by = self._knowledge.seen_by(TRAINING, until)
        rows = {day: one for day, one in seen_by.items() if day <= until}
        if newest_version(rows) > seen:
            return True
        # Versions of a table that was deleted begin anew, and may come to the one that was seen.
        versions = {(day, one.delta_version) for day, one in rows.items()}
        made = [one for one in self._known(TRAINING).values() if one.changed]
        own = [one for one in made if (one.day, one.version) in versions]
        return any(one.published_at > trained["started_at"] for one in own)

    def _has_version(self, version: int) -> bool:
        """Whether the rows to learn from have that one: a table that was deleted begins anew."""
        return are_there(path(self._run, TRAINING), version) == [True]

    def learned_since(self, measured: Mapping[date, datetime]) -> set[date]:
        """The nights up to the last whose labels have been published since they were measured.

        Args:
            measured: When each night was; one that is not there never was.
        """
        covered = Days(self.pipeline.first_day, self._run.days.last)
        found: set[date] = set()
        for one in self._last_changes(TRAINING):
            is_measured = one.day in measured and one.published_at <= measured[one.day]
            if one.day in covered and not is_measured:
                found.add(one.day)
        return found

    def foretold_since(self, measured: Mapping[date, datetime]) -> set[date]:
        """The nights up to the last that measured predictions which were published since.

        The one that foretold a day, and those on which labels of it were measured. Of a day of
        which none were, as nothing was foretold by then, those on which they land.

        Args:
            measured: When each night was.
        """
        came: dict[date, set[date]] = {}
        for row in self._measured_labels:
            came.setdefault(row["event_date"], set()).add(row["landed_date"])
        covered = Days(self.pipeline.first_day, self._run.days.last)
        predictions = self.pipeline.table(PREDICTIONS)
        found: set[date] = set()
        for one in self._last_changes(PREDICTIONS):
            may_land = self.pipeline.labels_land(Days.of(one.day))
            landed = came.get(one.day) or may_land
            for night in (predictions.night_of(one.day), *landed):
                is_older = night in measured and measured[night] < one.published_at
                if night in covered and is_older:
                    found.add(night)
        return found

    @property
    def _measured_labels(self) -> list[dict[str, Any]]:
        """Of each day that was foretold the days on which labels of it came and were measured."""
        about = [("pipeline", "=", self.pipeline.name)]
        columns = ["event_date", "landed_date"]
        rows = ops.read(self._run.environment, "live_quality", about, columns)
        found: list[dict[str, Any]] = rows.to_pylist()
        return found

    def published_since(self, names: Iterable[str], moment: datetime) -> list[str]:
        """Those tables of which nights of the run were published with other rows since then."""
        found: list[str] = []
        for table in map(self.pipeline.table, names):
            changes = self._last_changes(table.name)
            of_run = [one for one in changes if table.night_of(one.day) in self._run.days]
            if any(one.published_at > moment for one in of_run):
                found.append(f"{self.pipeline.name}.{table.name}")
        return found

    def _last_changes(self, name: str) -> Collection[Publication]:
        """Of each day of a table the publication that brought the rows which are in force.

        Later ones may have told of the same rows, and hide it from `_known`.
        """
        changes = [one for one in self._told[name] if one.changed]
        return publications.latest(changes).values()

    def unseen(self, stage: Stage) -> set[date]:
        """Nights before the run's first that a stage which makes no table has yet to see.

        From the first that it was ever done for on: those of which a table that it `reads` was
        published and it was never done, or was published with other rows since.
        """
        seen = seen_by(self._run, stage)
        if not seen:
            return set()
        first = max(min(seen), self.pipeline.first_day)
        found: set[date] = set()
        for table in map(self.pipeline.table, stage.reads):
            for one in self._last_changes(table.name):
                night = table.night_of(one.day)
                is_seen = night in seen and one.published_at <= seen[night]
                if first <= night < self._run.days.first and not is_seen:
                    found.add(night)
        return found

    def _finding(self, table: Table, night: date) -> Finding:
        one = self._publication(table, night)
        # Also where an older revision of what was served is there.
        is_lost = table.name == PREDICTIONS and night in self.lost_nights
        if one is None or is_lost:
            return self._if_unscored(self._if_awaiting(self._missing(table, night)))
        changed = [given for given in self._inputs(table, one) if self._has_changed(given)]
        if not changed and self._has_lost_quarantine(table, one):
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
        if would_change and not self._is_due(feed, night):
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
            if self._is_there(name):
                reason = f"{name} has landed, and cannot be read: {self._why_unreadable(night)}"
            return replace(found, state="current", reason=reason)
        if found.state == "current" and one and not one.inputs:
            found = self._without_file(found, feed, one)
        elif found.state == "current" and one:
            if other := self._refused_with(feed, one):
                found = self._with_other_quarantine(table, night, other)
            elif name in self._gone and not self._is_where_it_was_read(one, name):
                found = replace(found, reason=_GONE)
        if found.state != "stale":
            return found
        # While one of a day's files is away, the others may be half of a drop.
        if why := self._why_unreadable(night):
            reason = f"{found.reason}, and cannot be read: {why}"
            return replace(found, state="current", reason=reason)
        # Rows that stay are known from when they are.
        known = night if found.keeps_rows else self._known_day_of_drop(feed, night)
        late = f"; known from {known}" if known > night else ""
        return replace(found, reason=found.reason + late)

    def _is_where_it_was_read(self, made: Publication, name: str) -> bool:
        """Whether the file of a day lies where its feed dropped it before it was declared anew.

        Of a feed that names its drops otherwise from some day on, no file of before need be moved.
        """
        others = {given.name for given in made.inputs} - {name}
        return any(map(self._is_there, others))

    def _without_file(self, found: Finding, feed: Feed, made: Publication) -> Finding:
        """The finding of a day of an optional feed that had no file."""
        name = f"{self.pipeline.name}/{feed.file(found.night)}"
        if self._is_due(feed, found.night) and self._is_there(name):
            return replace(found, state="stale", reason=f"{name} has landed")
        of_day = self._quarantined(feed).get(made.day, ())
        if not made.rows and of_day and of_day[-1].rows:
            # The file that was refused was withdrawn.
            return self._with_other_quarantine(found.table, found.night)
        return found

    def _refused_with(self, feed: Feed, made: Publication) -> str:
        """What was refused and taken back, and has left the day's quarantine; empty: nothing."""
        of_day = self._quarantined(feed).get(made.day, ())
        told = [one for one in of_day if one.inputs]
        if not told or _made_from(told[-1]) == _made_from(made):
            return ""
        last = told[-1]
        other = "file"
        if _files_of(last) == _files_of(made):
            other = "declaration"
            if made.definition != digest(feed):
                # It is not taken back, or nobody knows: the day would be refused again.
                return ""
        own = [one for one in told if _made_from(one) == _made_from(made)]
        # Of a file without bad rows none is written where there are none to be replaced.
        before = [(one.rows, one.checksum) for one in own]
        is_left = before[-1] != (last.rows, last.checksum) if before else last.rows > 0
        return other if is_left else ""

    def _quarantined(self, feed: Feed) -> Mapping[date, Sequence[Publication]]:
        """The publications of the quarantine of a feed, by day in their order."""
        if feed.name not in self._quarantines:
            name = feed.name + QUARANTINE_SUFFIX
            told = publications.told_of(self._run, [name])[name]
            self._quarantines[feed.name] = publications.by_day(told)
        return self._quarantines[feed.name]

    def _has_lost_quarantine(self, table: Table, made: Publication) -> bool:
        """Whether rows were refused of what a day was made from, and are not there any more."""
        if table.name not in self._lost_of_quarantines:
            name = table.name + QUARANTINE_SUFFIX
            lost = publications.every_lost(self._run, name)
            self._lost_of_quarantines[table.name] = publications.by_day(lost)
        of_day = self._lost_of_quarantines[table.name].get(made.day, ())
        # Of other files, or as others declared, other rows or none are refused: also of one that
        # was refused last, and then taken back.
        own = [one for one in of_day if _made_from(one) == _made_from(made)]
        return bool(own) and own[-1].rows > 0

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
        has_passed = finds > night or (self.has_landed(finds) and self._why_unreadable(finds))
        if not self._is_there(name):
            return Finding(table=table, night=night, state="current", reason=_REFERENCE_GONE)
        is_lost = bool(publications.lost_snapshots(self._told[table.name], night))
        if not has_passed and (is_lost or self._has_other_file(feed, last)):
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
        if not has_passed and self._has_lost_quarantine(table, last):
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
        told = self._quarantined(feed)
        with_rows = [day for day, made in told.items() if made[-1].rows]
        left = [day for day in with_rows if day not in known]
        readable = [day for day in left if self.has_landed(day) and not self._why_unreadable(day)]
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
        if self._why_unreadable(night):
            # What comes after all has come too late.
            wanted = [feed for feed in wanted if not feed.is_optional]
        elif is_of_run:
            return False
        return not wanted

    def absent_files(self, night: date, feeds: Collection[str]) -> tuple[str, ...]:
        """The files of a night that these feeds must drop, and that are not there."""
        expected = expected_files(self._run.pipeline, Days.of(night))
        asked = [file for file in expected if file.feed.name in feeds]
        due = filter(self._is_needed, asked)
        names = chain.from_iterable(file.names for file in due)
        return tuple(name for name in names if not self._is_there(name))

    def _why_unreadable(self, night: date) -> str:
        """Why the files of a published night cannot be read again; '': they can be."""
        expected = expected_files(self._run.pipeline, Days.of(night))
        files = list(filter(self._is_needed, expected))
        names = chain.from_iterable(file.names for file in files)
        lacking = [name for name in names if not self._is_there(name)]
        if lacking:
            return f"{', '.join(lacking)} is not there"
        waiting = [str(file.marker) for file in files if self._awaits_marker(file, night)]
        return f"{', '.join(waiting)} is older than its file" if waiting else ""

    def _is_needed(self, file: ExpectedFile) -> bool:
        """Whether a night cannot be read without the file.

        An optional one that is gone is none that never came: its rows would go with it. Nor is one
        whose rows the table has lost: the night would be made without, and nobody be told.
        """
        name = file.feed.name
        lost = self._told[name].lost.get(file.day)
        made = self._known(name).get(file.day, lost)
        was_read = made is not None and bool(made.inputs)
        return was_read or not file.is_waived(self._run.environment.landing)

    def _awaits_marker(self, file: ExpectedFile, night: date) -> bool:
        """Whether a published file has changed, and its marker is still that of what it was."""
        made = self._known(file.feed.name).get(night)
        # A reference file is left alone then: its last rows are there.
        if file.feed.is_reference or not (file.marker and made):
            return False
        landing = self._run.environment.landing
        is_other = self._has_other_file(file.feed, made)
        return is_other and not is_announced(landing / file.name, landing / file.marker)

    def _is_due(self, feed: Feed, night: date) -> bool:
        return self._run.pipeline.drop_days(feed, Days.of(night)) is not None

    def _is_there(self, name: str) -> bool:
        return stamp(self._run.environment.landing / name) is not None

    def _inputs(self, table: Table, made: Publication) -> list[Input]:
        """What a day was made from, as it counts by now."""
        feed = self._feeds.get(table.name)
        return self._files(feed, made) if feed else _followed(table, made)

    def _files(self, feed: Feed, made: Publication) -> list[Input]:
        """The files that a day was made from, each where its feed has it dropped by now.

        That may be declared anew.
        """
        day = None if feed.is_reference else made.day
        name = f"{self.pipeline.name}/{feed.file(day)}"
        return [replace(given, name=name) for given in made.inputs]

    def _has_other_file(self, feed: Feed, made: Publication) -> bool:
        """Whether the file of a day is another than that which it was made from."""
        return any(map(self._has_changed, self._files(feed, made)))

    def _publication(self, table: Table, night: date) -> Publication | None:
        return self._known(table.name).get(table.day_of(night))

    def _has_changed(self, given: Input) -> bool:
        if self._knowledge.table_of(given):
            return self._knowledge.digest(given) != given.digest
        if given.table_of(self.pipeline.name):
            # A table that is declared no more says nothing new.
            return False
        file = self._run.environment.landing / given.name
        seen = marks(file)
        # A file that is gone, and a model, say nothing new.
        if not seen:
            self._gone.add(given.name)
        if not seen or given.version in seen:
            return False
        try:
            return self._read_before.digest(file, seen[0]) != given.digest
        except OSError:
            if is_url(file):
                # The store refuses, which says nothing of the file.
                raise
            # Whoever reads it for its rows refuses it by its name, and the night goes on.
            return True

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
        return f"{given.name} of {_listed(later) or days} has changed"

    @property
    def _feeds(self) -> dict[str, Feed]:
        return {feed.name: feed for feed in self._run.pipeline.feeds}


def _files_of(one: Publication) -> list[str]:
    """What was read for it, by content: a file may have been moved since."""
    return [given.digest for given in one.inputs]


def _made_from(one: Publication) -> tuple[str, list[str]]:
    return one.definition, _files_of(one)


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


def units() -> tuple[tuple[Stage, ...], ...]:
    """The stages of a night, each together with the check that publishes what it stages."""
    found: list[tuple[Stage, ...]] = []
    for stage in STAGES:
        if stage.audits:
            found[-1] = (*found[-1], stage)
        else:
            found.append((stage,))
    return tuple(found)


def passes(run: Run, stage: Stage, survey: Survey) -> list[Pass]:
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
        return _whole(ranges(due if stage.name in _OF_THE_LAST else due | survey.unseen(stage)))
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
    # Files of days that are in force are read apart: when they are bad, the night goes on.
    corrected = survey.corrected(nights)
    corrections = [one for one in found if one.night in corrected]
    others = ranges(nights - corrected)
    return [*_of_feeds(made, corrections), *_whole(_cut(others, survey.first_snapshots()))]


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


def first_passes(run: Run, stage: Stage, survey: Survey) -> list[Pass]:
    """As `passes`, where the stage makes nights twice: what it does before it makes them anew."""
    made = [table for table in run.pipeline.tables if table.made_by == stage.name]
    is_any_made_twice = any(one.is_made_twice for one in survey.to_make(made))
    return passes(run, stage, survey) if is_any_made_twice else []


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
    absent = {night: found.absent_files(night, feeds) for night in run.days}
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
    nights = survey.learned_since(measured) | survey.foretold_since(measured)
    return nights if "monitor" in survey.last_done else nights | {run.days.last}


def seen_by(run: Run, stage: Stage) -> dict[date, datetime]:
    """Each night that the stage has succeeded for, and when it last began to."""
    of_stage = [
        ("pipeline", "=", run.pipeline.name),
        ("stage", "=", stage.name),
        ("status", "=", "done"),
    ]
    columns = ["first_day", "last_day", "started_at"]
    rows = ops.read(run.environment, "stage_runs", of_stage, columns).to_pylist()
    seen: dict[date, datetime] = {}
    for row in sorted(rows, key=itemgetter("started_at")):
        days = Days(row["first_day"], row["last_day"])
        seen.update(dict.fromkeys(days, row["started_at"]))
    return seen


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


def require_no_hole(run: Run, survey: Survey) -> None:
    """Refuse to go on over nights that are not made, or not whole, and cannot be.

    Raises:
        Refused: there are some; the message names the nights, their files and the ways out.
    """
    # The plan still tells the others.
    accepted = survey.accepted_holes()
    holes = [hole for hole in survey.holes if hole not in accepted]
    if not holes:
        return
    count = len(holes)
    lines = [
        f"{count} night(s) before {run.days.first} are not made, or not whole, and lack files:"
    ]
    lines += _listed_holes([f"{hole.night}: {', '.join(hole.files)}" for hole in holes])
    lines.append(
        f"Files are looked for in {run.environment.landing}. Have the source drop them and run "
        "again: these nights are caught up. Or say --allow-gap: then everything is made without "
        "them, and made again when they land."
    )
    if survey.new_feeds:
        lines.append(
            f"Of a feed that is new ({', '.join(survey.new_feeds)}) declare the first_day: then it "
            "has no drop of nights before it."
        )
    raise Refused("\n".join(lines))


def work_on_raw_tables(stages: tuple[Stage, ...]) -> bool:
    """Whether the stages shape raw tables as they are, without the one that reads files."""
    return STAGES[0] not in stages and any(one.group == "shape" for one in stages)


def require_read(run: Run, survey: Survey) -> None:
    """Refuse to make nights that never were: of no file there is a row.

    Raises:
        Refused: there are some; the message names the nights, their files and the ways out.
    """
    unread = survey.unread()
    if not unread:
        return
    lines = [f"{len(unread)} night(s) of {run.days} were never read, so nothing is made of any:"]
    lines += _listed_holes([f"{night}: {why}" for night, why in unread.items()])
    lines.append(
        f"Stage '{STAGES[0].name}' reads them, once their files are in {run.environment.landing}. "
        "Or leave them out: name other days, or say --allow-gap, which goes over those before the "
        "last whose files are not there."
    )
    raise Refused("\n".join(lines))


def _listed_holes(told: Sequence[str]) -> list[str]:
    hidden = len(told) - _HOLES_SHOWN
    more = [f"  … and {hidden} more"] if hidden > 0 else []
    return [*(f"  - {one}" for one in told[:_HOLES_SHOWN]), *more]


def require_made(run: Run, stage: Stage, survey: Survey) -> None:
    """Refuse to go on without what the stages before were to make of the run's own nights.

    A scheduler goes on after a stage that a person has marked as a success, as if it had published.

    Raises:
        Refused: a table lacks one of these nights; the message names it, why, and the way out.
    """
    lacking = survey.lacking(NEEDED[stage.name]) if stage.name in NEEDED else None
    if lacking is None:
        return
    table, night = lacking
    name = run.pipeline.name
    publishers = [one.name for one in STAGES if one.audits == table.made_by] or [table.made_by]
    raise Refused(
        f"{sql_name(run, table.name)} lacks the night of {night}, and so does what is made of it: "
        f"'{stage.name}' has nothing to work on. '{publishers[0]}' publishes it; "
        f"{_why_unmade(run, night, [table.made_by, *publishers])}\n"
        "To mark a task as a success publishes nothing. Once the night can be made, clear "
        f"'{table.made_by}' with what follows it, or: nightshift run {name} --date {night}"
    )


def _why_unmade(run: Run, night: date, stages: Sequence[str]) -> str:
    """How the last attempt at these stages ended that did not succeed, in a sentence."""
    about = [("pipeline", "=", run.pipeline.name), ("last_day", ">=", night)]
    columns = ["stage", "status", "started_at", "first_day", "error"]
    rows = ops.read(run.environment, "stage_runs", about, columns).to_pylist()
    own = [row for row in rows if row["stage"] in stages and row["first_day"] <= night]
    failed = [row for row in own if row["error"]]
    if not failed:
        return "no attempt that failed is on record."
    last = max(failed, key=itemgetter("started_at"))
    words = last["error"].splitlines()[0]
    return f"the last attempt at '{last['stage']}' was {last['status']}: {words}"


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


def why_due(run: Run, stage: Stage, survey: Survey) -> str | None:
    """Why a stage that makes no table has not seen what it works on; None: it has."""
    last = survey.last_done
    if stage.name not in last:
        return f"not done yet as of {run.days.last}"
    if stage.name == "train":
        if run.retrain:
            return "--retrain trains again"
        has_learned = survey.has_learned_since(last["train"])
        return "what it learns, or learns from, has changed" if has_learned else None
    if stage.name == "evaluate":
        trained = last.get("train")
        is_older = trained is not None and trained["started_at"] > last["evaluate"]["started_at"]
        return "a model was trained since" if is_older else None
    published = survey.published_since(stage.reads, last[stage.name]["started_at"])
    return f"{', '.join(published)} was published since" if published else None


def has_work(run: Run, survey: Survey, stages: tuple[Stage, ...] = STAGES) -> bool:
    """Whether any of the stages has something to do: when none has, a night changes nothing."""
    asked = [unit[0] for unit in units() if any(one in stages for one in unit)]
    return any(passes(run, first, survey) for first in asked)


def _last_done(run: Run) -> dict[str, dict[str, Any]]:
    """For each stage its last success as of the run's last night."""
    of_night = [
        ("pipeline", "=", run.pipeline.name),
        ("last_day", "=", run.days.last),
        ("status", "=", "done"),
    ]
    rows = ops.read(run.environment, "stage_runs", of_night).to_pylist()
    return {row["stage"]: row for row in sorted(rows, key=itemgetter("started_at"))}


def training_definition(pipeline: Pipeline) -> str:
    """What a model of today's declaration is, besides the rows that it learns from."""
    # Of labels that come late the judged model leaves out as many days more.
    return digest(pipeline.training, pipeline.promotion.label_lag_days)


def ranges(nights: Iterable[date], days_apart: int = 1) -> list[Days]:
    """The nights as ranges of consecutive days, in order; or of such as lie no further apart."""
    found: list[Days] = []
    for night in sorted(set(nights)):
        if found and night <= found[-1].last + timedelta(days=days_apart):
            found[-1] = Days(found[-1].first, night)
        else:
            found.append(Days.of(night))
    return found


def _cut(parts: list[Days], firsts: Iterable[date]) -> list[Days]:
    """The ranges, each of which that goes over one of these days begun anew with it."""
    for first in firsts:
        before = first - timedelta(days=1)
        halves: list[Days | None] = []
        for part in parts:
            halves += [part.within(None, before), part.within(first, None)]
        parts = [half for half in halves if half]
    return parts


def without_days(reason: str) -> str:
    """By what reasons are told as one that differ in nothing but the days of inputs."""
    # By what no message has, so that each of them stands for days.
    return _DAYS_OF_INPUT.sub("\0", reason)


def of_all(reasons: Sequence[str]) -> str:
    """Reasons that are the same `without_days`: with the first and the last of the days of each."""
    if len(set(reasons)) == 1:
        return reasons[0]
    by_input = zip(*map(_DAYS_OF_INPUT.findall, reasons), strict=True)
    spans = map(_span, by_input)
    return _DAYS_OF_INPUT.sub(lambda _: next(spans), reasons[0])


def _span(told: Iterable[str]) -> str:
    days = sorted(chain.from_iterable(map(_DAY.findall, told)))
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _listed(days: list[date]) -> str:
    """Days in words: each, or of many the first and the last."""
    in_order = sorted(days)
    if len(in_order) > _DAYS_LISTED:
        return f"{in_order[0]} to {in_order[-1]}"
    return ", ".join(map(str, in_order))
