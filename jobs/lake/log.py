"""The log of a Delta table, commit by commit."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from deltalake import DeltaTable
from pyarrow import fs

from jobs.lake.file_systems import file_system
from pipelines.places import is_url
from pipelines.spec import has_letters_of_a_name

_CHECKPOINT = ".checkpoint."
"""In the name of a file that holds all that the commits up to it say."""
_MADE = re.compile(r"\d{20}\.(json|checkpoint\..*parquet)")
"""Name of a file that tells of a version."""
Action = dict[str, Any]
"""Such as `{"add": {"path": …}}`."""
Mark = tuple[int, int]
"""Of a commit: the size of its file (bytes), and when that was written (ns)."""


def is_table(place: str) -> bool:
    """Whether there is a Delta table, at that path or URL."""
    if is_url(place):
        return DeltaTable.is_deltatable(place)
    # The library reads the whole log's folder: of a lake of twenty tables with some thousand
    # commits that took 44 ms, and each question in SQL asks it of all.
    try:
        with os.scandir(f"{place}/_delta_log") as files:
            return any(_MADE.fullmatch(file.name) for file in files)
    except FileNotFoundError:
        return False


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
    system, root = file_system(table)
    with system.open_input_stream(_file(root, version)) as file:
        return [json.loads(line) for line in file.read().splitlines()]


def are_there(table: str, *versions: int) -> list[bool]:
    """Of each version whether the file of its commit is there, and says something.

    Args:
        table: The table's path or URL.
        versions: Of the table.
    """
    return [bool(size) for size in sizes(table, *versions)]


def sizes(table: str, *versions: int) -> list[int | None]:
    """Of each version how many bytes the file of its commit has; None where there is no file.

    A failure of the power can leave one without any, which readers take for a commit that changed
    nothing.

    Args:
        table: The table's path or URL.
        versions: Of the table.
    """
    system, root = file_system(table)
    found = system.get_file_info([_file(root, version) for version in versions])
    return [one.size if one.type == fs.FileType.File else None for one in found]


def newest_from(table: str, version: int) -> int | None:
    """The last of the versions that follow one another from one on; None: that one is not there.

    By a look at each, while a table takes the longer to be opened the more commits its log has.

    Args:
        table: The table's path or URL.
        version: Of the table.
    """
    own, following = sizes(table, version, version + 1)
    if not own:
        return None
    # A commit without a byte is one that changed nothing, and others may follow it.
    while following is not None:
        version += 1
        (following,) = sizes(table, version + 1)
    return version


def marks(table: str, *versions: int) -> list[Mark | None]:
    """Of each version what tells its commit from any other of that number; None: there is none.

    A table that was deleted and made again has the same numbers.

    Args:
        table: The table's path or URL.
        versions: Of the table.
    """
    system, root = file_system(table)
    found = system.get_file_info([_file(root, version) for version in versions])
    is_there = fs.FileType.File
    return [(one.size, one.mtime_ns) if one.type == is_there else None for one in found]


def broken(lake: str) -> str | None:
    """A commit of a pipeline's table that cannot be read, by its path; None: all can.

    Args:
        lake: Path or URL of the folder with the tables of all pipelines.
    """
    system, root = file_system(lake)
    folders, files = fs.FileType.Directory, fs.FileType.File
    for pipeline in _below(system, root, folders):
        if not has_letters_of_a_name(pipeline.rpartition("/")[2]):
            # Nobody makes anew what is in it, and it may be closed to us, as `lost+found` is.
            continue
        for table in _below(system, pipeline, folders):
            for file in reversed(_below(system, f"{table}/_delta_log", files)):
                if _CHECKPOINT in file:
                    # A reader begins there: what was before it is asked by nobody.
                    break
                if file.endswith(".json") and not _is_readable(system, file):
                    return file
    return None


def _file(root: str, version: int) -> str:
    return f"{root}/_delta_log/{version:020}.json"


def _below(system: fs.FileSystem, folder: str, kind: fs.FileType) -> list[str]:
    """The paths of what a folder holds of that kind, in order; nothing where there is none."""
    found = system.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return sorted(one.path for one in found if one.type == kind)


def _is_readable(system: fs.FileSystem, path: str) -> bool:
    with system.open_input_stream(path) as file:
        lines = file.read().splitlines()
    try:
        for line in lines:
            json.loads(line)
    except ValueError:
        return False
    # A commit says something, always.
    return bool(lines)
