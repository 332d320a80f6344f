"""The channel `log`: a line on stderr, and a JSON line in `<home>/logs/notifications.log`."""

from __future__ import annotations

import json
import sys

from jobs.notifications.message import Message
from pipelines.environment import Environment

FILE = "notifications.log"


def deliver(environment: Environment, message: Message) -> None:
    """Write the message where the run writes its log, and append it to the home's own file.

    Raises:
        OSError: the file cannot be written.
    """
    print(f"Notification: {message['text']}", file=sys.stderr, flush=True)
    environment.logs.mkdir(parents=True, exist_ok=True)
    with (environment.logs / FILE).open("a") as file:
        file.write(json.dumps(message) + "\n")
