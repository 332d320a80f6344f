"""What landed files said when they were last read, by the mark that each had.

A folder of files that is moved, restored or given to another owner marks each of them anew, and
none says anything else. Without this every night would read all of them again, for good.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from jobs.lake import publications
from jobs.services.secrets import private_folder

_WAIT_SECONDS = 5.0
"""For another process that keeps what it has read."""
_NAME = "landed_files.db"


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
        known = self._asked(lambda opened: _known(opened, file, marked))
        if known:
            return known
        digest = publications.digest_of_file(file)
        self._asked(lambda opened: _keep(opened, file, marked, digest))
        return digest

    def _asked(self, question: Callable[[sqlite3.Connection], str | None]) -> str | None:
        try:
            private_folder(self._database.parent)
            with closing(sqlite3.connect(self._database, timeout=_WAIT_SECONDS)) as opened, opened:
                # What a crash takes away is read again.
                opened.execute("PRAGMA synchronous = OFF")
                opened.execute(
                    "CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, mark INTEGER, "
                    "digest TEXT)"
                )
                return question(opened)
        except (sqlite3.Error, OSError):
            return None


def _known(opened: sqlite3.Connection, file: Path, marked: int) -> str | None:
    found = opened.execute(
        "SELECT digest FROM files WHERE name = ? AND mark = ?", (str(file), marked)
    ).fetchone()
    return str(found[0]) if found else None


def _keep(opened: sqlite3.Connection, file: Path, marked: int, digest: str) -> None:
    opened.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (str(file), marked, digest))
