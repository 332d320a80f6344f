"""What became of a run, as JSON for a scheduler: `nightshift run --result FILE`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.days import Days
from pipelines.places import write_whole
from pipelines.stages import FILE_READERS

if TYPE_CHECKING:
    from jobs.lake import ops
    from pipelines.events import Event
    from pipelines.run import Run

_GOOD = ("done", "current")
"""Status of a stage that succeeded."""
_Row = Mapping[str, Any]
_Told = dict[str, Any]


def write_result(
    path: Path,
    run: Run,
    since: datetime,
    code: int,
    fault: str | None,
    kept: Sequence[Days] = (),
) -> None:
    """Write what the run has done since that instant.

    `exit_code`; `outcome`, the status of the first stage that did not succeed, where all else was
    done of a correction that was not accepted, else `done` or `current`; its `message`, `failures`
    and `report`, or the last report that a stage wrote; `lacking`, files and markers below the
    landing folder for which it is to wait; `stages`, each with status, days, seconds and figures;
    `tables`, those that changed, each with rows, version and days; `kept`, ranges of days whose
    corrected files were not accepted, where all else was done; `to_tell`, of one stage that
    succeeded the events that it has for people, null where nobody has looked.

    Args:
        path: The file.
        run: The run.
        since: When it began (UTC): its id may have been given to an earlier one.
        code: The exit code.
        fault: What went wrong before or between stages; None: nothing.
        kept: What `kept` tells.
    """
    try:
        stages = _stages(run, since)
        tables = _tables(run)
    except Exception:  # a lake that is away may be why the run failed
        stages, tables = [], {}
    result = {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "days": str(run.days),
        "exit_code": code,
        **_outcome(stages, code, fault, is_correction=bool(kept)),
        "stages": [_told(stage) for stage in stages],
        "tables": tables,
        "kept": [str(days) for days in kept],
        "to_tell": _to_tell(run, code),
    }
    write_json(path, result)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write what a scheduler reads: where no file is yet, whole or not at all."""
    text = json.dumps(content, default=str)
    if path.exists():
        # It may be a pipe, or the one file that one may write in its folder.
        path.write_text(text)
    else:
        # Who reads it finds no half, as a full disk would leave one.
        write_whole(path, text.encode())


def _to_tell(run: Run, code: int) -> list[Event] | None:
    if code or run.stage is None:
        return None
    from jobs import outcome

    try:
        return outcome.to_tell(run)
    except Exception:  # a lake that is away; whoever tells it looks for himself
        return None


def _outcome(
    stages: Sequence[_Row],
    code: int,
    fault: str | None,
    *,
    is_correction: bool,
) -> _Told:
    bad = [stage for stage in stages if stage["status"] not in _GOOD]
    if not is_correction:
        bad = _of_the_night(bad, fault)
    last_report = None
    for stage in stages:
        last_report = stage["metrics"].get("report", last_report)
    if bad:
        metrics = bad[0]["metrics"]
        return {
            "outcome": bad[0]["status"],
            "message": bad[0]["error"],
            "failures": metrics.get("failures", []),
            "report": metrics.get("report", last_report),
            "lacking": metrics.get("lacking", []),
        }
    is_done = any(stage["status"] == "done" for stage in stages)
    outcome = "done" if is_done else "current"
    return {
        "outcome": "failed" if code else outcome,
        "message": fault,
        "failures": [],
        "report": last_report,
        "lacking": [],
    }


def _of_the_night(bad: list[_Row], fault: str | None) -> list[_Row]:
    """What did not succeed, without corrections that were not accepted: these ended no night."""
    others = [stage for stage in bad if stage["stage"] not in FILE_READERS]
    if others:
        return others
    # What reads files ends the night where it fails, unless it was for a correction.
    last = bad[-1:]
    is_fault = fault is None or any(stage["error"] == fault for stage in last)
    return last if is_fault else []


def _told(stage: _Row) -> _Told:
    figures = {
        name: value
        for name, value in stage["metrics"].items()
        if isinstance(value, int | float | str)
    }
    return {
        "stage": stage["stage"],
        "status": stage["status"],
        "days": str(Days(stage["first_day"], stage["last_day"])),
        "seconds": stage["seconds"],
        "figures": figures,
    }


def _stages(run: Run, since: datetime) -> list[_Row]:
    """What `ops.stage_runs` holds of the run, oldest first."""
    from jobs.lake import ops  # Arrow takes longer to import than everything else here

    begun = [*_of(run), ("started_at", ">=", since)]
    rows = ops.read(run.environment, "stage_runs", begun).to_pylist()
    for row in rows:
        row["metrics"] = json.loads(row["metrics"] or "{}")
    return sorted(rows, key=lambda row: row["started_at"])


def _tables(run: Run) -> dict[str, _Told]:
    """What the run has changed, by the SQL name of the table.

    Also by an earlier attempt, which may have ended before it could tell.
    """
    from jobs.lake import ops

    rows = ops.read(run.environment, "publications", _of(run)).to_pylist()
    changed: dict[str, list[_Row]] = {}
    for row in rows:
        if row["changed"]:
            changed.setdefault(row["table_name"], []).append(row)
    return {name: _table(publications) for name, publications in changed.items()}


def _table(publications: Iterable[_Row]) -> _Told:
    of_day: dict[date, _Row] = {}
    for row in sorted(publications, key=itemgetter("version")):
        # Of a day that was published twice, the last is in force.
        of_day[row["day"]] = row
    days = sorted(of_day)
    return {
        "rows": sum(row["rows"] for row in of_day.values()),
        "version": max(row["version"] for row in of_day.values()),
        "days": len(days),
        "first_day": str(days[0]),
        "last_day": str(days[-1]),
    }


def _of(run: Run) -> list[ops.Condition]:
    return [("run_id", "=", run.run_id), ("pipeline", "=", run.pipeline.name)]
