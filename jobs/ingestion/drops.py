"""The files that landed for a run.

Are they all there, and do their headers hold the declared columns?
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import Refused

if TYPE_CHECKING:
    from pipelines.feeds import Feed
    from pipelines.run import Run

_LISTED = 12
_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """One landed file whose header is good."""

    path: Path
    source_file: str
    """The path below the landing folder, as rows and messages show it."""
    day: date
    """The `landed_date` of its rows."""
    header: tuple[str, ...]
    data_lines: int
    """Lines after the header, without blank ones at the end."""


class _Unfit(Exception):
    """Why a file cannot be read at all."""


def find_drops(run: Run) -> dict[str, list[Drop]]:
    """The files of every feed for the run's days, by feed.

    Raises:
        Refused: files are missing, empty, or have another header than declared; all of them are
            listed.
    """
    found: dict[str, list[Drop]] = {feed.name: [] for feed in run.pipeline.feeds}
    problems: list[tuple[date, str]] = []
    for feed in run.pipeline.feeds:
        for day in _drop_days(run, feed):
            try:
                found[feed.name].append(_inspect(run, feed, day))
            except _Unfit as unfit:
                problems.append((day, str(unfit)))
    if problems:
        raise Refused(_all_problems(run, problems))
    return found


def source_file(run: Run, feed: Feed, day: date) -> str:
    """Where the feed's file of that day lies below the landing folder."""
    return f"{run.pipeline.name}/{feed.path.format(date=day)}"


def _drop_days(run: Run, feed: Feed) -> Iterator[date]:
    days = run.pipeline.drop_days(feed, run.days)
    if days is not None:
        yield from [run.days.first] if feed.is_reference else days


def _inspect(run: Run, feed: Feed, day: date) -> Drop:
    name = source_file(run, feed, day)
    path = run.environment.landing / name
    try:
        header, data_lines = _header_and_lines(path)
    except FileNotFoundError:
        raise _Unfit(f"{name}: the file is missing") from None
    except OSError as error:
        raise _Unfit(f"{name}: the file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _Unfit(f"{name}: the header is not UTF-8 text") from None
    if not header:
        raise _Unfit(f"{name}: the file is empty; a drop without rows still has a header")
    wrong = _header_problems(feed, header)
    if wrong:
        raise _Unfit(f"{name}: {'; '.join(wrong)}")
    return Drop(path=path, source_file=name, day=day, header=header, data_lines=data_lines)


def _header_and_lines(path: Path) -> tuple[tuple[str, ...], int]:
    with path.open("rb") as file:
        first = file.readline(_HEADER_BYTES).decode("utf-8-sig")
        last = max(
            (number for number, line in enumerate(file, 1) if line.rstrip(b"\r\n")), default=0
        )
    return tuple(next(csv.reader([first.rstrip("\r\n")]), ())), last


def _header_problems(feed: Feed, header: tuple[str, ...]) -> list[str]:
    declared = [column.name for column in feed.columns]
    missing = [name for name in declared if name not in header]
    unknown = [name for name in header if name not in declared]
    twice = sorted({name for name in header if header.count(name) > 1})
    kinds = (("is missing", missing), ("is not declared", unknown), ("comes twice", twice))
    return [f"column {_names(names)} {what}" for what, names in kinds if names]


def _names(names: list[str]) -> str:
    shown = ", ".join(f"'{name[:40]}'" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _all_problems(run: Run, problems: list[tuple[date, str]]) -> str:
    name = run.pipeline.name
    listed = [f"  - {text}" for _, text in problems[:_LISTED]]
    more = [f"  … and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    first, last = min(day for day, _ in problems), max(day for day, _ in problems)
    ways_out = (
        f"Files are looked for in {run.environment.landing}. Wait for the source to drop them and "
        f"run again, or drop them yourself (the example's: nightshift land {name} --from {first} "
        f"--to {last}). If a header has changed for good, declare it in pipelines/{name}.py."
    )
    return "\n".join(
        [f"{len(problems)} file(s) for {run.days} cannot be ingested:", *listed, *more, ways_out]
    )
