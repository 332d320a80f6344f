"""What people were told that something is wrong, and that it is right again: `ops.alerts`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from operator import itemgetter
from typing import Any

from jobs.lake import ops
from pipelines.environment import Environment
from pipelines.events import Event, Notification

Row = dict[str, Any]
"""Of `ops.alerts`."""

_TABLE = "alerts"


def record(
    environment: Environment,
    notification: Notification,
    last_day: date,
    cause: str,
) -> None:
    """Keep that people have been told.

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
        "told_at": ops.now(),
    }
    ops.append(environment, _TABLE, [row])


def standing(environment: Environment, pipeline: str) -> list[Row]:
    """What is wrong as far as people know, oldest first: no recovery was told since.

    A night that is done makes everything true up to its day: it ends what was wrong with nights up
    to then, and nothing of later ones.
    """
    about = [("pipeline", "=", pipeline)]
    rows: list[Row] = ops.read(environment, _TABLE, about).to_pylist()
    ends = [row for row in rows if row["event"] == Event.RECOVERED]
    begun = [row for row in rows if row["event"] != Event.RECOVERED]
    found = [row for row in begun if not _is_ended(row, ends)]
    return sorted(found, key=itemgetter("told_at"))


def _is_ended(row: Row, ends: Sequence[Row]) -> bool:
    later = [end for end in ends if end["told_at"] > row["told_at"]]
    return any(end["last_day"] >= row["last_day"] for end in later)
