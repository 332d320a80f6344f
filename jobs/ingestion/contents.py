"""What a landed file says about itself, read without Spark."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from jobs.ingestion.open_texts import Within
from pipelines.landing import Stamp


class Unfit(Exception):
    """Why a file cannot be read at all, or is none of its feed's format."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a line of a file begins."""

    byte: int
    line: int
    """1-based."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a format finds out about a file before Spark reads it."""

    columns: tuple[str, ...] | None
    """Names of the columns, in the file's order; None where each record names its own."""
    named_by_records: tuple[str, ...] = ()
    """Where each record names its own: those of good records that are not declared, each once.
    Looked for only where such columns are added."""
    layout: Hashable
    """Files of one layout are read together."""
    records: int
    """Records in the file, good or bad, counted from its bytes or its footer."""
    marks: tuple[Mark, ...] = ()
    """Of a large file of lines: its first record, and some that follow, at which it can be
    split."""
    within_texts: tuple[Within, ...] = ()
    """Lines that are no records, whatever they look like."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """One landed file that holds the declared columns."""

    path: Path
    source_file: str
    """The path below the landing folder, as rows and messages show it."""
    day: date
    """The `landed_date` of its rows."""
    layout: Hashable
    """Files of one layout are read together."""
    records: int
    """Records in the file, good or bad."""
    new_columns: tuple[str, ...] = ()
    """Columns that are added to the declared ones."""
    marks: tuple[Mark, ...] = ()
    """Of a large file of lines: its first record, and some that follow, at which it is split; none:
    it is read as a whole."""
    within_texts: tuple[Within, ...] = ()
    """Lines that are no records, whatever they look like."""
    stamp: Stamp
    """Of the file when all of this was read in it."""
