"""A notification as every channel delivers it: a flat JSON object with one line for people."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from pipelines.events import Event, Notification

Message = dict[str, str | None]
"""Every field of the notification, the moment of sending (`at`, UTC) and a line for people
(`text`, the field that chat tools show)."""

_MOST_CHARACTERS = 4000
"""Of the whole message. The error of a library may be as long as a file."""
# For chat tools and logs; `message` holds more of the reason.
_MOST_IN_LINE = 300
_HAPPENED = {
    Event.STAGE_REFUSED: "was refused",
    Event.STAGE_FAILED: "failed",
    Event.FEED_LATE: "a feed is late",
    Event.FEED_MISSING: "the night ended without a feed",
    Event.NIGHT_DONE: "the night is done",
    Event.MODEL_PROMOTED: "a new model serves",
    Event.MODEL_AWAITING: "a new model awaits a person",
    Event.DRIFT_FOUND: "something drifts",
    Event.DRIFT_ENDED: "drift has ended",
    Event.MAINTENANCE_FAILED: "maintenance failed",
}


def compose(notification: Notification, at: datetime) -> Message:
    """What is delivered.

    Args:
        notification: What happened.
        at: When it is sent.
    """
    fields = asdict(notification)
    return {
        **fields,
        "event": str(notification.event),
        "message": _cut(notification.message, _MOST_CHARACTERS),
        "at": at.isoformat(timespec="seconds"),
        "text": line(notification),
    }


def line(notification: Notification) -> str:
    """The notification on one line: `flights 2013-04-03: train failed. Spark is away`."""
    happened = _HAPPENED[notification.event]
    if notification.event in (Event.STAGE_REFUSED, Event.STAGE_FAILED):
        happened = f"{notification.stage or 'the night'} {happened}"
    first = notification.message.strip().partition("\n")[0]
    text = f"{notification.pipeline} {notification.days}: {happened}. {first}"
    # A message may quote a value of the data: its control characters are no business of a terminal.
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return _cut(printable.strip(), _MOST_IN_LINE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
