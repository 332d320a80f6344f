"""The channel `webhook` posts once, tries again once, waits for nobody, and keeps its address."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import pytest

from jobs.notifications import webhook
from jobs.notifications.message import compose, line
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from tests.conftest import free_port
from tests.jobs.notifications.conftest import SECRET, Receiver, promoted, status

MESSAGE = compose(promoted(), datetime(2013, 1, 6, tzinfo=UTC))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def post(environment: Environment, url: str) -> None:
    webhook.deliver(replace(environment, webhook_url=url), MESSAGE)


def failure(environment: Environment, url: str) -> str:
    """What is said of a delivery that fails."""
    with pytest.raises(NightshiftError) as caught:
        post(environment, url)
    return str(caught.value)


def test_a_message_is_posted_once_as_json(home: Environment, receiver: Receiver) -> None:
    post(home, receiver.url)
    assert receiver.requests == [("POST", f"/{SECRET}")]
    assert receiver.messages == [MESSAGE]


def test_a_value_of_the_data_is_no_mention_and_no_link_in_a_chat(
    home: Environment, receiver: Receiver
) -> None:
    hostile = replace(
        promoted("carrier '<!channel> <http://evil|see> A&amp;B' is unknown."),
        page="http://127.0.0.1:8080/dags/toy/runs/r1?a=1&b=2",
        report="http://127.0.0.1:8080/nightshift/reports/toy/r1/index.html",
    )
    message = compose(hostile, datetime(2013, 1, 6, tzinfo=UTC))
    webhook.deliver(replace(home, webhook_url=receiver.url), message)
    (posted,) = receiver.messages
    assert posted["text"] == (
        "toy 2013-01-05: a new model serves. "
        "carrier '&lt;!channel&gt; &lt;http://evil|see&gt; A&amp;amp;B' is unknown. "
        f"{hostile.page} {hostile.report}"
    )
    # Of the other fields no chat tool makes anything.
    assert posted == {**message, "text": posted["text"]}
    assert line(hostile) == message["text"], "the line of a log is as it was"


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_in_trouble_is_asked_once_more(
    code: int, home: Environment, receiver: Receiver
) -> None:
    receiver.answers = [status(code), status(204)]
    post(home, receiver.url)
    assert receiver.messages == [MESSAGE, MESSAGE]


def test_a_server_that_stays_in_trouble_is_named_by_its_status(
    home: Environment, receiver: Receiver
) -> None:
    receiver.answers = [status(500)]
    assert failure(home, receiver.url) == "it answered HTTP 500."
    assert len(receiver.requests) == 2


@pytest.mark.parametrize("code", [400, 404])
def test_a_request_that_is_wrong_is_not_repeated(
    code: int, home: Environment, receiver: Receiver
) -> None:
    receiver.answers = [status(code)]
    assert failure(home, receiver.url) == f"it answered HTTP {code}."
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "/other"])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    code: int, target: str, home: Environment, receiver: Receiver
) -> None:
    receiver.answers = [status(code, Location=target)]
    assert failure(home, receiver.url) == f"it answered HTTP {code}."
    assert receiver.requests == [("POST", f"/{SECRET}")]


def test_a_server_that_is_down_is_said_to_be_so(home: Environment, receiver: Receiver) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/{SECRET}"
    assert failure(home, nobody) == "Connection refused."


def test_a_server_that_does_not_answer_is_not_waited_for(
    home: Environment, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_ANSWER_SECONDS", 0.2)
    over = threading.Event()

    def wait(request: BaseHTTPRequestHandler) -> None:
        over.wait(10)

    receiver.answers = [wait]
    began = time.monotonic()
    assert failure(home, receiver.url) == "no answer within 0 s."
    assert time.monotonic() - began < 5
    over.set()


def test_an_answer_that_is_no_http_is_no_delivery(home: Environment, receiver: Receiver) -> None:
    def babble(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"gibberish\r\n\r\n")

    receiver.answers = [babble]
    assert failure(home, receiver.url) == "BadStatusLine."


@pytest.mark.parametrize(
    "url",
    [
        f"file:///tmp/{SECRET}",
        f"ftp://127.0.0.1/{SECRET}",
        f"127.0.0.1:8080/{SECRET}",
        f"http:///{SECRET}",
        f"https://user:{SECRET}@127.0.0.1/",
        f"https://127.0.0.1:{SECRET}/",
        f"https://[{SECRET}/",
    ],
)
def test_an_address_that_cannot_be_one_is_refused_and_not_quoted(
    url: str, home: Environment
) -> None:
    with pytest.raises(UsageError, match="NIGHTSHIFT_WEBHOOK_URL is not an address") as caught:
        post(home, url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("path", [f"{SECRET} with a space", f"{SECRET}\nnext", f"{SECRET}é"])
def test_an_address_that_no_request_can_hold_is_not_quoted(
    path: str, home: Environment, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    said = failure(home, receiver.url.replace(SECRET, path))
    assert SECRET not in said
    assert capfd.readouterr() == ("", ""), "a thread that fails prints its traceback"
    assert receiver.requests == []


def test_without_an_address_it_is_said_once(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook.deliver(home, MESSAGE)
    webhook.deliver(home, MESSAGE)
    assert capsys.readouterr().err == "No webhook is told: NIGHTSHIFT_WEBHOOK_URL is not set.\n"


def test_the_address_is_no_part_of_the_environment_as_it_is_printed(home: Environment) -> None:
    assert SECRET not in repr(replace(home, webhook_url=f"https://hooks/{SECRET}"))
