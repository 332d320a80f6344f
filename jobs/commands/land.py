"""Drops the source files of a pipeline that has a built-in example."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import examples
from jobs.examples import files
from jobs.services.home import private_home
from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.feeds import Feed
from pipelines.places import write_whole
from pipelines.spec import Pipeline

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drop:
    """One file of a feed."""

    feed: Feed
    day: date | None
    """None for a reference file."""


def land(
    pipeline: Pipeline,
    environment: Environment,
    days: Days,
    *,
    only_missing: bool = False,
    withheld: Collection[str] = (),
) -> dict[str, object]:
    """Write the pipeline's feed files for the days, and then their markers.

    Files that hold the same already are left alone.

    Args:
        pipeline: Whose source is played.
        environment: Where the landing folder is.
        days: The days of the drops.
        only_missing: Leave every file alone that is there, whatever it holds.
        withheld: Feeds whose file of the last day does not come, nor its marker.

    Returns:
        How many files were written and left alone, and the rows that each feed's files hold.

    Raises:
        UsageError: nothing here can play the pipeline's source, it has no data for the days, or
            no feed of that name.
    """
    folder = environment.landing / pipeline.name
    _require_example(pipeline, folder)
    pipeline.require_days(days)
    kept_back = {pipeline.feed(name).name for name in withheld}
    example = catalog.part("jobs.examples", pipeline, "the rows that its source drops")
    private_home(environment)
    due = _drops(pipeline, days)
    of_last_day = [drop for drop in due if drop.day in (None, days.last)]
    held = [drop for drop in of_last_day if drop.feed.name in kept_back]
    dropped = [drop for drop in due if drop not in held]
    missing = [drop for drop in dropped if not _path(folder, drop).exists()]
    wanted = missing if only_missing else dropped
    written = 0
    rows = {feed.name: 0 for feed in pipeline.feeds}
    # A year of rows is read only when a file is to be written.
    source = example.source() if wanted else {}
    for drop, content in _with_progress(_with_rows(wanted, source), len(wanted)):
        written += _write(_path(folder, drop), files.content(drop.feed, content))
        rows[drop.feed.name] += len(content)
    # Last, because feeds may share one; and one that is shared with a file that is late waits too.
    played = _files_by_marker(folder, wanted)
    for marker in _markers(folder, dropped) - _markers(folder, held):
        if not _announces(marker, played.get(marker, ())):
            write_whole(marker, b"")
    return {"files_written": written, "files_unchanged": len(dropped) - written, **rows}


def _require_example(pipeline: Pipeline, folder: Path) -> None:
    built_in = examples.names()
    if pipeline.name not in built_in:
        raise UsageError(
            f"No source is built in for '{pipeline.name}': drop its files into {folder} yourself. "
            f"Built in: {', '.join(built_in)}."
        )


def _drops(pipeline: Pipeline, days: Days) -> list[_Drop]:
    """Every file for these days, feed by feed; a reference feed has one, whatever the days."""
    found: list[_Drop] = []
    for feed in pipeline.feeds:
        on = [None] if feed.is_reference else pipeline.drop_days(feed, days) or ()
        found += [_Drop(feed=feed, day=day) for day in on]
    return found


def _path(folder: Path, drop: _Drop) -> Path:
    return folder / drop.feed.file(drop.day)


def _markers(folder: Path, drops: Iterable[_Drop]) -> set[Path]:
    names = [drop.feed.marker_file(drop.day) for drop in drops]
    return {folder / name for name in names if name}


def _files_by_marker(folder: Path, drops: Iterable[_Drop]) -> dict[Path, list[Path]]:
    files: dict[Path, list[Path]] = {}
    for drop in drops:
        for marker in _markers(folder, [drop]):
            files.setdefault(marker, []).append(_path(folder, drop))
    return files


def _announces(marker: Path, files: Iterable[Path]) -> bool:
    """Whether the marker is there, and has come since these files are as they are."""
    from jobs.lake.knowledge import is_announced

    return marker.exists() and all(is_announced(file, marker) for file in files)


def _with_rows(
    drops: Iterable[_Drop], source: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[_Drop, pd.DataFrame]]:
    for feed, of_feed in groupby(drops, key=lambda drop: drop.feed):
        rows = source[feed.name]
        if feed.is_reference:
            yield from ((drop, rows) for drop in of_feed)
            continue
        by_day = dict(iter(rows.groupby("drop_date", sort=False)))
        for drop in of_feed:
            # A day without rows gets a file too: a night waits for each of its files.
            nothing = rows.iloc[:0]
            yield drop, by_day.get(drop.day, nothing)


def _with_progress(
    drops: Iterator[tuple[_Drop, pd.DataFrame]], total: int
) -> Iterator[tuple[_Drop, pd.DataFrame]]:
    from tqdm import tqdm

    # Quiet where it is not a terminal, and when all is done within three seconds.
    yield from tqdm(
        drops,
        desc="Landing",
        unit=" files",
        total=total,
        disable=None,
        delay=3,
    )


def _write(path: Path, content: bytes) -> bool:
    """Make the file hold that, whole or not at all; False when it already did."""
    if path.exists() and path.read_bytes() == content:
        return False
    write_whole(path, content)
    return True
