"""The tables of a pipeline as one run left them: which version of each was in force when it ended.

What the run has published it left in its own last version, whoever published other days since. Of
every other table that version counts which was the newest when the run's last stage ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import fs

from jobs.lake import ops, publications
from pipelines.errors import UsageError
from pipelines.spec import HISTORY_SUFFIX
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from jobs.lake.publications import Publication
    from pipelines.environment import Environment

_WHOLE = ("done", "current")
"""Statuses in `ops.stage_runs` of a stage that left nothing undone."""
_RUNS_LISTED = 5
_FILES_LISTED = 3
_Row = dict[str, Any]


def versions(
    environment: Environment,
    run_id: str,
    known: Iterable[str],
) -> dict[str, int | None]:
    """For each table of the run's pipeline its Delta version when the run ended.

    Two pipelines may have a run of that id: then it is both whose tables are told.

    Args:
        environment: Whose lake it is.
        run_id: A run that did all stages.
        known: SQL names of the tables in the lake.

    Returns:
        By SQL name the version; None: the table was first published later.

    Raises:
        UsageError: there is no such run, or it has not done all stages.
    """
    rows = ops.read(environment, "stage_runs", [("run_id", "=", run_id)]).to_pylist()
    if not rows:
        raise UsageError(_unknown(environment, run_id))
    found: dict[str, int | None] = {}
    for pipeline in sorted({row["pipeline"] for row in rows}):
        own = [row for row in rows if row["pipeline"] == pipeline]
        names = [name for name in known if name.partition(".")[0] == pipeline]
        found |= _versions(environment, own, names)
    return found


def open_at(environment: Environment, name: str, version: int) -> DeltaTable:
    """A table at an older version, all files of which are still there.

    Args:
        environment: Whose lake it is.
        name: SQL name of the table.
        version: Of the table.

    Raises:
        UsageError: the version cannot be opened, or files of it have been deleted.
    """
    place = environment.table_path(name)
    ways_out = (
        "`nightshift maintain` spares what was in force within NIGHTSHIFT_RETENTION_DAYS "
        f"({environment.retention_days}), and older versions only where something in force was "
        "made from them. Ask for a later run or version, or for what is in force."
    )
    try:
        table = DeltaTable(place, version=version)
    except (DeltaError, OSError) as error:
        raise UsageError(
            f"{name} cannot be opened any more as it was in version {version}: {error}. {ways_out}"
        ) from None
    gone = _gone(place, table)
    if gone:
        shown = ", ".join(gone[:_FILES_LISTED])
        raise UsageError(
            f"{name} cannot be read any more as it was in version {version}: {len(gone)} of its "
            f"files have been deleted ({shown}{', …' if len(gone) > _FILES_LISTED else ''}). "
            f"{ways_out}"
        )
    return table


def _versions(
    environment: Environment,
    rows: Sequence[_Row],
    names: Sequence[str],
) -> dict[str, int | None]:
    undone = _undone(rows)
    if undone:
        raise UsageError(_unfinished(environment, rows, undone))
    ended = max(row["started_at"] + timedelta(seconds=row["seconds"]) for row in rows)
    run_id = rows[0]["run_id"]
    found: dict[str, int | None] = {}
    for name in names:
        changes = publications.revisions(environment, name.removesuffix(HISTORY_SUFFIX))
        own = [one for one in changes if one.run_id == run_id]
        if any(one.published_at > ended for one in own):
            undone = [f"it has published {name} since its last stage ended"]
            raise UsageError(_unfinished(environment, rows, undone))
        found[name] = _last(own or _until(changes, ended))
    return found


def _until(changes: Iterable[Publication], ended: datetime) -> list[Publication]:
    return [one for one in changes if one.published_at <= ended]


def _last(changes: Iterable[Publication]) -> int | None:
    return max((one.version for one in changes), default=None)


def _undone(rows: Iterable[_Row]) -> list[str]:
    """What is lacking of a whole night, in words; nothing where all of it was done."""
    last = {row["stage"]: row for row in sorted(rows, key=itemgetter("started_at"))}
    undone = []
    before = None
    for stage in STAGES:
        row = last.get(stage.name)
        if row is None:
            undone.append(f"{stage.name} was not done")
            continue
        if row["status"] not in _WHOLE:
            undone.append(f"{stage.name} ended as '{row['status']}'")
        # A second attempt that was killed has left its later stages as the first one did them.
        elif before is not None and row["started_at"] < before["started_at"]:
            undone.append(f"{stage.name} was not done again after {before['stage']}")
        if before is None or row["started_at"] > before["started_at"]:
            before = row
    return undone


def _unfinished(environment: Environment, rows: Sequence[_Row], undone: Sequence[str]) -> str:
    pipeline = rows[0]["pipeline"]
    run_id = rows[0]["run_id"]
    last_day = max(row["last_day"] for row in rows)
    return (
        f"Run {run_id} of '{pipeline}' has not finished: {'; '.join(undone)}. Half a night is not "
        "shown. Wait while it is going on, or have the rest done: "
        f"nightshift run {pipeline} --date {last_day} --run-id {run_id}. "
        f"Without --run you see what is in force. {_last_runs(environment, pipeline)}"
    )


def _unknown(environment: Environment, run_id: str) -> str:
    known = [row["run_id"] for row in _newest_first(environment)]
    near = get_close_matches(run_id, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"No run named '{run_id}'.{hint} {_last_runs(environment)}"


def _last_runs(environment: Environment, pipeline: str | None = None) -> str:
    rows = _newest_first(environment)
    own = [row for row in rows if pipeline in (None, row["pipeline"])]
    # Each run once, where its last stage stands.
    named = dict.fromkeys(f"{row['run_id']} ({row['pipeline']})" for row in own)
    shown = ", ".join(list(named)[:_RUNS_LISTED])
    return f"The last runs: {shown or 'none yet, run a night first'}."


def _newest_first(environment: Environment) -> list[_Row]:
    columns = ("run_id", "pipeline", "started_at")
    rows: list[_Row] = ops.read(environment, "stage_runs", (), columns).to_pylist()
    return sorted(rows, key=itemgetter("started_at"), reverse=True)


def _gone(place: str, table: DeltaTable) -> list[str]:
    """Files of that version which are not there any more, below the table."""
    # What the newest version names is there: nothing may delete it.
    superseded = sorted(_files(table) - _files(DeltaTable(place)))
    system, root = fs.FileSystem.from_uri(place)
    found = system.get_file_info([f"{root}/{file}" for file in superseded])
    return [
        file
        for file, info in zip(superseded, found, strict=True)
        if info.type == fs.FileType.NotFound
    ]


def _files(table: DeltaTable) -> set[str]:
    named = pa.table(table.get_add_actions())["path"].to_pylist()
    # The log writes them as parts of a URL.
    return {unquote(file) for file in named}
