"""Stage `ingest`: landed files become staged rows, or quarantined ones with reason, file and line.

Every record of the files ends in one of the two: they are counted without Spark, and it is
asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from expectations import report
from jobs.ingestion.contents import Drop
from jobs.ingestion.drops import FilesRefused, find_drops, require_unchanged
from jobs.ingestion.records import QUARANTINE, columns, new_columns, records, widened
from jobs.lake import amounts, commits, opened, ops, staging, tables
from jobs.lake.content import fingerprint
from jobs.lake.data_files import days_that_lost_files
from jobs.lake.definition import digest
from jobs.lake.knowledge import Knowledge, is_reference_announced
from jobs.lake.locations import exists, path, sql_name
from jobs.lake.partitions import column_types, published_days
from jobs.lake.publications import Origin, digest_of_file, file_input, in_force, lost
from jobs.spark.session import connect
from jobs.stages import reports
from pipelines.days import Days
from pipelines.errors import DataRefused, Failure, NightshiftError
from pipelines.landing import expected_files
from pipelines.spec import QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from pipelines.feeds import Feed
    from pipelines.run import Run

_FEEDS_AT_ONCE = 3
"""The server plans one feed while it computes another; more would only wait for its cores."""
_FILES_SHOWN = 5
"""Files that a refusal lists; the query below them finds all."""
_BAD_ROWS_KEPT = 20
"""Of a feed: what its report shows."""
_RECORD_CHARACTERS = 500
"""Of such a row: a record may be a whole file that lacks its line breaks."""
_FROM_RAW_TABLES = ("transform", "check_clean", "features")
"""Stages that make all data from what is published of the files."""
_BAD_CONTENT = ("source_line", "reason", "record")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tally:
    """What was found in one file."""

    source_file: str
    rows: int
    bad: int
    first_reason: str | None
    first_line: int | None
    """Line of the first bad row."""
    good_content: int
    """Fingerprint of the good rows, in the declared columns."""
    bad_content: int

    def __str__(self) -> str:
        return (
            f"{self.source_file}: {self.bad} of {self.rows} rows; "
            f"the first, line {self.first_line}: {self.first_reason}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Load:
    """One feed of the run: its files, their parsed records and what was found in them."""

    feed: Feed
    drops: list[Drop]
    is_read: bool
    """Whether its files are those that the run's days see; see `_is_not_read`."""
    equals: date | None
    """The snapshot that a reference file may equal; see `_compared`."""
    rows: DataFrame
    """Cached in the server until the stage ends."""
    tallies: list[_Tally]
    """None of files that are not read: they are neither good nor bad."""
    origin: Origin
    """The files, each by its content."""

    @property
    def bad(self) -> int:
        return sum(tally.bad for tally in self.tallies)

    @property
    def records(self) -> int:
        """Records in the files, counted without Spark."""
        return sum(drop.records for drop in self.drops)

    def good_rows(self) -> DataFrame:
        wide = widened(self.feed, self.drops)
        return self.rows.where("reason IS NULL").select(*columns(wide))

    def bad_rows(self) -> DataFrame:
        return self.rows.where("reason IS NOT NULL").select(*QUARANTINE)


def ingest(run: Run) -> dict[str, object]:
    """Stage the good rows of the run's feeds for its days and quarantine the others.

    Returns:
        Totals, where the report is, and by feed: files, rows in them, rows staged, quarantined,
        and unchanged (of a reference file).

    Raises:
        NotLanded: files are missing or still being written; nothing was staged.
        DataRefused: files are unreadable, or a file has more bad rows than its feed allows.
        NightshiftError: rows were lost or multiplied on the way.
    """
    try:
        found = find_drops(run, _optional_files_read(run))
        _refuse_unfitting_columns(run, found)
        # Before anything is read, as every stage does.
        knowledge = Knowledge.of_now(run)
        found = _dated(run, found, knowledge)
    except FilesRefused as unreadable:
        told = f"{unreadable}{_way_around(run, unreadable.files)}"
        raise _refused(run, told, unreadable.files) from None
    staging.prune(run)
    tables.unstage_others(run)
    cached: list[DataFrame] = []
    try:
        loads = _load_all(run, found, cached, knowledge)
        bad_rows = tuple(chain.from_iterable(_all(_some_bad_rows, loads)))
        _refuse_bad_files(run, loads, bad_rows)
        kept = _all(partial(_keep, run), loads)
    finally:
        # Also after a refusal: the server would keep them.
        for rows in cached:
            rows.unpersist()
    # Both in the order of the feeds.
    metrics = dict(zip(found, kept, strict=True))
    feeds = []
    for name, figures in metrics.items():
        feeds.append(report.FeedFigures(table=sql_name(run, name), **figures))
    index = _report(run, report.Files(feeds=tuple(feeds), bad_rows=bad_rows))
    # Their check judges no others.
    asked = {"tables": list(run.tables)} if run.tables else {}
    totals = _totals(metrics.values())
    return {**totals, "report": str(index), "feeds": metrics, **asked}


def _optional_files_read(run: Run) -> set[tuple[str, date]]:
    """The optional feeds and days of the run that were made from a file, in force or lost."""
    found = set()
    for feed in run.feeds:
        if not feed.is_optional:
            continue
        known = dict(lost(run, feed.name))
        known |= in_force(run, feed.name, run.days)
        found |= {(feed.name, day) for day, one in known.items() if one.inputs}
    return found


def _way_around(run: Run, files: Iterable[str]) -> str:
    """How days that are asked for by name are made anew although their files are refused.

    Empty where one of them was never published: it has no rows.
    """
    expected = {one.name: one for one in expected_files(run.pipeline, run.days)}
    for name in files:
        one = expected[name]
        if one.day < run.named_from or one.day not in in_force(run, one.feed.name):
            return ""
    stages = " ".join(f"--stage {name}" for name in _FROM_RAW_TABLES)
    return (
        "\nThese days have their rows from before. To make anew what follows from them, known from "
        f"their own nights, without their files: nightshift run {run.pipeline.name} "
        f"--from {run.days.first} --to {run.days.last} {stages}"
    )


def _refuse_unfitting_columns(run: Run, found: Mapping[str, list[Drop]]) -> None:
    """Refuse columns that cannot be added to the table, or to those that another file adds.

    Raises:
        FilesRefused: one is there in another case or type; the message names its file.
    """
    for feed in run.feeds:
        if not new_columns(found[feed.name]):
            # Nearly always: then the table need not be looked at.
            continue
        known = column_types(run, feed.name)
        named = {name.lower(): name for name in (*known, *feed.column_names)}
        for drop in found[feed.name]:
            for name in drop.new_columns:
                there = named.setdefault(name.lower(), name)
                _refuse_unfitting(drop, name, there, known.get(there, "string"))


def _refuse_unfitting(drop: Drop, name: str, there: str, kind: str) -> None:
    file = f"{drop.source_file}: column '{name}' is not declared, and cannot be added"
    if there != name:
        raise FilesRefused(
            f"{file}: it differs only in case from '{there}', which the table has or another file "
            "adds. Have the source keep to one name, or ignore new columns.",
            drop.source_file,
        )
    if kind != "string":
        raise FilesRefused(
            f"{file}: the table has it from former days as {kind}, and what is added is text. "
            "Declare it again, or ignore new columns.",
            drop.source_file,
        )


def _dated(
    run: Run,
    found: dict[str, list[Drop]],
    knowledge: Knowledge,
) -> dict[str, list[Drop]]:
    """The drops, a reference file under the day from which it is known.

    That is the first day of a first load, and after it the night that finds the file changed; where
    the table has lost snapshots, the day of one of these. One that has changed and awaits its
    marker is left out: half of it may be there, and what it was is whole.

    Raises:
        FilesRefused: a reference file has no rows, in the place of one that had some.
    """
    dated = dict(found)
    for feed in run.feeds:
        if not feed.is_reference:
            continue
        (drop,) = found[feed.name]
        day_lost = knowledge.day_of_lost_snapshot(feed.name, drop.path)
        before = _snapshot(run, feed.name, run.days.first)
        if before is None:
            if day_lost:
                _refuse_without_what_is_lost(run, feed, drop, day_lost)
            dated[feed.name] = [replace(drop, day=day_lost or drop.day)]
            continue
        if _awaits_marker(run, feed, drop, before):
            dated[feed.name] = []
            continue
        finds = _finds_reference(run, knowledge)
        if finds <= run.days.last:
            _refuse_without_rows(drop, before)
        day = min(finds, run.days.last)
        if _is_to_be_mended(run, feed, drop, before):
            day = before
        dated[feed.name] = [replace(drop, day=day_lost or day)]
    return dated


def _refuse_without_what_is_lost(
    run: Run,
    feed: Feed,
    drop: Drop,
    day: date,
) -> None:
    """Refuse a file without rows in the place of the lost snapshot that the day saw."""
    gone = lost(run, feed.name)
    # One of before where the pipeline's first day was moved since.
    snapshot = max(one for one in gone if one <= day)
    if gone[snapshot].rows:
        _refuse_without_rows(drop, snapshot)


def _refuse_without_rows(drop: Drop, snapshot: date) -> None:
    if drop.records:
        return
    # A snapshot is found by its rows: without any, the one before would go on being read.
    raise FilesRefused(
        f"{drop.source_file} has no rows, and the snapshot of {snapshot} has some. Nothing "
        "was staged. Have the source drop the whole file, then run again.",
        drop.source_file,
    )


def _awaits_marker(run: Run, feed: Feed, drop: Drop, snapshot: date) -> bool:
    """Whether a reference file is another than the snapshot's, and its marker is still of that."""
    if is_reference_announced(run.environment.landing / run.pipeline.name, feed):
        return False
    made = in_force(run, feed.name).get(snapshot)
    digest = digest_of_file(drop.path)
    return made is not None and all(given.digest != digest for given in made.inputs)


def _is_to_be_mended(
    run: Run,
    feed: Feed,
    drop: Drop,
    snapshot: date,
) -> bool:
    """Whether a snapshot, or what was refused of it, has lost rows that are to be had again.

    Of the file that it was made from, which no other has replaced.
    """
    if not (_has_lost_refused(run, feed, snapshot) or _has_lost_files(run, feed, snapshot)):
        return False
    made = in_force(run, feed.name).get(snapshot)
    digest = digest_of_file(drop.path)
    return made is not None and all(given.digest == digest for given in made.inputs)


def _has_lost_refused(run: Run, feed: Feed, snapshot: date) -> bool:
    """Whether the quarantine had rows of a snapshot, and lost them with its folder."""
    refused = lost(run, feed.name + QUARANTINE_SUFFIX).get(snapshot)
    return refused is not None and refused.rows > 0


def _has_lost_files(run: Run, feed: Feed, snapshot: date) -> bool:
    """Whether data files are gone of a snapshot of the run's own days, or of its quarantine."""
    if snapshot not in run.days:
        return False
    names = [feed.name, feed.name + QUARANTINE_SUFFIX]
    places = [path(run, name) for name in names if exists(run, name)]
    return any(days_that_lost_files(opened.newest(one), one, [snapshot]) for one in places)


def _finds_reference(run: Run, knowledge: Knowledge) -> date:
    """The night that finds a reference file changed: none of the run's when these have passed."""
    return max(knowledge.day_of_reference(), run.days.first)


def _snapshot(run: Run, name: str, day: date) -> date | None:
    """When the snapshot of a reference feed landed that a day sees."""
    return max((landed for landed in published_days(run, name) if landed <= day), default=None)


def _totals(metrics: Collection[dict[str, int]]) -> dict[str, int]:
    totals = {"files": sum(feed["files"] for feed in metrics)}
    for what in ("in_files", "staged", "quarantined", "unchanged"):
        totals[f"rows_{what}"] = sum(feed[what] for feed in metrics)
    return totals


def _all(
    function: Callable[[T], R],
    values: Iterable[T],
) -> list[R]:
    with ThreadPoolExecutor(_FEEDS_AT_ONCE) as pool:
        return list(pool.map(function, values))


def _load_all(
    run: Run,
    found: Mapping[str, list[Drop]],
    cached: list[DataFrame],
    knowledge: Knowledge,
) -> list[_Load]:
    """Have every file read into the server's cache, from where its rows are staged."""

    def load(feed: Feed) -> _Load:
        return _load(run, feed, found[feed.name], cached, knowledge)

    try:
        return _all(load, run.feeds)
    finally:
        # Also when reading failed: a file that is replaced or cut off meanwhile is the reason.
        require_unchanged(run, found)


def _load(
    run: Run,
    feed: Feed,
    drops: list[Drop],
    cached: list[DataFrame],
    knowledge: Knowledge,
) -> _Load:
    def keep(rows: DataFrame) -> DataFrame:
        # Spark takes a cached frame for every other of the same plan. A name of its own in the plan
        # keeps what a killed attempt left cached, of files that may have changed since, from being
        # taken for this one.
        kept = rows.withColumn("_attempt", F.lit(uuid4().hex)).persist()
        cached.append(kept)
        return kept

    rows = records(connect(run.environment), feed, drops, keep)
    for drop in drops:
        amounts.add_read(drop.records, drop.stamp.size)
    has_reference = feed.is_reference and bool(drops)
    equals = _compared(run, feed, drops[0], knowledge) if has_reference else None
    is_read = not _is_not_read(run, knowledge, feed, drops, equals)
    return _Load(
        feed=feed,
        drops=drops,
        is_read=is_read,
        equals=equals,
        rows=rows,
        tallies=_tallies(feed, rows, new_columns(drops)) if is_read else [],
        # Now: it is seen to it afterwards that no file has changed since it was inspected.
        origin=_origin(run, feed, drops, knowledge),
    )


def _origin(
    run: Run,
    feed: Feed,
    drops: list[Drop],
    knowledge: Knowledge,
) -> Origin:
    files = {}
    for drop in drops:
        files[drop.day] = (file_input(drop.source_file, drop.day, drop.path),)
    # Also of days on which an optional feed has no file: that is known when the others are.
    days = () if feed.is_reference else run.days
    known = {day: knowledge.day_of_drop(feed.name, day) for day in days}
    return Origin(definition=digest(feed), inputs=files, known=known)


def _tallies(feed: Feed, rows: DataFrame, new: Iterable[str]) -> list[_Tally]:
    good = F.col("reason").isNull()
    bad = F.col("reason").isNotNull()
    bad_line = F.when(bad, F.col("source_line"))
    found = rows.groupBy("source_file").agg(
        F.count(F.lit(1)).alias("rows"),
        F.count("reason").alias("bad"),
        F.min_by("reason", bad_line).alias("first_reason"),
        F.min(bad_line).alias("first_line"),
        fingerprint(feed.column_names, good, new).alias("good_content"),
        fingerprint(_BAD_CONTENT, bad).alias("bad_content"),
    )
    return [_Tally(**row.asDict()) for row in found.collect()]


def _some_bad_rows(load: _Load) -> list[report.BadRow]:
    """Bad rows that a report shows; those of files that are refused, where there are any."""
    if not load.bad:
        return []
    rows = load.bad_rows()
    refused = [tally.source_file for tally in _bad_files(load)]
    if refused:
        rows = rows.where(F.col("source_file").isin(refused))
    shortened = F.left("record", F.lit(_RECORD_CHARACTERS))
    told = rows.select("source_file", "source_line", "reason", shortened)
    first = told.orderBy("source_file", "source_line").limit(_BAD_ROWS_KEPT).collect()
    return [
        report.BadRow(file=file, line=line, reason=reason, record=record)
        for file, line, reason, record in first
    ]


def _refuse_bad_files(
    run: Run,
    loads: Sequence[_Load],
    bad_rows: tuple[report.BadRow, ...],
) -> None:
    refusals = []
    failures: list[Failure] = []
    files: list[str] = []
    for load in loads:
        bad_files = _bad_files(load)
        if bad_files:
            days = _quarantined_days(run, load)
            is_kept = all(drop.day in days for drop in load.drops)
            if is_kept:
                _quarantine(run, load, days)
            refusals.append(_refusal(run, load, bad_files, is_kept))
            failures += [_failure(run, load.feed, tally) for tally in bad_files]
            files += [tally.source_file for tally in bad_files]
    if refusals:
        feeds = tuple(_found_in(run, load) for load in loads)
        found = report.Files(feeds=feeds, bad_rows=bad_rows)
        told = "\n".join(refusals) + _way_around(run, files)
        raise _refused(run, told, files, failures, found)


def _refused(
    run: Run,
    message: str,
    files: Iterable[str],
    failures: Iterable[Failure] = (),
    found: report.Files | None = None,
) -> DataRefused:
    """The error of files that are refused, with a report that says the same."""
    index = _report(run, replace(found or report.Files(), refusal=message))
    told = f"{message}\nReport: {index}"
    found_in = tuple(_with_digest(run, name) for name in files)
    return DataRefused(told, tuple(failures), str(index), found_in)


def _with_digest(run: Run, name: str) -> str:
    try:
        return f"{name} {digest_of_file(run.environment.landing / name)}"
    except OSError:  # such as one that nobody may read, which is why it is refused
        return name


def _report(run: Run, files: report.Files) -> Path:
    about = reports.about(run, ops.now())
    return report.write_files(reports.folder(run), about, files)


def _found_in(run: Run, load: _Load) -> report.FeedFigures:
    """What the files of a feed hold, none of which is staged."""
    unchanged = 0 if load.is_read else load.records
    return report.FeedFigures(
        table=sql_name(run, load.feed.name),
        files=len(load.drops),
        in_files=load.records,
        staged=load.records - load.bad - unchanged,
        quarantined=load.bad,
        unchanged=unchanged,
    )


def _failure(run: Run, feed: Feed, tally: _Tally) -> Failure:
    return Failure(
        table=sql_name(run, feed.name),
        expectation="max_quarantine_share",
        column=None,
        says=f"At most {feed.share_allowed} of a file's rows are bad. Found: {tally}.",
        count=tally.bad,
    )


def _bad_files(load: _Load) -> list[_Tally]:
    """Files with more bad rows than the feed allows, the worst first.

    Judged file by file, so that a range of days refuses what a single night would.
    """
    most = load.feed.max_quarantine_share
    # Divided, as a share that is declared is the nearest to its fraction: 0.29 x 100 is below 29.
    bad = [tally for tally in load.tallies if tally.bad / tally.rows > most]
    return sorted(bad, key=lambda tally: (-tally.bad, tally.source_file))


def _refusal(
    run: Run,
    load: _Load,
    tallies: list[_Tally],
    is_kept: bool,
) -> str:
    feed = load.feed
    table = sql_name(run, feed.name)
    when = f"BETWEEN '{run.days.first}' AND '{run.days.last}'"
    if feed.is_reference:
        # On the other days is what was refused of the files of before.
        when = f"= '{load.drops[0].day}'"
    rows = (
        f"SELECT * FROM {table}{QUARANTINE_SUFFIX} "
        f"WHERE landed_date {when} ORDER BY source_file, source_line"
    )
    head = (
        f"{table} was refused: {len(tallies)} file(s) of '{feed.name}' have more bad rows "
        f"than the {feed.share_allowed} that it allows (max_quarantine_share):"
    )
    lines = [head]
    lines += [f"  - {tally}" for tally in tallies[:_FILES_SHOWN]]
    hidden = len(tallies) - _FILES_SHOWN
    if hidden > 0:
        lines.append(f"  … and {hidden} more")
    if is_kept:
        lines.append(f'All of them: nightshift sql "{rows}"')
    lines.append("Have the source drop good files, then run again.")
    if _is_declared_anew(run, load, tallies):
        lines.append(
            f"'{feed.name}' is declared anew since some of these days were accepted: where their "
            f"rows are right, take that back in pipelines/{run.pipeline.name}.py, or raise the "
            "share that it allows."
        )
    return "\n".join(lines)


def _is_declared_anew(run: Run, load: _Load, tallies: Iterable[_Tally]) -> bool:
    """Whether a day is in force by another declaration of the feed, or of the very file.

    Of the file by the same declaration: when it was accepted, a greater share was allowed.
    """
    known = in_force(run, load.feed.name)
    days = {drop.source_file: drop.day for drop in load.drops}
    # Of a home of long ago nobody knows it.
    alike = ("", load.origin.definition)
    for day in {days[tally.source_file] for tally in tallies} & known.keys():
        accepted = known[day]
        # By content: where the feed drops its files may be declared anew, too.
        files = [given.digest for given in accepted.inputs]
        judged = [given.digest for given in load.origin.inputs[day]]
        if accepted.definition not in alike or files == judged:
            return True
    return False


def _keep(run: Run, load: _Load) -> dict[str, int]:
    if load.feed.is_reference and _brings_nothing_new(run, load):
        tables.unstage(run, load.feed.name)
        _forget_refused(run, load)
        staged = 0
        unchanged = load.records - load.bad
        quarantined = load.bad
    elif days := _replaced(run, load):
        rows = load.good_rows()
        staged = tables.stage_rows(run, load.feed.name, rows, days, load.origin)
        unchanged = 0
        quarantined = _quarantine(run, load, _quarantined_days(run, load, days))
    else:
        tables.unstage(run, load.feed.name)
        staged = unchanged = quarantined = 0
    if load.records != staged + unchanged + quarantined:
        raise NightshiftError(
            f"The files of '{load.feed.name}' have {load.records} records, but {staged} rows "
            f"were staged, {unchanged} unchanged and {quarantined} quarantined. "
            "If a file was replaced while it was read, run again; "
            "else this is a defect of Nightshift."
        )
    return {
        "files": len(load.drops),
        "in_files": load.records,
        "staged": staged,
        "quarantined": quarantined,
        "unchanged": unchanged,
    }


def _replaced(run: Run, load: _Load) -> Collection[date]:
    """The days of which the rows are replaced: none where there is nothing to be read any more.

    Rows of days that a feed had before another first or last day was declared stay, as those of a
    file that is gone.
    """
    feed = load.feed
    if feed.is_reference:
        # A snapshot replaces that of its own day, and no other.
        return [drop.day for drop in load.drops]
    due = run.pipeline.drop_days(feed, run.days)
    if due == run.days:
        return run.days
    known = in_force(run, feed.name, run.days)
    made = {day for day, one in known.items() if one.inputs or one.rows}
    return [day for day in run.days if (due and day in due) or day not in made]


def _quarantined_days(
    run: Run,
    load: _Load,
    published: Collection[date] = (),
) -> Collection[date]:
    """The days of which what is in quarantine is replaced.

    Of a reference feed, days that only a refused file has left something on, too. What was refused
    of a snapshot stays with it.

    Args:
        run: Who ingests.
        load: A feed of it.
        published: The days whose snapshots are replaced; none where the file is refused.
    """
    if not load.feed.is_reference:
        return _replaced(run, load)
    snapshots = in_force(run, load.feed.name)
    left = [day for day in run.days if day not in snapshots]
    # A snapshot that was lost may be of a day before the run's.
    return sorted({*left, *published})


def _quarantine(run: Run, load: _Load, days: Collection[date]) -> int:
    """Replace what is in quarantine for these days; returns the number of rows there."""
    name = load.feed.name + QUARANTINE_SUFFIX
    # Nothing to write and nothing to replace: no commit.
    if load.bad == 0 and exists(run, name):
        is_replacing = any(day in days for day in published_days(run, name))
        if not is_replacing:
            return 0
    return tables.write_quarantine(run, load.feed.name, load.bad_rows(), load.origin, days)


def _forget_refused(run: Run, load: _Load) -> None:
    """Empty the quarantine on days of the run that have no snapshot.

    A file that was refused there has been taken back since.
    """
    name = load.feed.name
    snapshots = in_force(run, name)
    quarantined = published_days(run, name + QUARANTINE_SUFFIX)
    left = [day for day in quarantined if day in run.days and day not in snapshots]
    if left:
        none = load.bad_rows().limit(0)
        tables.write_quarantine(run, name, none, days=left)


def _brings_nothing_new(run: Run, load: _Load) -> bool:
    """Whether a reference file tells the run's days nothing that is not published.

    It equals the snapshot that its day sees, or is not read.
    """
    if not load.is_read:
        return True
    name = load.feed.name
    snapshot = load.equals
    if snapshot is None:
        return False
    rows = sum(tally.rows for tally in load.tallies)
    good = (rows - load.bad, sum(tally.good_content for tally in load.tallies))
    bad = (load.bad, sum(tally.bad_content for tally in load.tallies))
    feed = load.feed
    there = column_types(run, name)
    if not set(feed.column_names) <= there.keys():
        # A column that was declared since.
        return False
    added = feed.undeclared(there) if feed.new_columns == "add" else ()
    is_same = (
        _published(run, name, snapshot, feed.column_names, added) == good
        and _published(run, name + QUARANTINE_SUFFIX, snapshot, _BAD_CONTENT) == bad
    )
    if is_same:
        # The file may say it in other bytes, and its declaration in other words: then it is these
        # from now on.
        (drop,) = load.drops
        inputs = load.origin.inputs[drop.day]
        commits.confirm(run, name, snapshot, inputs, load.origin.definition)
    return is_same


def _compared(run: Run, feed: Feed, drop: Drop, knowledge: Knowledge) -> date | None:
    """The snapshot that its day sees, which a reference file may equal; None: it makes one."""
    snapshot = _snapshot(run, feed.name, drop.day)
    # A snapshot of before there was a record is published once more.
    if snapshot is None or snapshot not in in_force(run, feed.name):
        return None
    if drop.day == snapshot and _is_to_be_mended(run, feed, drop, snapshot):
        return None
    # What is lost is published again, also where it says what the one before says.
    is_lost = knowledge.day_of_lost_snapshot(feed.name, drop.path) is not None
    return None if is_lost else snapshot


def _is_not_read(
    run: Run,
    knowledge: Knowledge,
    feed: Feed,
    drops: Sequence[Drop],
    equals: date | None,
) -> bool:
    """Whether it is a reference file that tells the run's days nothing, whatever it holds.

    There is one file, the newest: what is made of an old day must not take it for that day's. It is
    judged by the night that reads it.
    """
    if not feed.is_reference:
        return False
    if not drops:
        return True
    (drop,) = drops
    if equals:
        return _finds_reference(run, knowledge) > run.days.last
    if _snapshot(run, feed.name, drop.day):
        return False
    return run.named_from > run.days.last and _has_passed(run, knowledge, feed.name)


def _has_passed(run: Run, knowledge: Knowledge, name: str) -> bool:
    """Whether a night was made, from the run's first on, before there was the reference file.

    What was made without the file is made anew without it, and so is what was missed among it.
    Where there is no snapshot yet, the night that people asked for makes the first.
    """
    snapshots = in_force(run, name)
    if not snapshots and lost(run, name):
        # A table that is gone is made again from when it was there.
        return False
    first = min(snapshots, default=run.named_from)
    daily = [feed.name for feed in run.pipeline.feeds if not feed.is_reference]
    made = chain.from_iterable(map(knowledge.latest, daily))
    return any(run.days.first <= day < first for day in made)


def _published(
    run: Run,
    name: str,
    day: date,
    names: Iterable[str],
    added: Iterable[str] = (),
) -> tuple[int, int]:
    """Number and fingerprint of the published rows of one day."""
    if day not in published_days(run, name):
        return 0, 0
    rows = tables.read(run, name, Days.of(day))
    count_and_content = (F.count(F.lit(1)), fingerprint(names, added=added))
    found = rows.agg(*count_and_content).first()
    assert found is not None, "an aggregation without keys has one row"
    count, content = found
    return int(count), int(content)
