"""The channels by name, and how a notification goes to all that a pipeline is told by."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from threading import Thread
from typing import Protocol

from jobs.notifications import email, log, webhook
from jobs.notifications.lines import say
from jobs.notifications.message import Message, compose
from pipelines.environment import Environment
from pipelines.events import Channel, Notification
from pipelines.redaction import redacted
from pipelines.spec import Pipeline


class Deliver(Protocol):
    """Delivers a message by one channel."""

    def __call__(self, environment: Environment, message: Message) -> None:
        """Deliver it, or raise.

        Raises:
            NightshiftError: it could not be delivered. What the error says is printed, so it
                must hold no secret.
        """


CHANNELS: Mapping[Channel, Deliver] = {
    "log": log.deliver,
    "webhook": webhook.deliver,
    "email": email.deliver,
}
_SETTINGS: Mapping[Channel, str | None] = {
    "log": None,
    "webhook": "webhook_url",
    "email": "smtp_url",
}
"""By channel the setting without which it tells nobody; None: it needs none. A pipeline that
declares no channels is told by those that are set."""
_FILE: Channel = "log"
MOST_SECONDS = 10.0
"""For all that is told at once. A server may send a byte now and then, and a name server be silent;
Airflow ends a callback 20 seconds after its task, and the record of it comes after this."""


class _Telling:
    """Messages on their way by one channel, in a thread of their own."""

    def __init__(
        self, channel: Channel, environment: Environment, messages: Sequence[Message]
    ) -> None:
        self._channel = channel
        self._environment = environment
        self._messages = messages
        self._ends: list[str | None] = []
        """Of each message that has come to an end why it was not delivered; None: it was."""
        # A daemon, so that one that hangs does not keep the command from ending.
        self._thread = Thread(target=self._deliver, daemon=True)
        self._thread.start()

    def _deliver(self) -> None:
        for message in self._messages:
            try:
                CHANNELS[self._channel](self._environment, message)
            except Exception as error:  # whatever it is, it must not end the night
                self._ends.append(redacted(str(error), self._environment.variables()))
            else:
                self._ends.append(None)

    def failures(self, until: float) -> list[str | None]:
        """Of each message why it was not delivered by then; None: it was."""
        self._thread.join(max(0.0, until - time.monotonic()))
        ends = list(self._ends)
        late = f"it took longer than {MOST_SECONDS:.0f} s."
        return ends + [late] * (len(self._messages) - len(ends))


def channels_of(environment: Environment, pipeline: Pipeline | None) -> tuple[Channel, ...]:
    """By which the people of a pipeline are told: those that it declares, else all that are set.

    None is one whose declaration cannot be read.
    """
    if pipeline is not None and pipeline.notify is not None:
        return pipeline.notify
    return tuple(
        channel
        for channel, setting in _SETTINGS.items()
        if setting is None or getattr(environment, setting)
    )


def has_reached(channels: Sequence[Channel], failed: Sequence[Channel]) -> bool:
    """Whether anybody was told by these channels, of which some have failed.

    The log is a file, which calls nobody: it counts where there is nothing else.
    """
    calling = [one for one in channels if one != _FILE] or channels
    return any(one not in failed for one in calling)


def send(
    environment: Environment, pipeline: Pipeline | None, notification: Notification
) -> tuple[Channel, ...]:
    """Have every channel of the pipeline deliver the notification; never raises.

    Returns:
        The channels that failed.
    """
    return send_all(environment, pipeline, [notification])[0]


def send_all(
    environment: Environment, pipeline: Pipeline | None, notifications: Sequence[Notification]
) -> list[tuple[Channel, ...]]:
    """Have every channel of the pipeline deliver the notifications in order; never raises.

    The channels do it at once, and none is waited for longer than `MOST_SECONDS`. One that fails is
    warned about on stderr.

    Returns:
        For each notification the channels that failed.
    """
    return send_each(environment, [(pipeline, one) for one in notifications])


def send_each(
    environment: Environment, told: Sequence[tuple[Pipeline | None, Notification]]
) -> list[tuple[Channel, ...]]:
    """As `send_all`, of notifications each of which has its own pipeline.

    A channel of several pipelines delivers all of theirs in order.
    """
    at = datetime.now(UTC)
    until = time.monotonic() + MOST_SECONDS
    asked: dict[Channel, list[int]] = {}
    messages: list[Message] = []
    for number, (pipeline, notification) in enumerate(told):
        messages.append(compose(notification, at))
        for channel in channels_of(environment, pipeline):
            asked.setdefault(channel, []).append(number)
    tellings = {}
    for channel, numbers in asked.items():
        own = [messages[number] for number in numbers]
        tellings[channel] = _Telling(channel, environment, own)
    # All come to their end first: what was delivered is printed before any warning.
    ends = {channel: telling.failures(until) for channel, telling in tellings.items()}
    failed: list[list[Channel]] = [[] for _ in told]
    for channel, whys in ends.items():
        for number, why in zip(asked[channel], whys, strict=True):
            if why is not None:
                _warn(channel, messages[number], why)
                failed[number].append(channel)
    return list(map(tuple, failed))


def _warn(channel: Channel, message: Message, why: str) -> None:
    say(
        f"Warning: {message['event']} of {message['pipeline']} {message['days']} "
        f"was not sent to {channel}: {why}"
    )
