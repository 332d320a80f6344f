"""`nightshift up --foreground`, with small services in the place of the real ones."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import pytest

from jobs.services import foreground, lifecycle, processes, startup
from jobs.services.definitions import Service
from jobs.services.supervision import Process, Supervisor
from pipelines import replay
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.flights import PIPELINE
from tests.jobs.services.test_lifecycle import (
    kill_supervisor,
    never_well,
    pids,
    replace_services,
    sleeping,
    up,
)

__all__ = ["replace_services", "up"]
Meanwhile = Callable[[Callable[[], object]], Thread]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Does it in a thread, once the platform is up and was watched for one look."""
    is_watched = Event()
    looks: list[int] = []

    class Watched(Supervisor):
        def processes(self) -> dict[str, Process]:
            found = super().processes()
            looks.append(len(found))
            # With the second look, all is done that belongs to the first.
            if len(looks) == 2:
                is_watched.set()
            return found

    def begin(act: Callable[[], object]) -> Thread:
        # A start that failed is watched by nobody, and a signal would end the tests.
        thread = Thread(target=lambda: is_watched.wait(300) and act(), daemon=True)
        thread.start()
        return thread

    monkeypatch.setattr(foreground, "Supervisor", Watched)
    return begin


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for it, but not for ever: what follows must come."""
    deadline = time.monotonic() + 120
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)


def ask(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def has_nothing_left(home: Environment) -> bool:
    return processes.marked(home.home) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_platform(
    home: Environment,
    as_at_a_terminal: None,
    replace_services: object,
    meanwhile: Meanwhile,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    asking = meanwhile(lambda: ask(number))
    assert foreground.run(home) == 0
    asking.join()
    assert has_nothing_left(home)
    assert "Asked to stop.\nStopped in" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_ends_a_start_too(
    home: Environment, replace_services: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    replace_services(sleeping, never_well)

    def ask_once_it_starts() -> None:
        wait_until(lambda: sum(map(bool, pids(home).values())) >= 2)
        ask(signal.SIGTERM)

    asking = Thread(target=ask_once_it_starts)
    asking.start()
    assert foreground.run(home) == 0
    asking.join()
    assert has_nothing_left(home)
    assert "The platform is up" not in capsys.readouterr().out


def test_it_ends_when_the_platform_is_stopped_from_elsewhere(
    home: Environment, replace_services: object, meanwhile: Meanwhile
) -> None:
    stopping = meanwhile(lambda: lifecycle.down(home))
    assert foreground.run(home) == 0
    stopping.join()
    assert has_nothing_left(home)


def test_a_start_that_is_refused_leaves_what_is_up_alone(up: Environment) -> None:
    before = pids(up)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = replace(up, spark_port=other.getsockname()[1])
        with pytest.raises(NightshiftError, match="is taken by"):
            foreground.run(taken)
    assert pids(up) == before


@pytest.mark.timeout(180)  # who would stop it waits for this test
def test_who_waits_for_another_start_and_is_asked_to_end_leaves_it_alone(
    up: Environment,
    as_at_a_terminal: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = pids(up)
    comes_to_wait = Event()
    take_turns = lifecycle._one_at_a_time

    def taking_turns(environment: Environment) -> AbstractContextManager[None]:
        comes_to_wait.set()
        return take_turns(environment)

    def ask_later() -> None:
        # Before, the signal would end the tests.
        if comes_to_wait.wait(60):
            time.sleep(0.5)
            ask(signal.SIGINT)

    asking = Thread(target=ask_later)
    with take_turns(up):
        monkeypatch.setattr(lifecycle, "_one_at_a_time", taking_turns)
        asking.start()
        assert foreground.run(up) == 0
    asking.join()
    assert pids(up) == before
    assert capsys.readouterr().out == "Asked to stop.\n"


def test_who_joins_what_is_up_and_is_asked_to_end_meanwhile_leaves_it_alone(
    up: Environment, as_at_a_terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pids(up)
    monkeypatch.setattr(lifecycle, "start_services", lambda *_: ask(signal.SIGTERM))
    assert foreground.run(up) == 0
    assert pids(up) == before


def test_a_killed_supervisor_is_a_fault(
    home: Environment, replace_services: object, meanwhile: Meanwhile
) -> None:
    killing = meanwhile(lambda: kill_supervisor(home))
    with pytest.raises(NightshiftError, match="The supervisor was killed"):
        foreground.run(home)
    killing.join()
    assert has_nothing_left(home)


def test_a_service_that_comes_back_is_told_of(
    home: Environment,
    replace_services: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[int] = []
    tell = foreground._tell

    def telling(environment: Environment, now: Process, ran: dict[str, int]) -> None:
        tell(environment, now, ran)
        if now.name == "spark" and now.state == "RUNNING":
            seen.append(now.pid)

    def kill_and_ask() -> None:
        wait_until(lambda: bool(seen))
        killed = seen[-1]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: seen[-1] != killed)
        ask(signal.SIGTERM)

    monkeypatch.setattr(foreground, "_tell", telling)
    acting = Thread(target=kill_and_ask)
    acting.start()
    assert foreground.run(home) == 0
    acting.join()
    assert "The service 'spark' had ended and was started anew." in capsys.readouterr().out


def test_a_replay_begins_when_its_place_is_there(
    home: Environment,
    replace_services: object,
    meanwhile: Meanwhile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(foreground, "_BEGIN_SECONDS", 0.1)
    landing = tmp_path / "landing"
    # In the way of the folder.
    landing.touch()
    started = replace(home, landing=landing)
    have_begun = Event()
    begin_all = foreground.begin_all

    def begin(environment: Environment, *, warns: bool) -> bool:
        if begin_all(environment, warns=warns):
            have_begun.set()
        return have_begun.is_set()

    def make_place() -> None:
        landing.unlink()
        # And told of it, which is after its file is there.
        have_begun.wait(120)
        ask(signal.SIGTERM)

    monkeypatch.setattr(foreground, "begin_all", begin)
    making = meanwhile(make_place)
    assert foreground.run(started) == 0
    making.join()
    assert replay.file_of(PIPELINE, started).exists()
    told = capsys.readouterr()
    assert told.err.count("Warning: the replay of 'flights' cannot begin") == 1
    assert told.out.count("The recorded days of 'flights' are replayed") == 1


def test_a_store_that_is_away_while_replays_begin_ends_no_platform(
    home: Environment,
    replace_services: object,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def begin(environment: Environment, *, warns: bool) -> bool:
        asked.append(warns)
        if len(asked) == 1:
            raise RuntimeError("Could not connect")
        return len(asked) == 3

    def ask_later() -> None:
        wait_until(lambda: len(asked) == 3)
        time.sleep(2 * foreground._LOOK_SECONDS)
        ask(signal.SIGTERM)

    monkeypatch.setattr(foreground, "_BEGIN_SECONDS", 0)
    monkeypatch.setattr(foreground, "begin_all", begin)
    asking = meanwhile(ask_later)
    assert foreground.run(home) == 0
    asking.join()
    # Once all have begun it looks no more.
    assert asked == [False] * 3


def test_services_are_watched_while_a_store_that_is_away_keeps_replays_waiting(
    home: Environment,
    replace_services: object,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_looked_at = Event()
    were_watched: list[bool] = []

    def hang(environment: Environment, *, warns: bool) -> bool:
        is_looked_at.clear()
        were_watched.append(is_looked_at.wait(60))
        return True

    def ask_later() -> None:
        wait_until(lambda: bool(were_watched))
        ask(signal.SIGTERM)

    monkeypatch.setattr(foreground, "_tell", lambda *_: is_looked_at.set())
    monkeypatch.setattr(foreground, "begin_all", hang)
    asking = meanwhile(ask_later)
    assert foreground.run(home) == 0
    asking.join()
    assert were_watched == [True]


@pytest.mark.parametrize("services", ["scheduler", None])
def test_a_part_deletes_its_own_old_logs(
    home: Environment,
    replace_services: object,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
    services: str | None,
) -> None:
    monkeypatch.setattr(lifecycle, "require_shared", lambda environment: None)
    started = replace(home, services=services)
    logs = home.logs / "airflow" / "dag_id=toy"
    old = logs / "run_id=old"
    new = logs / "run_id=new"
    for log in (old, new):
        log.mkdir(parents=True)
    days = timedelta(days=home.retention_days + 1)
    written = time.time() - days.total_seconds()
    os.utime(old, times=(0, written))
    cleaned: list[Environment] = []
    clean = foreground._clean_logs

    def cleaning(environment: Environment) -> None:
        clean(environment)
        cleaned.append(environment)

    monkeypatch.setattr(foreground, "_clean_logs", cleaning)
    asking = meanwhile(lambda: ask(signal.SIGTERM))
    assert foreground.run(started) == 0
    asking.join()
    # Of a whole platform the DAG `maintenance` does it.
    assert cleaned == ([started] if services else [])
    assert [log.exists() for log in (old, new)] == [not services, True]


def test_what_is_old_is_counted_from_the_newest_log_of_a_run(home: Environment) -> None:
    logs = home.logs / "airflow" / "dag_id=toy"
    # As after a pause of a year, or by a clock that is ahead.
    for days in (365, 364 + home.retention_days, 366 + home.retention_days):
        log = logs / f"run_id={days}"
        log.mkdir(parents=True)
        written = time.time() - timedelta(days=days).total_seconds()
        os.utime(log, times=(0, written))
    foreground._clean_logs(home)
    left = sorted(log.name for log in logs.iterdir())
    assert left == ["run_id=365", f"run_id={364 + home.retention_days}"]


def test_logs_that_cannot_go_end_no_platform(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(foreground, "clean", refuse)
    foreground._clean_logs(home)
    told = "Warning: old logs of Airflow's stay: [Errno 5] Input/output error\n"
    assert capsys.readouterr().err == told


def test_a_service_that_ended_for_good_ends_the_platform(
    home: Environment,
    replace_services: Callable[..., None],
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def once(environment: Environment) -> Service:
        ran = environment.home / "ran"
        # The second start ends at once, and so does the third.
        program = f'if [ -e "{ran}" ]; then exit 7; fi; touch "{ran}"; sleep 600'
        return Service(name="once", command=("sh", "-c", program), is_well=lambda *_: True)

    def kill() -> None:
        wait_until((home.home / "ran").exists)
        os.kill(pids(home)["once"], signal.SIGKILL)

    monkeypatch.setattr(startup, "UP_SECONDS", 120)
    replace_services(sleeping, once)
    killing = meanwhile(kill)
    with pytest.raises(NightshiftError, match="The service 'once' ended for good"):
        foreground.run(home)
    killing.join()
    assert has_nothing_left(home)
