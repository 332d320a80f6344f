"""What nobody needs any more: which it is, and the folders of a home from which it is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


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
    """How many stay; None: nobody has counted."""
    deleted: int
    freed: int | None = None
    """Bytes; None: nobody knows."""
    note: str = ""
    fault: Exception | None = None
    """Why nothing could be cleaned."""

    @classmethod
    def failed(cls, what: str, fault: Exception) -> Cleaned:
        """What could not be cleaned."""
        return cls(what=what, kept=None, deleted=0, note="failed", fault=fault)


def clean(what: str, entries: Iterable[Path], rule: Rule) -> Cleaned:
    """Delete files, and folders in which nothing was written since; counts files.

    A link is left alone.
    """
    kept = 0
    deleted = 0
    freed = 0
    for entry in entries:
        # Another process may take it away at any moment.
        with suppress(FileNotFoundError):
            files = _files(entry)
            size = sum(file.lstat().st_size for file in files)
            if entry.is_symlink() or not _is_old([entry, *files], rule):
                kept += len(files)
                continue
            if not rule.is_dry:
                _remove(entry)
            deleted += len(files)
            freed += size
    return Cleaned(what=what, kept=kept, deleted=deleted, freed=freed)


def _files(entry: Path) -> list[Path]:
    if entry.is_file():
        return [entry]
    return [path for path in entry.rglob("*") if path.is_symlink() or path.is_file()]


def _is_old(paths: Iterable[Path], rule: Rule) -> bool:
    written = (path.lstat().st_mtime for path in paths)
    return max(written) < rule.before.timestamp()


def _remove(entry: Path) -> None:
    if entry.is_file():
        entry.unlink()
    else:
        # A kill leaves a part of it, which the next time is as old.
        shutil.rmtree(entry)
