"""What people were told that something is wrong, and that it is right again: `ops.alerts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from operator import itemgetter
from typing import Any

from jobs.lake import ops, publications
from jobs.services import promptly
from pipelines.environment import Environment
from pipelines.events import ALARMS, Event, Notification
from pipelines.run import Run
from pipelines.spec import PREDICTIONS

Row = dict[str, Any]
"""Of `ops.alerts`."""

_TABLE = "alerts"


def record(
    environment: Environment,
    notification: Notification,
    last_day: date,
    cause: str,
) -> None:
    """Keep that people have been told, or know of the cause already.

    Args:
        environment: Whose lake it is.
        notification: What they were told.
        last_day: The last night that it is about.
        cause: What another notification of the same has too.
    """
    row = {
        "run_id": notification.run_id,
        "pipeline": notification.pipeline,
        "event": str(notification.event),
        "stage": notification.stage,
        "days": notification.days,
        "last_day": last_day,
        "cause": cause,
        "message": notification.message,
        "told_at": ops.now_in_order(environment),
    }
    _append(environment, [row])


def record_end(environment: Environment, notification: Notification, ended: Sequence[Row]) -> None:
    """Keep that people have been told that these of `standing` are right again."""
    about = {
        "run_id": notification.run_id,
        "event": str(notification.event),
        "message": notification.message,
        "told_at": ops.now_in_order(environment),
    }
    _append(environment, [{**row, **about} for row in ended])


def standing(environment: Environment, pipeline: str) -> list[Row]:
    """What is wrong as far as people know, oldest first: no recovery of it was told since."""
    rows = _rows(environment, pipeline)
    recovered = [row for row in rows if row["event"] == Event.RECOVERED]
    ends = {row["cause"]: row["told_at"] for row in recovered}
    begun = [row for row in rows if row["event"] in ALARMS]
    return [row for row in begun if not _is_ended(row, ends)]


def ended_by(run: Run) -> list[Row]:
    """Those of `standing` that are right again, now that the run's nights are done.

    Of each cause the first, about which people were told, whichever nights it has stopped since.

    Of an earlier night the predictions must be there: a run may have gone over a gap, or have done
    its own days alone. Before the first that was ever published there are none to wait for.
    """
    told: dict[str, Row] = {}
    for row in standing(run.environment, run.pipeline.name):
        told.setdefault(row["cause"], row)
    until = run.days.last
    of_then = [row for row in told.values() if row["last_day"] <= until]
    # As nearly every night: then no more is read.
    if not of_then:
        return []
    table = run.pipeline.table(PREDICTIONS)
    published = publications.told(run, PREDICTIONS)
    nights = {table.night_of(one.day) for one in published}
    lost = {table.night_of(day) for day in published.lost}
    first = min(nights | lost, default=date.max)

    def is_right(row: Row) -> bool:
        night = row["last_day"]
        # Of a range its last night may be done without a model, and have none.
        is_done = night == until and row["event"] != Event.PREDICTIONS_LATE
        return is_done or night in nights or night < first

    return [row for row in of_then if is_right(row)]


def told_last(environment: Environment, pipeline: str, event: Event) -> datetime | None:
    """When people were told of such an event last."""
    told = [row["told_at"] for row in _rows(environment, pipeline) if row["event"] == event]
    return told[-1] if told else None


def _append(environment: Environment, rows: Sequence[Row]) -> None:
    # Whoever tells waits no longer for another one that is stuck than before the telling.
    ops.append(environment, _TABLE, rows, most_seconds=promptly.MOST_SECONDS)


def _rows(environment: Environment, pipeline: str) -> list[Row]:
    """All that people of the pipeline were told, oldest first."""
    about = [("pipeline", "=", pipeline)]
    rows: list[Row] = ops.read(environment, _TABLE, about).to_pylist()
    return sorted(rows, key=itemgetter("told_at"))


def _is_ended(row: Row, ends: Mapping[str, datetime]) -> bool:
    cause = row["cause"]
    return cause in ends and ends[cause] > row["told_at"]
