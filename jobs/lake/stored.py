"""Which tables there are in the lake, whatever is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyarrow import fs

from jobs.lake.file_systems import file_system
from jobs.lake.log import is_table
from pipelines import places
from pipelines.spec import has_letters_of_a_name

if TYPE_CHECKING:
    from pipelines.environment import Environment


def stored_tables(environment: Environment) -> list[str]:
    """SQL names of what is stored in the lake as a table.

    Raises:
        NightshiftError: the lake is in a bucket that is not there.
    """
    names = stored_pipelines(environment)
    return [table for name in names for table in tables_of(environment, name)]


def stored_pipelines(environment: Environment) -> list[str]:
    """Names of the folders in the lake that may hold tables.

    Raises:
        NightshiftError: the lake is in a bucket that is not there.
    """
    names = _folders(environment.lake)
    if not names and places.is_url(environment.lake):
        places.require_bucket(places.place(environment.lake))
    return names


def tables_of(environment: Environment, pipeline: str) -> list[str]:
    """SQL names of what is stored as a table of one pipeline."""
    try:
        folders = _folders(f"{environment.lake}/{pipeline}")
    except PermissionError:
        if has_letters_of_a_name(pipeline):
            raise
        # It is no pipeline's, such as `lost+found` where the lake is a disk.
        return []
    names = [f"{pipeline}.{folder}" for folder in folders]
    return [name for name in names if is_table(environment.table_path(name))]


def _folders(place: str) -> list[str]:
    system, root = file_system(place)
    entries = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
    folders = [entry.base_name for entry in entries if entry.type == fs.FileType.Directory]
    # `_staging` and `_delta_log` hold files, but are no tables.
    return [folder for folder in folders if not folder.startswith("_")]
