"""Which tables there are in the lake, whatever is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyarrow import fs

from jobs.lake.file_systems import file_system
from jobs.lake.log import is_table
from pipelines import places

if TYPE_CHECKING:
    from pipelines.environment import Environment


def stored_tables(environment: Environment) -> list[str]:
    """SQL names of what is stored in the lake as a table.

    Raises:
        NightshiftError: the lake is in a bucket that is not there.
    """
    system, root = file_system(environment.lake)
    names = []
    pipelines = _folders(system, root)
    if not pipelines and places.is_url(environment.lake):
        places.require_bucket(places.place(environment.lake))
    for pipeline in pipelines:
        for table in _folders(system, pipeline.path):
            name = f"{pipeline.base_name}.{table.base_name}"
            if is_table(environment.table_path(name)):
                names.append(name)
    return names


def _folders(system: fs.FileSystem, place: str) -> list[fs.FileInfo]:
    entries = system.get_file_info(fs.FileSelector(place, allow_not_found=True))
    folders = [entry for entry in entries if entry.type == fs.FileType.Directory]
    # `_staging` and `_delta_log` hold files, but are no tables.
    return [folder for folder in folders if not folder.base_name.startswith("_")]
