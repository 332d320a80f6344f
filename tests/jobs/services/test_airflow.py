"""What the platform asks of Airflow's API without a login."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

from jobs.services import airflow
from pipelines.environment import Environment
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


def _environment(port: int) -> Environment:
    return Environment.read({"NIGHTSHIFT_AIRFLOW_PORT": str(port)})
