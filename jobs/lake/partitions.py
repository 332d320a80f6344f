"""What a published table is by Delta's log alone, its days and columns: no Spark, no data read."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

from jobs.lake import opened
from jobs.lake.locations import exists, path

if TYPE_CHECKING:
    from pipelines.run import Run


_LACKING = ("nullable", "containsNull")
"""What Delta says of a part of a type that may lack a value."""


def column_types(run: Run, name: str) -> dict[str, str]:
    """The columns of a published table, each with its type as Delta writes it.

    None when the table was never published.
    """
    if not exists(run, name):
        return {}
    table = opened.newest(path(run, name))
    schema = json.loads(table.schema().to_json())
    return {field["name"]: str(field["type"]) for field in schema["fields"]}


def published_days(run: Run, name: str) -> list[date]:
    """The partition dates with published rows, oldest first.

    None when the table was never published.
    """
    if not exists(run, name):
        return []
    days: set[date] = set()
    for partition in opened.newest(path(run, name)).partitions():
        # The log writes partition values as text, and null for rows without a day.
        values = [value for value in partition.values() if value is not None]
        days.update(map(date.fromisoformat, values))
    return sorted(days)


def nullable(kind: Any) -> Any:
    """A type as Delta writes it, any part of which may lack a value.

    Spark says of a list, or of a part of a column, that none does, as long as it can tell by the
    query: another one that gives the same type says otherwise.
    """
    if isinstance(kind, list):
        return [nullable(one) for one in kind]
    if not isinstance(kind, dict):
        return kind
    told = {name: nullable(part) for name, part in kind.items()}
    return {name: name in _LACKING or part for name, part in told.items()}
