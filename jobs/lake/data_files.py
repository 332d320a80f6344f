"""The Parquet files that Spark has written, as a commit of Delta names them.

Their footers tell how many rows they hold, and between which values each column lies: readers of
the table skip files by that. Bounds are told of all columns or of none: pyarrow's view of a Delta
table takes a bound that lacks for null, and loses every row (seen with deltalake 1.6.6).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from jobs.lake.file_systems import file_system
from jobs.lake.log import actions, are_there
from pipelines.errors import NightshiftError
from pipelines.places import is_url

if TYPE_CHECKING:
    from deltalake import DeltaTable

_DAY_FOLDER = re.compile(r"/[^/=]+=(\d{4}-\d{2}-\d{2})/")
_LONGEST_TEXT = 64
"""Characters of a text that is a bound: longer ones would swell the log and help nobody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """One file of one day."""

    path: str
    """Below the table's folder."""
    day: str
    rows: int
    size: int
    """Bytes."""
    modified: int
    """Milliseconds since 1970."""
    stats: str
    """JSON, as Delta keeps it."""

    def to_json(self) -> dict[str, Any]:
        """What a staging keeps of it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DayFile:
    """A file of a table at one version, with rows of one day."""

    day: date
    """Of the partition: the file itself does not say it."""
    path: str
    """Below the table."""
    rows: int
    size: int
    """Bytes."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the log names it by a whole path, as that of a copy does."""
        folder, _, _ = self.path.rpartition("/")
        return folder.startswith("/") or ":" in folder


def day_files(table: DeltaTable, is_wanted: Callable[[date], bool]) -> Iterator[DayFile]:
    """The files of some days, as the log of a table tells them.

    Args:
        table: One that is partitioned by a date.
        is_wanted: Whether a day is.
    """
    log = pa.table(table.get_add_actions(flatten=True))
    if not len(log):
        return
    (column,) = table.metadata().partition_columns
    names = (f"partition.{column}", "path", "num_records", "size_bytes")
    columns = [log[one].to_pylist() for one in names]
    for day, name, rows, size in zip(*columns, strict=True):
        if is_wanted(day):
            # Of a table of another program the log may tell no numbers.
            path = unquote(name)
            yield DayFile(day=day, path=path, rows=rows or 0, size=size or 0)


def days_that_lost_files(table: DeltaTable, place: str, days: Collection[date]) -> set[date]:
    """Those of the days of which a file is not there that the log names.

    Args:
        table: One that is partitioned by a date.
        place: Its path or URL.
        days: Those that are asked about.
    """
    if not days:
        return set()
    files = [file for file in day_files(table, days.__contains__) if not file.is_elsewhere]
    lost = gone(place, [file.path for file in files])
    return {file.day for file in files if file.path in lost}


def gone(place: str, files: Sequence[str]) -> list[str]:
    """Those of the files that are not there.

    Args:
        place: Path or URL of a table.
        files: Paths below it.
    """
    system, root = file_system(place)
    found = system.get_file_info([f"{root}/{file}" for file in files])
    pairs = zip(files, found, strict=True)
    return [file for file, info in pairs if info.type == fs.FileType.NotFound]


def found_in(table: str, folder: str) -> list[DataFile]:
    """The files below a folder of a table, by path.

    Args:
        table: The table's path or URL.
        folder: Where Spark wrote them, below the table, partitioned by day. Where it has a log,
            those count that this names: a task that died has left others.

    Raises:
        NightshiftError: a file belongs to no day, because its rows lack the date of the partition.
    """
    system, root = file_system(table)
    found = sorted(_listed(system, f"{root}/{folder}"), key=lambda info: info.path)
    data = [info for info in found if info.path.endswith(".parquet")]
    if has_log(f"{table}/{folder}"):
        added = [one["add"]["path"] for one in actions(f"{table}/{folder}", 0) if "add" in one]
        named = {f"{root}/{folder}/{unquote(path)}" for path in added}
        data = [info for info in data if info.path in named]
    return [_read(system, root, info) for info in data]


def altered(table: str, folder: str, files: Iterable[DataFile]) -> list[str]:
    """Those of the files that are not there any more as `found_in` has found them, by path.

    Args:
        table: The table's path or URL.
        folder: In which they were found, below the table.
        files: Some of those that were found.
    """
    system, root = file_system(table)
    there = {}
    for info in _listed(system, f"{root}/{folder}"):
        there[info.path.removeprefix(f"{root}/")] = (info.size, _milliseconds(info))
    expected = {one.path: (one.size, one.modified) for one in files}
    return [name for name, found in expected.items() if there.get(name) != found]


def _listed(system: fs.FileSystem, folder: str) -> list[fs.FileInfo]:
    """What is below a folder, in one request of an object store."""
    # It has no folder where no file is.
    below = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    found: list[fs.FileInfo] = system.get_file_info(below)
    return found


def _milliseconds(info: fs.FileInfo) -> int:
    """When it was last written, as a commit tells it."""
    return (info.mtime_ns or 0) // 1_000_000


def has_log(folder: str) -> bool:
    """Whether Spark wrote the files of a folder as a Delta table.

    Args:
        folder: Its path or URL; on a disk none is.
    """
    return is_url(folder) and are_there(folder, 0) == [True]


def _read(system: fs.FileSystem, root: str, info: fs.FileInfo) -> DataFile:
    path = info.path.removeprefix(f"{root}/")
    day = _DAY_FOLDER.search(path)
    if day is None:
        raise NightshiftError(
            f"{root}: rows without the date by which the table is partitioned were written to "
            f"{path}. Nothing of them was published."
        )
    metadata = pq.read_metadata(info.path, filesystem=system)
    return DataFile(
        path=path,
        day=day.group(1),
        rows=metadata.num_rows,
        size=info.size,
        modified=_milliseconds(info),
        stats=json.dumps(_stats(metadata)),
    )


def _stats(metadata: pq.FileMetaData) -> dict[str, Any]:
    least: dict[str, Any] = {}
    most: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for column in range(metadata.num_columns):
        name = metadata.schema.column(column).path
        groups = range(metadata.num_row_groups)
        chunks = [metadata.row_group(group).column(column) for group in groups]
        found = _of_column(chunks)
        if found is None:
            return {"numRecords": metadata.num_rows}
        nulls[name] = found.nulls
        if found.nulls < metadata.num_rows:
            least[name], most[name] = found.least, found.most
    return {
        "numRecords": metadata.num_rows,
        "minValues": least,
        "maxValues": most,
        "nullCount": nulls,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bounds:
    """Of one column; without a value there is no bound."""

    nulls: int
    least: Any = None
    most: Any = None


def _of_column(chunks: list[pq.ColumnChunkMetaData]) -> _Bounds | None:
    """What the row groups tell together; None when one of them leaves something out."""
    told = [chunk.statistics for chunk in chunks]
    if any(one is None or not one.has_null_count for one in told):
        return None
    nulls = sum(one.null_count for one in told)
    # A row group of nulls alone has no bounds, and needs none.
    valued = [one for one in told if one.num_values > 0]
    if not valued:
        return _Bounds(nulls=nulls)
    if not all(one.has_min_max for one in valued):
        return None
    try:
        least = min(one.min for one in valued)
        bounds = _as_bounds(least, max(one.max for one in valued))
    except (OverflowError, ValueError):
        # Python has no such day: 9999-12-31T23:59:59-05:00 is one of the year 10000.
        return None
    return bounds and _Bounds(nulls=nulls, least=bounds[0], most=bounds[1])


def _as_bounds(least: Any, most: Any) -> tuple[Any, Any] | None:
    """Both as JSON holds them, no narrower than they are; None for types that are left out."""
    if isinstance(least, bool):
        return None
    if isinstance(least, int):
        return least, most
    if isinstance(least, float):
        return (least, most) if math.isfinite(least) and math.isfinite(most) else None
    if isinstance(least, str):
        return (least, most) if _is_plain(least) and _is_plain(most) else None
    if isinstance(least, datetime):
        # Without a zone it is no instant, and its bounds would be written otherwise.
        return (_instant(least), _instant(most, up=True)) if least.tzinfo else None
    return (str(least), str(most)) if isinstance(least, date) else None


def _is_plain(text: str) -> bool:
    # Programs differ in how they order other letters.
    return len(text) <= _LONGEST_TEXT and text.isascii()


def _instant(moment: datetime, *, up: bool = False) -> str:
    """Delta keeps milliseconds: the bounds are rounded away from each other."""
    rounded = moment.astimezone(UTC)
    microseconds = rounded.microsecond % 1000
    rounded -= timedelta(microseconds=microseconds)
    if up and microseconds:
        rounded += timedelta(milliseconds=1)
    return rounded.isoformat(timespec="milliseconds").replace("+00:00", "Z")
