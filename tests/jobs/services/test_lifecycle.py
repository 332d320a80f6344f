"""Up, down and status, with small services in the place of the real ones.

Tests/e2e has the real ones.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from jobs.commands import doctor
from jobs.services import (
    addresses,
    airflow,
    lifecycle,
    processes,
    stage_client,
    startup,
    supervision,
)
from jobs.services.accounts import passwords_file
from jobs.services.airflow_api import Airflow, own_airflow
from jobs.services.definitions import JDBC, Service, services
from jobs.services.die_with_parent import dying_with_parent
from jobs.services.supervision import Supervisor, log_of
from pipelines import catalog
from pipelines.environment import SERVICES, Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.resources import TRAINING, Pool

# One line, because a supervisor's settings hold no command of several.
LISTEN = (
    "import socket, sys, time; "
    "server = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
    "print('listening', flush=True); "
    "time.sleep(600)"
)

# Longer than a sweep waits, and less than the supervisor does.
END_SLOWLY = (
    "import signal, time; "
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); "
    "print('there', flush=True); "
    "signal.sigwait([signal.SIGTERM]); "
    "time.sleep(6); "
    "print('ended', flush=True)"
)


MANY_BYTES = 1_000_000
"""More than a pipe holds."""


def talking(_: Environment) -> Service:
    talks = "while True: print('x' * 10_000, flush=True); __import__('time').sleep(0.05)"
    return Service(
        name="talking",
        command=(sys.executable, "-c", talks),
        is_well=lambda *_: True,
    )


class _Warm:
    def wait(self, timeout: float | None = None) -> int | None:
        return 0

    def kill(self) -> None: ...


def listening(environment: Environment) -> Service:
    program = [sys.executable, "-c", LISTEN, str(environment.spark_port)]
    return Service(
        name="spark",
        command=tuple(dying_with_parent(program)),
        port=environment.spark_port,
        port_variable="NIGHTSHIFT_SPARK_PORT",
        is_well=lambda health, _: processes.answers(health.environment.spark_port),
    )


def sleeping(_: Environment) -> Service:
    """A service whose child stays when the service is killed, and knows nothing of its parent."""
    return Service(
        name="sleeper",
        command=("sh", "-c", "sleep 600 & trap '' TERM; wait"),
        is_well=lambda *_: True,
    )


def dying(_: Environment) -> Service:
    return Service(
        name="dying",
        command=("sh", "-c", "echo the reason; exit 7"),
        is_well=lambda *_: False,
    )


def never_well(_: Environment) -> Service:
    return Service(name="ill", command=("sleep", "600"), is_well=lambda *_: False)


@pytest.fixture
def replace_services(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the platform other services."""
    monkeypatch.setattr(startup, "warm_up", lambda environment: _Warm())
    monkeypatch.setattr(airflow, "migration", lambda environment: None)

    def put(*makers: Callable[[Environment], Service]) -> None:
        def others(environment: Environment) -> tuple[Service, ...]:
            return tuple(make(environment) for make in makers)

        monkeypatch.setattr(lifecycle, "services", others)

    put(listening, sleeping)
    return put


@pytest.fixture
def up(home: Environment, replace_services: object) -> Iterator[Environment]:
    assert lifecycle.up(home) == 0
    yield home
    lifecycle.down(home)


def pids(environment: Environment) -> dict[str, int]:
    known = Supervisor(environment).processes()
    return {name: process.pid for name, process in known.items()}


def kill_supervisor(environment: Environment) -> None:
    pid_file = environment.runtime / "supervisord.pid"
    supervisor = psutil.Process(int(pid_file.read_text()))
    supervisor.kill()
    supervisor.wait(10)


def stop_supervisor(environment: Environment) -> None:
    _signal_supervisor(environment, signal.SIGSTOP)


def go_on_supervisor(environment: Environment) -> None:
    _signal_supervisor(environment, signal.SIGCONT)


def _signal_supervisor(environment: Environment, number: signal.Signals) -> None:
    pid_file = environment.runtime / "supervisord.pid"
    os.kill(int(pid_file.read_text()), number)


def test_up_makes_the_pools_in_which_stages_wait(
    home: Environment, replace_services: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Pool] = []
    monkeypatch.setattr(Airflow, "make_pools", lambda airflow, pools: made.extend(pools))
    replace_services(listening)
    assert lifecycle.up(home) == 0
    assert made == [], "without Airflow there is nobody to ask"
    replace_services(lambda home: replace(listening(home), needs_database=True))
    assert lifecycle.up(home) == 0
    lifecycle.down(home)
    assert made == [TRAINING]


def test_pools_that_cannot_be_made_take_no_platform_down(
    home: Environment,
    replace_services: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise NightshiftError("Airflow does not let 'admin' in (401).")

    monkeypatch.setattr(Airflow, "make_pools", refuse)
    replace_services(lambda home: replace(listening(home), needs_database=True))
    try:
        assert lifecycle.up(home) == 0
        assert lifecycle.status(home) == 0
    finally:
        lifecycle.down(home)
    warned = capsys.readouterr().err
    assert "does not let 'admin' in" in warned
    assert "(training): nightshift airflow pools list" in warned


def test_a_pipeline_that_somebody_is_writing_takes_no_platform_down(
    home: Environment,
    replace_services: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made: list[Pool] = []
    monkeypatch.setattr(Airflow, "make_pools", lambda airflow, pools: made.extend(pools))
    monkeypatch.setattr(catalog, "names", lambda: ["flights", "unfinished"])
    replace_services(lambda home: replace(listening(home), needs_database=True))
    try:
        assert lifecycle.up(home) == 0
        assert lifecycle.status(home) == 0
    finally:
        lifecycle.down(home)
    assert made == [TRAINING], "as the other pipelines declare it"
    assert "pipeline 'unfinished' cannot be read" in capsys.readouterr().err


def test_pools_that_contradict_each_other_take_no_platform_down(
    home: Environment,
    replace_services: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse() -> list[Pool]:
        raise UsageError("Declare it once.")

    monkeypatch.setattr(catalog, "pools", refuse)
    replace_services(lambda home: replace(listening(home), needs_database=True))
    try:
        assert lifecycle.up(home) == 0
    finally:
        lifecycle.down(home)
    warned = capsys.readouterr().err
    assert "Warning: the pools are not made: Declare it once." in warned


def test_up_puts_the_passwords_right_where_nothing_starts_anew(up: Environment) -> None:
    file = passwords_file(up)
    before = file.read_text()
    file.write_text("{}")
    running = pids(up)
    assert lifecycle.up(up) == 0
    assert file.read_text() == before
    assert pids(up) == running


@pytest.mark.parametrize(
    ("given", "theirs", "ours"),
    [
        ({}, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "NIGHTSHIFT_AIRFLOW_DATABASE"),
        ({}, "AIRFLOW__API__PORT", "NIGHTSHIFT_AIRFLOW_PORT"),
        ({}, "AIRFLOW__API__HOST", "NIGHTSHIFT_AIRFLOW_HOST"),
        ({}, "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "NIGHTSHIFT_USERS"),
        ({"auth": "fab"}, "AIRFLOW__CORE__AUTH_MANAGER", "NIGHTSHIFT_AUTH"),
        ({"lineage": "/tmp/x"}, "AIRFLOW__OPENLINEAGE__TRANSPORT", "NIGHTSHIFT_LINEAGE"),
    ],
)
def test_a_variable_of_airflows_that_would_be_overwritten_is_refused(
    home: Environment,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    theirs: str,
    ours: str,
) -> None:
    set_so = replace(home, **given)  # type: ignore[arg-type]
    monkeypatch.setenv(theirs, "another")
    with pytest.raises(UsageError, match=f"{theirs} is set, .* by {ours}: unset {theirs}"):
        lifecycle.up(set_so)
    assert not home.home.exists()


def test_a_variable_that_is_ours_or_that_we_do_not_set_is_not_refused(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lifecycle.variables(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "somebody.elses.AuthManager")
    # What a task of Airflow has in place of the database's address.
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    airflow.require_own_settings(home)


def test_up_is_healthy_and_down_leaves_no_process(
    up: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lifecycle.status(up) == 0
    output = capsys.readouterr().out
    pid = pids(up)["spark"]
    row = rf"\bspark\W+healthy\W+{pid}\W+{up.spark_port}\W+\d+ s\W+\d+ MB\b"
    assert re.search(row, output)
    assert "null" not in output
    assert lifecycle.down(up) == 0
    assert processes.marked(up.home) == []
    assert lifecycle.status(up) == 3


def test_a_jdbc_server_that_only_this_start_asked_for_is_told_of(
    home: Environment,
    replace_services: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jdbc = {"name": JDBC, "port_variable": "NIGHTSHIFT_JDBC_PORT"}

    def with_jdbc(environment: Environment) -> tuple[Service, ...]:
        if not environment.jdbc_port:
            return (listening(environment),)
        return (listening(environment), replace(sleeping(environment), **jdbc))

    monkeypatch.setattr(lifecycle, "services", with_jdbc)
    assert lifecycle.up(home.with_jdbc()) == 0
    assert "JDBC: jdbc:hive2://127.0.0.1:10000" in capsys.readouterr().out
    assert lifecycle.status(home) == 0
    assert re.search(r"\bjdbc\W+healthy\b", capsys.readouterr().out)
    assert lifecycle.up(home) == 0
    assert JDBC not in pids(home), "the next start has not asked for it"
    lifecycle.down(home)


def test_up_twice_restarts_nothing(up: Environment) -> None:
    before = pids(up)
    assert lifecycle.up(up) == 0
    assert pids(up) == before


def test_up_in_a_shell_with_another_path_restarts_nothing(
    up: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pids(up)
    # As `activate` of a virtual environment makes it.
    monkeypatch.setenv("PATH", f"{up.home}{os.pathsep}{os.environ['PATH']}")
    assert lifecycle.up(up) == 0
    assert pids(up) == before


def test_a_service_that_is_slow_to_end_is_waited_for(
    home: Environment, replace_services: Callable[..., None]
) -> None:
    program = (sys.executable, "-c", END_SLOWLY)

    def slow(environment: Environment) -> Service:
        is_there = environment.logs / "slow.log"
        return Service(name="slow", command=program, is_well=lambda *_: is_there.read_text() != "")

    replace_services(slow)
    assert lifecycle.up(home) == 0
    assert lifecycle.down(home) == 0
    assert (home.logs / "slow.log").read_text() == "there\nended\n"
    assert not Supervisor(home).was_killed()


def test_down_twice_is_fine(up: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    assert lifecycle.down(up) == 0
    assert lifecycle.down(up) == 0
    assert capsys.readouterr().out.endswith("Nothing was up.\n")


def test_the_status_of_a_home_that_was_never_set_up_is_stopped_and_makes_no_folder(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lifecycle.status(home) == 3
    output = capsys.readouterr().out
    for service in services(home):
        assert re.search(rf"\b{service.name}\W+stopped\b", output)
    assert not home.home.exists()


def test_down_in_a_home_that_was_never_set_up_makes_no_folder(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lifecycle.down(home) == 0
    assert capsys.readouterr().out == "Nothing was up.\n"
    assert not home.home.exists()


def test_down_ends_what_was_started_for_a_home_that_somebody_removed(up: Environment) -> None:
    shutil.rmtree(up.home)
    assert lifecycle.down(up) == 0
    assert processes.marked(up.home) == []


def test_down_ends_what_runs_where_the_disk_may_only_be_read(
    up: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    # To mount one, one would have to be root.
    monkeypatch.setattr(Path, "chmod", refuse)
    assert lifecycle.down(up) == 0
    assert processes.marked(up.home) == []
    told = capsys.readouterr()
    assert "Stopped in" in told.out
    assert "no other start or stop is waited for: [Errno 30] Read-only file system" in told.err


def test_other_settings_restart_the_platform(
    up: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd_value = "1 %\"'"
    before = pids(up)

    def other_variables(environment: Environment) -> dict[str, str]:
        home = str(environment.home)
        return {processes.MARK: home, "NIGHTSHIFT_HOME": home, "A": odd_value}

    monkeypatch.setattr(lifecycle, "variables", other_variables)
    assert lifecycle.up(up) == 0
    assert set(pids(up).values()).isdisjoint(before.values())
    assert psutil.Process(pids(up)["sleeper"]).environ()["A"] == odd_value


def test_a_setting_of_airflows_own_is_noticed_too(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lifecycle.variables(home)
    assert before == lifecycle.variables(home)
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "7")
    # Other variables are other settings, and those restart the platform.
    assert lifecycle.variables(home) == {**before, "AIRFLOW__CORE__PARALLELISM": "7"}


def test_two_homes_live_side_by_side(
    up: Environment, make_home: Callable[[str], Environment]
) -> None:
    other = make_home("other")
    assert lifecycle.up(other) == 0
    lifecycle.down(other)
    assert processes.marked(other.home) == []
    assert lifecycle.status(up) == 0


def test_after_its_supervisor_was_killed_down_leaves_no_process(up: Environment) -> None:
    kill_supervisor(up)
    assert processes.marked(up.home) != []
    assert lifecycle.down(up) == 0
    assert processes.marked(up.home) == []


def test_the_status_after_its_supervisor_was_killed_tells_of_what_still_runs(
    up: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert lifecycle.status(up) == 0
    assert capsys.readouterr().err == ""
    kill_supervisor(up)
    assert lifecycle.status(up) == 3
    told = r"\d+ of its processes still run, and nothing watches them, such as process \d+ \("
    assert re.match(told, capsys.readouterr().err)
    assert lifecycle.down(up) == 0
    assert lifecycle.status(up) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.timeout(120)  # an answer was waited for without end
def test_a_supervisor_that_answers_nothing_is_told_of_and_ended_by_down_alone(
    up: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pids(up)
    stop_supervisor(up)
    # Only while it is stopped: one that goes on may need more.
    with monkeypatch.context() as hurried:
        hurried.setattr(supervision, "_ANSWER_SECONDS", 1)
        assert lifecycle.status(up) == 3
        told = capsys.readouterr().err
        [platform] = doctor._platform(up)
        # Nights may run.
        with pytest.raises(NightshiftError, match="answers nothing.* `nightshift down` ends it"):
            lifecycle.up(up)
    assert "The supervisor is stopped (SIGSTOP), and nothing watches" in told
    # It is there, and where it goes on it watches them again.
    supervisor = (up.runtime / "supervisord.pid").read_text().strip()
    assert f"`kill -CONT {supervisor}` lets it go on" in told
    assert f"`kill -CONT {supervisor}` lets it go on" in platform.way_out
    assert "(SIGSTOP)" in platform.found
    go_on_supervisor(up)
    assert pids(up) == before
    assert lifecycle.up(up) == 0
    stop_supervisor(up)
    monkeypatch.setattr(supervision, "_ANSWER_SECONDS", 1)
    assert lifecycle.down(up) == 0
    assert processes.marked(up.home) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
def test_a_service_goes_on_when_its_log_can_be_written_again(
    home: Environment, replace_services: Callable[..., None]
) -> None:
    replace_services(talking)
    try:
        assert lifecycle.up(home) == 0
        supervisor = psutil.Process(int((home.runtime / "supervisord.pid").read_text()))
        # As on a disk that is full: what it writes fails.
        unlimited = supervisor.rlimit(psutil.RLIMIT_FSIZE)
        supervisor.rlimit(psutil.RLIMIT_FSIZE, (0, unlimited[1]))
        time.sleep(1)
        supervisor.rlimit(psutil.RLIMIT_FSIZE, unlimited)
        there = log_of(home, "talking").stat().st_size
        deadline = time.monotonic() + 20
        # The service waited in a print without end.
        while (size := log_of(home, "talking").stat().st_size) < there + MANY_BYTES:
            assert time.monotonic() < deadline, f"{size - there} bytes more"
            time.sleep(0.1)
    finally:
        lifecycle.down(home)


def test_a_service_that_is_stopped_is_not_told_as_healthy(
    up: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    stopped = pids(up)["spark"]
    before = pids(up)
    os.kill(stopped, signal.SIGSTOP)
    try:
        # The system takes connections for it.
        assert processes.answers(up.spark_port)
        assert lifecycle.status(up) == 3
        with pytest.raises(NightshiftError, match=rf"'spark' is stopped .*-CONT {stopped}"):
            lifecycle.up(up)
        assert pids(up) == before
    finally:
        os.kill(stopped, signal.SIGCONT)
    told = capsys.readouterr()
    assert re.search(r"spark +\| unhealthy", told.out)
    assert f"`kill -CONT {stopped}` lets it go on" in told.err
    assert lifecycle.status(up) == 0


@pytest.mark.parametrize("asked", ["processes", "start_service"])
def test_a_supervisor_that_answers_nothing_in_mid_start_ends_no_night(
    up: Environment, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    before = pids(up)
    ask = getattr(Supervisor, asked)

    def ask_one_that_is_stopped(supervisor: Supervisor, *given: Any) -> Any:
        stop_supervisor(up)
        # Not before: one that goes on may need more.
        supervisor._patience_seconds = 1
        patched.setattr(supervision, "_ANSWER_SECONDS", 1)
        return ask(supervisor, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Supervisor, asked, ask_one_that_is_stopped)
        with pytest.raises(NightshiftError, match="answers nothing"):
            lifecycle.up(up)
    go_on_supervisor(up)
    assert pids(up) == before


def test_a_supervisor_that_is_slow_to_answer_once_ends_no_start(
    home: Environment, replace_services: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Supervisor.processes
    asked: list[object] = []

    def answer_late(supervisor: Supervisor) -> dict[str, supervision.Process]:
        asked.append(supervisor)
        # The first asks what is to be warmed up.
        return {} if len(asked) in {2, 3} else ask(supervisor)

    monkeypatch.setattr(Supervisor, "processes", answer_late)
    try:
        assert lifecycle.up(home) == 0
    finally:
        lifecycle.down(home)


def test_up_sweeps_what_a_killed_supervisor_left(up: Environment) -> None:
    left = [psutil.Process(pid) for pid in pids(up).values()]
    kill_supervisor(up)
    assert lifecycle.up(up) == 0
    assert not any(processes.is_alive(process) for process in left)
    assert lifecycle.status(up) == 0


def test_a_process_that_outlives_its_kill_is_told_of_and_left(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = {**os.environ, processes.MARK: str(home.home)}
    stuck = subprocess.Popen(["sleep", "600"], env=marked)
    # As of one that a disk of another machine does not answer.
    monkeypatch.setattr(psutil.Process, "terminate", lambda process: None)
    monkeypatch.setattr(psutil.Process, "kill", lambda process: None)
    monkeypatch.setattr(processes, "_KILLED_SECONDS", 0.1)
    sweeping = Thread(target=processes.sweep, args=(home.home, 0.1), daemon=True)
    sweeping.start()
    sweeping.join(10)
    is_over = not sweeping.is_alive()
    stuck.kill()
    stuck.wait()
    assert is_over
    told = capsys.readouterr().err
    assert re.match(rf"Warning: process {stuck.pid} \(sleep 600.*does not end, nor by a kill", told)


def test_a_killed_service_comes_back(up: Environment) -> None:
    before = pids(up)["spark"]
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while pids(up)["spark"] in (0, before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert pids(up)["spark"] not in (0, before)


def test_what_services_do_is_told_only_in_a_log_that_is_begun_anew(up: Environment) -> None:
    assert "spawned" in (up.logs / "supervisord.log").read_text()
    assert "spawned" not in (up.logs / "supervisor.log").read_text()


def test_a_supervisor_that_does_not_start_is_told_with_what_it_says_now_and_its_log(
    home: Environment, replace_services: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.logs.mkdir(parents=True)
    (home.logs / "supervisor.log").write_text("of an earlier start")
    (home.logs / "supervisord.log").write_text("what it logs")
    monkeypatch.setattr(Supervisor, "configuration", lambda *_: "nonsense")
    with pytest.raises(NightshiftError, match="The supervisor did not start") as error:
        lifecycle.up(home)
    told = str(error.value)
    assert "'nonsense" in told
    assert "what it logs" in told
    assert "of an earlier start" not in told


def test_a_taken_port_is_named_with_its_holder_and_the_variable(
    home: Environment, replace_services: object
) -> None:
    program = [sys.executable, "-c", LISTEN, str(home.spark_port)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(NightshiftError) as error:
            lifecycle.up(home)
        holder.kill()
    message = str(error.value)
    assert f"Port {home.spark_port}, which the service 'spark' needs, is taken by" in message
    assert f"process {holder.pid}" in message
    assert "set NIGHTSHIFT_SPARK_PORT to a free port" in message
    assert processes.marked(home.home) == []


def test_a_taken_port_leaves_what_is_up_alone(up: Environment) -> None:
    before = pids(up)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = replace(up, spark_port=other.getsockname()[1])
        with pytest.raises(NightshiftError, match=f"Port {taken.spark_port}, which .* is taken by"):
            lifecycle.up(taken)
    assert pids(up) == before


def test_one_port_for_two_services_is_refused_with_both_variables(home: Environment) -> None:
    both = replace(home, mlflow_port=home.airflow_port)
    message = f"NIGHTSHIFT_AIRFLOW_PORT and NIGHTSHIFT_MLFLOW_PORT are both {home.airflow_port}: "
    with pytest.raises(UsageError, match=message):
        lifecycle.up(both)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_start_that_is_ended_leaves_nothing_behind(
    home: Environment,
    as_at_a_terminal: None,
    replace_services: object,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    start = startup.start_services

    def start_and_end(*given: Any) -> None:
        start(*given)
        assert signal.getsignal(number) is not signal.SIG_DFL, "it would end this process"
        signal.raise_signal(number)

    monkeypatch.setattr(lifecycle, "start_services", start_and_end)
    with pytest.raises(KeyboardInterrupt):
        lifecycle.up(home)
    assert processes.marked(home.home) == []
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_fault_of_an_up_of_what_is_up_ends_no_night(
    up: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_no_room(environment: Environment) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = pids(up)
    monkeypatch.setattr(airflow, "make_login", find_no_room)
    with pytest.raises(OSError, match="No space left"):
        lifecycle.up(up)
    assert pids(up) == before


def test_an_up_of_what_is_up_that_is_ended_ends_no_night(
    up: Environment, as_at_a_terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_ended(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    before = pids(up)
    monkeypatch.setattr(lifecycle, "start_services", be_ended)
    with pytest.raises(KeyboardInterrupt):
        lifecycle.up(up)
    assert pids(up) == before


def test_a_start_under_nohup_goes_on_when_its_terminal_ends(
    home: Environment, replace_services: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = startup.start_services

    def start_and_go_on(*given: Any) -> None:
        start(*given)
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(lifecycle, "start_services", start_and_go_on)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert lifecycle.up(home) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
        lifecycle.down(home)


def test_a_service_that_dies_is_named_with_the_end_of_its_log(
    home: Environment, replace_services: Callable[..., None]
) -> None:
    replace_services(sleeping, dying)
    with pytest.raises(NightshiftError, match=r"The service 'dying' died(.|\n)*the reason"):
        lifecycle.up(home)
    assert processes.marked(home.home) == []


def test_a_service_that_never_gets_well_is_given_up(
    home: Environment, replace_services: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_services(never_well)
    monkeypatch.setattr(startup, "UP_SECONDS", 2)
    with pytest.raises(NightshiftError, match="The service 'ill' is not healthy after 2 s"):
        lifecycle.up(home)
    assert processes.marked(home.home) == []


def test_a_warm_up_that_never_ends_is_given_up_with_what_it_says(
    home: Environment,
    replace_services: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended: list[str] = []

    class Endless(_Warm):
        """One that waits for executors."""

        def wait(self, timeout: float | None = None) -> int | None:
            return None

        def kill(self) -> None:
            ended.append("warm-up")

    def begin(environment: Environment) -> Endless:
        log_of(environment, "warm-up").write_text("no executor")
        # Of the warm-up alone: the services before it take what they need.
        monkeypatch.setattr(startup, "UP_SECONDS", 2)
        return Endless()

    replace_services(lambda environment: replace(listening(environment), is_warmed_up=True))
    monkeypatch.setattr(startup, "warm_up", begin)
    try:
        # A container would begin anew for ever, and end what it runs each time.
        assert lifecycle.up(home) == 0
        assert lifecycle.status(home) == 0
    finally:
        lifecycle.down(home)
    assert ended == ["warm-up"]
    told = capsys.readouterr().err
    assert re.search(r"Warning: .*'warm-up' is not done after 2 s(.|\n)*no executor", told)
    assert not re.search(r"warm-up\s+ready", told)


def test_a_heartbeat_of_an_earlier_start_does_not_count() -> None:
    health = {
        "scheduler": {
            "status": "healthy",
            "latest_scheduler_heartbeat": "2026-01-01T00:00:10+00:00",
        }
    }
    moment = 1767225610.0
    assert airflow.is_healthy(health, "scheduler", moment - 5)
    assert not airflow.is_healthy(health, "scheduler", moment + 5)
    assert not airflow.is_healthy({}, "scheduler", moment)


def test_a_clock_that_was_put_back_makes_no_service_ill() -> None:
    now = datetime.now(UTC)
    beats = {"status": "healthy", "latest_scheduler_heartbeat": now.isoformat()}
    an_hour_later = now.timestamp() + 3600
    assert airflow.is_healthy({"scheduler": beats}, "scheduler", an_hour_later)
    # Airflow says by the clock of now that it does not beat any more.
    ill = {**beats, "status": "unhealthy"}
    assert not airflow.is_healthy({"scheduler": ill}, "scheduler", an_hour_later)


def test_a_clusters_spark_takes_the_place_of_our_own(tmp_path: Path) -> None:
    own = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    with_cluster = replace(own, spark_remote="sc://cluster")
    assert "spark" in [service.name for service in services(own)]
    assert "spark" not in [service.name for service in services(with_cluster)]


def test_what_up_can_start_are_the_services_that_a_machine_may_be_told_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else schedulers run their tasks themselves, and there is no worker.
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    own = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}).with_jdbc()
    assert {service.name for service in services(own)} == set(SERVICES)
    some = replace(own, services="stages,scheduler")
    assert [service.name for service in services(some)] == ["stages", "scheduler"]


def test_logs_are_served_where_the_pages_are_on_another_machine(tmp_path: Path) -> None:
    own = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    # Two machines with an API each show each other's.
    for names, is_served in ((None, False), ("airflow-api,scheduler", True), ("scheduler", True)):
        told = services(replace(own, services=names))
        [scheduler] = [service for service in told if service.name == "scheduler"]
        assert ("--skip-serve-logs" not in scheduler.command) == is_served


PART = {
    "services": "spark,stages,scheduler",
    "airflow_database": "postgresql://airflow:word@db/airflow",
    "mlflow_uri": "postgresql://mlflow:word@db/mlflow",
    "secret": "of all machines of this installation",
    "airflow_api": "http://10.0.0.5:8080",
    "lake": "/of-all/lake",
    **{name: Path("/of-all") / name for name in ("landing", "reports", "models", "jobs")},
}


@pytest.mark.parametrize("lacking", [name for name in PART if name != "services"])
def test_a_part_of_a_platform_that_shares_nothing_is_refused(
    home: Environment, lacking: str
) -> None:
    lacks = replace(home, **{**PART, lacking: getattr(home, lacking)})
    variable = Environment.settings()[lacking].variable
    with pytest.raises(UsageError, match=rf"not set, to the same on each: {variable} \("):
        lifecycle.up(lacks)
    assert not home.home.exists()


def test_a_part_that_shares_all_starts_and_says_what_it_is(
    home: Environment,
    replace_services: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # It begins the replays, in a landing folder that is there.
    part = replace(home, **{**PART, "landing": tmp_path / "of-all"})  # type: ignore[arg-type]
    try:
        assert lifecycle.up(part) == 0
        assert "Up: spark, sleeper." in capsys.readouterr().out
    finally:
        lifecycle.down(part)


def test_programs_of_a_part_ask_the_machine_of_the_pages(home: Environment) -> None:
    part = replace(home, **PART)  # type: ignore[arg-type]
    assert own_airflow(part).url == "http://10.0.0.5:8080"
    told = lifecycle.variables(part)
    assert told["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://10.0.0.5:8080/execution/"
    # No proxy leads there: that of the world knows no machine of ours.
    assert "10.0.0.5" in told["NO_PROXY"].split(",")
    # People reach them in no other way, unless it is said.
    assert addresses.of_airflow(part) == "http://10.0.0.5:8080"
    public = replace(part, airflow_url="https://nights.example.org")
    assert addresses.of_airflow(public) == "https://nights.example.org"
    assert addresses.of_api(public) == "http://10.0.0.5:8080"
    assert lifecycle.variables(public)["AIRFLOW__API__BASE_URL"] == "https://nights.example.org"


def test_the_machine_of_the_pages_asks_itself(home: Environment) -> None:
    pages = replace(home, **{**PART, "services": "airflow-api"})  # type: ignore[arg-type]
    here = f"http://127.0.0.1:{home.airflow_port}"
    # The address is for others: from here it may lead nowhere.
    assert own_airflow(pages).url == here
    told = lifecycle.variables(pages)
    assert told["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"{here}/execution/"


def test_an_address_at_which_nobody_else_finds_the_logs_is_refused(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = replace(home, **PART)  # type: ignore[arg-type]
    monkeypatch.setenv("AIRFLOW__CORE__HOSTNAME_CALLABLE", "airflow.utils.net.get_host_ip_address")
    # As Debian has it for a machine's own name.
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    with pytest.raises(UsageError, match=r"at 127\.0\.1\.1: .* Let a line of /etc/hosts"):
        lifecycle.up(part)


def test_a_machine_whose_own_name_leads_nowhere_is_told_so(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lead_nowhere(name: str) -> str:
        raise socket.gaierror(-2, "Name or service not known")

    part = replace(home, **PART)  # type: ignore[arg-type]
    monkeypatch.setenv("AIRFLOW__CORE__HOSTNAME_CALLABLE", "airflow.utils.net.get_host_ip_address")
    monkeypatch.setattr(socket, "gethostbyname", lead_nowhere)
    with pytest.raises(UsageError, match=r"this one nowhere: .* Let a line of /etc/hosts"):
        lifecycle.up(part)


def test_a_machine_on_which_nothing_is_to_run_is_refused(home: Environment) -> None:
    for nothing in ({"services": "jdbc"}, {"services": "spark", "spark_remote": "sc://cluster"}):
        with pytest.raises(UsageError, match="nothing is needed here"):
            lifecycle.up(replace(home, **nothing))  # type: ignore[arg-type]


def test_stages_beside_an_airflow_of_others_leave_its_settings_alone(
    home: Environment, replace_services: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://theirs")
    own = replace(home, services="stages")
    try:
        assert lifecycle.up(own) == 0
    finally:
        lifecycle.down(own)


def test_no_secret_is_in_the_supervisors_settings(up: Environment) -> None:
    file = up.runtime / "supervisord.conf"
    settings = file.read_text()
    for secret in up.secrets.iterdir():
        assert secret.read_text() not in settings
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", [stage_client.Forked, stage_client.Started])
def test_work_that_is_forked_and_that_is_started_have_one_interface(
    kind: type[stage_client.Work],
) -> None:
    assert callable(kind.wait)
    assert callable(kind.kill)
