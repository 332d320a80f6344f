"""How many rows and bytes of tables and landed files this process has read and written.

Counted by what logs, footers and manifests tell: no row is read for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.lake.data_files import DayFile

_LOCK = Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Amounts:
    """Rows, and the sizes in bytes of the files that hold them."""

    rows_read: int = 0
    bytes_read: int = 0
    rows_written: int = 0
    bytes_written: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            rows_read=self.rows_read + other.rows_read,
            bytes_read=self.bytes_read + other.bytes_read,
            rows_written=self.rows_written + other.rows_written,
            bytes_written=self.bytes_written + other.bytes_written,
        )


class _Counted:
    """Since the process began, or since `start` was last called."""

    so_far = Amounts()


def start() -> None:
    """Count from nothing."""
    with _LOCK:
        _Counted.so_far = Amounts()


def counted() -> Amounts:
    """What was counted since `start`."""
    return _Counted.so_far


def add_read(rows: int, size: int) -> None:
    """Count rows that are read, and the bytes of their files."""
    _add(Amounts(rows_read=rows, bytes_read=size))


def add_written(rows: int, size: int) -> None:
    """Count rows that were written, and the bytes of their files."""
    _add(Amounts(rows_written=rows, bytes_written=size))


def add_files_read(files: Iterable[DayFile]) -> None:
    """Count what files of a table hold, as its log tells it."""
    for file in files:
        add_read(file.rows, file.size)


def _add(more: Amounts) -> None:
    # Stages read and write several tables at once.
    with _LOCK:
        _Counted.so_far += more
