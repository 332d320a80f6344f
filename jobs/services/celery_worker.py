"""A worker of Celery's: takes Airflow's tasks from the broker, and runs them on this machine.

`python -m jobs.services.celery_worker [OPTION …]`, with the variables of an Airflow process and
options of `airflow celery worker`.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from jobs.services.processes import is_clock_put_back
from pipelines.environment import Environment

_LATE_SECONDS = 30
"""Celery's heart beats every two seconds, as long as it reaches the broker."""


def beats(environment: Environment, since: float) -> bool:
    """Whether the home's worker is at its broker now, and has been at it since that moment.

    Args:
        environment: Whose worker it is.
        since: Seconds since 1970.
    """
    try:
        last = _heart(environment).stat().st_mtime
    except OSError:
        return False
    is_of_this_one = last >= since or is_clock_put_back(since)
    return is_of_this_one and abs(time.time() - last) < _LATE_SECONDS


def arguments(environment: Environment, options: Sequence[str]) -> list[str]:
    """The arguments of `airflow` that run it."""
    # Two of one name would take each other's orders: a machine may have several homes, and each
    # container has a home at the same path.
    home = sha256(str(environment.home).encode()).hexdigest()[:8]
    name = f"--celery-hostname=nightshift-{home}@{socket.gethostname()}"
    queues = [f"--queues={environment.queues}"] if environment.queues else []
    return ["celery", "worker", name, *queues, *options]


def main() -> None:
    """Be the worker until it is told to end."""
    environment = Environment.read()
    # SIGTERM ends its tasks too, as that of a scheduler which runs them itself: Airflow has them
    # tried again. By default a worker waits for them, as long as they take. Read while it is
    # imported.
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    from celery.signals import heartbeat_sent

    heart = _heart(environment)
    heartbeat_sent.connect(lambda **_: heart.touch(), weak=False)
    sys.argv = ["airflow", *arguments(environment, sys.argv[1:])]
    runpy.run_module("airflow", run_name="__main__", alter_sys=True)


def _heart(environment: Environment) -> Path:
    """The file that is touched at each beat."""
    return environment.runtime / "worker.heartbeat"


if __name__ == "__main__":
    main()
