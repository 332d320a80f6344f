"""What landed files said when they were last read, by the mark that each had.

A folder of files that is moved, restored or given to another owner marks each of them anew, and
none says anything else. Without this every night would read all of them again, for good.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.lake import publications
from jobs.services.secrets import private_folder

_WAIT_SECONDS = 5.0
"""For another process that keeps what it has read."""
_NAME = "landed_files.db"
_MAKE = "CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, mark INTEGER, digest TEXT)"


class ReadBefore:
    """Digests of files, kept in a folder of the home.

    They are worth a reading and no more: where they cannot be kept, or looked up, files are read.
    """

    def __init__(self, folder: Path) -> None:
        self._database = folder / _NAME

    def digest(self, file: Path, marked: int) -> str:
        """SHA-256 of what a file holds.

        Args:
            file: On a disk or in a store.
            marked: Its mark (`pipelines.places.mark`), taken before: what is written since then
                has another one.

        Raises:
            OSError: it cannot be read.
        """
        name = str(file)
        mark, digest = self._kept.get(name, (None, ""))
        if mark == marked:
            return digest
        digest = publications.digest_of_file(file)
        self._kept[name] = (marked, digest)
        self._ask("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", name, marked, digest)
        return digest

    @cached_property
    def _kept(self) -> dict[str, tuple[int, str]]:
        """By file its mark and its digest. Read once: a lake may have a thousand such files."""
        rows = self._ask("SELECT name, mark, digest FROM files")
        return {name: (mark, digest) for name, mark, digest in rows}

    def _ask(self, statement: str, *values: object) -> list[Any]:
        try:
            private_folder(self._database.parent)
            with closing(sqlite3.connect(self._database, timeout=_WAIT_SECONDS)) as opened, opened:
                # What a crash takes away is read again.
                opened.execute("PRAGMA synchronous = OFF")
                opened.execute(_MAKE)
                return opened.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError):
            return []
