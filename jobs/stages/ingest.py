"""Stage `ingest`: landed files become staged rows, or quarantined ones with reason, file and line.

Every data line of the files ends in one of the two: this is counted from the bytes, and asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.ingestion.drops import Drop, find_drops
from jobs.ingestion.records import QUARANTINE, columns, records
from jobs.lake import tables
from jobs.lake.partitions import published_days
from jobs.spark.session import connect
from pipelines.errors import NightshiftError, Refused

if TYPE_CHECKING:
    from pipelines.feeds import Feed
    from pipelines.run import Run

_FEEDS_AT_ONCE = 3
"""The server plans one feed while it computes another; more would only wait for its cores."""
_FILES_SHOWN = 5
_BAD_CONTENT = ["source_line", "reason", "record"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tally:
    """What was found in one file."""

    source_file: str
    lines: int
    bad: int
    first_reason: str | None
    first_line: int | None
    """Line of the first bad row."""
    good_hash: int
    bad_hash: int

    def __str__(self) -> str:
        return (
            f"{self.source_file}: {self.bad} of {self.lines} rows; "
            f"the first, line {self.first_line}: {self.first_reason}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Load:
    """One feed of the run: its files, their parsed lines and what was found in them."""

    feed: Feed
    drops: list[Drop]
    rows: DataFrame
    """Cached in the server until the stage ends."""
    tallies: list[_Tally]

    @property
    def bad(self) -> int:
        return sum(tally.bad for tally in self.tallies)

    @property
    def lines(self) -> int:
        """Data lines in the files, counted without Spark."""
        return sum(drop.data_lines for drop in self.drops)

    def good_rows(self) -> DataFrame:
        return self.rows.where("reason IS NULL").select(*columns(self.feed))

    def bad_rows(self) -> DataFrame:
        return self.rows.where("reason IS NOT NULL").select(*QUARANTINE)


def ingest(run: Run) -> dict[str, object]:
    """Stage the good rows of every feed for the run's days and quarantine the others.

    Returns:
        Totals, and by feed: files, rows in them, rows staged, quarantined, and unchanged (of a
        reference file).

    Raises:
        Refused: files are missing or unreadable, or a file has more bad rows than its feed allows.
        NightshiftError: rows were lost or multiplied on the way.
    """
    found = find_drops(run)
    tables.prune_staging(run)
    cached: list[DataFrame] = []
    try:
        loads = _all(lambda feed: _load(run, feed, found[feed.name], cached), run.pipeline.feeds)
        _refuse_bad_files(run, loads)
        metrics = dict(zip(found, _all(lambda load: _keep(run, load), loads), strict=True))
    finally:
        for rows in cached:
            rows.unpersist()
    totals = {
        f"rows_{what}": sum(one[what] for one in metrics.values())
        for what in ("in_files", "staged", "quarantined", "unchanged")
    }
    return {"files": sum(one["files"] for one in metrics.values()), **totals, "feeds": metrics}


def _all(function: Callable[[T], R], values: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(_FEEDS_AT_ONCE) as pool:
        return list(pool.map(function, values))


def _load(run: Run, feed: Feed, drops: list[Drop], cached: list[DataFrame]) -> _Load:
    # Spark takes a cached frame for every other of the same plan. The attempt's number in the plan
    # keeps what a killed attempt left cached, of files that may have changed since, from being
    # taken for this one.
    rows = (
        records(connect(run.environment), feed, drops)
        .withColumn("_attempt", F.lit(run.generation))
        .persist()
    )
    cached.append(rows)
    good, bad = F.col("reason").isNull(), F.col("reason").isNotNull()
    found = rows.groupBy("source_file").agg(
        F.count(F.lit(1)).alias("lines"),
        F.count("reason").alias("bad"),
        F.min_by("reason", F.when(bad, F.col("source_line"))).alias("first_reason"),
        F.min(F.when(bad, F.col("source_line"))).alias("first_line"),
        _hash(good, [column.name for column in feed.columns]).alias("good_hash"),
        _hash(bad, _BAD_CONTENT).alias("bad_hash"),
    )
    return _Load(
        feed=feed,
        drops=drops,
        rows=rows,
        tallies=[_Tally(**row.asDict()) for row in found.collect()],
    )


def _hash(condition: Any, names: list[str]) -> Any:
    """A fingerprint of the rows for which the condition holds, whatever their order."""
    # The inner hash keeps a null apart from its neighbour's value: xxhash64 over several columns
    # skips nulls.
    row = F.xxhash64(*(F.xxhash64(F.col(f"`{name}`")) for name in names)).cast("decimal(38,0)")
    return F.coalesce(F.sum(F.when(condition, row)), F.lit(0).cast("decimal(38,0)"))


def _refuse_bad_files(run: Run, loads: list[_Load]) -> None:
    refused = {load.feed.name: _bad_files(load) for load in loads if _bad_files(load)}
    if not refused:
        return
    for load in loads:
        if load.feed.name in refused:
            _quarantine(run, load)
    raise Refused(
        "\n".join(
            _refusal(run, run.pipeline.feed(name), tallies) for name, tallies in refused.items()
        )
    )


def _bad_files(load: _Load) -> list[_Tally]:
    """Files with more bad rows than the feed allows, the worst first.

    Judged file by file, so that a range of days refuses what a single night would.
    """
    bad = [
        tally for tally in load.tallies if tally.bad > load.feed.max_quarantine_share * tally.lines
    ]
    return sorted(bad, key=lambda tally: (-tally.bad, tally.source_file))


def _refusal(run: Run, feed: Feed, tallies: list[_Tally]) -> str:
    table = tables.sql_name(run, feed.name + tables.QUARANTINE_SUFFIX)
    shown = [f"  - {tally}" for tally in tallies[:_FILES_SHOWN]]
    more = [f"  … and {len(tallies) - _FILES_SHOWN} more"] if len(tallies) > _FILES_SHOWN else []
    rows = (
        f"SELECT * FROM {table} "
        f"WHERE landed_date BETWEEN '{run.days.first}' AND '{run.days.last}' "
        "ORDER BY source_file, source_line"
    )
    head = (
        f"{len(tallies)} file(s) of '{feed.name}' have more bad rows "
        f"than the {feed.max_quarantine_share:.1%} that it allows:"
    )
    return "\n".join(
        [
            head,
            *shown,
            *more,
            f'All of them: nightshift sql "{rows}"',
            "Have the source drop good files, then run again.",
        ]
    )


def _keep(run: Run, load: _Load) -> dict[str, int]:
    if load.feed.is_reference and _is_in_force(run, load):
        tables.unstage(run, load.feed.name)
        staged, unchanged, quarantined = 0, load.lines - load.bad, load.bad
    else:
        staged, unchanged, quarantined = (
            tables.stage_rows(run, load.feed.name, load.good_rows()),
            0,
            _quarantine(run, load),
        )
    if load.lines != staged + unchanged + quarantined:
        raise NightshiftError(
            f"The files of '{load.feed.name}' have {load.lines} data lines, but {staged} rows "
            f"were staged, {unchanged} unchanged and {quarantined} quarantined. "
            "If a file was replaced while it was read, run again; "
            "else this is a defect of Nightshift."
        )
    return {
        "files": len(load.drops),
        "in_files": load.lines,
        "staged": staged,
        "quarantined": quarantined,
        "unchanged": unchanged,
    }


def _quarantine(run: Run, load: _Load) -> int:
    name = load.feed.name + tables.QUARANTINE_SUFFIX
    nothing_to_replace = tables.exists(run, name) and not any(
        day in run.days for day in published_days(run, name)
    )
    return (
        0
        if load.bad == 0 and nothing_to_replace
        else tables.write_quarantine(run, load.feed.name, load.bad_rows())
    )


def _is_in_force(run: Run, load: _Load) -> bool:
    """Whether a reference file tells nothing new.

    It equals the snapshot in force on the run's first day, or is a later day's.
    """
    name, days = load.feed.name, published_days(run, load.feed.name)
    snapshot = max((day for day in days if day <= run.days.first), default=None)
    if snapshot is None:
        return False
    if days[-1] > run.days.first:
        # There is one file, the newest: a rerun of an old day must not take it for that day's.
        return True
    good = (sum(t.lines - t.bad for t in load.tallies), sum(t.good_hash for t in load.tallies))
    bad = (load.bad, sum(t.bad_hash for t in load.tallies))
    good_there = _published(run, name, snapshot, [column.name for column in load.feed.columns])
    return (
        good_there == good
        and _published(run, name + tables.QUARANTINE_SUFFIX, snapshot, _BAD_CONTENT) == bad
    )


def _published(run: Run, name: str, day: date, names: list[str]) -> tuple[int, int]:
    """Number and fingerprint of the published rows of one day."""
    if day not in published_days(run, name):
        return 0, 0
    rows = tables.read(run, name).where(F.col("landed_date") == F.lit(day))
    found = rows.agg(F.count(F.lit(1)), _hash(F.lit(True), names)).first()
    assert found is not None, "an aggregation without keys has one row"
    return int(found[0]), int(found[1])
