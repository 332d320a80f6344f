"""Which versions of which tables are in use, and what they were made from, through every table.

Nothing that a reader can still ask for stands alone: a prediction that was served names the rows
that were scored, and these the days of other tables, whatever is in force of them by now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from jobs.lake import publications
from pipelines.days import Days

if TYPE_CHECKING:
    from jobs.lake.publications import Input, Publication
    from jobs.lake.snapshots import Snapshot
    from pipelines.run import Run


class InUse:
    """Versions of a pipeline's tables that stay readable."""

    def __init__(self, run: Run, names: Iterable[str]) -> None:
        """Begin without anything.

        Args:
            run: Whose pipeline's tables they are.
            names: The tables, those of refused rows too.
        """
        self._run = run
        self.told = {name: publications.every(run, name) for name in names}
        """By table its publications in their order."""
        self.versions: dict[str, set[int]] = defaultdict(set)
        """By table the Delta versions that are in use."""
        self._by_day: dict[str, dict[date, list[Publication]]] = {}
        self._taken: set[tuple[str, date, int]] = set()
        self._others: dict[str, Sequence[Publication]] = {}
        """The same by table that is declared no more, and of which something was made."""

    def add(self, name: str, one: Publication) -> None:
        """Add the rows of a publication, and all that is behind them."""
        self.versions[name].add(one.version)
        for given in one.inputs:
            table = given.table_of(self._run.pipeline.name)
            if table is not None and given.version is not None:
                self.versions[table].add(given.version)
                self._look_behind(table, given, given.version)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Add what is behind a table as a night saw it in a version."""
        for day in self._days_of(snapshot.table):
            self._take(snapshot.table, day, snapshot.version, [snapshot.night])

    def _look_behind(self, table: str, given: Input, version: int) -> None:
        days = Days(given.first_day, given.last_day)
        by_day = self._days_of(table)
        for day in by_day.keys() & set(days):
            nights = publications.nights_that_differ(given.nights, by_day[day])
            self._take(table, day, version, nights)

    def _take(
        self,
        table: str,
        day: date,
        version: int,
        nights: Sequence[date | None],
    ) -> None:
        """Add a day as these nights saw it in a version, whenever that was.

        What brought no rows may have been told since, such as that a correction is known earlier:
        then what the night sees today is not what it saw. Nobody knows by the version alone, so
        both are added.
        """
        told = [one for one in self._days_of(table)[day] if one.version <= version]
        for night in nights:
            seen = [one for one in told if night is None or one.is_known_by(night)]
            for one in reversed(seen):
                self._add_all_of(table, day, one.version)
                if one.changed:
                    break

    def _add_all_of(self, table: str, day: date, version: int) -> None:
        """Add the rows of a day of that version: several publications may tell of them."""
        asked = (table, day, version)
        if asked in self._taken:
            return
        self._taken.add(asked)
        for one in self._days_of(table)[day]:
            if one.version == version:
                self.add(table, one)

    def _days_of(self, table: str) -> dict[date, list[Publication]]:
        if table not in self._by_day:
            self._by_day[table] = publications.by_day(self._told_of(table))
        return self._by_day[table]

    def _told_of(self, table: str) -> Sequence[Publication]:
        """The publications of a table, also of one that is declared no more."""
        if table in self.told:
            return self.told[table]
        if table not in self._others:
            self._others[table] = publications.every(self._run, table)
        return self._others[table]
