"""What of a table nobody needs any more, and its deletion.

A file stays that the newest version names, or one that is in use, or one that was the newest after
the rule's moment; and so does every file that was written since, such as a staging of a stage that
runs. Tables are not compacted: a day is one file already, or as few as its size asks for
(docs/decisions/0031).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from deltalake import DeltaTable
from pyarrow import fs

from jobs.lake import ops, publications, snapshots
from jobs.lake.file_systems import file_system
from jobs.lake.in_use import InUse
from jobs.lake.knowledge import visible
from jobs.lake.locations import STAGED_BELOW, exists, manifests, path, sql_name
from jobs.lake.log import Action, actions, is_table
from jobs.lake.snapshots import Snapshot
from jobs.lake.stored import stored_pipelines, tables_of
from jobs.services.leftovers import Cleaned, Rule
from pipelines.errors import NightshiftError
from pipelines.places import is_url
from pipelines.spec import OPS, PREDICTIONS, QUARANTINE_SUFFIX, SCORING

if TYPE_CHECKING:
    from pipelines.environment import Environment
    from pipelines.run import Run

_LONGER = timedelta(days=1)
"""That data files stay after what names them as staged. They are written first: a manifest must not
name a file that is gone."""
_MOST_COMMITS = 10
"""After a table's last checkpoint. Every reader reads them one by one."""
_SECONDS_AN_HOUR = 3600
_UNDECLARED = "declared no more: it stays; delete its folder to be rid of it"
_Files = Mapping[str, fs.FileInfo]
"""By path below the table."""


def names(run: Run) -> list[str]:
    """All tables of the pipeline that may be there, those of refused rows too."""
    tables = [table.name for table in run.pipeline.tables]
    quarantines = [name + QUARANTINE_SUFFIX for name in tables]
    # Of most tables no row was ever refused.
    return tables + [name for name in quarantines if exists(run, name)]


def versions_in_use(
    run: Run,
    pinned: Iterable[Snapshot] = (),
) -> dict[str, set[int]]:
    """For each table the Delta versions that a publication names, or follows from.

    Of predictions every publication counts, also one that was replaced, or whose rows are lost and
    may come back from a backup: what was served stays. Of another table those do that some night
    sees. What they were made from counts through every table, though no night sees it any more.

    Args:
        run: Whose pipeline's tables they are.
        pinned: What is in use beside the versions that publications name.
    """
    used = InUse(run, names(run))
    for name, known in used.told.items():
        told = known if name == PREDICTIONS else visible(known)
        for one in told:
            used.add(name, one)
    if PREDICTIONS in used.told:
        for one in publications.told(run, PREDICTIONS).all_lost:
            used.add(PREDICTIONS, one)
    used.versions[SCORING] |= _scored(run)
    for snapshot in pinned:
        used.versions[snapshot.table] |= snapshots.versions(run, snapshot)
        used.add_snapshot(snapshot)
    return used.versions


def clean_table(
    place: str, name: str, rule: Rule, versions: Collection[int] | None = None
) -> Cleaned:
    """Delete the files of a table that nobody needs, and shorten the log that readers read.

    Args:
        place: The table's path or URL.
        name: Its SQL name.
        rule: What is old enough to go.
        versions: Those in use, beside the newest; None: only the newest is ever read, and commits
            of long ago may be gone.

    Raises:
        NightshiftError: a commit that tells what a version names is gone; nothing is deleted.
    """
    before = rule.before - _LONGER
    table = DeltaTable(place)
    there = _files(place)
    doomed = set(_unnamed(table, before)) & there.keys()
    if versions is not None:
        doomed -= _spared(place, name, table.version(), versions, before)
    doomed |= _litter(there, doomed, before)
    freed = sum(there[file].size for file in doomed)
    is_long = _commits_since_checkpoint(place, table.version()) > _MOST_COMMITS
    if not rule.is_dry:
        _delete(place, there, doomed)
        if is_long:
            table.create_checkpoint()
    return Cleaned(
        what=name,
        kept=len(there) - len(doomed),
        deleted=len(doomed),
        freed=freed,
        note="checkpoint" if is_long else "",
    )


def clean_tables(run: Run, pinned: Iterable[Snapshot], rule: Rule) -> Iterable[Cleaned]:
    """Clean every table of the pipeline, one after another; one that cannot be is told as failed.

    One that is declared no more is told, and stays as it is: rows in force may be made from it.

    Args:
        run: Whose pipeline's tables they are.
        pinned: What is in use beside the versions that publications name.
        rule: What is old enough to go.
    """
    # Asked of all tables before the first file goes.
    used = versions_in_use(run, pinned)
    for name in names(run):
        place = path(run, name)
        if is_table(place):
            yield _clean_or_tell(place, sql_name(run, name), rule, used[name])
    declared = {table.name for table in run.pipeline.tables}
    for table in tables_of(run.environment, run.pipeline.name):
        name = table.partition(".")[2]
        if name.removesuffix(QUARANTINE_SUFFIX) not in declared:
            yield _undeclared(run.environment, table)


def tables_of_undeclared(environment: Environment, declared: Collection[str]) -> Iterable[Cleaned]:
    """Tell of the tables of pipelines that are declared no more; they stay as they are.

    Args:
        environment: Whose lake it is.
        declared: Names of pipelines.
    """
    for pipeline in stored_pipelines(environment):
        if pipeline not in {*declared, OPS}:
            for table in tables_of(environment, pipeline):
                yield _undeclared(environment, table)


def _undeclared(environment: Environment, table: str) -> Cleaned:
    kept = len(_files(environment.table_path(table)))
    return Cleaned(what=table, kept=kept, deleted=0, note=_UNDECLARED)


def _clean_or_tell(
    place: str,
    name: str,
    rule: Rule,
    versions: Collection[int] | None,
) -> Cleaned:
    try:
        return clean_table(place, name, rule, versions)
    except Exception as error:  # whatever it is, the other tables must not grow for it
        return Cleaned.failed(name, error)


def clean_ops(environment: Environment, rule: Rule) -> Iterable[Cleaned]:
    """Clean every ops table; nobody reads an old version of one.

    One that cannot be is told as failed.
    """
    for name in ops.SCHEMAS:
        if ops.exists(environment, name):
            place = environment.table_path(f"ops.{name}")
            yield _clean_or_tell(place, f"ops.{name}", rule, None)


def clean_stagings(run: Run, rule: Rule) -> Cleaned:
    """Forget what was staged long ago: a stage that wants to publish it must stage it again."""
    system, root = file_system(manifests(run))
    below = fs.FileSelector(root, recursive=True, allow_not_found=True)
    found = [info for info in system.get_file_info(below) if info.type == fs.FileType.File]
    old = [info for info in found if _is_old(info, rule.before)]
    if not rule.is_dry:
        for info in old:
            system.delete_file(info.path)
    return Cleaned(
        what=f"{run.pipeline.name}: stagings",
        kept=len(found) - len(old),
        deleted=len(old),
        freed=sum(info.size for info in old),
    )


def _scored(run: Run) -> set[int]:
    """Versions of the scoring table that predictions carry as their `scoring_version`."""
    done = [
        ("pipeline", "=", run.pipeline.name),
        ("stage", "=", "predict"),
        ("status", "=", "done"),
    ]
    rows = ops.read(run.environment, "stage_runs", done, ("metrics",))
    metrics = map(json.loads, rows["metrics"].to_pylist())
    return {told["scoring_version"] for told in metrics if "scoring_version" in told}


def _unnamed(table: DeltaTable, before: datetime) -> list[str]:
    """Data files that the newest version does not name, and that were dropped or written before."""
    age = datetime.now(UTC) - before
    # Whole hours, and rather one more.
    hours = math.ceil(age.total_seconds() / _SECONDS_AN_HOUR)
    # Only asked, because a vacuum that deletes commits a version too. In full, because the log does
    # not tell of what was staged and refused. `before` may be later than the table's own property.
    return table.vacuum(
        retention_hours=hours, dry_run=True, full=True, enforce_retention_duration=False
    )


def _spared(
    place: str, name: str, newest: int, versions: Collection[int], before: datetime
) -> set[str]:
    """Data files that one of the versions names, or one that was the newest after `before`.

    Not by `vacuum(keep_versions=…)`, which opens the table once for each: 4 s for 300 of 300 days.
    """
    spared: set[str] = set()
    named: set[str] = set()
    since = before.timestamp() * 1000
    for version in range(newest + 1):
        for action in _actions(place, name, version):
            if added := action.get("add"):
                named.add(unquote(added["path"]))
            if removed := action.get("remove"):
                file = unquote(removed["path"])
                named.discard(file)
                # Asked here too: the table itself forgets after 30 days when a file was dropped.
                if removed.get("deletionTimestamp", since) >= since:
                    spared.add(file)
        if version in versions:
            spared |= named
    return spared


def _actions(place: str, name: str, version: int) -> list[Action]:
    try:
        return actions(place, version)
    except FileNotFoundError:
        raise NightshiftError(
            f"{name}: the commit of version {version} is not in {place}/_delta_log any more, so "
            "nobody knows which files older versions name. Nothing of the table was deleted. "
            "Restore the file, and let no other program clean the logs of the lake."
        ) from None


def _files(place: str) -> dict[str, fs.FileInfo]:
    """Every file of the table but its log."""
    system, root = file_system(place)
    found = system.get_file_info(fs.FileSelector(root, recursive=True))
    files = {}
    for info in found:
        below = info.path.removeprefix(f"{root}/")
        if info.type == fs.FileType.File and not below.startswith("_delta_log/"):
            files[below] = info
    return files


def _litter(there: _Files, doomed: Collection[str], before: datetime) -> set[str]:
    """What is left of stagings without a data file: marks of Spark, and writes that were killed."""
    by_staging: dict[str, list[str]] = defaultdict(list)
    for file in there:
        if file not in doomed and file.startswith(f"{STAGED_BELOW}/"):
            by_staging[_staging_of(file)].append(file)
    litter: set[str] = set()
    for files in by_staging.values():
        is_old = all(_is_old(there[file], before) for file in files)
        if is_old and not any(map(_is_data, files)):
            litter.update(files)
    return litter


def _staging_of(file: str) -> str:
    """The folder of the staging, below the table."""
    return "/".join(PurePosixPath(file).parts[:2])


def _is_data(file: str) -> bool:
    # Spark writes below `_temporary`, and moves what is whole.
    return file.endswith(".parquet") and "/_temporary/" not in file


def _is_old(info: fs.FileInfo, before: datetime) -> bool:
    written = info.mtime_ns
    # Where no time is told, nothing is old.
    return written is not None and written < before.timestamp() * 1e9


def _delete(place: str, there: _Files, doomed: Collection[str]) -> None:
    system, root = file_system(place)
    for file in sorted(doomed):
        # An ops table may have tidied itself meanwhile.
        with suppress(FileNotFoundError):
            system.delete_file(there[file].path)
    staged = {_staging_of(file) for file in doomed if file.startswith(f"{STAGED_BELOW}/")}
    left = {_staging_of(file) for file in there.keys() - set(doomed)}
    for folder in staged - left:
        # Only folders are in it. Some stores refuse to take away the objects that mark them.
        with suppress(OSError) if is_url(place) else nullcontext():
            system.delete_dir(f"{root}/{folder}")


def _commits_since_checkpoint(place: str, newest: int) -> int:
    system, root = file_system(place)
    try:
        with system.open_input_stream(f"{root}/_delta_log/_last_checkpoint") as file:
            told = json.loads(file.read())
        return newest - int(told["version"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # There was none, or a failure of the power has cut off the note of it.
        return newest + 1
