"""The tables of a pipeline as one run left them: which version of each was in force when it ended.

What the run has published it left in its own last version, whoever published other days since. Of
every other table that version counts which was the newest when the run's last stage ended.

A run leaves whole stages. One that ended before the last of them, because a stage was refused or
failed, is shown with a note that says so; a stage that has published some of its tables and not all
is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from difflib import get_close_matches
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from jobs.lake import ops, publications
from jobs.lake.data_files import gone
from jobs.lake.store_faults import refuse_store_fault
from pipelines.days import Days
from pipelines.errors import UsageError
from pipelines.run import is_run_id
from pipelines.spec import HISTORY_SUFFIX, OPS, QUARANTINE_SUFFIX
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from jobs.lake.publications import Publication
    from pipelines.environment import Environment
    from pipelines.stages import Stage

_WHOLE = ("done", "current")
"""Statuses in `ops.stage_runs` of a stage that left nothing undone."""
_REFUSED = "refused"
"""Status of a stage that refused before it published a table; of an ingestion, after it has put the
rows of the files that it refused into quarantine."""
_ENDED = (_REFUSED, "failed")
"""Statuses of a stage after which a night ends, or goes on without what the stage makes."""
_RUNS_LISTED = 5
_FILES_LISTED = 3
_MISTYPED = 2
"""Characters of a long run id that a slip may change: another run's differs in more."""
_LEAST_ALIKE = 0.6
"""Share of a short one that is as it should be, for it to be a slip."""
_OF_SQL = "Ask for a later run, or without --run for what is in force."
OF_OPS = (
    "The platform's own tables keep their versions for a day, and all rows of before: filter by "
    "their columns of time."
)
"""What who asked for an older version of such a table can do."""
_Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What a run has left behind."""

    versions: dict[str, int | None] = field(default_factory=dict)
    """For each table of the run's pipeline its Delta version when the run ended, by SQL name; None:
    the table was first published later."""
    ended: dict[str, datetime] = field(default_factory=dict)
    """By pipeline when the run's last stage of it ended."""
    notes: list[str] = field(default_factory=list)
    """For each pipeline of which it did not do all stages: which it did not, and what they make.
    And tables that the run must have had, and that are not there as they were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Progress:
    """How far a run has come."""

    stopped: list[_Row] = field(default_factory=list)
    """Stages that ended without success, and the night with them or without what they make."""
    left_out: list[str] = field(default_factory=list)
    """Stages that were not done for that."""
    undone: list[str] = field(default_factory=list)
    """What is lacking of a night that has ended, in words."""


def versions(
    environment: Environment,
    run_id: str,
    known: Iterable[str],
) -> Left:
    """The tables of the run's pipeline as they were when the run ended.

    Two pipelines may have a run of that id: then it is both whose tables are told.

    Args:
        environment: Whose lake it is.
        run_id: A run that did all stages, or all up to one that was refused or failed.
        known: SQL names of the tables in the lake.

    Raises:
        UsageError: there is no such run; or it has not ended, or left a part of a stage.
    """
    rows = []
    # A query cannot hold bytes that are no text, which a name can.
    if is_run_id(run_id):
        rows = ops.read(environment, "stage_runs", [("run_id", "=", run_id)]).to_pylist()
    if not rows:
        raise UsageError(_unknown(environment, run_id))
    found = Left()
    for pipeline in sorted({row["pipeline"] for row in rows}):
        own = [row for row in rows if row["pipeline"] == pipeline]
        names = [name for name in known if name.partition(".")[0] == pipeline]
        _add(found, environment, own, names)
    return found


def open_at(
    environment: Environment, name: str, version: int, way_out: str = _OF_SQL
) -> DeltaTable:
    """A table at an older version, all files of which are still there.

    Args:
        environment: Whose lake it is.
        name: SQL name of the table.
        version: Of the table.
        way_out: What whoever asked can do when they are not.

    Raises:
        UsageError: the version cannot be opened, or files of it have been deleted.
    """
    place = environment.table_path(name)
    of_pipelines = (
        "`nightshift maintain` spares what was in force within NIGHTSHIFT_RETENTION_DAYS "
        f"({environment.retention_days}), and older versions only where something in force was "
        f"made from them. {way_out}"
    )
    ways_out = OF_OPS if name.startswith(f"{OPS}.") else of_pipelines
    try:
        table = DeltaTable(place, version=version)
    except (DeltaError, OSError) as error:
        refuse_store_fault(error)
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


def _add(
    found: Left,
    environment: Environment,
    rows: Sequence[_Row],
    names: Sequence[str],
) -> None:
    """Add the tables of one pipeline."""
    progress = _progress(rows)
    if progress.undone:
        raise UsageError(_unfinished(environment, rows, progress.undone))
    ended = max(map(_end, rows))
    run_id = rows[0]["run_id"]
    found.ended[rows[0]["pipeline"]] = ended
    not_done = [row["stage"] for row in progress.stopped] + progress.left_out
    whole = {row["stage"] for row in rows if row["status"] in _WHOLE}
    unmade = []
    made_since = []
    for name in names:
        changes = publications.revisions(environment, name.removesuffix(HISTORY_SUFFIX))
        own = [one for one in changes if one.run_id == run_id]
        part = [one for one in own if not any(_has_made(row, one) for row in rows)]
        if part:
            undone = _in_part(name, part[-1], ended)
            raise UsageError(_unfinished(environment, rows, [undone]))
        found.versions[name] = _last(own or _until(changes, ended))
        if any(one.stage in not_done for one in changes):
            unmade.append(name)
        # Rows may have been refused first since, and a history is told with its table.
        is_made_always = not name.endswith((QUARANTINE_SUFFIX, HISTORY_SUFFIX))
        is_of_whole = any(one.stage in whole for one in changes)
        if is_made_always and is_of_whole and found.versions[name] is None:
            made_since.append(name)
    if made_since:
        found.notes.append(
            f"Not shown: {', '.join(made_since)}. Run {run_id} of '{rows[0]['pipeline']}' did the "
            "stage that makes it, but all that is there was published later: it was deleted and "
            "made again since, or declared later."
        )
    if not_done:
        found.notes.append(_note(rows, progress, unmade))


def _has_made(row: _Row, one: Publication) -> bool:
    """Whether a stage that has published all that it was to publish made this publication."""
    if row["stage"] != one.stage or one.published_at > _end(row):
        return False
    # Whatever an attempt before has published that was killed: it has been made whole.
    is_whole = row["status"] in _WHOLE
    return is_whole or (row["status"] == _REFUSED and one.published_at >= row["started_at"])


def _in_part(name: str, one: Publication, ended: datetime) -> str:
    if one.published_at > ended:
        return f"it has published {name} since its last stage ended"
    return f"{one.stage} has published {name}, and was not done to its end since"


def _end(row: _Row) -> datetime:
    started: datetime = row["started_at"]
    return started + timedelta(seconds=row["seconds"])


def _until(changes: Iterable[Publication], ended: datetime) -> list[Publication]:
    return [one for one in changes if one.published_at <= ended]


def _last(changes: Iterable[Publication]) -> int | None:
    return max((one.version for one in changes), default=None)


def _progress(rows: Iterable[_Row]) -> _Progress:
    last = {row["stage"]: row for row in sorted(rows, key=itemgetter("started_at"))}
    found = _Progress()
    stopped: Stage | None = None
    before = None
    for stage in STAGES:
        row = last.get(stage.name)
        # A second attempt that ended early has left its later stages as the first one did them.
        is_after = row is not None and (before is None or row["started_at"] >= before["started_at"])
        if row is None or not is_after:
            if stopped is not None and (stage.may_fail or not stopped.may_fail):
                found.left_out.append(stage.name)
            elif row is None or before is None:
                found.undone.append(f"{stage.name} was not done")
            else:
                found.undone.append(f"{stage.name} was not done again after {before['stage']}")
            continue
        before = row
        stopped = None
        if row["status"] in _ENDED:
            stopped = stage
            found.stopped.append(row)
        elif row["status"] not in _WHOLE:
            found.undone.append(f"{stage.name} ended as '{row['status']}'")
    return found


def _note(rows: Sequence[_Row], progress: _Progress, unmade: Sequence[str]) -> str:
    """That the run did not do all stages, and which tables they make."""
    stopped = [
        f"{row['stage']} ended as '{row['status']}' for {Days(row['first_day'], row['last_day'])}"
        for row in progress.stopped
    ]
    left_out = ", ".join(progress.left_out)
    told = "; ".join([*stopped, *([f"left out for that: {left_out}"] if left_out else [])])
    tables = "These stages have published nothing before, either."
    if unmade:
        shown = ", ".join(unmade)
        tables = f"But for what it has published itself, {shown}: as they were before it."
    run_id = rows[0]["run_id"]
    return f"Run {run_id} of '{rows[0]['pipeline']}' did not do all stages: {told}. {tables}"


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
    # All that we give are alike but for their ends.
    likeness = 1 - _MISTYPED / max(len(run_id), 1)
    near = get_close_matches(run_id, known, n=1, cutoff=max(likeness, _LEAST_ALIKE))
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
    return gone(place, superseded)


def _files(table: DeltaTable) -> set[str]:
    named = pa.table(table.get_add_actions())["path"].to_pylist()
    # The log writes them as parts of a URL.
    return {unquote(file) for file in named}
