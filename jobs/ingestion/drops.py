"""The files that landed for a run.

Are they all there and whole, can they be read, and do they hold the declared columns?
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.ingestion.contents import Contents, Drop, Unfit
from jobs.ingestion.formats import FORMATS
from pipelines import catalog
from pipelines.errors import NightshiftError, NotLanded, Refused, UsageError
from pipelines.feeds import Column
from pipelines.landing import ExpectedFile, Stamp, expected_files, stamp
from pipelines.places import is_url

if TYPE_CHECKING:
    from pipelines.feeds import Feed
    from pipelines.run import Run

_YOUNG_SECONDS = 10
"""A file that was changed within so many seconds may still be being written."""
_WATCHED_SECONDS = 0.2
"""How long young files are watched: all at once, and none of an ordinary night."""
_CHANGED = "it was changed while it was read"
_PROBLEMS_LISTED = 12
_LONGEST_NAME = 128
"""Characters of the name of a column that is added."""
_NOT_IN_NAMES = frozenset(" ,;{}()=")
"""Delta takes none of them in the name of a column."""
_NAMES_LISTED = 5
"""Columns that a problem names."""
_NAME_SHOWN = 40
"""Characters of a name: the first line of a file that is no CSV may be of any length."""


class _Late(Unfit):
    """Why a file has not landed yet."""


class _Missing(_Late):
    """A day's file, or what announces it, is not there: the other days can do without."""


class FilesRefused(Refused):
    """Files that are refused whatever rows they hold.

    Attributes:
        files: Their names below the landing folder.
    """

    def __init__(self, message: str, *files: str) -> None:
        self.files = files
        super().__init__(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """Why a file cannot be ingested."""

    file: str
    """Its path below the landing folder."""
    day: date
    why: Unfit
    marker: str | None = None
    """Path of the file's marker, below the landing folder too."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that must be there, and whole."""
        return (self.file, self.marker) if self.marker else (self.file,)

    @property
    def is_late(self) -> bool:
        return isinstance(self.why, _Late)

    def __str__(self) -> str:
        return f"{self.file}: {self.why}"


def find_drops(
    run: Run,
    read_before: Collection[tuple[str, date]] = (),
) -> dict[str, list[Drop]]:
    """The files of every feed that the run is about for its days, by feed.

    Args:
        run: Whose days.
        read_before: Feeds and days of which such a file was published. An optional one that is gone
            is none that never came: the rows would go with it.

    Raises:
        NotLanded: files are missing or still being written, and no other is wrong.
        FilesRefused: files are damaged, empty, or have other columns than declared.
            Either error lists all files that cannot be ingested.
    """
    folder = run.environment.landing
    expected = expected_files(run.pipeline, run.days)
    asked = [file for file in expected if run.makes(file.feed.name)]
    files = [
        file
        for file in asked
        if (file.feed.name, file.day) in read_before or not file.is_waived(folder)
    ]
    growing = _growing(folder / file.name for file in files)
    names = [feed.name for feed in run.feeds]
    found: dict[str, list[Drop]] = {name: [] for name in names}
    problems = []
    for file in files:
        is_growing = folder / file.name in growing
        try:
            drop = _inspect(folder, file, is_growing)
            # A cluster that others run need not have our code, which reads splits.
            is_ours = not run.environment.spark_remote
            found[file.feed.name].append(drop if is_ours else replace(drop, marks=()))
        except Unfit as unfit:
            problems.append(_problem(file, unfit))
    if problems:
        raise _error(run, problems)
    return found


def _problem(file: ExpectedFile, why: Unfit) -> _Problem:
    return _Problem(
        file=file.name,
        day=file.day,
        why=why,
        marker=file.marker,
    )


def require_unchanged(run: Run, found: Mapping[str, list[Drop]]) -> None:
    """See to it that what was read came from the very files that were inspected.

    Raises:
        NotLanded: files have changed since; all of them are listed.
    """
    problems = [
        _Problem(file=drop.source_file, day=drop.day, why=_Late(_CHANGED))
        for drop in chain.from_iterable(found.values())
        if stamp(drop.path) != drop.stamp
    ]
    if problems:
        raise _error(run, problems)


def _growing(paths: Iterable[Path]) -> set[Path]:
    """Those that change while they are watched."""
    youngest = time.time_ns() - _YOUNG_SECONDS * 1_000_000_000
    young: dict[Path, Stamp] = {}
    for path in paths:
        seen = stamp(path)
        if seen and seen.changed_ns > youngest:
            young[path] = seen
    if not young:
        return set()
    time.sleep(_WATCHED_SECONDS)
    return {path for path, seen in young.items() if stamp(path) != seen}


def _inspect(folder: Path, file: ExpectedFile, is_growing: bool) -> Drop:
    path = folder / file.name
    seen = stamp(path)
    if is_growing:
        raise _Late("it is still being written")
    if seen and file.marker and not stamp(folder / file.marker):
        raise _missing(file.feed, f"its marker {file.marker} is missing")
    try:
        contents = _declared_contents(file.feed, path)
    finally:
        # Also where it seems damaged: what a half-written file looks like says nothing.
        if stamp(path) != seen:
            raise _Late(_CHANGED)
    assert seen, "what can be read can be looked at"
    return Drop(
        path=path,
        source_file=file.name,
        day=file.day,
        layout=contents.layout,
        records=contents.records,
        new_columns=_new_columns(file.feed, contents),
        marks=contents.marks,
        within_texts=contents.within_texts,
        stamp=seen,
    )


def _missing(feed: Feed, why: str) -> _Late:
    return _Late(why) if feed.is_reference else _Missing(why)


def _declared_contents(feed: Feed, path: Path) -> Contents:
    if ":" in path.name and not is_url(path):
        raise Unfit(
            "Spark reads no file from a disk whose name has ':' in it: have the source drop it by "
            f"another name, and declare that as the path of feed '{feed.name}'"
        )
    try:
        contents = FORMATS[feed.format].contents(path, feed)
    except FileNotFoundError:
        raise _missing(feed, "the file is missing") from None
    except OSError as error:
        if is_url(path):
            # The store refuses, which says nothing of the file.
            raise
        raise Unfit(f"the file cannot be read: {error.strerror or error}") from None
    if contents.columns is not None:
        _refuse_other_columns(feed, contents.columns)
    return contents


def _refuse_other_columns(feed: Feed, names: tuple[str, ...]) -> None:
    declared = feed.column_names
    missing = [name for name in declared if name not in names]
    unknown = [name for name in names if name not in declared]
    if feed.new_columns != "refuse":
        unknown = []
    if feed.new_columns == "ignore":
        # What is not read may come as often as it likes, but not beside a declared one.
        lower = {name.lower() for name in declared}
        names = tuple(name for name in names if name.lower() in lower)
    twice = sorted({name for name in names if names.count(name) > 1})
    kinds = (("is missing", missing), ("is not declared", unknown), ("comes twice", twice))
    wrong = [f"column {_listed(odd)} {what}" for what, odd in kinds if odd]
    if wrong:
        raise Unfit("; ".join(wrong))
    _refuse_twins(names)


def _refuse_twins(names: Iterable[str]) -> None:
    """Refuse names that Spark and Delta take for the same."""
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            raise Unfit(f"column {_listed([twin, name])} differ only in case: rename one of them")


def _new_columns(feed: Feed, contents: Contents) -> tuple[str, ...]:
    """The columns of the file that are added to the declared ones.

    Raises:
        Unfit: one cannot be a column of a table by its name.
    """
    if feed.new_columns != "add":
        return ()
    named = contents.named_by_records if contents.columns is None else contents.columns
    new = tuple(name for name in named if name not in feed.column_names)
    for name in new:
        _refuse_odd_name(name)
    _refuse_twins([*feed.column_names, *new])
    return new


def _refuse_odd_name(name: str) -> None:
    shown = f"column {_listed([name])} is not declared, and cannot be added"
    is_plain = len(name) <= _LONGEST_NAME and name.isprintable()
    if not is_plain or set(name) & _NOT_IN_NAMES:
        raise Unfit(
            f"{shown}: a name has at most {_LONGEST_NAME} printable characters, without spaces "
            "and ,;{}()="
        )
    try:
        Column(name=name)
    except UsageError as error:
        raise Unfit(f"{shown}. {error}") from None


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name[:_NAME_SHOWN]}'" for name in names[:_NAMES_LISTED])
    hidden = len(names) - _NAMES_LISTED
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def _error(run: Run, problems: list[_Problem]) -> NightshiftError:
    name = run.pipeline.name
    first = min(problem.day for problem in problems)
    last = max(problem.day for problem in problems)
    is_late = all(problem.is_late for problem in problems)
    what = "have not landed yet" if is_late else "cannot be ingested"
    lines = [f"{len(problems)} file(s) for {run.days} {what}:"]
    lines += [f"  - {problem}" for problem in problems[:_PROBLEMS_LISTED]]
    hidden = len(problems) - _PROBLEMS_LISTED
    if hidden > 0:
        lines.append(f"  … and {hidden} more")
    has_example = catalog.has_part("jobs.examples", run.pipeline)
    example = f" (the example's: nightshift land {name} --from {first} --to {last})"
    lines.append(
        f"Files are looked for in {run.environment.landing}. Wait for the source to drop them and "
        f"run again, or drop them yourself{example if has_example else ''}."
    )
    if is_late:
        if last < run.days.last and all(isinstance(one.why, _Missing) for one in problems):
            lines.append("If they never will: --allow-gap makes the other days without them.")
        names = chain.from_iterable(problem.names for problem in problems)
        # Feeds may share a marker.
        return NotLanded("\n".join(lines), *dict.fromkeys(names))
    lines.append(
        f"If a header has changed for good, declare it in pipelines/{name}.py: its columns, or by "
        "new_columns what becomes of those that are not declared."
    )
    refused = [problem.file for problem in problems if not problem.is_late]
    return FilesRefused("\n".join(lines), *refused)
