"""The channels by name, and how a notification goes to all that a pipeline declares."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from jobs.notifications import email, log, webhook
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


def send(
    environment: Environment, pipeline: Pipeline, notification: Notification
) -> tuple[Channel, ...]:
    """Have every channel of the pipeline deliver the notification; never raises.

    A channel that fails is warned about on stderr, and the others still deliver.

    Returns:
        The channels that failed.
    """
    message = compose(notification, datetime.now(UTC))
    return tuple(
        channel for channel in pipeline.notify if not _delivers(channel, environment, message)
    )


def _delivers(channel: Channel, environment: Environment, message: Message) -> bool:
    try:
        CHANNELS[channel](environment, message)
    except Exception as error:  # whatever it is, it must not end the night
        words = redacted(str(error), environment.variables())
        print(
            f"Warning: {message['event']} of {message['pipeline']} {message['days']} "
            f"was not sent to {channel}: {words}",
            file=sys.stderr,
            flush=True,
        )
        return False
    return True
