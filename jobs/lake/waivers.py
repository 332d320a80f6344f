"""Waivers as `ops.waivers` keeps them: a row for each that was granted, and one for its end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from jobs.lake import ops
from pipelines.days import Days
from pipelines.waivers import Waiver

if TYPE_CHECKING:
    from pipelines.environment import Environment
    from pipelines.run import Run

_TABLE = "waivers"
_ID_CHARACTERS = 8
_LONGEST_PAUSE = timedelta(hours=36)
"""Between two stages of a run: its first one may wait for files for a day (`feed_patience_hours`).
A run that is done again later, as a cleared one of Airflow, has the id of the first."""
_LONGEST_RUN = timedelta(days=7)
"""Whatever its pauses: an id that somebody gives to each night is not a run of months."""
State = Literal["in force", "ran out", "revoked"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """A waiver with what became of it."""

    table: str
    """SQL name."""
    waiver: Waiver
    """Its days are nights."""
    created_at: datetime
    is_revoked: bool

    def state(self, today: date) -> State:
        """Whether it lets anything through on that day."""
        if self.is_revoked:
            return "revoked"
        until = self.waiver.until
        return "in force" if until is None or today <= until else "ran out"


def today() -> date:
    """The day by which it is told whether a waiver is in force: that of UTC."""
    return ops.now().date()


def new_id() -> str:
    """The name of a new waiver."""
    return f"w_{uuid4().hex[:_ID_CHARACTERS]}"


def granted(environment: Environment, pipeline: str) -> list[Granted]:
    """Every waiver of a pipeline that was ever granted, the newest first."""
    of_pipeline = [("pipeline", "=", pipeline)]
    rows = ops.read(environment, _TABLE, of_pipeline).to_pylist()
    ended = [row for row in rows if row["event"] == "revoked"]
    revoked = {row["waiver_id"] for row in ended}
    first = [row for row in rows if row["event"] == "granted"]
    found = [_granted(row, revoked) for row in first]
    return sorted(found, key=lambda one: one.created_at, reverse=True)


def in_force(run: Run) -> list[Granted]:
    """The waivers that let something through in a run: those of the day on which it began.

    So one that ends in mid-run lets through all of a night or nothing.
    """
    known = granted(run.environment, run.pipeline.name)
    if not known:
        # Nearly always.
        return []
    began = _began(run).date()
    return [one for one in known if one.state(began) == "in force"]


def _began(run: Run) -> datetime:
    """When the first of the run's stages began; now, if this is it."""
    of_run = [("pipeline", "=", run.pipeline.name), ("run_id", "=", run.run_id)]
    columns = ["started_at", "seconds"]
    stages = ops.read(run.environment, "stage_runs", of_run, columns).to_pylist()
    times = [(_ended(stage), stage["started_at"]) for stage in stages]
    began = now = ops.now()
    # The last first. From the end of each, however long it took.
    for ended, started in sorted(times, reverse=True):
        if began - ended > _LONGEST_PAUSE or now - started > _LONGEST_RUN:
            break
        began = min(began, started)
    return began


def _ended(stage: dict[str, Any]) -> datetime:
    ended: datetime = stage["started_at"] + timedelta(seconds=stage["seconds"])
    return ended


def grant(environment: Environment, pipeline: str, table: str, waiver: Waiver) -> None:
    """Record a waiver of a table, by its SQL name."""
    ops.append(environment, _TABLE, [_row(pipeline, table, waiver, "granted")])


def revoke(
    environment: Environment,
    pipeline: str,
    one: Granted,
    *,
    by: str,
    why: str,
) -> None:
    """Record that a waiver is at its end; what it has let through stays."""
    ended = replace(one.waiver, by=by, why=why)
    ops.append(environment, _TABLE, [_row(pipeline, one.table, ended, "revoked")])


def _row(
    pipeline: str,
    table: str,
    waiver: Waiver,
    event: str,
) -> dict[str, Any]:
    return {
        "waiver_id": waiver.waiver_id,
        "event": event,
        "pipeline": pipeline,
        "table_name": table,
        "first_day": waiver.days.first,
        "last_day": waiver.days.last,
        "expectation": waiver.expectation,
        "column_name": waiver.column,
        "why": waiver.why,
        "until": waiver.until,
        "created_by": waiver.by,
        "created_at": ops.now(),
    }


def _granted(row: dict[str, Any], revoked: set[str]) -> Granted:
    waiver = Waiver(
        waiver_id=row["waiver_id"],
        days=Days(row["first_day"], row["last_day"]),
        expectation=row["expectation"],
        column=row["column_name"],
        by=row["created_by"],
        why=row["why"],
        until=row["until"],
    )
    return Granted(
        table=row["table_name"],
        waiver=waiver,
        created_at=row["created_at"],
        is_revoked=row["waiver_id"] in revoked,
    )
