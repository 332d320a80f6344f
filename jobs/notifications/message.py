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
_ITEM = "  - "
"""How a line of a list begins, in a message as in the errors of a stage."""
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
    Event.APPROVAL_EXPIRED: "nobody approved a model in time",
    Event.ALIAS_MOVED: "MLflow's alias was moved by hand and put back",
    Event.PREDICTIONS_LATE: "predictions are late",
    Event.RECOVERED: "recovered",
    Event.MAINTENANCE_FAILED: "maintenance failed",
    Event.WAREHOUSE_FAILED: "PostgreSQL is behind the lake",
    Event.DECLARATION_UNREADABLE: "no night begins",
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
    """The notification on one line: `flights 2013-04-03: train failed. Spark is away`.

    With the first of what is listed, such as an expectation that failed, and where to see more.
    """
    happened = _HAPPENED[notification.event]
    if notification.event in (Event.STAGE_REFUSED, Event.STAGE_FAILED):
        happened = f"{notification.stage or 'the night'} {happened}"
    why = first_words(notification.message)
    about = f"{notification.pipeline} {notification.days}".strip()
    text = f"{about}: {happened}. {why}"
    # A message may quote a value of the data: its control characters are no business of a terminal.
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    places = [place for place in (notification.page, notification.report) if place]
    return " ".join([_cut(printable.strip(), _MOST_IN_LINE), *places])


def without_places(message: Message) -> str:
    """The line of a message, without the addresses at its end."""
    text = str(message["text"])
    for name in ("report", "page"):
        text = text.removesuffix(f" {message[name]}")
    return text


def first_words(message: str) -> str:
    """The first line, and the first of the items that are listed below it."""
    first, *others = message.strip().split("\n")
    items = [other.removeprefix(_ITEM) for other in others if other.startswith(_ITEM)]
    return " ".join([first, *items[:1]])


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
