"""What the platform asks of Airflow's API without a login."""

from __future__ import annotations

import configparser
import socket
import time
from concurrent.futures import ThreadPoolExecutor

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


def _environment(port: int) -> Environment:
    return Environment.read({"NIGHTSHIFT_AIRFLOW_PORT": str(port)})
