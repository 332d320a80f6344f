"""The files of a Delta table as Arrow reads them.

delta-rs hands pyarrow a file system written in Python. Threads of a scan that was not read to its
end can then still call it while the interpreter ends, which aborts or hangs the process
(apache/arrow issue 34314). Here it is Arrow's own. Delete `arrow_files`, and the `filesystem=`
arguments, when that issue is closed.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow import dataset, fs


def arrow_files(table: str) -> fs.FileSystem:
    """The file system whose root is the table of that path or URL."""
    system, root = fs.FileSystem.from_uri(table)
    return fs.SubTreeFileSystem(root, system)


def dataset_of(
    table: DeltaTable,
    place: str,
    only: list[tuple[str, str, object]] | None = None,
    filtered: Collection[str] = (),
) -> dataset.FileSystemDataset:
    """The rows of a table, of which none is read yet.

    Args:
        table: At its version.
        place: Its path or URL.
        only: Filters by the partition, whose files alone are looked at; None: all files.
        filtered: Columns by which the reader chooses rows, as far as they are known.
    """
    schema = pa.schema(table.schema().to_arrow())
    # Pruned by delta-rs, which takes no time for the files of other days.
    told = table.to_pyarrow_dataset(
        filesystem=arrow_files(place),
        schema=_telling(schema, {*table.metadata().partition_columns, *filtered}),
        file_pruning_predicate=only,
    )
    files = list(told.get_fragments())
    return dataset.FileSystemDataset(files, schema, told.format, told.filesystem)


def _telling(schema: pa.Schema, named: Collection[str]) -> pa.Schema:
    """The columns by whose statistics a reader sees which files it needs.

    A file holds a day, so that by dates and instants alone files differ much. To prepare the
    statistics of all columns took ten times as long: half a second for a year of rows with a
    hundred features.
    """
    return pa.schema(
        field for field in schema if field.name in named or pa.types.is_temporal(field.type)
    )
