"""The files that landed for a run.

Are they all there, can they be read, and do they hold the declared columns?
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.ingestion.contents import Contents, Drop, Unfit
from jobs.ingestion.formats import FORMATS
from pipelines.errors import Refused

if TYPE_CHECKING:
    from pipelines.feeds import Feed
    from pipelines.run import Run

_PROBLEMS_LISTED = 12
_NAMES_LISTED = 5
"""Columns that a problem names."""
_NAME_SHOWN = 40
"""Characters of a name: the first line of a file that is no CSV may be of any length."""


def find_drops(run: Run) -> dict[str, list[Drop]]:
    """The files of every feed for the run's days, by feed.

    Raises:
        Refused: files are missing, damaged, empty, or have other columns than declared; all of
            them are listed.
    """
    found: dict[str, list[Drop]] = {}
    problems: list[tuple[date, str]] = []
    for feed in run.pipeline.feeds:
        drops = found.setdefault(feed.name, [])
        for day in _drop_days(run, feed):
            try:
                drops.append(_inspect(run, feed, day))
            except Unfit as unfit:
                name = _source_file(run, feed, day)
                problems.append((day, f"{name}: {unfit}"))
    if problems:
        raise Refused(_all_problems(run, problems))
    return found


def _source_file(run: Run, feed: Feed, day: date) -> str:
    """Where the feed's file of that day lies below the landing folder."""
    return f"{run.pipeline.name}/{feed.file(day)}"


def _drop_days(run: Run, feed: Feed) -> Iterator[date]:
    days = run.pipeline.drop_days(feed, run.days)
    if days is not None:
        # There is one reference file, whatever the days.
        yield from [run.days.first] if feed.is_reference else days


def _inspect(run: Run, feed: Feed, day: date) -> Drop:
    name = _source_file(run, feed, day)
    path = run.environment.landing / name
    contents = _contents(feed, path)
    if contents.columns is not None:
        _refuse_other_columns(feed, contents.columns)
    return Drop(
        path=path, source_file=name, day=day, layout=contents.layout, records=contents.records
    )


def _contents(feed: Feed, path: Path) -> Contents:
    try:
        return FORMATS[feed.format].contents(path)
    except FileNotFoundError:
        raise Unfit("the file is missing") from None
    except OSError as error:
        raise Unfit(f"the file cannot be read: {error.strerror or error}") from None


def _refuse_other_columns(feed: Feed, names: tuple[str, ...]) -> None:
    declared = feed.column_names
    missing = [name for name in declared if name not in names]
    unknown = [name for name in names if name not in declared]
    twice = sorted({name for name in names if names.count(name) > 1})
    kinds = (("is missing", missing), ("is not declared", unknown), ("comes twice", twice))
    wrong = [f"column {_listed(odd)} {what}" for what, odd in kinds if odd]
    if wrong:
        raise Unfit("; ".join(wrong))


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name[:_NAME_SHOWN]}'" for name in names[:_NAMES_LISTED])
    hidden = len(names) - _NAMES_LISTED
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def _all_problems(run: Run, problems: list[tuple[date, str]]) -> str:
    name = run.pipeline.name
    lines = [f"{len(problems)} file(s) for {run.days} cannot be ingested:"]
    lines += [f"  - {text}" for _, text in problems[:_PROBLEMS_LISTED]]
    hidden = len(problems) - _PROBLEMS_LISTED
    if hidden > 0:
        lines.append(f"  … and {hidden} more")
    first = min(day for day, _ in problems)
    last = max(day for day, _ in problems)
    lines.append(
        f"Files are looked for in {run.environment.landing}. Wait for the source to drop them and "
        f"run again, or drop them yourself (the example's: nightshift land {name} --from {first} "
        f"--to {last}). If a header has changed for good, declare it in pipelines/{name}.py."
    )
    return "\n".join(lines)
