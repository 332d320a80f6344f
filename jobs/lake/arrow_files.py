"""The files of a Delta table as Arrow reads them.

delta-rs hands pyarrow a file system written in Python. Threads of a scan that was not read to its
end can then still call it while the interpreter ends, which aborts or hangs the process
(apache/arrow issue 34314). Here it is Arrow's own. Delete `arrow_files`, and the `filesystem=`
arguments, when that issue is closed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow import dataset, fs

from jobs.lake.file_systems import file_system


def arrow_files(table: str) -> fs.FileSystem:
    """The file system whose root is the table of that path or URL."""
    system, root = file_system(table)
    return fs.SubTreeFileSystem(root, system)


def dataset_of(
    table: DeltaTable,
    place: str,
    only: Sequence[tuple[str, str, object]] | None = None,
    filtered: Collection[str] = (),
) -> dataset.FileSystemDataset:
    """The rows of a table, of which none is read yet.

    Args:
        table: At its version.
        place: Its path or URL.
        only: Filters by the partition, whose files alone are looked at; None: all files.
        filtered: Columns by which the reader chooses rows, as far as they are known: files without
            such values stay closed, but for floats and decimals.
    """
    schema = pa.schema(table.schema().to_arrow())
    days = table.metadata().partition_columns
    system = arrow_files(place)

    def told_by(columns: pa.Schema) -> dataset.FileSystemDataset:
        # Pruned by delta-rs, which takes no time for the files of other days.
        return table.to_pyarrow_dataset(
            filesystem=system,
            schema=columns,
            file_pruning_predicate=None if only is None else list(only),
        )

    of_days = pa.schema(map(schema.field, days))
    try:
        told = told_by(_telling(schema, {*days, *filtered}))
    except ValueError:
        # Python has no date beyond the year 9999.
        told = told_by(of_days)
    files = list(told.get_fragments())
    if any(map(_has_unknown_bound, files)):
        plain = told_by(of_days).get_fragments()
        both = zip(files, plain, strict=True)
        files = [other if _has_unknown_bound(one) else one for one, other in both]
    return dataset.FileSystemDataset(files, schema, told.format, told.filesystem)


def _has_unknown_bound(file: dataset.Fragment) -> bool:
    """Whether delta-rs could not read a bound of a file's values, such as a year beyond 9999.

    It takes null for it, by which the file would stay closed whatever is asked for.
    """
    return "null[" in str(file.partition_expression)


def _telling(schema: pa.Schema, named: Collection[str]) -> pa.Schema:
    """The columns by whose statistics a reader sees which files it needs.

    A file holds a day, so that by dates and instants alone files differ much. To prepare the
    statistics of all columns took ten times as long: half a second for a year of rows with a
    hundred features.
    """

    def tells(field: pa.Field) -> bool:
        is_named = field.name in named and _is_exact(field.type)
        return is_named or pa.types.is_temporal(field.type)

    return pa.schema(filter(tells, schema))


def _is_exact(kind: pa.DataType) -> bool:
    """Whether statistics tell between which values a column lies.

    Those of floats leave NaN and infinities out, and those of decimals are rounded to floats: by
    them files would stay closed that hold what is asked for.
    """
    return not (pa.types.is_floating(kind) or pa.types.is_decimal(kind))
