"""Which files a run needs, and what tells whether they are there.

Asked by the stage that reads the files, and by Airflow's trigger that waits for them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

from pipelines.days import Days
from pipelines.feeds import Feed
from pipelines.places import changed_ns, is_url, mark, require_bucket
from pipelines.spec import Pipeline


class Stamp(NamedTuple):
    """What a file has in common with itself of a moment ago, unless somebody writes it."""

    # No inode: where an object store is mounted, a file may have another at each look.
    size: int
    """Bytes."""
    changed_ns: int
    """See `places.changed_ns`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedFile:
    """A file that a run needs."""

    feed: Feed
    day: date
    """The `landed_date` of its rows."""
    name: str
    """Its path below the landing folder, as rows and messages show it."""
    marker: str | None
    """Path of its marker, below the landing folder too."""
    is_announced: bool
    """By its marker, which is no other feed's: where it is there, the file will be."""

    def is_waived(self, landing: Path) -> bool:
        """Whether there is none on its day, and none has to be."""
        signs = self.names if self.is_announced else (self.name,)
        return self.feed.is_optional and not any(stamp(landing / name) for name in signs)

    @property
    def names(self) -> tuple[str, ...]:
        """All that must be there: the file, and its marker."""
        return (self.name, self.marker) if self.marker else (self.name,)


def expected_files(pipeline: Pipeline, days: Days) -> Iterator[ExpectedFile]:
    """The files of every feed for the days; a reference feed has one, under the first day."""
    sharing = Counter(feed.marker for feed in pipeline.feeds)
    for feed in pipeline.feeds:
        for day in _drop_days(pipeline, feed, days):
            marker = feed.marker_file(day)
            yield ExpectedFile(
                feed=feed,
                day=day,
                name=f"{pipeline.name}/{feed.file(day)}",
                marker=marker and f"{pipeline.name}/{marker}",
                is_announced=marker is not None and sharing[feed.marker] == 1,
            )


def stamp(path: Path) -> Stamp | None:
    """The file's stamp; None when there is no file that can be looked at.

    Raises:
        NightshiftError: its bucket is not there, and so it never could be.
        OSError: an object store refuses to say whether it is there.
    """
    found = _looked_at(path)
    return Stamp(size=found.st_size, changed_ns=changed_ns(found)) if found else None


def marks(path: Path) -> tuple[int, ...]:
    """Numbers, by one of which a record knows a file that is as it was; none when it is not there.

    Raises:
        NightshiftError: see `stamp`.
        OSError: see `stamp`.
    """
    found = _looked_at(path)
    # What was recorded before there were marks is told by the time alone.
    return (mark(found), changed_ns(found)) if found else ()


def _looked_at(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        if is_url(path):
            require_bucket(path)
        return None
    except OSError:
        if is_url(path):
            raise
        return None


def _drop_days(pipeline: Pipeline, feed: Feed, days: Days) -> Iterator[date]:
    found = pipeline.drop_days(feed, days)
    if found is not None:
        # There is one reference file, whatever the days.
        yield from [days.first] if feed.is_reference else found
