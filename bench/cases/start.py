"""The start of the platform, in a home that has been up before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pyarrow as pa

from bench.harness import Answer, Case, Peer, Round, Work
from bench.home import Home
from jobs.services import airflow, processes
from jobs.services.airflow import COMPONENTS
from pipelines.environment import Environment

_START_SECONDS = 480
"""As long as `up` waits for a service."""
_LOOK_SECONDS = 0.25
"""As often as `up` looks."""


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    """Whether all components of Airflow are well in both."""
    told = [one["is_healthy"].to_pylist() for one in (ours, theirs)]
    return told == [[True] * len(COMPONENTS)] * 2


CASE = Case(
    name="start",
    what="`nightshift up`: Airflow, Spark, MLflow and the stage server are healthy and warm",
    peers=(
        Peer(
            name="standalone",
            what="`airflow standalone` without any DAG, until all its components are healthy",
            goal=1.0,
        ),
    ),
    # Starts.
    sizes=(1,),
    quick_size=1,
    repeats=5,
    same=_same,
)


def prepare(folder: Path, size: int) -> None:
    """Nothing: the first start of a home makes what the others find."""


def ours(folder: Path) -> Work:
    """The command, which returns when all is well."""
    home = Home(folder)
    with home.up():
        pass

    def start() -> Answer:
        started = time.time()
        home("up")
        return lambda: _health(home.environment, started)

    try:
        yield Round(do=start, after=lambda: home("down"))
    finally:
        home("down")


def standalone(folder: Path) -> Work:
    """What Airflow's manual begins with, and a look at its health again and again."""
    own = _Standalone(folder / "airflow")
    with own.up():
        pass

    def start() -> Answer:
        started = own.start()
        return lambda: _health(own.environment, started)

    try:
        yield Round(do=start, after=own.stop)
    finally:
        own.stop()


class _Standalone:
    """Airflow in a folder of its own, on free ports, without its examples."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        ports = ("API__PORT", "LOGGING__WORKER_LOG_SERVER_PORT", "LOGGING__TRIGGER_LOG_SERVER_PORT")
        free = {f"AIRFLOW__{name}": str(processes.free_port()) for name in ports}
        settings = {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", **free}
        self._folder = folder
        # It starts its parts by the name of its command.
        programs = Path(sys.executable).parent
        path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._variables = {**os.environ, **settings, "PATH": path}
        self._process: subprocess.Popen[bytes] | None = None
        port = free["AIRFLOW__API__PORT"]
        self.environment = Environment.read(
            {"NIGHTSHIFT_HOME": str(folder), "NIGHTSHIFT_AIRFLOW_PORT": port}
        )

    def start(self) -> float:
        """Start it and wait until all is well; returns since when."""
        started = time.time()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                airflow.program("standalone"), env=self._variables, stdout=log, stderr=log
            )
        while not all(_health(self.environment, started)["is_healthy"].to_pylist()):
            code = self._process.poll()
            if code is not None or time.time() - started > _START_SECONDS:
                raise SystemExit(f"Airflow is not well (exit code {code}): {self._folder / 'log'}")
            time.sleep(_LOOK_SECONDS)
        return started

    def stop(self) -> None:
        """End it, with all that it has started."""
        if self._process is not None:
            # Where it has ended by itself there is nobody to ask for what it had started.
            with suppress(psutil.NoSuchProcess):
                top = psutil.Process(self._process.pid)
                processes.end([top, *top.children(recursive=True)])
            self._process.wait()
            self._process = None

    @contextmanager
    def up(self) -> Iterator[None]:
        """For so long."""
        try:
            self.start()
            yield
        finally:
            self.stop()


def _health(environment: Environment, since: float) -> pa.Table:
    """Which components have been well since that moment, as Airflow's API tells."""
    told = airflow.health(environment)
    wells = [airflow.is_healthy(told, component, since) for component in COMPONENTS]
    return pa.table({"component": list(COMPONENTS), "is_healthy": wells})
