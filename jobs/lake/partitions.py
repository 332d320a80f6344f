"""Which days a published table has rows for, by Delta's log alone: no Spark, no data read."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from deltalake import DeltaTable

from jobs.lake.locations import exists, path

if TYPE_CHECKING:
    from pipelines.run import Run


def published_days(run: Run, name: str) -> list[date]:
    """The partition dates with published rows, oldest first.

    None when the table was never published.
    """
    if not exists(run, name):
        return []
    days: set[date] = set()
    for partition in DeltaTable(path(run, name)).partitions():
        # The log writes partition values as text, and null for rows without a day.
        values = [value for value in partition.values() if value is not None]
        days.update(map(date.fromisoformat, values))
    return sorted(days)
