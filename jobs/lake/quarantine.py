"""What ingestion has refused of a feed, as the quarantine holds it: counted without a JVM."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from jobs.lake import opened
from jobs.lake.arrow_files import dataset_of
from jobs.lake.locations import partition, path
from jobs.lake.partitions import column_types
from pipelines.spec import QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from pipelines.run import Run

RULE = "rule"
"""Column of a quarantine: the row rules that moved a row there; null, or no column: ingestion."""


def moved_by_rules(run: Run, feed: str, day: date) -> int:
    """How many rows of a day row rules have moved there; none where a file of it is lost."""
    name = feed + QUARANTINE_SUFFIX
    # By the log alone, because nearly always it is so.
    if RULE not in column_types(run, name):
        return 0
    place = path(run, name)
    column = partition(run, name)
    rows = dataset_of(opened.newest(place), place, [(column, "=", day)])
    is_meant = (pc.field(column) == day) & pc.field(RULE).is_valid()
    try:
        return int(rows.count_rows(filter=is_meant))
    except FileNotFoundError:
        return 0
