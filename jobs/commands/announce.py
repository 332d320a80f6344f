"""The command `nightshift announce`: has people told of what is no run's."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from jobs.night import message_of
from jobs.notifications.channels import channels_of, has_reached, send_each
from jobs.services.home import private_home
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.events import Event, Notification

_UNREADABLE = (
    "Its declaration cannot be read: {why}\n"
    "Mend it: until then no night of '{name}' begins, and none of its other alarms is told."
)
_NO_REASON = "It ended before it could tell why. Its log says more."


def announce(environment: Environment, event: Event, message: str | None) -> int:
    """Send the event by the channels of each pipeline that it concerns, each time anew.

    All at once, as Airflow lets a callback do it for seconds. Of a declaration that cannot be read
    its channels are all that are set: nobody knows which it declares.

    Args:
        environment: Whose channels they are.
        event: One of `OF_NO_RUN`. A declaration that cannot be read concerns its own pipeline,
            maintenance all of them.
        message: Why; of a maintenance alone.

    Returns:
        0 when somebody was told of each, or there was nothing to tell; 3 when nobody could be.

    Raises:
        UsageError: there is a message of a declaration that cannot be read.
    """
    if message is not None and event is Event.DECLARATION_UNREADABLE:
        raise UsageError(
            f"--message is of {Event.MAINTENANCE_FAILED} alone: of a declaration that cannot be "
            "read its own error is told. Leave it out."
        )
    unreadable = catalog.unreadable()
    told = dict.fromkeys(catalog.names(), message or _NO_REASON)
    if event is Event.DECLARATION_UNREADABLE:
        told = {}
        for name, error in unreadable.items():
            why = message_of(error, environment.variables())
            told[name] = _UNREADABLE.format(name=name, why=why)
    if not told:
        print("Nothing to send: every declaration can be read.", file=sys.stderr)
        return 0
    private_home(environment)
    asked = []
    for name, text in told.items():
        pipeline = None if name in unreadable else catalog.pipeline(name)
        asked.append((pipeline, of_today(event, name, text)))
    failures = send_each(environment, asked)
    code = 0
    for (pipeline, _), failed in zip(asked, failures, strict=True):
        if failed and not has_reached(channels_of(environment, pipeline), failed):
            code = NightshiftError.exit_code
    return code


def of_today(event: Event, pipeline: str, message: str) -> Notification:
    """An event of a pipeline that is no run's."""
    return Notification(
        event=event,
        pipeline=pipeline,
        days=str(datetime.now(UTC).date()),
        run_id="",
        stage=None,
        message=message,
    )
