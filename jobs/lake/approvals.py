"""Models that await a person, and for how long they may: `Promotion.approval_hours`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING

from jobs.lake import model_events, ops
from jobs.services import shared_locks

if TYPE_CHECKING:
    from jobs.lake.model_events import Row
    from pipelines.environment import Environment
    from pipelines.run import Run
    from pipelines.spec import Pipeline

_WHO = "nightshift"


def awaiting(recorded: Iterable[Row]) -> list[Row]:
    """Of each model that awaits a person the event that says so, given all events, oldest first."""
    last = {event["model_version"]: event for event in recorded}
    return [event for event in last.values() if event["event"] == model_events.AWAITING]


def undecided(recorded: Iterable[Row], pipeline: Pipeline, now: datetime) -> list[Row]:
    """Those that a person may still let serve, in the order of their nights."""
    in_time = [event for event in awaiting(recorded) if not is_over(event, pipeline, now)]
    return sorted(in_time, key=itemgetter("as_of"))


def awaited_on(waiting: Iterable[Row], night: date) -> Row | None:
    """The newest of `undecided` that would serve that night; None: none would."""
    in_time = [event for event in waiting if event["as_of"] <= night]
    return in_time[-1] if in_time else None


def command(pipeline: Pipeline, version: str) -> str:
    """By which a person lets a model serve."""
    return f"nightshift approve {pipeline.name} {version} --why TEXT"


def ends_at(event: Row, pipeline: Pipeline) -> datetime | None:
    """Until when the model of the event may be approved; None: for ever."""
    hours = pipeline.promotion.approval_hours
    if hours is None:
        return None
    began: datetime = event["created_at"]
    return began + timedelta(hours=hours)


def is_over(event: Row, pipeline: Pipeline, now: datetime) -> bool:
    """Whether the model has awaited a person for longer than it may."""
    end = ends_at(event, pipeline)
    return end is not None and now > end


def one_at_a_time(environment: Environment, pipeline: Pipeline) -> AbstractContextManager[None]:
    """Whoever decides about a model that awaits a person reads and writes alone."""
    return shared_locks.hold(environment, f"approvals.{pipeline.name}")


def expire(run: Run) -> list[str]:
    """Refuse the models that have awaited a person for too long, and record that nobody agreed.

    Returns:
        The versions that this run has refused so, in an earlier attempt too.
    """
    pipeline = run.pipeline
    with one_at_a_time(run.environment, pipeline):
        recorded = model_events.events(run.environment, pipeline.name)
        now = ops.now()
        late = [event for event in awaiting(recorded) if is_over(event, pipeline, now)]
        rows = [_expired(run, event) for event in late]
        if rows:
            model_events.record(run.environment, rows)
    own = [event for event in [*recorded, *rows] if event["run_id"] == run.run_id]
    expired = [event for event in own if event["event"] == model_events.EXPIRED]
    return [event["model_version"] for event in expired]


def _expired(run: Run, event: Row) -> Row:
    hours = run.pipeline.promotion.approval_hours
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "as_of": event["as_of"],
        "event": model_events.EXPIRED,
        "model_version": event["model_version"],
        "rival_version": event["rival_version"],
        "reason": f"Nobody approved it within {hours:g} h.",
        "who": _WHO,
    }
