"""Every declared channel is tried, whatever becomes of the others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest

from jobs.notifications import channels
from jobs.notifications.message import Message
from pipelines.environment import Environment
from pipelines.events import Channel, Event
from tests.conftest import free_port
from tests.jobs.notifications.conftest import SECRET, Receiver, promoted
from tests.jobs.toy import TOY

BOTH = replace(TOY, notify=("webhook", "log"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def logged(environment: Environment) -> list[Message]:
    lines = (environment.logs / "notifications.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_channel_that_a_pipeline_may_declare_is_there() -> None:
    assert tuple(channels.CHANNELS) == get_args(Channel)


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
    assert channels.send(environment, TOY, promoted()) == ()
    assert receiver.requests == []
    assert len(logged(environment)) == 1


def test_a_channel_that_fails_is_warned_about_and_the_others_deliver(
    home: Environment, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/{SECRET}"
    environment = replace(home, webhook_url=nobody)
    assert channels.send(environment, BOTH, promoted()) == ("webhook",)
    printed = capfd.readouterr()
    assert printed.err.splitlines() == [
        "Warning: model_promoted of toy 2013-01-05 was not sent to webhook: Connection refused.",
        "Notification: toy 2013-01-05: a new model serves. Model 4. Better.",
    ]
    assert SECRET not in printed.out + printed.err + json.dumps(logged(environment))


def test_a_channel_with_a_bug_fails_nobody(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(environment: Environment, message: Message) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, "webhook": fail})
    assert channels.send(home, BOTH, promoted()) == ("webhook",)
    assert "was not sent to webhook: a bug" in capsys.readouterr().err
    assert len(logged(home)) == 1
