"""What waits for a verdict: data files in a table's own folder that no commit names yet.

Spark writes the files of a staging into a folder of their own, which nobody writes again. So the
files that the gate judges are the files that are published, byte for byte. A small manifest tells
which staging belongs to the days of a run; the last one written counts. In an object store that
folder is a Delta table of one version, which nobody else reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pyarrow import fs
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from jobs.lake import amounts, frames
from jobs.lake.content import fingerprint
from jobs.lake.data_files import DataFile, found_in, has_log
from jobs.lake.file_systems import file_system
from jobs.lake.locations import STAGED_BELOW, maker, manifests, partition, path, sql_name
from jobs.lake.partitions import nullable
from jobs.lake.publications import Input, Origin, next_attempt
from jobs.spark.session import connect
from pipelines.days import Days
from pipelines.errors import NightshiftError
from pipelines.places import is_url

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from pipelines.run import Run

_Inputs = dict[date, tuple[Input, ...]]
_NAME = re.compile(r'"name":"(.*?)"')
"""Of a column, in the JSON of a schema."""
_NOT_IN_NAMES = frozenset(" ,;{}()\n\t=")
_PLAIN = {"delta.columnMapping.mode": "none", "delta.randomizeFilePrefixes": "false"}
"""So that files lie in folders named by their day, whatever a site's Spark has for its tables."""
STAGINGS_KEPT = 20
"""Of each table; the newest, so that a single stage can be run again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Staging:
    """Rows of some days that wait to be published, or have been."""

    folder: str
    """Below the table."""
    attempt: int
    schema: dict[str, Any]
    """Of the rows with the partition column, as Spark and Delta both write it in JSON."""
    days: tuple[date, ...]
    """Partition dates that the rows replace, ascending."""
    files: tuple[DataFile, ...]
    checksums: dict[date, str]
    """By day that has rows; of the others it is that of no rows."""
    origin: Origin

    @property
    def span(self) -> Days:
        """From the first of its days to the last."""
        return Days(self.days[0], self.days[-1])

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(file.rows for file in self.files)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)

    def rows_of(self, day: date) -> int:
        """How many there are of one day."""
        return sum(file.rows for file in self.files if file.day == str(day))

    def checksum(self, day: date) -> str:
        """What the rows of a day say."""
        return self.checksums.get(day, "0")


def write(
    run: Run,
    name: str,
    frame: DataFrame,
    days: Collection[date],
    origin: Origin,
) -> Staging:
    """Have Spark write the rows that this run wants to publish.

    Args:
        run: Who stages them.
        name: The table.
        frame: The rows.
        days: Partition dates that they replace.
        origin: How they were made.

    Raises:
        NightshiftError: a row belongs to none of the days.
    """
    column = partition(run, name)

    def by_spark(place: str) -> None:
        # A day is one file, or as many as its size asks for where Spark adapts its plans: then the
        # hint takes the place of the repartition, and elsewhere it says nothing.
        by_day = frame.repartition(column).hint("rebalance", F.col(column))
        rows = by_day.write.partitionBy(column)
        if is_url(place) and _is_writable_by_delta(frame.schema):
            # Spark renames each file twice once it is written, and an object store renames by a
            # copy. Those of a Delta table are written in their place, and its log names them.
            rows.format("delta").options(**_PLAIN).save(place)
        else:
            rows.parquet(place)

    return write_by(run, name, by_spark, frame.schema, days, origin)


def write_by(
    run: Run,
    name: str,
    writing: Callable[[str], None],
    schema: StructType,
    days: Collection[date],
    origin: Origin,
) -> Staging:
    """Have the rows written that this run wants to publish.

    See `write` for what is not told here.

    Args:
        writing: Writes Parquet files into the folder of that path or URL, in a folder a day, as
            Spark names them: `<partition>=<day>/`.
        schema: Of the rows, with the partition column.
    """
    attempt = run.attempt or next_attempt(run, [name])
    # Of its own, whoever else stages the same days: a folder is written once.
    folder = f"{STAGED_BELOW}/{min(days)}_{max(days)}_{attempt}_{uuid4().hex[:8]}"
    writing(f"{path(run, name)}/{folder}")
    staging = Staging(
        folder=folder,
        attempt=attempt,
        schema=_nullable(schema),
        days=tuple(sorted(days)),
        files=tuple(found_in(path(run, name), folder)),
        checksums={},
        origin=origin,
    )
    amounts.add_written(staging.rows, staging.size)
    _refuse_other_days(run, name, staging)
    staging.checksums.update(_checksums(run, name, staging))
    return staging


def keep(run: Run, name: str, staging: Staging) -> None:
    """Make it the staging of the run's days."""
    origin = staging.origin
    checksums = {str(day): checksum for day, checksum in staging.checksums.items()}
    known = {str(day): str(night) for day, night in origin.known.items()}
    inputs = []
    for day, of in origin.inputs.items():
        inputs.append([str(day), *map(asdict, of)])
    told = {
        **asdict(staging),
        "checksums": checksums,
        "inputs": inputs,
        "known": known,
        "origin": origin.definition,
    }
    system, place = _manifest(run, name)
    system.create_dir(place.rpartition("/")[0])
    # Beside it, then in its place: nobody reads half of it.
    fresh = f"{place}.{staging.folder.rpartition('_')[2]}"
    with system.open_output_stream(fresh) as file:
        file.write(json.dumps(told, default=str).encode())
    system.move(fresh, place)


def find(run: Run, name: str) -> Staging | None:
    """The staging of the run's days; None when there is none."""
    system, place = _manifest(run, name)
    try:
        with system.open_input_stream(place) as file:
            told = json.loads(file.read())
    except FileNotFoundError:
        return None
    checksums = {date.fromisoformat(day): value for day, value in told["checksums"].items()}
    # A staging of an older version of this file tells of none.
    known = told.get("known", {}).items()
    origin = Origin(
        definition=told["origin"],
        inputs=_inputs(told["inputs"]),
        known={date.fromisoformat(day): date.fromisoformat(night) for day, night in known},
    )
    return Staging(
        folder=told["folder"],
        attempt=told["attempt"],
        schema=told["schema"],
        days=tuple(map(date.fromisoformat, told["days"])),
        files=tuple(DataFile(**file) for file in told["files"]),
        checksums=checksums,
        origin=origin,
    )


def require(run: Run, name: str) -> Staging:
    """The staging of the run's days.

    Raises:
        NightshiftError: there is none; the message says which stage to run.
    """
    staging = find(run, name)
    if staging is None:
        raise NightshiftError(
            f"Nothing is staged of {sql_name(run, name)} for {run.days}. "
            f"Run its stage first: --stage {maker(run, name)}"
        )
    return staging


def forget(run: Run, name: str) -> None:
    """Take back the staging of the run's days, such as refused rows; its files stay unnamed."""
    system, place = _manifest(run, name)
    if system.get_file_info(place).type == fs.FileType.File:
        system.delete_file(place)


def frame(run: Run, name: str, staging: Staging) -> DataFrame:
    """The staged rows, read from exactly the files of the staging."""
    amounts.add_read(staging.rows, staging.size)
    return _frame(run, name, staging)


def prune(run: Run) -> None:
    """Forget stagings of long ago."""
    for table in run.pipeline.tables:
        system, place = _manifest(run, table.name)
        below = fs.FileSelector(place.rpartition("/")[0], allow_not_found=True)
        found = system.get_file_info(below)
        # An object store may tell no time.
        for old in sorted(found, key=lambda info: info.mtime_ns or 0)[:-STAGINGS_KEPT]:
            system.delete_file(old.path)


def _frame(run: Run, name: str, staging: Staging) -> DataFrame:
    schema = StructType.fromJson(staging.schema)
    table = path(run, name)
    folder = f"{table}/{staging.folder}"
    if staging.files and has_log(folder):
        rows = connect(run.environment).read.format("delta").load(folder)
        return frames.with_columns(rows, schema.names)
    files = [f"{table}/{file.path}" for file in staging.files]
    return frames.of_files(run.environment, schema, folder, files)


def _is_writable_by_delta(schema: StructType) -> bool:
    """Whether Delta's writer takes all names, and drops no column."""
    said = schema.json()
    names = "".join(_NAME.findall(said))
    return _NOT_IN_NAMES.isdisjoint(names) and '"type":"void"' not in said


def _nullable(schema: StructType) -> dict[str, Any]:
    """As Delta keeps it: a column that no row lacks today may be lacking tomorrow."""
    told: dict[str, Any] = schema.jsonValue()
    plain = [{**field, "metadata": {}} for field in told["fields"]]
    fields = nullable(plain)
    return {**told, "fields": fields}


def _refuse_other_days(run: Run, name: str, staging: Staging) -> None:
    found = [date.fromisoformat(file.day) for file in staging.files]
    strange = [day for day in found if day not in staging.days]
    if strange:
        raise NightshiftError(
            f"{sql_name(run, name)}: rows for {min(strange)} were made by a run that may only "
            f"replace {staging.span}. Nothing was published."
        )


def _checksums(run: Run, name: str, staging: Staging) -> dict[date, str]:
    if not staging.files:
        return {}
    rows = _frame(run, name, staging)
    column = partition(run, name)
    volatile = () if name not in _declared(run) else run.pipeline.table(name).volatile
    # Not asked of Spark, which would look for the files of the rows once more.
    names = {field["name"] for field in staging.schema["fields"]}
    # Sorted, because a fingerprint depends on the order of its columns.
    content = names - set(volatile)
    # A day says the same with and without a column that a file of another day has added.
    added = content & set(_undeclared(run, name, names))
    checksum = fingerprint(sorted(content - added), added=added)
    by_day = rows.groupBy(F.col(column).alias("day"))
    summed = by_day.agg(checksum.alias("checksum")).collect()
    return {row["day"]: str(int(row["checksum"])) for row in summed}


def _undeclared(
    run: Run,
    name: str,
    columns: Iterable[str],
) -> tuple[str, ...]:
    """Columns of a raw table that its feed does not declare; of another table none."""
    for feed in run.pipeline.feeds:
        if feed.name == name:
            return feed.undeclared(columns)
    return ()


def _declared(run: Run) -> set[str]:
    return {table.name for table in run.pipeline.tables}


def _manifest(run: Run, name: str) -> tuple[fs.FileSystem, str]:
    days = f"{run.days.first}_{run.days.last}"
    place = f"{manifests(run)}/{name}/{days}.json"
    system, path_of_manifest = file_system(place)
    return system, path_of_manifest


def _inputs(told: list[list[Any]]) -> _Inputs:
    found = {}
    for day, *inputs in told:
        found[date.fromisoformat(day)] = tuple(map(Input.from_json, inputs))
    return found
