"""Landed files as they are now, beside what tables were made from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING

from jobs.lake.knowledge import is_announced
from jobs.lake.read_before import ReadBefore
from pipelines.days import Days
from pipelines.landing import expected_files, marks, stamp
from pipelines.places import is_url

if TYPE_CHECKING:
    from jobs.lake.publications import Input, Publication, Told
    from pipelines.feeds import Feed
    from pipelines.landing import ExpectedFile
    from pipelines.run import Run


class LandedFiles:
    """The files of a pipeline's nights: which are there, and which are other ones by now."""

    def __init__(
        self,
        run: Run,
        told: Mapping[str, Told],
        known: Callable[[str], Mapping[date, Publication]],
    ) -> None:
        """Look at none yet.

        Args:
            run: Of which pipeline and home.
            told: By table all its publications.
            known: Gives of a table the publications that are in force, by day.
        """
        self._pipeline = run.pipeline
        self._landing = run.environment.landing
        self._told = told
        self._known = known
        self._read_before = ReadBefore(run.environment, run.pipeline.name)
        self.gone: set[str] = set()
        """Names of files that were read for a publication, and are not there any more."""

    def keep(self) -> None:
        """Have what was read found by who asks next."""
        self._read_before.keep()

    def absent(self, night: date, feeds: Collection[str]) -> tuple[str, ...]:
        """The files of a night that these feeds must drop, and that are not there."""
        expected = expected_files(self._pipeline, Days.of(night))
        asked = [file for file in expected if file.feed.name in feeds]
        due = filter(self._is_needed, asked)
        names = chain.from_iterable(file.names for file in due)
        return tuple(name for name in names if not self.is_there(name))

    def why_unreadable(self, night: date, feeds: Collection[str] | None = None) -> str:
        """Why the files of a published night cannot be read again; '': they can be.

        Args:
            night: Which.
            feeds: Of which; all of them where None is given.
        """
        expected = expected_files(self._pipeline, Days.of(night))
        asked = [file for file in expected if feeds is None or file.feed.name in feeds]
        files = list(filter(self._is_needed, asked))
        names = chain.from_iterable(file.names for file in files)
        lacking = [name for name in names if not self.is_there(name)]
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
        return was_read or not file.is_waived(self._landing)

    def _awaits_marker(self, file: ExpectedFile, night: date) -> bool:
        """Whether a published file has changed, and its marker is still that of what it was."""
        made = self._known(file.feed.name).get(night)
        # A reference file is left alone then: its last rows are there.
        if file.feed.is_reference or not (file.marker and made):
            return False
        is_other = self.has_other(file.feed, made)
        seen, marker = self._landing / file.name, self._landing / file.marker
        return is_other and not is_announced(seen, marker)

    def is_due(self, feed: Feed, night: date) -> bool:
        """Whether a feed is declared to have a drop of that night."""
        return self._pipeline.drop_days(feed, Days.of(night)) is not None

    def is_there(self, name: str) -> bool:
        """Whether a file lies in the landing folder."""
        return stamp(self._landing / name) is not None

    def of(self, feed: Feed, made: Publication) -> list[Input]:
        """The files that a day was made from, each where its feed has it dropped by now.

        That may be declared anew.
        """
        day = None if feed.is_reference else made.day
        name = f"{self._pipeline.name}/{feed.file(day)}"
        return [replace(given, name=name) for given in made.inputs]

    def has_other(self, feed: Feed, made: Publication) -> bool:
        """Whether the file of a day is another than that which it was made from."""
        return any(map(self.has_changed, self.of(feed, made)))

    def has_changed(self, given: Input) -> bool:
        """Whether a file says something else than when it was read."""
        file = self._landing / given.name
        seen = marks(file)
        # A file that is gone, and a model, say nothing new.
        if not seen:
            self.gone.add(given.name)
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
