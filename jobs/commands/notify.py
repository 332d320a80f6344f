"""The command `nightshift notify`: has people told of a run that a scheduler has performed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from jobs import outcome
from jobs.notifications.channels import channels_of, has_reached
from jobs.services.home import private_home
from jobs.telling import tell
from pipelines.errors import NightshiftError, UsageError
from pipelines.events import Event, Notification
from pipelines.run import Run

_NEED_A_STAGE = (Event.ALIAS_MOVED, Event.WAREHOUSE_FAILED)
_OF_FEEDS = (Event.FEED_LATE, Event.FEED_MISSING)
_TOLD_BY = {
    Event.MAINTENANCE_FAILED: "`nightshift maintain` tells it, or else `nightshift announce`",
    Event.DECLARATION_UNREADABLE: "`nightshift announce` tells it",
    Event.RECOVERED: f"a night that is done ({Event.NIGHT_DONE}) tells it",
}


def notify(
    run: Run,
    event: Event,
    since: datetime | None,
    message: str | None,
    *,
    of_plan: bool = False,
) -> int:
    """Send the event by the channels of the run's pipeline; an alarm that stands is told once.

    A promotion, an approval that nobody gave, an alias that was moved, drift, late predictions, a
    PostgreSQL that is behind and a night that is done are sent only when the records say so.

    Args:
        run: The run that it happened to, at its stage where the event is one of a stage.
        event: What happened.
        since: When the stage began: what was recorded before is not its reason. When predictions
            were due, of a deadline that was made up for.
        message: Why: of files that have not landed; of a stage where it recorded no reason; of a
            night that failed between two stages.
        of_plan: It happened to the plan, which comes before the stages.

    Returns:
        0 when the event was sent or there was nothing to send, 3 when a channel failed: of files
        that are late when nobody was reached, as who waits for them tells it again.

    Raises:
        UsageError: an event of a stage without a stage, but for a fault that a message tells.
    """
    # Of bytes that are no UTF-8, such as the end of a log, a shell makes what nothing can write.
    told = message and message.encode(errors="backslashreplace").decode()
    notification = _notification(run, event, since, told, of_plan)
    if notification is None:
        print(f"Nothing to send: run {run.run_id} has no {event} to tell.", file=sys.stderr)
        return 0
    private_home(run.environment)
    failed = tell(run, notification)
    if event is Event.FEED_LATE and has_reached(channels_of(run.environment, run.pipeline), failed):
        return 0
    return NightshiftError.exit_code if failed else 0


def parse_instant(text: str) -> datetime:
    """The instant written in ISO 8601; without an offset it is UTC.

    Raises:
        UsageError: the text is no instant.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--since '{text}' is not an instant. Write it as 2013-03-02T08:30:00+00:00."
        ) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _notification(
    run: Run, event: Event, since: datetime | None, message: str | None, of_plan: bool
) -> Notification | None:
    if event is Event.PREDICTIONS_LATE:
        return outcome.predictions_late(run, since)
    recorded = outcome.OF_RECORDS.get(event)
    if recorded and (run.stage or event not in _NEED_A_STAGE):
        return recorded(run)
    if event in _TOLD_BY:
        raise UsageError(f"--event {event} is not yours to tell: {_TOLD_BY[event]}.")
    if of_plan:
        return outcome.of_plan(run, event, message or outcome.NO_REASON)
    if run.stage is None and event is Event.STAGE_FAILED and message:
        # Between two stages, as where the time of a run was up.
        return outcome.notification(run, event, message)
    if run.stage is None:
        raise UsageError(f"--event {event} needs --stage: the stage that it happened to.")
    if event in _OF_FEEDS and message:
        # Who waits for files knows which are missing by now. The stage recorded those of then.
        return outcome.notification(run, event, message, run.stage.name)
    return outcome.failure(run, event, since, message or outcome.NO_REASON)
