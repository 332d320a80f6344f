"""What rows were made from, through every table between, to the files of the sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from jobs.lake import publications
from jobs.lake.publications import ByDay, Input, Publication, nights_that_differ, order
from pipelines.days import Days
from pipelines.environment import Environment


@dataclass(kw_only=True, slots=True)
class Source:
    """A table, or the files of a feed, from which rows were made."""

    name: str
    """Of a table its SQL name, of files their folder below the landing folder, or the one file."""
    days: set[date] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    """SHA-256 of each file."""
    rows: int = 0
    """Of a table."""
    runs: set[str] = field(default_factory=set)
    """That have published it."""
    codes: set[str] = field(default_factory=set)
    """Versions of the code that made it."""


def behind(
    environment: Environment,
    pipeline: str,
    table: str,
    days: Days,
    version: int,
    at: datetime | None = None,
) -> list[Source]:
    """The days of a table and what is behind them, by the record of publications; tables first.

    Args:
        environment: Whose lake it is.
        pipeline: Whose tables.
        table: SQL name of the table.
        days: Its partition dates.
        version: Delta version of it, after which nothing counts.
        at: When it was read in that version; see `publications.by_then`.
    """
    search = _Search(publications.recorded(environment, pipeline))
    search.look(table, days, version, at)
    return sorted(search.found.values(), key=_place)


class _Search:
    """Walks from publications to what they were made from, each once."""

    def __init__(self, known: Mapping[str, ByDay]) -> None:
        self.found: dict[str, Source] = {}
        self._known = known
        self._seen: set[tuple[str, date, int, datetime]] = set()
        self._counted: set[tuple[str, date, int]] = set()

    def look(
        self,
        table: str,
        days: Days,
        version: int | None,
        at: datetime | None,
        nights: Days | None = None,
    ) -> None:
        """Add the days of a table, and all that is behind them.

        Args:
            table: SQL name of it.
            days: Its partition dates.
            version: Delta version of it, after which nothing counts; None: all counts.
            at: When it was read in that version; see `publications.by_then`.
            nights: That saw it, each what was known by then; None: whatever is known last.
        """
        by_day = self._known.get(table, {})
        for day in by_day.keys() & set(days):
            told = [one for one in by_day[day] if one.is_told_by(at)]
            if version is not None:
                told = [one for one in told if one.version <= version]
            for night in nights_that_differ(nights, told):
                seen = [one for one in told if night is None or one.is_known_by(night)]
                last = max(seen, key=order, default=None)
                if last is not None:
                    self._add(table, last)

    def _add(self, table: str, one: Publication) -> None:
        identity = (table, one.day, one.version, one.published_at)
        if identity in self._seen:
            return
        self._seen.add(identity)
        source = self.found.setdefault(table, Source(name=table))
        source.days.add(one.day)
        # Several publications may tell of the same rows.
        rows = (table, one.day, one.version)
        if rows not in self._counted:
            self._counted.add(rows)
            source.rows += one.rows or 0
        source.runs.add(one.run_id)
        source.codes.add(one.code_version)
        for made_of in one.inputs:
            self._follow(made_of, one.published_at)

    def _follow(self, made_of: Input, at: datetime) -> None:
        name, days = made_of.name, Days(made_of.first_day, made_of.last_day)
        if name in self._known:
            self.look(name, days, made_of.version, at, made_of.nights)
        elif "/" in name:
            source = self._files(name)
            source.days |= set(days)
            source.digests.add(made_of.digest)

    def _files(self, name: str) -> Source:
        folder = name.rpartition("/")[0]
        # A file without days of its own lies beside the folders of the feeds.
        own = folder if "/" in folder else name
        return self.found.setdefault(own, Source(name=own))


def _place(source: Source) -> tuple[bool, str]:
    is_file = "/" in source.name
    return is_file, source.name
