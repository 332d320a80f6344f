"""Up, down and status, with small services in the place of the real ones.

Tests/e2e has the real ones.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs.services import airflow, lifecycle, processes, stage_client
from jobs.services.definitions import Service, services
from jobs.services.die_with_parent import dying_with_parent
from jobs.services.supervision import Supervisor
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

LISTEN = (
    "import socket,sys,time; s=socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
    "print('listening', flush=True); time.sleep(600)"
)


class _Warm:
    def wait(self, timeout: float | None = None) -> int | None:
        return 0

    def kill(self) -> None: ...


def listening(environment: Environment) -> Service:
    return Service(
        name="spark",
        command=tuple(
            dying_with_parent([sys.executable, "-c", LISTEN, str(environment.spark_port)])
        ),
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
        name="dying", command=("sh", "-c", "echo the reason; exit 7"), is_well=lambda *_: False
    )


@pytest.fixture
def replace_services(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the platform other services."""
    monkeypatch.setattr(lifecycle, "_warm_up", lambda environment: _Warm())
    monkeypatch.setattr(airflow, "migration", lambda environment: None)

    def put(*makers: Callable[[Environment], Service]) -> None:
        monkeypatch.setattr(
            lifecycle, "services", lambda environment: tuple(make(environment) for make in makers)
        )

    put(listening, sleeping)
    return put


@pytest.fixture
def up(home: Environment, replace_services: object) -> Iterator[Environment]:
    assert lifecycle.up(home) == 0
    yield home
    lifecycle.down(home)


def pids(environment: Environment) -> dict[str, int]:
    return {name: process.pid for name, process in Supervisor(environment).processes().items()}


def test_up_is_healthy_and_down_leaves_no_process(
    up: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lifecycle.status(up) == 0
    output = capsys.readouterr().out
    assert re.search(r"\| spark +\| healthy +\| +\d+ \| +\d+ \| \d+ s +\| \d+ MB", output)
    assert "null" not in output
    assert lifecycle.down(up) == 0
    assert processes.marked(up.home) == []
    assert lifecycle.status(up) == 3


def test_up_twice_restarts_nothing(up: Environment) -> None:
    before = pids(up)
    assert lifecycle.up(up) == 0
    assert pids(up) == before


def test_down_twice_is_fine(up: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    assert (lifecycle.down(up), lifecycle.down(up)) == (0, 0)
    assert capsys.readouterr().out.endswith("Nothing was up.\n")


def test_other_settings_restart_the_platform(
    up: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pids(up)
    monkeypatch.setattr(
        lifecycle,
        "variables",
        lambda environment: {
            processes.MARK: str(environment.home),
            "NIGHTSHIFT_HOME": str(environment.home),
            "A": "1 %\"'",
        },
    )
    assert lifecycle.up(up) == 0
    assert set(pids(up).values()).isdisjoint(before.values())
    assert psutil.Process(pids(up)["sleeper"]).environ()["A"] == "1 %\"'"


def test_two_homes_live_side_by_side(
    up: Environment, make_home: Callable[[str], Environment]
) -> None:
    other = make_home("other")
    assert lifecycle.up(other) == 0
    lifecycle.down(other)
    assert processes.marked(other.home) == []
    assert lifecycle.status(up) == 0


def test_after_its_supervisor_was_killed_down_leaves_no_process(up: Environment) -> None:
    supervisor = psutil.Process(int((up.runtime / "supervisord.pid").read_text()))
    supervisor.kill()
    supervisor.wait(10)
    assert processes.marked(up.home) != []
    assert lifecycle.down(up) == 0
    assert processes.marked(up.home) == []


def test_up_sweeps_what_a_killed_supervisor_left(up: Environment) -> None:
    left = [psutil.Process(pid) for pid in pids(up).values()]
    psutil.Process(int((up.runtime / "supervisord.pid").read_text())).kill()
    assert lifecycle.up(up) == 0
    assert not any(processes.is_alive(process) for process in left)
    assert lifecycle.status(up) == 0


def test_a_killed_service_comes_back(up: Environment) -> None:
    before = pids(up)["spark"]
    os.kill(before, signal.SIGKILL)
    deadline = threading.Event()
    for _ in range(100):
        if pids(up)["spark"] not in (0, before):
            break
        deadline.wait(0.1)
    assert pids(up)["spark"] not in (0, before)


def test_a_taken_port_is_named_with_its_holder_and_the_variable(
    home: Environment, replace_services: object
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(home.spark_port)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(NightshiftError) as error:
            lifecycle.up(home)
        holder.kill()
    assert (
        f"Port {home.spark_port}, which the service 'spark' needs, is taken by process {holder.pid}"
        in str(error.value)
    )
    assert "set NIGHTSHIFT_SPARK_PORT to a free port" in str(error.value)
    assert processes.marked(home.home) == []


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
    replace_services(
        lambda environment: Service(name="ill", command=("sleep", "600"), is_well=lambda *_: False)
    )
    monkeypatch.setattr(lifecycle, "UP_SECONDS", 2)
    with pytest.raises(NightshiftError, match="The service 'ill' died"):
        lifecycle.up(home)
    assert processes.marked(home.home) == []


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


def test_a_clusters_spark_takes_the_place_of_our_own(tmp_path: Path) -> None:
    variables = {"NIGHTSHIFT_HOME": str(tmp_path)}
    assert "spark" in [one.name for one in services(Environment.read(variables))]
    assert "spark" not in [
        one.name
        for one in services(Environment.read({**variables, "SPARK_REMOTE": "sc://cluster"}))
    ]


def test_no_secret_is_in_the_supervisors_settings(up: Environment) -> None:
    settings = (up.runtime / "supervisord.conf").read_text()
    assert not any(path.read_text() in settings for path in up.secrets.iterdir())
    assert (up.runtime / "supervisord.conf").stat().st_mode & 0o077 == 0


def test_the_work_that_is_forked_and_that_is_started_have_one_interface() -> None:
    assert all(
        callable(getattr(kind, name))
        for kind in (stage_client.Forked, stage_client.Started)
        for name in ("wait", "kill")
    )
