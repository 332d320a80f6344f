"""Every read and write of the lake's Delta tables.

A stage writes to staging, a check judges what is staged, and publishing is one Delta commit that
replaces exactly the days of the run (`replaceWhere`). A commit carries the run that made it
(`userMetadata`) and a fence: Delta skips a commit whose `txnVersion` is not above the last one of
its `txnAppId`, so a late twin changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable
from pyarrow import fs
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from jobs.lake.content import fingerprint
from jobs.spark.session import connect
from jobs.version import code_version
from pipelines.days import Days
from pipelines.errors import NightshiftError
from pipelines.spec import QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

    from pipelines.run import Run
    from pipelines.spec import Table

# In every staged row: who publishes it need not be the process that staged it.
_STAGED_FROM, _STAGED_UNTIL = "_staged_from", "_staged_until"
_STAGINGS_KEPT = 20
"""Of each table."""


class Fenced(NightshiftError):
    """A later attempt at the same days has published: this one is late and must not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a publication left behind."""

    rows: int
    """Rows of the run's days, now visible."""
    version: int
    """Delta version in which they are visible."""
    changed: bool
    """False when the same rows were already there, so that nothing was committed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """How many rows, what they say, and the partition dates between which they lie."""

    rows: int
    fingerprint: int
    first: date | None
    last: date | None


def sql_name(run: Run, name: str) -> str:
    """The name by which people query the table: `<pipeline>.<table>`."""
    return f"{run.pipeline.name}.{name}"


def path(run: Run, name: str) -> str:
    """Where the published table is stored."""
    return run.environment.table_path(sql_name(run, name))


def exists(run: Run, name: str) -> bool:
    """Whether the table has ever been published."""
    return DeltaTable.is_deltatable(path(run, name))


def version(run: Run, name: str) -> int:
    """The newest Delta version of a published table."""
    return DeltaTable(path(run, name)).version()


def read(run: Run, name: str, days: Days | None = None) -> DataFrame:
    """Published rows: all of them, or those whose partition date lies in `days`.

    Raises:
        NightshiftError: the table has never been published.
    """
    if not exists(run, name):
        maker = _maker(run, name)
        raise NightshiftError(
            f"{sql_name(run, name)} does not exist yet. Run the stages from '{maker}' on first: "
            f"nightshift run {run.pipeline.name} --date {run.days.last}"
        )
    rows = _spark(run).read.format("delta").load(path(run, name))
    return rows if days is None else rows.where(_within(_partition(run, name), days))


def stage_rows(
    run: Run,
    name: str,
    frame: DataFrame,
    days: Days | None = None,
) -> int:
    """Write the rows that this run wants to publish, and return how many they are.

    Args:
        days: Partition dates that the rows replace; by default those of the run.
    """
    replaced = days or partition_days(run, run.pipeline.table(name))
    counted = Observation()
    # Counted while they are written: a count of its own would compute the frame twice.
    observed = frame.observe(counted, F.count(F.lit(1)).alias("rows"))
    marked = observed.withColumns(
        {
            _STAGED_FROM: F.lit(replaced.first),
            _STAGED_UNTIL: F.lit(replaced.last),
        }
    )
    marked.write.mode("overwrite").parquet(_staging(run, name))
    return int(counted.get["rows"])


def is_staged(run: Run, name: str) -> bool:
    """Whether rows of this table wait in staging for the run's days."""
    system, place = fs.FileSystem.from_uri(_staging(run, name))
    # Spark writes this file last: a write that was cut off has none.
    return bool(system.get_file_info(f"{place}/_SUCCESS").type == fs.FileType.File)


def unstage(run: Run, name: str) -> None:
    """Forget what waits in staging for the run's days, such as refused rows taken back since."""
    if is_staged(run, name):
        system, place = fs.FileSystem.from_uri(_staging(run, name))
        system.delete_dir(place)


def staged(run: Run, name: str) -> DataFrame:
    """The rows that wait for a verdict.

    Raises:
        NightshiftError: nothing is staged for the run's days.
    """
    return _staged(run, name).drop(_STAGED_FROM, _STAGED_UNTIL)


def staged_days(run: Run, name: str) -> Days:
    """The partition dates that the staged rows will replace.

    Those of the run when there are no rows.
    """
    rows = _staged(run, name)
    found = rows.agg(F.min(_STAGED_FROM), F.max(_STAGED_UNTIL)).first()
    assert found is not None, "an aggregation without keys has one row"
    first, last = found
    if first is None:
        return partition_days(run, run.pipeline.table(name))
    return Days(first, last)


def current(run: Run, name: str, days: Days) -> DataFrame:
    """The rows of `days` as they will be.

    Staged ones for the days of the run, published ones for the others.
    """
    if not is_staged(run, name):
        return read(run, name, days)
    column = _partition(run, name)
    fresh = staged(run, name).where(_within(column, days))
    if not exists(run, name):
        return fresh
    is_replaced = _within(column, staged_days(run, name))
    kept = read(run, name, days).where(~is_replaced)
    return fresh.unionByName(kept)


def publish(run: Run, name: str) -> Published:
    """Make the staged rows visible in one commit that replaces exactly their days.

    Raises:
        Fenced: a later attempt at the same days was there first.
    """
    table = run.pipeline.table(name)
    return _commit(run, name, staged(run, name), staged_days(run, name), table.volatile)


def write_quarantine(run: Run, feed: str, frame: DataFrame) -> int:
    """Replace the run's days of `<feed>_quarantine`; returns the number of rows."""
    return _commit(run, feed + QUARANTINE_SUFFIX, frame, run.days, ()).rows


def partition_days(run: Run, table: Table) -> Days:
    """The partition dates that a table holds for the run's days."""
    return run.days.shifted(table.partition_lead_days)


def prune_staging(run: Run) -> None:
    """Forget stagings of long ago: the newest are kept, so that a single stage can be run again."""
    for table in run.pipeline.tables:
        system, place = fs.FileSystem.from_uri(
            f"{run.environment.lake}/_staging/{run.pipeline.name}/{table.name}"
        )
        found = system.get_file_info(fs.FileSelector(place, allow_not_found=True))
        # An object store may tell no time of a folder.
        for old in sorted(found, key=lambda info: info.mtime_ns or 0)[:-_STAGINGS_KEPT]:
            system.delete_dir(old.path)


def _commit(
    run: Run, name: str, frame: DataFrame, days: Days, volatile: tuple[str, ...]
) -> Published:
    column = _partition(run, name)
    # Sorted, because a fingerprint depends on the order of its columns.
    content = tuple(sorted(set(frame.columns) - set(volatile)))
    wanted = _content(frame, content, column)
    if wanted.rows and not (wanted.first in days and wanted.last in days):
        raise NightshiftError(
            f"{sql_name(run, name)}: rows for {wanted.first} to {wanted.last} were staged by a run "
            f"that may only replace {days}. Nothing was published."
        )
    # The same rows make no new version: a rerun changes nothing.
    is_first = not exists(run, name)
    if not is_first and _holds(read(run, name, days), content, column, wanted):
        return Published(rows=wanted.rows, version=version(run, name), changed=False)
    # All rows of a day in one task, so that a day's partition is not many small files.
    by_day = frame.repartition(column)
    writer = by_day.write.format("delta").mode("overwrite").partitionBy(column)
    options: dict[str, Any] = {
        "txnAppId": f"{sql_name(run, name)}:{days}",
        "txnVersion": run.generation,
        "userMetadata": json.dumps(_made_by(run)),
    }
    if not is_first:
        is_replaced = f"{column} >= DATE'{days.first}' AND {column} <= DATE'{days.last}'"
        options["replaceWhere"] = is_replaced
    writer.options(**options).save(path(run, name))
    return Published(rows=wanted.rows, version=_own_version(run, name), changed=True)


def _holds(
    there: DataFrame,
    columns: tuple[str, ...],
    partition: str,
    wanted: _Content,
) -> bool:
    # A published table may lack a column that its rows have got since: they are not the same.
    return set(columns) <= set(there.columns) and _content(there, columns, partition) == wanted


def _made_by(run: Run) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "stage": run.doing.name,
        "generation": run.generation,
        "code_version": code_version(),
    }


def _own_version(run: Run, name: str) -> int:
    """The version that this run's commit became.

    Delta tells nothing when it skips a fenced commit.
    """
    # Others may have committed since, for other days: ours is among the newest few. A commit by
    # another program may carry no metadata.
    for commit in DeltaTable(path(run, name)).history(10):
        if json.loads(commit.get("userMetadata") or "{}").get("generation") == run.generation:
            return int(commit["version"])
    raise Fenced(
        f"{sql_name(run, name)} for {run.days} was published by a later run than {run.run_id}: "
        "this one changed nothing."
    )


def _content(frame: DataFrame, columns: tuple[str, ...], partition: str) -> _Content:
    found = frame.agg(
        F.count(F.lit(1)).alias("rows"),
        fingerprint(columns).alias("fingerprint"),
        F.min(partition).alias("first"),
        F.max(partition).alias("last"),
    ).first()
    assert found is not None, "an aggregation without keys has one row"
    return _Content(
        rows=found["rows"],
        fingerprint=int(found["fingerprint"]),
        first=found["first"],
        last=found["last"],
    )


def _staging(run: Run, name: str) -> str:
    days = f"{run.days.first}_{run.days.last}"
    return f"{run.environment.lake}/_staging/{run.pipeline.name}/{name}/{days}"


def _staged(run: Run, name: str) -> DataFrame:
    if not is_staged(run, name):
        raise NightshiftError(
            f"Nothing is staged of {sql_name(run, name)} for {run.days}. "
            f"Run its stage first: --stage {_maker(run, name)}"
        )
    return _spark(run).read.parquet(_staging(run, name))


def _maker(run: Run, name: str) -> str:
    return run.pipeline.table(name.removesuffix(QUARANTINE_SUFFIX)).made_by


def _partition(run: Run, name: str) -> str:
    if name.endswith(QUARANTINE_SUFFIX):
        return "landed_date"
    return run.pipeline.table(name).partition


def _within(column: str, days: Days) -> Expression:
    first = F.lit(days.first)
    last = F.lit(days.last)
    return F.col(column).between(first, last)


def _spark(run: Run) -> SparkSession:
    return connect(run.environment)
