"""Which rows of which day are in force, who published them, and from what they were made.

A publication is one day of one table. It is written into the commit that makes its rows visible,
and after that into `ops.publications`, which people query. Whoever asks reads the table's own log
for what is not recorded yet, so that a run killed between the two loses nothing. And what is
recorded of a version that the table has no more, because it was deleted or restored, counts not.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from jobs.lake import ops
from jobs.lake.locations import sql_name
from jobs.lake.log import actions, are_there, is_table, newest_from, sizes
from jobs.services import locks
from pipelines.days import Days
from pipelines.places import mark, opened
from pipelines.spec import PREDICTIONS, QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from pipelines.environment import Environment
    from pipelines.run import Run

_RECORD = "publications"
"""The ops table, and the key of what a commit tells of them."""
_METADATA = "userMetadata"
"""Key of a commit that every program shows in the table's history."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """What rows were made from: days of another table, or a landed file."""

    name: str
    """SQL name of the table, or the file below the landing folder."""
    first_day: date
    last_day: date
    digest: str
    """Of a table: what its publications of these days say. Of a file: its SHA-256."""
    version: int | None = None
    """Delta version of the table in which they were in force. Of a file: its `places.mark`; before
    there was that, `places.changed_ns`."""
    known_from: date | None = None
    """The first night that saw them; see `known_by`."""
    known_by: date | None = None
    """The last night that saw them: each saw what was known by then, and what became known later
    changes nothing. None: the last version counts, whenever it became known."""

    @property
    def nights(self) -> Days | None:
        """Those that saw them; None: the last version counts."""
        if self.known_by is None:
            return None
        return Days(self.known_from or self.known_by, self.known_by)

    def table_of(self, pipeline: str) -> str | None:
        """The pipeline's table that it is; None: a file or a model, whose names have a slash."""
        schema, _, table = self.name.partition(".")
        return table if schema == pipeline and "/" not in self.name else None

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Input:
        """What `asdict` made, with days that may have become texts."""
        days = {}
        for key in ("first_day", "last_day", "known_from", "known_by"):
            days[key] = _day(given.get(key))
        return cls(**{**given, **days})


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """How the rows of a staging were made."""

    definition: str = ""
    """Digest of the declaration and the code."""
    inputs: Mapping[date, tuple[Input, ...]] = field(default_factory=dict)
    """For each partition date."""
    known: Mapping[date, date] = field(default_factory=dict)
    """By partition date the night from which the rows are known; of others it is their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """One day of one table, as it was published."""

    day: date
    """The partition date."""
    version: int
    """Delta version in which these rows are visible."""
    attempt: int
    """Number of the attempt that made them: grows from one publication of the pipeline to the
    next."""
    run_id: str
    stage: str
    """The stage that published them."""
    rows: int
    checksum: str
    """What the rows say, as `jobs/lake/content.py` sums it up; without the volatile columns."""
    definition: str
    inputs: tuple[Input, ...]
    changed: bool
    """False: the same rows were in force already, and are now known to follow from these inputs."""
    code_version: str
    published_at: datetime
    known_day: date | None = None
    """The night from which these rows are known; None: always, as in a home of long ago."""

    @property
    def is_of_own_night(self) -> bool:
        """Whether it was made from what the night of its day knew."""
        return any(given.known_by == self.day for given in self.inputs)

    def is_known_by(self, night: date) -> bool:
        """Whether that night sees these rows, unless there are later ones.

        It sees those that were made from what it knew itself, though other nights see them later.
        """
        is_known = self.known_day is None or self.known_day <= night
        return is_known or (self.day == night and self.is_of_own_night)

    @property
    def turns(self) -> tuple[date, ...]:
        """Nights from which on other rows of the day may be seen than the night before saw."""
        since = (self.known_day,) if self.known_day else ()
        # Those after its own do not see them yet.
        own = (self.day, self.day + timedelta(days=1)) if self.is_of_own_night else ()
        return (*since, *own)

    def is_told_by(self, at: datetime | None) -> bool:
        """Whether it was on record at an instant, for who read its version then; None: any.

        One that brought rows was, as its version tells. One that changed nothing bears the version
        of the rows that it tells of, and may have come long after.
        """
        return self.changed or at is None or self.published_at <= at


Publications = Mapping[date, Publication]
"""Those in force, by partition date."""
ByDay = Mapping[date, Sequence[Publication]]
"""Whatever is told of each day, by partition date."""


def in_force(
    run: Run,
    name: str,
    days: Days | None = None,
) -> dict[date, Publication]:
    """The publications of a table that are in force, oldest day first; none when it is not there.

    What a killed run has committed and not recorded is among them.

    Args:
        run: Whose pipeline's table it is.
        name: The table.
        days: Partition dates that are asked for; None: all.
    """
    found = latest(every(run, name, days))
    in_order = sorted(found.items())
    return {day: one for day, one in in_order if days is None or day in days}


def known_by(
    run: Run,
    name: str,
    days: Days,
    night: date,
) -> dict[date, Publication]:
    """Of each of the days the last publication that was known by a night, whatever came later."""
    told = every(run, name, days)
    known = [one for one in told if one.is_known_by(night)]
    return {day: one for day, one in latest(known).items() if day in days}


def every(run: Run, name: str, days: Days | None = None) -> list[Publication]:
    """All publications of a table in their order; none when it is not there.

    Args:
        run: Whose pipeline's table it is.
        name: The table.
        days: Partition dates of which recorded ones are asked for; None: all.
    """
    return of_table(run.environment, sql_name(run, name), days)


def of_table(environment: Environment, name: str, days: Days | None = None) -> list[Publication]:
    """As `every`, of a table by its SQL name."""
    return list(told_by_name(environment, name, days))


def told_by_name(environment: Environment, name: str, days: Days | None = None) -> Told:
    """The same with what the table has lost."""
    return Told(environment, name, _recorded(environment, name), days)


def recorded(environment: Environment, pipeline: str) -> Mapping[str, ByDay]:
    """By table and day what the record tells of a pipeline, lost or not, the log left aside."""
    rows = _Recorded.read(environment)
    own = rows.where(pc.equal(rows["pipeline"], pipeline))
    names = own["table_name"].to_pylist()
    found: dict[str, dict[date, list[Publication]]] = {}
    for name, one in zip(names, own.publications(), strict=True):
        of_table = found.setdefault(name, {})
        of_table.setdefault(one.day, []).append(one)
    return found


def told(run: Run, name: str) -> Told:
    """The same with what the table has lost."""
    return told_by_name(run.environment, sql_name(run, name))


def lost(run: Run, name: str) -> Mapping[date, Publication]:
    """Of each day the last publication that is on record and that the table has no more."""
    return {one.day: one for one in every_lost(run, name)}


def every_lost(run: Run, name: str) -> list[Publication]:
    """All of them, by the time at which they were published."""
    table = sql_name(run, name)
    recorded = _recorded(run.environment, table)
    # Of most tables no row was ever refused: then no store is asked.
    return Told(run.environment, table, recorded).all_lost if len(recorded) else []


def lost_snapshots(told: Told, night: date) -> dict[date, Publication]:
    """The snapshots up to a night that a reference table has lost, and that none replaces yet.

    Args:
        told: All publications of the table.
        night: Later ones it has not seen.
    """
    seen = [one.day for one in told if one.day <= night]
    since = max(seen, default=date.min)
    return {day: one for day, one in told.lost.items() if since <= day <= night}


def all_told(run: Run) -> dict[str, Told]:
    """For each table of the pipeline all its publications, in their order."""
    return told_of(run, [table.name for table in run.pipeline.tables])


def told_of(run: Run, names: Iterable[str]) -> dict[str, Told]:
    """The same for some tables, all of them as of now; the record is read once."""
    recorded = _Recorded.read(run.environment)
    found = {}
    for name in names:
        full_name = sql_name(run, name)
        found[name] = Told(run.environment, full_name, recorded.of_table(full_name))
    return found


def latest(publications: Iterable[Publication]) -> dict[date, Publication]:
    """The last one of each day."""
    found: dict[date, Publication] = {}
    for one in sorted(publications, key=order):
        found[one.day] = one
    return found


def by_day(publications: Iterable[Publication]) -> dict[date, list[Publication]]:
    """Those of each day, in the order in which they are given."""
    found: dict[date, list[Publication]] = {}
    for one in publications:
        found.setdefault(one.day, []).append(one)
    return found


def nights_that_differ(
    nights: Days | None,
    of_day: Iterable[Publication],
) -> list[date | None]:
    """Nights which have seen, together, whatever any of them saw of a day.

    Args:
        nights: Those that saw it, as `Input.nights`; None: no night's, the last version counts.
        of_day: The publications of the day.
    """
    if nights is None:
        return [None]
    found = {nights.first}
    for one in of_day:
        found.update(night for night in one.turns if night in nights)
    return [*found]


def by_then(
    told: Iterable[Publication],
    version: int,
    at: datetime | None,
) -> list[Publication]:
    """Those that counted for who read the table in a version.

    Args:
        told: Publications of the table.
        version: Delta version.
        at: When it was read: what was told of its rows since, such as that they are known from an
            earlier night, counts not. None: nobody knows, and it counts.
    """
    return [one for one in told if one.version <= version and one.is_told_by(at)]


def revisions(environment: Environment, name: str) -> list[Publication]:
    """The publications that changed rows of a table, as the log tells them: the oldest first.

    Args:
        environment: Whose lake it is.
        name: SQL name of the table.
    """
    found = of_table(environment, name)
    # Two homes of one lake may both have recorded the same one.
    return list({_identity(one): one for one in found if one.changed}.values())


def lost_revisions(environment: Environment, name: str) -> list[Publication]:
    """As `revisions`, those that are on record and that the table has no more."""
    return [one for one in told_by_name(environment, name).all_lost if one.changed]


def lost_before(one: Publication, lost: Iterable[Publication]) -> int:
    """How many of these lost revisions are of the same day, and were published before."""
    return sum(other.day == one.day and other.published_at < one.published_at for other in lost)


def next_attempt(run: Run, names: Iterable[str]) -> int:
    """A number above that of every attempt that has published one of the tables.

    Two attempts that begin before either has published get the same number; only the first of them
    to publish a day can do so.
    """
    found = told_of(run, names).values()
    return max((one.last_attempt for one in found), default=0) + 1


def file_input(name: str, day: date, path: Path) -> Input:
    """A landed file with its content; its name is that below the landing folder."""
    marked = mark(path.stat())
    digest = digest_of_file(path)
    return Input(name=name, first_day=day, last_day=day, digest=digest, version=marked)


def digest_of_file(path: Path) -> str:
    """SHA-256 of what a file holds."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checksums:
    """What each day of a table says, and so any range of its days: a plan asks for thousands."""

    def __init__(self, by_day: Mapping[date, str]) -> None:
        """Put them in order.

        Args:
            by_day: Of each day that has a publication its checksum.
        """
        self._days = sorted(by_day)
        self._lines = [f"{day} {by_day[day]}\n" for day in self._days]

    def digest(self, days: Days) -> str:
        """What the rows of these days say.

        A day without a publication says something else than one without rows.
        """
        first = bisect_left(self._days, days.first)
        end = bisect_right(self._days, days.last)
        told = "".join(self._lines[first:end])
        return hashlib.sha256(told.encode()).hexdigest()


def record(run: Run, name: str, publications: Sequence[Publication]) -> None:
    """Add publications to `ops.publications`, and those before them that a killed run left out.

    Each is there once, though another process may take a live one's for a killed one's.
    """
    table = sql_name(run, name)
    with locks.hold(run.environment, f"publications.{table}"):
        recorded = _recorded(run.environment, table)
        there = _identities(recorded)
        found = [*Told(run.environment, table, recorded).unrecorded, *publications]
        added = {_identity(one): one for one in found if _identity(one) not in there}
        rows = [_row(run, name, one) for one in added.values()]
        ops.append(run.environment, _RECORD, rows)


def record_left_out(run: Run, told: Mapping[str, Told]) -> None:
    """Add to `ops.publications` what killed runs have committed and left out, if there is any.

    And take out of it what a table had lost that they have made again.

    Args:
        run: Whose pipeline's tables they are.
        told: By table its publications.
    """
    for name, of_table in told.items():
        if of_table.unrecorded:
            if of_table.first_lost is not None:
                # Else the record told of them again, by the numbers that these have now.
                forget_lost(run, name)
            record(run, name, [])
        if name != PREDICTIONS:
            forget_made_anew(run, name, _come_again(of_table))


def _come_again(told: Told) -> list[date]:
    """The days of which the table has got rows since it lost some."""
    # Nearly never is anything lost: then nothing is made of the rows.
    if not told.lost:
        return []
    there = latest(told)
    lost = [one for day, one in told.lost.items() if day in there]
    return [one.day for one in lost if there[one.day].published_at > one.published_at]


def forget_lost(run: Run, name: str) -> None:
    """Take out of the record what it tells of versions that the table has no more.

    Before the table gets a commit: the numbers of these versions come again. What cannot be told
    from anything else stays on record by numbers below 0: rows that were refused, and which days
    there were, until `forget_made_anew`; what was served, for good. A snapshot of a reference feed
    is replaced by the file of today.
    """
    table = sql_name(run, name)
    with locks.hold(run.environment, f"publications.{table}"):
        found = told(run, name)
        first = found.first_lost
        if first is not None:
            rows = []
            for one in _staying(run, name, found.all_lost):
                below_zero = min(one.version, -1 - one.version)
                rows.append(_row(run, name, replace(one, version=below_zero)))
            lost = f"table_name = '{table}' AND (version >= {first} OR version < 0)"
            ops.replace(run.environment, _RECORD, rows, lost)


def _staying(run: Run, name: str, lost: Iterable[Publication]) -> list[Publication]:
    """What of a table's lost publications stays on record."""
    if name == PREDICTIONS or name.endswith(QUARANTINE_SUFFIX):
        return [one for one in lost if one.rows]
    references = {feed.name for feed in run.pipeline.feeds if feed.is_reference}
    return [] if name in references else list(lost)


def forget_made_anew(run: Run, name: str, days: Collection[date]) -> None:
    """Take out of the record what a table has lost of days that were made, or judged, again."""
    # Nearly always nothing is lost: then no store is asked, and nobody waits.
    if not days or lost(run, name).keys().isdisjoint(days):
        return
    table = sql_name(run, name)
    with locks.hold(run.environment, f"publications.{table}"):
        found = told(run, name)
        again = sorted(found.lost.keys() & set(days))
        if again:
            of_days = ", ".join(f"'{day}'" for day in again)
            first = found.first_lost
            numbers = "version < 0" if first is None else f"(version < 0 OR version >= {first})"
            gone = f"table_name = '{table}' AND day IN ({of_days}) AND {numbers}"
            ops.replace(run.environment, _RECORD, [], gone)


def to_metadata(publications: Sequence[Publication]) -> dict[str, str]:
    """What a commit tells of the publications that it makes."""
    told = [asdict(replace(one, version=0)) for one in publications]
    return {_METADATA: json.dumps({_RECORD: told}, default=str)}


class Told(Sequence[Publication]):
    """All publications of a table in their order, made of what was read when they are asked for.

    To make all of a pipeline takes longer than to read them, and a stage asks for few tables.
    """

    def __init__(
        self,
        environment: Environment,
        table: str,
        recorded: _Recorded,
        days: Days | None = None,
    ) -> None:
        """Compare what is recorded with the table's own log.

        Args:
            environment: Whose lake it is.
            table: SQL name.
            recorded: Rows of `ops.publications` about the table.
            days: Partition dates of which recorded ones are asked for; None: all.
        """
        is_lost = pc.less(recorded["version"], 0)
        self._lost = [recorded.where(is_lost)]
        recorded = recorded.where(pc.invert(is_lost))
        self._recorded = recorded
        self._days = days
        self.unrecorded: list[Publication] = []
        """Those that the log alone tells of."""
        place = environment.table_path(table)
        last = pc.max(recorded["version"]).as_py()
        newest = None if last is None else newest_from(place, last)
        if newest is None:
            newest = DeltaTable(place).version() if is_table(place) else -1
        elif newest == last:
            # Nearly always the newest commit is recorded.
            return
        agreed = _agreed(place, newest, recorded)
        is_there = pc.less_equal(recorded["version"], agreed)
        self._recorded = recorded.where(is_there)
        self._lost.append(recorded.where(pc.invert(is_there)))
        for version in range(agreed + 1, newest + 1):
            self.unrecorded += _of_commit(place, version)

    @overload
    def __getitem__(self, index: int) -> Publication: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Publication]: ...
    def __getitem__(self, index: int | slice) -> Publication | Sequence[Publication]:
        return self._made[index]

    def __iter__(self) -> Iterator[Publication]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    @property
    def first_day(self) -> date | None:
        """The first that was ever published, also where its rows are lost; None: there is none."""
        read = (self._recorded, *self._lost)
        recorded = [pc.min(rows["day"]).as_py() for rows in read]
        found = [*recorded, *(one.day for one in self.unrecorded)]
        return min(filter(None, found), default=None)

    @property
    def last_attempt(self) -> int:
        """The highest number of an attempt, also of one whose rows are lost; 0: there is none."""
        read = (self._recorded, *self._lost)
        newest = [pc.max(rows["attempt"]) for rows in read]
        recorded = [attempt.as_py() or 0 for attempt in newest]
        return max([*recorded, *(one.attempt for one in self.unrecorded)])

    @property
    def last_instant(self) -> datetime | None:
        """When the last one was published; None: there is none."""
        recorded: datetime | None = pc.max(self._recorded["published_at"]).as_py()
        instants = [one.published_at for one in self.unrecorded]
        if recorded is not None:
            instants.append(recorded)
        return max(instants, default=None)

    @property
    def first_lost(self) -> int | None:
        """The first version that is recorded and that the table has no more; None: it has all."""
        numbers = [one.version for one in self.all_lost]
        return min((number for number in numbers if number >= 0), default=None)

    @cached_property
    def lost(self) -> dict[date, Publication]:
        """Of each day of which one is on record the last that the table has no more."""
        return {one.day: one for one in self.all_lost}

    @cached_property
    def all_lost(self) -> list[Publication]:
        """All that the table has no more, by the time at which they were published."""
        found = chain.from_iterable(rows.publications() for rows in self._lost)
        return sorted(found, key=attrgetter("published_at"))

    @cached_property
    def _made(self) -> list[Publication]:
        recorded = self._recorded.publications(self._days)
        return sorted([*recorded, *self.unrecorded], key=order)


_Made = dict[int, Publication]
"""By the number of its row in `ops.publications` what was made of it."""
_MADE: dict[str, tuple[int, _Made]] = {}
"""By path or URL of the record, for the reading of it that is known."""


class _Recorded:
    """Rows of `ops.publications`, of each of which a process makes a publication once."""

    def __init__(self, rows: pa.Table, numbers: pa.Int64Array, made: _Made) -> None:
        """Choose rows, and read none of them yet: the inputs take longest, and few are asked for.

        Args:
            rows: The whole record.
            numbers: Of those that are meant, in order: rows that are added come after all others.
            made: What was made of the record's rows.
        """
        self._rows = rows
        self.numbers = numbers
        self._made = made

    @classmethod
    def read(cls, environment: Environment) -> _Recorded:
        """All of them; read from the lake as far as they are new."""
        kept = ops.kept(environment, _RECORD)
        place = environment.table_path(f"ops.{_RECORD}")
        reading, made = _MADE.get(place, (None, {}))
        if reading != kept.reading:
            made = {}
            _MADE[place] = kept.reading, made
        return cls(kept.rows, pa.array(np.arange(kept.rows.num_rows)), made)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, column: str) -> pa.Array:
        return self._rows[column].take(self.numbers).combine_chunks()

    def where(self, is_meant: pa.BooleanArray) -> _Recorded:
        """Those of which it is true."""
        return _Recorded(self._rows, self.numbers.filter(is_meant), self._made)

    def of_table(self, name: str) -> _Recorded:
        """Those about the table of that SQL name."""
        return self.where(pc.equal(self["table_name"], name))

    def publications(self, days: Days | None = None) -> list[Publication]:
        """What they record, in their order.

        Args:
            days: Partition dates that are asked for; None: all.
        """
        asked = self if days is None else self._of_days(days)
        numbers = asked.numbers.to_pylist()
        unmade = [number not in self._made for number in numbers]
        if any(unmade):
            new = asked.where(pa.array(unmade))
            made = _from_rows(new)
            self._made.update(zip(new.numbers.to_pylist(), made, strict=True))
        return [self._made[number] for number in numbers]

    def _of_days(self, days: Days) -> _Recorded:
        from_first = pc.greater_equal(self["day"], pa.scalar(days.first))
        to_last = pc.less_equal(self["day"], pa.scalar(days.last))
        return self.where(pc.and_(from_first, to_last))


def _recorded(environment: Environment, table: str) -> _Recorded:
    """Rows of `ops.publications` about the table of that SQL name."""
    return _Recorded.read(environment).of_table(table)


def _from_rows(recorded: _Recorded) -> list[Publication]:
    # Column by column: by rows it takes more than twice as long, most of it for days in structs.
    names = [name for name in Publication.__dataclass_fields__ if name != "inputs"]
    columns = [_values(recorded[name]) for name in names]
    inputs = _inputs_of(recorded["inputs"])
    return [
        Publication(**dict(zip(names, values, strict=True)), inputs=given)
        for *values, given in zip(*columns, inputs, strict=True)
    ]


def _inputs_of(column: pa.ListArray) -> list[tuple[Input, ...]]:
    """Of each row its inputs; none of one that has none."""
    given = column.flatten()
    names = list(Input.__dataclass_fields__)
    columns = [_values(given.field(name)) for name in names]
    made = []
    for values in zip(*columns, strict=True):
        named = dict(zip(names, values, strict=True))
        made.append(Input(**named))
    lengths = [length or 0 for length in column.value_lengths().to_pylist()]
    bounds = accumulate(lengths, initial=0)
    return [tuple(made[start:end]) for start, end in pairwise(bounds)]


def _values(column: pa.Array) -> list[Any]:
    """What the column holds, as Python's own values."""
    is_instant = pa.types.is_timestamp(column.type)
    if not (is_instant or pa.types.is_date(column.type)):
        found: list[Any] = column.to_pylist()
        return found
    # Days and instants are made twenty times faster by NumPy than by Arrow.
    found = column.to_numpy(zero_copy_only=False).tolist()
    return [one and one.replace(tzinfo=UTC) for one in found] if is_instant else found


def _identities(recorded: _Recorded) -> set[tuple[date, int, datetime]]:
    """What `_identity` tells of the publications that these rows record."""
    columns = [recorded[name] for name in ("day", "version", "published_at")]
    return set(zip(*map(_values, columns), strict=True))


def _agreed(place: str, newest: int, recorded: _Recorded) -> int:
    """The last version up to which log and record tell the same; -1: they have none in common.

    Args:
        place: The table's path or URL.
        newest: Its version; -1: it is not there.
        recorded: Rows about it.
    """
    last = pc.max(recorded["version"]).as_py()
    if last is None:
        return -1
    if last <= newest and are_there(place, last) == [True]:
        return int(last)
    # The table was deleted, or restored from a backup, or the end of its log is lost. Commits that
    # came since may have taken the numbers of lost ones.
    versions = range(min(last, newest), -1, -1)
    return next((one for one in versions if _is_recorded(place, one, recorded)), -1)


def _is_recorded(place: str, version: int, recorded: _Recorded) -> bool:
    """Whether the commit of a version is the one that is recorded by its number."""
    if sizes(place, version) == [None]:
        # Other programs let old entries of the log expire.
        return True
    own = recorded.where(pc.equal(recorded["version"], version))
    told = {_identity(one) for one in _of_commit(place, version)}
    if told:
        return not told.isdisjoint(_identities(own))
    # Of before there was a record a commit tells nothing, and no attempt is known.
    return bool(pc.max(own["attempt"]).as_py() == 0)


def _of_commit(table: str, version: int) -> Iterator[Publication]:
    """The publications that a commit tells of."""
    try:
        told_by_commit = actions(table, version)
    except FileNotFoundError:
        # Of before there was a record: other programs let old entries of the log expire.
        return
    for action in told_by_commit:
        told = action.get("commitInfo", {}).get(_METADATA)
        for one in _publications_in(told):
            yield _from_json(one, version)


def _publications_in(told: str | None) -> list[dict[str, Any]]:
    # Maintenance commits carry none, and other programs may have written anything.
    try:
        told_of = json.loads(told or "{}")
        found: list[dict[str, Any]] = told_of.get(_RECORD, [])
    except (ValueError, AttributeError):
        return []
    return found


def _from_json(one: Mapping[str, Any], version: int) -> Publication:
    named = {
        "day": date.fromisoformat(one["day"]),
        "version": version,
        "inputs": tuple(Input.from_json(given) for given in one["inputs"]),
        "published_at": datetime.fromisoformat(one["published_at"]),
        "known_day": _day(one.get("known_day")),
    }
    return Publication(**{**one, **named})


def _identity(one: Publication) -> tuple[date, int, datetime]:
    return one.day, one.version, one.published_at


def order(one: Publication) -> tuple[int, datetime]:
    """By what publications of a table stand one after another: the log's order counts.

    One that changed nothing follows that of its version.
    """
    return one.version, one.published_at


def _row(run: Run, name: str, one: Publication) -> dict[str, Any]:
    row = asdict(one)
    row["inputs"] = [asdict(given) for given in one.inputs]
    return {"pipeline": run.pipeline.name, "table_name": sql_name(run, name), **row}


def _day(told: date | str | None) -> date | None:
    return date.fromisoformat(told) if isinstance(told, str) else told


def now(after: Publication | None = None) -> datetime:
    """This instant, as a publication keeps it.

    Args:
        after: The one that is in force until then. A clock that was set back does not make what
            follows it earlier: by that time publications of one version are ordered.
    """
    clock = datetime.now(UTC)
    return clock if after is None else max(clock, after.published_at + ops.TICK)
