"""What nobody needs any more: which it is, and the folders of a home from which it is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.places import is_url


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What is old enough to go."""

    before: datetime
    """What was last written before it."""
    is_dry: bool
    """Only tell: nothing is deleted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaned:
    """What became of one kind of things; after a dry run, what would have."""

    what: str
    kept: int | None
    """How many stay, without those that could not be deleted; None: nobody has counted."""
    deleted: int
    freed: int | None = None
    """Bytes; None: nobody knows."""
    note: str = ""
    fault: Exception | None = None
    """Why nothing, or not all that is old, could be cleaned."""

    @classmethod
    def failed(cls, what: str, fault: Exception) -> Cleaned:
        """What could not be cleaned."""
        return cls(what=what, kept=None, deleted=0, note="failed", fault=fault)


def clean(what: str, entries: Iterable[Path], rule: Rule) -> Cleaned:
    """Delete files, and folders in which nothing was written since; counts files.

    A link is left alone. Of what cannot be deleted the first fault is told, and the others go.
    """
    kept = 0
    deleted = 0
    freed = 0
    fault: OSError | None = None
    for entry in entries:
        try:
            files = _objects(entry) if is_url(entry) else _files(entry)
            if entry.is_symlink() or not _is_old(entry, files, rule):
                kept += len(files)
                continue
            if not rule.is_dry:
                _remove(entry)
        except FileNotFoundError:
            # Another process may take it away at any moment.
            continue
        except OSError as error:
            if is_url(entry):
                # A store that is away is so for all of them.
                raise
            fault = fault or error
            continue
        deleted += len(files)
        freed += sum(file.size for file in files)
    note = "failed" if fault else ""
    return Cleaned(
        what=what,
        kept=kept,
        deleted=deleted,
        freed=freed,
        note=note,
        fault=fault,
    )


class _File(NamedTuple):
    size: int
    """Bytes."""
    written: float
    """Seconds since 1970."""


def _files(entry: Path) -> list[_File]:
    paths = [entry]
    if not entry.is_file():
        below = entry.rglob("*")
        paths = [path for path in below if path.is_symlink() or path.is_file()]
    found = [path.lstat() for path in paths]
    return [_File(size=one.st_size, written=one.st_mtime) for one in found]


def _objects(entry: Path) -> list[_File]:
    """The files of a folder in an object store, by one listing."""
    folder: Any = entry
    found = folder.fs.find(folder.path, detail=True).values()
    files = []
    for one in found:
        written = one["LastModified"].timestamp()
        files.append(_File(size=one["size"], written=written))
    return files


def _is_old(entry: Path, files: Iterable[_File], rule: Rule) -> bool:
    written = [file.written for file in files]
    if not is_url(entry):
        # Of a folder, the last change in it.
        written.append(entry.lstat().st_mtime)
    return max(written, default=0.0) < rule.before.timestamp()


def _remove(entry: Path) -> None:
    if is_url(entry):
        folder: Any = entry
        folder.fs.rm(folder.path, recursive=True)
    elif entry.is_file():
        entry.unlink()
    else:
        # A kill leaves a part of it, which the next time is as old.
        shutil.rmtree(entry)
