"""Drops the source files of a pipeline that has a built-in example."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
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
from pipelines.spec import Pipeline

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drop:
    """One file to be written."""

    feed: Feed
    day: date | None
    """None for a reference file."""
    rows: pd.DataFrame


def land(pipeline: Pipeline, environment: Environment, days: Days) -> dict[str, object]:
    """Write the pipeline's feed files for the days, and then their markers.

    Files that hold the same already are left alone.

    Returns:
        How many files were written and left alone, and the rows that each feed's files hold.

    Raises:
        UsageError: nothing here can play the pipeline's source, or it has no data for the days.
    """
    folder = environment.landing / pipeline.name
    _require_example(pipeline, folder)
    pipeline.require_days(days)
    source = catalog.part("jobs.examples", pipeline, "the rows that its source drops").source()
    private_home(environment)
    markers: set[Path] = set()
    written = 0
    count = 0
    rows = {feed.name: 0 for feed in pipeline.feeds}
    total = sum(len(_drop_days(pipeline, feed, days)) for feed in pipeline.feeds)
    for drop in _with_progress(_drops(pipeline, days, source), total):
        count += 1
        path = folder / drop.feed.file(drop.day)
        written += _write(path, files.content(drop.feed, drop.rows))
        if marker := drop.feed.marker_file(drop.day):
            markers.add(folder / marker)
        rows[drop.feed.name] += len(drop.rows)
    # Last, because feeds may share one.
    for marker_path in markers:
        _write(marker_path, b"")
    return {"files_written": written, "files_unchanged": count - written, **rows}


def _require_example(pipeline: Pipeline, folder: Path) -> None:
    built_in = examples.names()
    if pipeline.name not in built_in:
        raise UsageError(
            f"No source is built in for '{pipeline.name}': drop its files into {folder} yourself. "
            f"Built in: {', '.join(built_in)}."
        )


def _drops(
    pipeline: Pipeline,
    days: Days,
    source: Mapping[str, pd.DataFrame],
) -> Iterator[_Drop]:
    for feed in pipeline.feeds:
        rows = source[feed.name]
        if feed.is_reference:
            yield _Drop(feed=feed, day=None, rows=rows)
            continue
        by_day = dict(iter(rows.groupby("drop_date", sort=False)))
        for day in _drop_days(pipeline, feed, days):
            # A day without rows gets a file too: a night waits for each of its files.
            nothing = rows.iloc[:0]
            yield _Drop(feed=feed, day=day, rows=by_day.get(day, nothing))


def _drop_days(pipeline: Pipeline, feed: Feed, days: Days) -> list[date | None]:
    """The day of each of the feed's files for these days; a reference file has none."""
    return [None] if feed.is_reference else list(pipeline.drop_days(feed, days) or ())


def _with_progress(drops: Iterator[_Drop], total: int) -> Iterator[_Drop]:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return True
