"""What the platform asks of Airflow's API without a login."""

from __future__ import annotations

import configparser
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import proxy_bypass

import pytest

from jobs.services import airflow
from pipelines.environment import ROOT, Environment
from tests.conftest import free_port


def test_what_the_first_task_would_wait_for_is_asked_for_and_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        airflow.prepare_for_tasks(_environment(port))
        assert time.monotonic() - started < 5
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1000).startswith(b"GET /execution/health HTTP/1.1\r\n")


def test_an_airflow_that_is_not_there_is_asked_in_vain() -> None:
    airflow.prepare_for_tasks(_environment(free_port()))


def test_logs_that_pods_have_left_are_cleaned_with_those_of_the_home(tmp_path: Path) -> None:
    told = {"NIGHTSHIFT_HOME": str(tmp_path / "home"), "NIGHTSHIFT_JOBS": str(tmp_path / "jobs")}
    environment = Environment.read(told)
    assert list(airflow.task_logs(environment)) == []
    run = "dag_id=weather/run_id=one"
    wanted = [environment.logs / "airflow" / run, environment.logs_of_pods / run]
    for folder in wanted:
        folder.mkdir(parents=True)
    assert list(airflow.task_logs(environment)) == wanted


def test_a_program_that_speaks_no_http_is_no_healthy_airflow() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as thread:
        asked = thread.submit(airflow.health, _environment(other.getsockname()[1]))
        connection, _ = other.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            assert asked.result(10) == {}


def test_a_task_asks_for_as_long_as_the_api_takes_to_start_on_a_busy_machine() -> None:
    file = configparser.ConfigParser(interpolation=None)
    file.read(ROOT / "airflow.cfg")
    tries = file.getint("workers", "execution_api_retries", fallback=5)
    longest = file.getfloat("workers", "execution_api_retry_wait_max", fallback=90)
    # Airflow draws each wait between one second and the doubled one before, at most the longest.
    most = [min(longest, 2**number) for number in range(tries - 1)]
    waits = [(1 + one) / 2 for one in most]
    assert sum(waits) > 100
    # And then it is not kept waiting by it.
    assert max(waits) < 10


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    ("said", "hosts"),
    [
        ("store.example,.internal", ["store.example", "10.internal", "127.0.0.1"]),
        ("*", ["any.example", "127.0.0.1"]),
    ],
)
def test_a_host_that_is_reached_without_a_proxy_is_so_by_every_process_of_the_platform(
    name: str, said: str, hosts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, said)
    told = airflow.variables(_environment(8080))
    for variable in ("NO_PROXY", "no_proxy"):
        # Programs differ in which of the two they read.
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv(variable, told[variable])
        assert all(map(proxy_bypass, hosts))
        assert bool(proxy_bypass("world.example")) == (said == "*")


def test_two_lists_of_hosts_without_a_proxy_stay_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "one.example")
    monkeypatch.setenv("no_proxy", "another.example")
    told = airflow.variables(_environment(8080))
    assert told["NO_PROXY"].endswith(",one.example")
    assert told["no_proxy"].endswith(",another.example")
    # As containers have it.
    monkeypatch.setenv("NO_PROXY", "")
    told = airflow.variables(_environment(8080))
    assert told["NO_PROXY"].endswith(",another.example")


def test_in_a_pod_no_proxy_leads_to_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    kubernetes = ["10.96.0.1", "kubernetes.default.svc"]
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    for address, is_direct in (("10.96.0.1", True), ("", False)):
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", address)
        told = airflow.variables(_environment(8080))
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.setenv(variable, told[variable])
            assert [bool(proxy_bypass(host)) for host in kubernetes] == [is_direct] * 2


def _environment(port: int) -> Environment:
    return Environment.read({"NIGHTSHIFT_AIRFLOW_PORT": str(port)})
