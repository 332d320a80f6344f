"""`nightshift announce` has people told of what is no run's, whichever declarations are broken."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import ModuleType

import pytest

from jobs.__main__ import main
from jobs.notifications import channels
from jobs.notifications.message import Message
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.errors import UsageError
from tests.conftest import free_port

WHY = "pipelines/flights.py, line 7: NameError: name 'Fed' is not defined"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for setting in ("NIGHTSHIFT_WEBHOOK_URL", "NIGHTSHIFT_SMTP_URL"):
        monkeypatch.delenv(setting, raising=False)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The declaration of flights cannot be read."""
    declared = catalog._declaration

    def declaration(name: str) -> ModuleType:
        if name == "flights":
            raise UsageError(WHY)
        return declared(name)

    monkeypatch.setattr(catalog, "_declaration", declaration)


def told(home: Path) -> list[dict[str, str]]:
    """By the channel `log`."""
    file = home / "logs" / "notifications.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.usefixtures("broken")
def test_a_declaration_that_cannot_be_read_is_told_with_place_and_reason_each_time(
    home: Path,
) -> None:
    for _ in range(2):
        assert main(["announce", "--event", "declaration_unreadable"]) == 0
    messages = told(home)
    assert len(messages) == 2
    for message in messages:
        assert (message["event"], message["pipeline"]) == ("declaration_unreadable", "flights")
        assert message["text"].endswith(f"no night begins. Its declaration cannot be read: {WHY}")
        assert "until then no night of 'flights' begins" in message["message"]


def test_of_declarations_that_can_be_read_nothing_is_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["announce", "--event", "declaration_unreadable"]) == 0
    assert told(home) == []
    assert "Nothing to send: every declaration can be read." in capsys.readouterr().err


@pytest.mark.usefixtures("broken")
def test_a_maintenance_that_could_not_tell_itself_is_told_to_the_people_of_all_pipelines(
    home: Path,
) -> None:
    command = ["announce", "--event", "maintenance_failed"]
    assert main([*command, "--message", "It was killed."]) == 0
    assert main(command) == 0
    names = catalog.names()
    assert [one["pipeline"] for one in told(home)] == [*names, *names]
    assert {one["event"] for one in told(home)} == {"maintenance_failed"}
    first, *_, last = told(home)
    assert first["message"] == "It was killed."
    assert last["message"] == "It ended before it could tell why. Its log says more."


def test_a_reason_of_ones_own_for_a_declaration_that_cannot_be_read_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["announce", "--event", "declaration_unreadable", "--message", "It is broken."]
    assert main(command) == 2
    assert told(home) == []
    assert "--message is of maintenance_failed alone" in capsys.readouterr().err


def test_a_server_that_is_silent_is_waited_for_once_and_not_for_each_pipeline(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    asked: list[str | None] = []

    def be_silent(_: Environment, message: Message) -> None:
        asked.append(message["pipeline"])
        over.wait(120)

    monkeypatch.setenv("NIGHTSHIFT_WEBHOOK_URL", "http://127.0.0.1:1/hook")
    monkeypatch.setattr(channels, "CHANNELS", {**channels.CHANNELS, "webhook": be_silent})
    # In which the log is to deliver: a busy machine may pause for seconds.
    monkeypatch.setattr(channels, "MOST_SECONDS", 5.0)
    names = catalog.names()
    assert len(names) > 1
    assert main(["announce", "--event", "maintenance_failed"]) == 3
    assert asked == names[:1]
    over.set()
    # By the channels that answer each is told.
    assert [one["pipeline"] for one in told(home)] == names


@pytest.mark.usefixtures("broken")
def test_where_nobody_could_be_told_it_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_WEBHOOK_URL", f"http://127.0.0.1:{free_port()}/hook")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert main(["announce", "--event", "declaration_unreadable"]) == 3
    assert "was not sent to webhook" in capsys.readouterr().err
