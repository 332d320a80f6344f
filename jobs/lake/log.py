"""The log of a Delta table, commit by commit."""

from __future__ import annotations

import json
from typing import Any

from pyarrow import fs

Action = dict[str, Any]
"""Such as `{"add": {"path": …}}`."""


def actions(table: str, version: int) -> list[Action]:
    """What the commit that made a version of the table says.

    Args:
        table: The table's path or URL.
        version: Of the table.

    Raises:
        FileNotFoundError: there is no such commit, or its file has been deleted.
    """
    # Read here, because `DeltaTable.history` numbers what it finds back from its own version: while
    # others commit, these are other numbers.
    system, root = fs.FileSystem.from_uri(table)
    with system.open_input_stream(f"{root}/_delta_log/{version:020}.json") as file:
        return [json.loads(line) for line in file.read().splitlines()]


def are_there(table: str, *versions: int) -> list[bool]:
    """Of each version whether the file of its commit is there.

    Args:
        table: The table's path or URL.
        versions: Of the table.
    """
    system, root = fs.FileSystem.from_uri(table)
    places = [f"{root}/_delta_log/{version:020}.json" for version in versions]
    return [one.type == fs.FileType.File for one in system.get_file_info(places)]
