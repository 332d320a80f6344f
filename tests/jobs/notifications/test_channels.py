"""Every declared channel is tried, whatever becomes of the others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import get_args

import pytest

from jobs.__main__ import _SERVER_SECONDS_OF_NOTIFY
from jobs.notifications import channels, log
from jobs.notifications.message import Message
from jobs.services import promptly
from pipelines.environment import ROOT, Environment
from pipelines.events import Channel, Event
from tests.conftest import free_port
from tests.jobs.notifications.conftest import SECRET, Receiver, promoted
from tests.jobs.toy import TOY

BOTH = replace(TOY, notify=("webhook", "log"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set when the test is over: a server that is silent then ends."""
    ended = threading.Event()
    yield ended
    ended.set()


def logged(environment: Environment) -> list[Message]:
    lines = (environment.logs / "notifications.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_channel_that_a_pipeline_may_declare_is_there() -> None:
    assert tuple(channels.CHANNELS) == get_args(Channel)
    # Else a pipeline that declares no channels would never be told by it, without a word.
    assert tuple(channels._SETTINGS) == get_args(Channel)
    assert {name for name in channels._SETTINGS.values() if name} <= set(Environment.settings())


def test_all_declared_channels_deliver_the_same_message(
    home: Environment, receiver: Receiver
) -> None:
    environment = replace(home, webhook_url=receiver.url)
    assert channels.send(environment, BOTH, promoted()) == ()
    assert receiver.messages == logged(environment)
    assert receiver.messages[0]["event"] == "model_promoted"


@pytest.mark.parametrize("event", Event)
def test_every_event_is_delivered(home: Environment, event: Event) -> None:
    assert channels.send(home, TOY, promoted(event=event)) == ()
    (message,) = logged(home)
    assert message["event"] == event.value


def test_a_channel_that_is_not_declared_delivers_nothing(
    home: Environment, receiver: Receiver
) -> None:
    environment = replace(home, webhook_url=receiver.url)
    assert channels.send(environment, replace(TOY, notify=()), promoted()) == ()
    found = channels.send(environment, replace(TOY, notify=("log",)), promoted())
    assert found == ()
    assert receiver.requests == []
    assert len(logged(environment)) == 1


def test_without_a_declaration_people_are_told_by_every_channel_that_is_set(
    home: Environment, receiver: Receiver
) -> None:
    assert TOY.notify is None
    assert channels.channels_of(home, TOY) == ("log",)
    posted = replace(home, webhook_url=receiver.url)
    assert channels.channels_of(posted, TOY) == ("log", "webhook")
    assert channels.channels_of(replace(home, smtp_url="smtp://mail"), TOY) == ("log", "email")
    assert channels.send(posted, TOY, promoted()) == ()
    assert receiver.messages == logged(posted)


def test_a_channel_that_fails_is_warned_about_and_the_others_deliver(
    home: Environment, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/{SECRET}"
    environment = replace(home, webhook_url=nobody)
    assert channels.send(environment, BOTH, promoted()) == ("webhook",)
    printed = capfd.readouterr()
    assert printed.err.splitlines() == [
        "Notification: toy 2013-01-05: a new model serves. Model 4. Better.",
        "Warning: model_promoted of toy 2013-01-05 was not sent to webhook: Connection refused.",
    ]
    assert SECRET not in printed.out + printed.err + json.dumps(logged(environment))


def test_what_was_delivered_is_printed_before_what_was_not(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(environment: Environment, message: Message) -> None:
        raise ConnectionError("nobody is there")

    def deliver_later(environment: Environment, message: Message) -> None:
        time.sleep(0.3)
        log.deliver(environment, message)

    one_after_the_other = {"webhook": fail, "log": deliver_later}
    monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, **one_after_the_other})
    assert channels.send(home, BOTH, promoted()) == ("webhook",)
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("Notification:")
    assert second.startswith("Warning:")


def test_a_channel_with_a_bug_fails_nobody(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(environment: Environment, message: Message) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, "webhook": fail})
    assert channels.send(home, BOTH, promoted()) == ("webhook",)
    assert "was not sent to webhook: a bug" in capsys.readouterr().err
    assert len(logged(home)) == 1


def test_a_server_that_answers_a_byte_at_a_time_is_left_after_a_while(
    home: Environment,
    receiver: Receiver,
    over: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # In which the log is to deliver: a busy machine may pause for seconds.
    monkeypatch.setattr(channels, "MOST_SECONDS", 5.0)

    def drip(request: BaseHTTPRequestHandler) -> None:
        while not over.wait(0.05):
            request.wfile.write(b"H")

    receiver.answers = [drip]
    environment = replace(home, webhook_url=receiver.url)
    assert channels.send(environment, BOTH, promoted()) == ("webhook",)
    assert "was not sent to webhook: it took longer than 5 s." in capsys.readouterr().err


def test_channels_that_are_slow_take_their_time_at_once(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_are_there = threading.Barrier(2)

    def deliver(environment: Environment, message: Message) -> None:
        both_are_there.wait(60)

    # Longer than one waits in vain for the other.
    monkeypatch.setattr(channels, "MOST_SECONDS", 120.0)
    slow = {"webhook": deliver, "email": deliver}
    monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, **slow})
    both = replace(TOY, notify=("webhook", "email"))
    assert channels.send(home, both, promoted()) == ()


def test_what_one_channel_is_told_it_is_told_in_order(
    home: Environment, over: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In which the log is to deliver: a busy machine may pause for seconds.
    monkeypatch.setattr(channels, "MOST_SECONDS", 5.0)

    def hang(environment: Environment, message: Message) -> None:
        if message["event"] == "recovered":
            over.wait(120)

    monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, "webhook": hang})
    told = [promoted(event=event) for event in (Event.NIGHT_DONE, Event.RECOVERED)]
    began = time.monotonic()
    assert channels.send_all(home, BOTH, told) == [(), ("webhook",)]
    assert time.monotonic() - began < 60
    assert [message["event"] for message in logged(home)] == ["night_done", "recovered"]


def test_all_that_is_told_at_once_fits_well_into_a_callback() -> None:
    # Left are five seconds for the start of the command and the record of what was told.
    assert callbacks_seconds() > channels.MOST_SECONDS + 5
    # And three where neither the stage server nor the lake answers.
    silent = _SERVER_SECONDS_OF_NOTIFY + promptly.MOST_SECONDS
    assert callbacks_seconds() >= silent + channels.MOST_SECONDS + 3
    # And two for its start where the lake ceases to answer before the record.
    assert callbacks_seconds() > channels.MOST_SECONDS + promptly.RECORD_SECONDS + 2


def callbacks_seconds() -> int:
    """How long `dags/callbacks.py`, which imports Airflow, lets a command take."""
    source = (ROOT / "dags" / "callbacks.py").read_text()
    (line,) = [line for line in source.splitlines() if line.startswith("_MOST_SECONDS = ")]
    return int(line.removeprefix("_MOST_SECONDS = "))
