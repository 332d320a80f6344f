"""What was refused of the days of raw and other tables, as it stands in their quarantines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from jobs.lake import publications
from jobs.lake.definition import digest
from jobs.lake.publications import Publication
from pipelines.spec import QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from pipelines.feeds import Feed
    from pipelines.run import Run
    from pipelines.spec import Table

_ByDay = Mapping[date, Sequence[Publication]]


class Quarantines:
    """The quarantines of a pipeline's tables, each read when it is first asked for."""

    def __init__(self, run: Run) -> None:
        """Of the pipeline of a run."""
        self._run = run
        self._told: dict[str, _ByDay] = {}
        self._lost: dict[str, _ByDay] = {}

    def refused_with(self, feed: Feed, made: Publication) -> str:
        """What was refused and taken back, and has left the day's quarantine; empty: nothing."""
        of_day = self.of(feed).get(made.day, ())
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

    def of(self, feed: Feed) -> Mapping[date, Sequence[Publication]]:
        """The publications of the quarantine of a feed, by day in their order."""
        if feed.name not in self._told:
            name = feed.name + QUARANTINE_SUFFIX
            told = publications.told_of(self._run, [name])[name]
            self._told[feed.name] = publications.by_day(told)
        return self._told[feed.name]

    def has_lost(self, table: Table, made: Publication) -> bool:
        """Whether rows were refused of what a day was made from, and are not there any more."""
        if table.name not in self._lost:
            name = table.name + QUARANTINE_SUFFIX
            lost = publications.every_lost(self._run, name)
            self._lost[table.name] = publications.by_day(lost)
        of_day = self._lost[table.name].get(made.day, ())
        # Of other files, or as others declared, other rows or none are refused: also of one that
        # was refused last, and then taken back.
        own = [one for one in of_day if _made_from(one) == _made_from(made)]
        return bool(own) and own[-1].rows > 0


def _files_of(one: Publication) -> list[str]:
    """What was read for it, by content: a file may have been moved since."""
    return [given.digest for given in one.inputs]


def _made_from(one: Publication) -> tuple[str, list[str]]:
    return one.definition, _files_of(one)
