"""What was known when: which version of a day a night sees.

A drop that came in time is known from its own day on. One that came late, or was changed, is known
from the night that found it; what is made of it, from then on too. A night sees of each day the
last version that was known by then, so a correction changes what is made tomorrow, and nothing of
a moment that has passed. Whoever asks no night sees the last version of all. What was made late
for a night, from what it knew, that night sees too: others see it from the night that made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.lake import publications
from jobs.lake.locations import sql_name
from jobs.lake.partitions import published_days
from jobs.lake.publications import Checksums, Input
from pipelines.days import Days
from pipelines.landing import expected_files, stamp
from pipelines.spec import SCORING

if TYPE_CHECKING:
    from jobs.lake.publications import ByDay, Publication
    from pipelines.feeds import Feed
    from pipelines.run import Run
    from pipelines.spec import Table

_NANOSECONDS = 1_000_000_000
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """The rows of one day of a table, as they were published or are about to be."""

    day: date
    known_day: date | None
    """The night from which they are known; None: always."""
    checksum: str
    delta_version: int | None
    """In which they are visible; None: they wait for a verdict."""
    is_of_own_night: bool = False
    """They were made from what the night of their day knew, which sees them in any case."""

    def is_known_by(self, night: date) -> bool:
        """Whether that night sees them, unless there are later ones."""
        is_known = self.known_day is None or self.known_day <= night
        return is_known or (self.is_of_own_night and self.day == night)


Seen = Mapping[date, Version]
"""What somebody sees of a table, by day; a day that is not there is unknown to them."""


class Knowledge:
    """Every version of every day of a pipeline's tables, each looked up when first asked for."""

    def __init__(
        self,
        run: Run,
        told: Mapping[str, Sequence[Publication]] | None = None,
    ) -> None:
        """Begin without anything.

        Args:
            run: Whose pipeline's tables they are.
            told: By table its publications in their order, where they are known already.
        """
        self._run = run
        self._publications = dict(told or {})
        self._published: dict[str, list[Version]] = {}
        self._staged: dict[str, list[Version]] = {}
        self._latest: dict[str, Seen] = {}
        self._latest_checksums: dict[str, Checksums] = {}
        self._tables: dict[str, Table] = {}
        self._late: dict[str, set[date]] = {}
        self._first: dict[str, Mapping[date, date]] = {}
        self._begun: dict[str, date] = {}
        self._lost: dict[str, ByDay] = {}
        self._digests: dict[tuple[object, ...], str] = {}
        self._complete: dict[date, datetime] = {}

    @classmethod
    def of_now(cls, run: Run) -> Knowledge:
        """With every table looked up now, whatever is published later."""
        return cls(run, publications.all_told(run))

    def add_staged(
        self, name: str, checksums: Mapping[date, str], known: Mapping[date, date]
    ) -> None:
        """Add what a run is about to publish, for the tables that it makes from that."""
        versions = self._staged.setdefault(name, [])
        for day, checksum in checksums.items():
            staged = Version(
                day=day,
                known_day=known.get(day, self._night(name, day)),
                checksum=checksum,
                delta_version=None,
                is_of_own_night=self._is_of_the_moment(name),
            )
            versions.append(staged)
        found = (self._latest, self._latest_checksums, self._late, self._first, self._digests)
        for looked_up in (*found, self._begun):
            looked_up.clear()

    def latest(self, name: str) -> Seen:
        """The last version of each day."""
        if name not in self._latest:
            self._latest[name] = _last(self._versions(name))
        return self._latest[name]

    def first_day(self, name: str, expected: date) -> date:
        """The first day of which a table has rows, or has had some; that day if it has none before.

        Args:
            name: The table.
            expected: Such as the pipeline's first day, which a home may have begun before.
        """
        if name not in self._begun:
            # Rows of before there was a record have no version.
            days = [*published_days(self._run, name), *self.latest(name)]
            self._begun[name] = min(days, default=date.max)
        return min(expected, self._begun[name])

    def seen_by(self, name: str, night: date) -> Seen:
        """What a night sees of a table."""
        return _last(one for one in self._versions(name) if one.is_known_by(night))

    def seen_then(self, name: str) -> Seen:
        """Of each day what its own night saw of it."""
        versions = self._versions(name)
        return _last(one for one in versions if one.is_known_by(self._night(name, one.day)))

    def has_lost(self, name: str, day: date) -> bool:
        """Whether a table had rows of a day, has none, and is still to have them.

        A night without its snapshot sees the one before; and of days on which a feed has nothing
        due any more, nobody will read a file.
        """
        if day in self.latest(name) or day not in self._lost_of(name):
            return False
        pipeline = self._run.pipeline
        feeds = {feed.name: feed for feed in pipeline.feeds}
        if name not in feeds:
            return True
        feed = feeds[name]
        return not feed.is_reference and pipeline.drop_days(feed, Days.of(day)) is not None

    def unseen(self, name: str, days: Days, seen: Seen) -> list[date]:
        """The days whose last version is not what is seen of them."""
        latest = self.latest(name)
        return [day for day in latest if day in days and seen.get(day) != latest[day]]

    def known_day(self, inputs: Iterable[Input], night: date) -> date:
        """From when rows are known that were made from the last versions of these inputs.

        In a run that does exactly its days from their own night, though a correction came late of
        which no file is there any more: else older nights saw what another definition made.

        Args:
            inputs: What they were made from.
            night: Theirs: before it they are not known.
        """
        if self._run.is_exact:
            return night
        known = [night]
        for given in inputs:
            days = Days(given.first_day, given.last_day)
            table = self.table_of(given)
            latest = self.latest(table) if table else {}
            known += [one.known_day for day, one in latest.items() if day in days and one.known_day]
        return max(known)

    def known_day_of_moment(self, table: Table, night: date) -> date:
        """From when other nights know what is made for one, from what that one knew.

        Its own night when its inputs had that day in time; else the night from which they have it.
        What was known before stays so.
        """
        day = table.day_of(night)
        if day != night:
            # About another day than the one that it is looked up by.
            return night
        latest = self.first_known(table, night)
        before = self._first_known(table.name).get(day, latest)
        return max(night, min(latest, before))

    def first_known(self, table: Table, night: date) -> date:
        """The first night that knows what a table reads of one; that night before there is any."""
        known = [self._first_known(name).get(night, night) for name in table.reads]
        return max([night, *known])

    def made_as_of(self, table: Table, night: date) -> date | None:
        """The night from whose knowledge rows are made that follow corrections; None: from today's.

        A correction that was found late changes no moment that has passed, also where the table is
        declared later or has lost its rows: so it is made as it would have been, and then anew.
        """
        is_made = table.day_of(night) in self.latest(table.name)
        if is_made or not any(map(self._late_nights, table.reads)):
            return None
        window = Days.of(night).since(table.window_days - 1)
        inputs = [self.table_input(name, window) for name in table.reads]
        first = self.first_known(table, night)
        return first if first < self.known_day(inputs, night) else None

    def known_to_others(self, names: Iterable[str], nights: Days) -> date:
        """From when other nights know what these were told by tables of their moment.

        Args:
            names: Tables; those that are not of the moment say nothing that others do not see.
            nights: Each with what it knew.
        """
        known = [nights.last]
        for name in filter(self._is_of_the_moment, names):
            for day, since in self._first_known(name).items():
                if self._night(name, day) in nights:
                    known.append(since)
        return max(known)

    def pieces(self, names: Collection[str], nights: Days) -> list[Days]:
        """The nights, cut wherever a late version of one of the tables became known.

        All nights of a piece see the same version of every day before it.
        """
        cuts: set[date] = set()
        for name in names:
            cuts.update(night for night in self._late_nights(name) if night in nights)
        cuts.discard(nights.first)
        pieces = []
        first = nights.first
        for cut in sorted(cuts):
            pieces.append(Days(first, cut - timedelta(days=1)))
            first = cut
        return [*pieces, Days(first, nights.last)]

    def table_input(self, name: str, days: Days, nights: Days | None = None) -> Input:
        """Those days of a table as something that rows are made from.

        Args:
            name: The table.
            days: Whether published or not.
            nights: That see them, each what was known by then; None: whatever is known last.
        """
        given = Input(
            name=sql_name(self._run, name),
            first_day=days.first,
            last_day=days.last,
            digest="",
            known_from=nights.first if nights else None,
            known_by=nights.last if nights else None,
        )
        return replace(given, digest=self.digest(given))

    def table_of(self, given: Input) -> str | None:
        """The pipeline's table that the input is; None: it is none, or one declared no more."""
        name = given.table_of(self._run.pipeline.name)
        return name if name in self._declared else None

    def digest(self, given: Input) -> str:
        """What the days of a table say today to those who see them."""
        # By what `_digest` asks: thousands of inputs are looked at for each plan.
        asked = (given.name, given.first_day, given.last_day, given.known_from, given.known_by)
        if asked not in self._digests:
            self._digests[asked] = self._digest(given)
        return self._digests[asked]

    def day_of_drop(self, name: str, day: date) -> date:
        """From when a drop is known that the run publishes.

        Its own day when the run was asked for that day by name, or when it is published for the
        first time and its night could be read before any later one was made that was scored. What
        the table has lost is known again from when it was. What replaces rows of which nothing was
        scored, from when these were known: no moment has passed. Else the first night of the run,
        which finds it; and when later nights were made already, the night after the last of them.

        Args:
            name: The feed.
            day: Of the drop.
        """
        run = self._run
        if day >= run.named_from:
            return day
        replaced = self.latest(name).get(day)
        again = self._day_of_lost_drop(name, day)
        if again:
            return again
        if replaced and replaced.known_day and replaced.known_day > self._last_scored:
            return replaced.known_day
        later = self._publications_after(day)
        is_first = replaced is None
        passed = [made for night, made in later.items() if night <= self._last_scored]
        passed_since = min(passed, default=_NEVER)
        if is_first and self._complete_since(day) <= passed_since:
            return day
        if is_first and day in published_days(run, name):
            # Of a home of before there was a record: no night could see what it replaces.
            return day
        # A range dates it as its nights in order would: the first of them finds it.
        last_made = max(later, default=run.named_from)
        return run.named_from if last_made <= run.named_from else last_made + timedelta(days=1)

    def day_of_reference(self) -> date:
        """From when a reference file is known that has changed: the first night that may find it.

        That is the run's first, or the last that was made, lost or not: others have passed, and saw
        the file of their own time.
        """
        return max([self._run.named_from, *self._publications_after(date.min)])

    def day_of_lost_snapshot(self, name: str, file: Path) -> date | None:
        """The day from which a reference file is known whose table has lost snapshots.

        That of the last one which was made from this very file, where nights between see one of
        before. Else the first: nights without any could not be made. None of before the pipeline's
        first day, which may have been moved. None: none is lost.

        Args:
            name: The feed.
            file: Its file, as it is now.
        """
        told = publications.told(self._run, name)
        lost = publications.lost_snapshots(told, self._run.night)
        if not lost:
            return None
        first = min(lost)
        digest = publications.digest_of_file(file)
        same = [day for day, one in lost.items() if digest in _digests(one.inputs)]
        has_one_before = any(one.day <= first for one in told)
        found = max(same) if same and has_one_before else first
        return max(found, self._run.pipeline.first_day)

    def _day_of_lost_drop(self, name: str, day: date) -> date | None:
        """From when a drop is known that the table has lost; None: it has lost no such drop.

        Where it has none of the day any more, that of the first one: nights since could not be made
        without any. Else that of the last one, where it was made from the very same file.
        """
        lost = self._lost_of(name).get(day)
        if not lost or self._has_gone_on_since(name, lost[-1]):
            return None
        if day not in self.latest(name):
            return min(one.known_day or day for one in lost)
        is_same = self._digest_of_drop(name, day) in _digests(lost[-1].inputs)
        return (lost[-1].known_day or day) if is_same else None

    def _has_gone_on_since(self, name: str, lost: Publication) -> bool:
        """Whether the table has got the day again since it lost that, or a later one: without it.

        What is lost was at the end of its log, so what was committed after that came after the
        loss. What told of rows that were there is no commit, and may have come before it.
        """
        committed = [one for one in self._told(name) if one.changed]
        own = [one for one in committed if one.day >= lost.day]
        return any(one.published_at > lost.published_at for one in own)

    def _lost_of(self, name: str) -> ByDay:
        """By day what a table has lost."""
        if name not in self._lost:
            told = self._publications.get(name)
            if not isinstance(told, publications.Told):
                told = publications.told(self._run, name)
            self._lost[name] = publications.by_day(told.all_lost)
        return self._lost[name]

    def _digest_of_drop(self, name: str, day: date) -> str:
        pipeline = self._run.pipeline
        (feed,) = [feed for feed in pipeline.feeds if feed.name == name]
        file = self._run.environment.landing / pipeline.name / feed.file(day)
        return publications.digest_of_file(file) if stamp(file) else ""

    @cached_property
    def _last_scored(self) -> date:
        """The last night that there are rows to score of, or were; before all days: none."""
        lost = publications.lost(self._run, SCORING)
        nights = [*lost, *(one.day for one in self._told(SCORING))]
        return max(nights, default=date.min)

    def _publications_after(self, day: date) -> dict[date, datetime]:
        """For each later day when one of its drops was published first, lost or not.

        Or its rows to score: of drops that were lost and came again nobody knows when they first
        came. Those of the day itself too: once it is scored, its own moment has passed.
        """
        found: dict[date, datetime] = {}
        for name in (*self._daily_feeds, SCORING):
            lost = chain.from_iterable(self._lost_of(name).values())
            for one in chain(self._told(name), lost):
                if one.day > day or (name == SCORING and one.day == day):
                    first = found.get(one.day, one.published_at)
                    found[one.day] = min(first, one.published_at)
        return found

    def _complete_since(self, night: date) -> datetime:
        """Since when all files of a night are there as they are: they are read together."""
        if night not in self._complete:
            landing = self._run.environment.landing
            expected = expected_files(self._run.pipeline, Days.of(night))
            daily = [file for file in expected if not file.feed.is_reference]
            needed = [file for file in daily if not file.is_waived(landing)]
            names = chain.from_iterable(file.names for file in needed)
            arrived = [_arrival_or_never(landing / name) for name in names]
            self._complete[night] = max(arrived, default=_ALWAYS)
        return self._complete[night]

    @cached_property
    def _declared(self) -> set[str]:
        return {table.name for table in self._run.pipeline.tables}

    @property
    def _daily_feeds(self) -> list[str]:
        return [feed.name for feed in self._run.pipeline.feeds if not feed.is_reference]

    def _digest(self, given: Input) -> str:
        name = self.table_of(given)
        assert name is not None, "of a file the bytes tell what it says"
        days = Days(given.first_day, given.last_day)
        # Without late versions every night has seen the last one of each day up to its own.
        nights = given.nights
        if nights is None or not self._late_nights(name):
            return self._checksums(name).digest(days)
        digests = []
        for piece in self.pieces([name], nights):
            seen = self.seen_by(name, piece.last)
            asked = {day: one for day, one in seen.items() if day in days}
            digests.append(_checksums_of(asked).digest(days))
        # Nearly always there is one: then it is the same as without nights.
        return digests[0] if len(digests) == 1 else _joined(digests)

    def _versions(self, name: str) -> list[Version]:
        """Published ones in their order, then those that wait to be."""
        if name not in self._published:
            self._published[name] = list(map(_version, self._told(name)))
        return [*self._published[name], *self._staged.get(name, ())]

    def _told(self, name: str) -> Sequence[Publication]:
        if name not in self._publications:
            self._publications[name] = publications.every(self._run, name)
        return self._publications[name]

    def _checksums(self, name: str) -> Checksums:
        if name not in self._latest_checksums:
            self._latest_checksums[name] = _checksums_of(self.latest(name))
        return self._latest_checksums[name]

    def _late_nights(self, name: str) -> set[date]:
        """The nights from which versions are known that are not known from their own on.

        And the night that sees such a version alone, with the one after it.
        """
        if name not in self._late:
            nights: set[date] = set()
            for one in self._versions(name):
                if one.known_day and one.known_day > self._night(name, one.day):
                    nights.add(one.known_day)
                    if one.is_of_own_night:
                        nights |= {one.day, one.day + timedelta(days=1)}
            self._late[name] = nights
        return self._late[name]

    def _first_known(self, name: str) -> Mapping[date, date]:
        """Of each day of a table the first night that knows it."""
        if name not in self._first:
            first: dict[date, date] = {}
            for one in self._versions(name):
                known = one.known_day or one.day
                first[one.day] = min(known, first.get(one.day, known))
            self._first[name] = first
        return self._first[name]

    def _night(self, name: str, day: date) -> date:
        return self._table(name).night_of(day)

    def _is_of_the_moment(self, name: str) -> bool:
        return self._table(name).is_of_the_moment

    def _table(self, name: str) -> Table:
        # Once a table: a pipeline makes all its tables to give one.
        if name not in self._tables:
            self._tables[name] = self._run.pipeline.table(name)
        return self._tables[name]


def visible(told: Iterable[Publication]) -> list[Publication]:
    """Of publications of a table, in their order, those whose rows some night sees."""
    by_day: dict[date, list[Publication]] = {}
    for one in told:
        before = by_day.get(one.day, [])
        kept = [other for other in before if not _hides(one, other)]
        by_day[one.day] = [*kept, one]
    return list(chain.from_iterable(by_day.values()))


def newest_version(seen: Seen) -> int:
    """The last Delta version in which any of these was published; 0 when none was."""
    return max((one.delta_version or 0 for one in seen.values()), default=0)


def arrival(path: Path) -> datetime:
    """Since when a file is there as it is."""
    found = path.stat()
    # Of the file's entry, because a copy may keep the time at which another file was written. An
    # object has one time, that at which its store got it.
    arrived_ns = found.st_ctime_ns or found.st_mtime_ns
    return datetime.fromtimestamp(arrived_ns / _NANOSECONDS, UTC)


def _arrival_or_never(path: Path) -> datetime:
    try:
        return arrival(path)
    except FileNotFoundError:
        return _NEVER


def is_announced(file: Path, marker: Path) -> bool:
    """Whether the marker of a file has come since the file is as it is."""
    # A store tells whole seconds.
    marked = arrival(marker).replace(microsecond=0)
    return marked >= arrival(file).replace(microsecond=0)


def is_reference_announced(folder: Path, feed: Feed) -> bool:
    """Whether the marker of a reference file has come since the file is as it is.

    It has where none is declared, and where none is there: the night that needs it says so.

    Args:
        folder: Of the pipeline, in the landing folder.
        feed: A reference feed whose file is there.
    """
    marker = feed.marker_file(None)
    if marker is None or stamp(folder / marker) is None:
        return True
    return is_announced(folder / feed.file(None), folder / marker)


def _digests(inputs: Iterable[Input]) -> set[str]:
    return {given.digest for given in inputs}


def _hides(later: Publication, before: Publication) -> bool:
    """Whether every night that sees the earlier one sees the later one in its place."""
    if later.known_day is None:
        return True
    return before.known_day is not None and later.known_day <= before.known_day


def _version(one: Publication) -> Version:
    return Version(
        day=one.day,
        known_day=one.known_day,
        checksum=one.checksum,
        delta_version=one.version,
        is_of_own_night=one.is_of_own_night,
    )


def _last(versions: Iterable[Version]) -> dict[date, Version]:
    return {one.day: one for one in versions}


def _checksums_of(seen: Seen) -> Checksums:
    return Checksums({day: one.checksum for day, one in seen.items()})


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
