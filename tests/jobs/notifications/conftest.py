"""A web server of the tests' own, which records what is posted to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.notifications import webhook
from pipelines.environment import Environment
from pipelines.events import Event, Notification

SECRET = "T0K3N-of-the-hook"
"""A part of the address that must show up nowhere."""
Answer = Callable[[BaseHTTPRequestHandler], None]
"""Answers one request."""


def status(code: int, **headers: str) -> Answer:
    """Answers with a status and headers, and no body."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@dataclass
class Receiver:
    """What was posted, and how it is answered: the last answer for ever."""

    url: str = ""
    answers: list[Answer] = field(default_factory=lambda: [status(200)])
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path."""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Record the request and answer it."""
        length = int(request.headers.get("Content-Length", 0))
        body = request.rfile.read(length)
        self.requests.append((request.command, request.path))
        if body:
            self.messages.append(json.loads(body))
        is_last = len(self.answers) == 1
        answer = self.answers[0] if is_last else self.answers.pop(0)
        answer(request)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A server on loopback that answers 200; tries again come at once."""
    monkeypatch.setattr(webhook, "_PAUSE_SECONDS", 0)
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.answer(self)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: the output of a test is what the code under test says."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}/{SECRET}"
    # How long a shutdown takes at most.
    serve = partial(server.serve_forever, poll_interval=0.01)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield received
    server.shutdown()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    """An empty home without a webhook."""
    webhook._say_that_it_is_not_set.cache_clear()
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def promoted(
    message: str = "Model 4. Better.", event: Event = Event.MODEL_PROMOTED
) -> Notification:
    """A notification of the toy pipeline."""
    return Notification(
        event=event,
        pipeline="toy",
        days="2013-01-05",
        run_id="r1",
        stage="evaluate",
        message=message,
    )
