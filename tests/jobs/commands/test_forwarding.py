"""Commands that a child of the stage server does, as if they were done here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from jobs import __main__ as command
from jobs.__main__ import main
from jobs.commands import forwarding
from jobs.lake import ops
from jobs.services import child, stage_client
from jobs.services.own_server import preloaded
from jobs.services.stage_client import Ended
from pipelines.environment import Environment

DAY = "2013-01-05"
LOST = Ended(code=3, said="The process was killed by SIGKILL.")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Whose settings this process has."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    return Environment.read()


@pytest.fixture
def server(home: Environment) -> Iterator[Environment]:
    """A stage server in a home of its own, which this process takes for its own."""
    with preloaded(home, ("json",)) as own, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHIFT_HOME", str(own.home))
        patch.setenv("NIGHTSHIFT_LAKE", home.lake)
        patch.setenv("NIGHTSHIFT_LANDING", str(home.landing))
        yield own


@pytest.fixture
def here_is_nothing_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command would do in this process fails."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("done in the client")

    for name in ("jobs.commands.plan.plan", "jobs.night.make_true", "jobs.night.run_night"):
        monkeypatch.setattr(name, fail)


def test_a_plan_is_what_it_is_without_a_server(
    home: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", "flights", "--date", DAY, "--format", "json"]
    assert main(arguments) == 0
    here = json.loads(capfd.readouterr().out)
    with preloaded(home, ("json",)) as own, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHIFT_HOME", str(own.home))
        patch.setenv("NIGHTSHIFT_LAKE", home.lake)
        patch.setenv("NIGHTSHIFT_LANDING", str(home.landing))
        # Nothing of it is done here.
        patch.setattr("jobs.commands.plan.plan", None)
        assert main(arguments) == 0
    assert json.loads(capfd.readouterr().out) == here
    assert any(row["state"] == "hole" or row["state"] == "missing" for row in here)


def test_a_stage_ends_as_it_would_here(
    server: Environment, here_is_nothing_done: None, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "flights", "--date", DAY, "--stage", "ingest", "--run-id", "r1"]
    # Its files have not landed, which it tells by its own exit code.
    assert main(arguments) == 4
    printed = capfd.readouterr().err
    assert f"flights {DAY}  run r1" in printed
    assert "Not landed" in printed or "not landed" in printed
    (row,) = ops.read(server, "stage_runs").to_pylist()
    assert (row["run_id"], row["stage"], row["status"]) == ("r1", "ingest", "not landed")
    assert row["first_day"] == date.fromisoformat(DAY)


def test_what_is_asked_wrongly_is_told_as_here(
    server: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "flights", "--date", "2014-02-01"]) == 2
    assert "from 2012-12-31 to 2013-12-31" in capfd.readouterr().err


def test_a_night_of_many_stages_is_led_from_here(
    server: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    led: list[bool] = []

    def make_true(*_: Any, in_place: bool, **__: Any) -> int:
        led.append(in_place)
        return 0

    monkeypatch.setattr("jobs.night.make_true", make_true)
    assert main(["run", "flights", "--date", DAY]) == 0
    assert led == [False]


def test_a_child_that_is_killed_is_a_failure_of_its_stage(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage_client, "available", lambda environment: True)
    monkeypatch.setattr(stage_client, "called", lambda *_: LOST)
    assert main(["run", "flights", "--date", DAY, "--stage", "train", "--run-id", "r1"]) == 3
    (row,) = ops.read(home, "stage_runs").to_pylist()
    assert (row["run_id"], row["stage"], row["status"]) == ("r1", "train", "failed")
    assert "its process was killed" in row["error"]
    printed = capfd.readouterr().err
    assert LOST.said in printed
    assert "flights" in (home.logs / "notifications.log").read_text()


def test_a_server_of_older_code_takes_none_and_it_is_done_here(
    server: Environment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forwarding, "FUNCTION", "jobs.older:in_child")
    done: list[str] = []
    monkeypatch.setattr("jobs.night.make_true", lambda run, *_, **__: done.append(run.run_id) or 0)
    arguments = ["run", "flights", "--date", DAY, "--stage", "train", "--as-needed"]
    assert main([*arguments, "--run-id", "r1"]) == 0
    assert done == ["r1"]
    assert "does not run" not in capfd.readouterr().err


def test_a_child_has_the_settings_of_its_client_and_not_those_of_the_server(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Environment] = []

    def plan(_: object, environment: Environment) -> int:
        seen.append(environment)
        return 0

    monkeypatch.setattr(command, "_plan", plan)
    # As of the server, which was started with another.
    monkeypatch.setenv("NIGHTSHIFT_RANKS", "7")
    argument = {"words": ["plan", "flights", "--date", DAY], "environment": home.variables()}
    assert command.in_child(argument) == 0
    assert [one.ranks for one in seen] == [home.ranks]
    assert home.ranks != 7


def test_the_server_allows_it() -> None:
    assert forwarding.FUNCTION in child.ALLOWED
