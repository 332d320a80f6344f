"""What rows were made from, through every table between, to the files of the sources."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from jobs.lake import ops
from pipelines.days import Days
from pipelines.environment import Environment

_COLUMNS = (
    *("table_name", "day", "version", "rows", "inputs", "run_id", "code_version"),
    *("changed", "published_at", "known_day"),
)
_Row = dict[str, Any]


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
    recorded = ops.read(environment, "publications", [("pipeline", "=", pipeline)], _COLUMNS)
    search = _Search(recorded.to_pylist())
    search.look(table, days, version, at)
    return sorted(search.found.values(), key=_place)


class _Search:
    """Walks from publications to what they were made from, each once."""

    def __init__(self, recorded: list[_Row]) -> None:
        self.found: dict[str, Source] = {}
        self._known: dict[str, dict[date, list[_Row]]] = {}
        self._seen: set[tuple[str, date, int, datetime]] = set()
        self._counted: set[tuple[str, date, int]] = set()
        for row in recorded:
            by_day = self._known.setdefault(row["table_name"], {})
            by_day.setdefault(row["day"], []).append(row)

    def look(
        self,
        table: str,
        days: Days,
        version: int | None,
        at: datetime | None,
        known_by: date | None = None,
    ) -> None:
        """Add the days of a table, and all that is behind them.

        Args:
            table: SQL name of it.
            days: Its partition dates.
            version: Delta version of it, after which nothing counts; None: all counts.
            at: When it was read in that version; see `publications.by_then`.
            known_by: The night that saw it, to which nothing counts that became known later.
        """
        by_day = self._known.get(table, {})
        for day in by_day.keys() & set(days):
            told = [row for row in by_day[day] if _is_told_by(row, at)]
            shown = [row for row in told if _counts(row, version, known_by)]
            row = max(shown, key=_order, default=None)
            if row is not None:
                self._add(table, row)

    def _add(self, table: str, row: _Row) -> None:
        identity = (table, row["day"], row["version"], row["published_at"])
        if identity in self._seen:
            return
        self._seen.add(identity)
        source = self.found.setdefault(table, Source(name=table))
        source.days.add(row["day"])
        # Several publications may tell of the same rows.
        rows = (table, row["day"], row["version"])
        if rows not in self._counted:
            self._counted.add(rows)
            source.rows += row["rows"] or 0
        source.runs.add(row["run_id"])
        source.codes.add(row["code_version"])
        for made_of in row["inputs"] or ():
            self._follow(made_of, row["published_at"])

    def _follow(self, made_of: _Row, at: datetime) -> None:
        name, days = made_of["name"], Days(made_of["first_day"], made_of["last_day"])
        if name in self._known:
            self.look(name, days, made_of["version"], at, made_of["known_by"])
        elif "/" in name:
            source = self._files(name)
            source.days |= set(days)
            source.digests.add(made_of["digest"])

    def _files(self, name: str) -> Source:
        folder = name.rpartition("/")[0]
        # A file without days of its own lies beside the folders of the feeds.
        own = folder if "/" in folder else name
        return self.found.setdefault(own, Source(name=own))


def _place(source: Source) -> tuple[bool, str]:
    is_file = "/" in source.name
    return is_file, source.name


def _order(row: _Row) -> tuple[int, datetime]:
    # As `jobs/lake/publications.py` has them.
    return row["version"], row["published_at"]


def _is_told_by(row: _Row, at: datetime | None) -> bool:
    """As `Publication.is_told_by`."""
    is_told: bool = row["changed"] or at is None or row["published_at"] <= at
    return is_told


def _counts(row: _Row, version: int | None, known_by: date | None) -> bool:
    """Whether a publication is in that version, and was known by that night."""
    is_in = version is None or row["version"] <= version
    if known_by is None or row["known_day"] is None or row["known_day"] <= known_by:
        return is_in
    # A night sees what was made from what it knew itself.
    own = [given for given in row["inputs"] or () if given["known_by"] == row["day"]]
    return is_in and row["day"] == known_by and bool(own)
