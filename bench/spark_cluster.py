"""A real standalone cluster: a master and workers, each a process of its own, on loopback."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from jobs.services import processes
from jobs.services.processes import LOOPBACK
from jobs.spark.java import java_home
from jobs.spark.server import running_server, spark_home, stop
from pipelines.environment import Environment

_PATIENCE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What runs, and the environment whose embedded server computes on it."""

    environment: Environment
    workers: list[subprocess.Popen[bytes]]

    def executors(self) -> list[psutil.Process]:
        """One a worker, while an application runs."""
        found: list[psutil.Process] = []
        for worker in self.workers:
            if worker.poll() is not None:
                continue
            found += psutil.Process(worker.pid).children(recursive=True)
        return [one for one in found if _is_executor(one)]


def _is_executor(process: psutil.Process) -> bool:
    try:
        return "CoarseGrainedExecutorBackend" in " ".join(process.cmdline())
    except psutil.Error:
        # It has ended meanwhile.
        return False


@contextmanager
def cluster(
    environment: Environment, folder: Path, workers: int = 2, *, are_bound: bool = False
) -> Iterator[Cluster]:
    """A master, workers of a core each, and an embedded server that computes there.

    Args:
        environment: That is to compute there.
        folder: For logs and what the workers write.
        workers: So many, each with one executor.
        are_bound: Whether all of an executor runs on a core of its own, as on a machine that has
            one: its task, Java's compilers and collectors, and Python.
    """
    port = processes.free_port()
    master = f"spark://{LOOPBACK}:{port}"
    with ExitStack() as stack:
        listening = ["--host", LOOPBACK, "--port", str(port), "--webui-port", "0"]
        stack.enter_context(_started("master.Master", listening, folder / "master"))
        _wait_for(port)
        options = ["--host", LOOPBACK, "--cores", "1", "--memory", "2g", "--webui-port", "0"]
        started = []
        for number in range(workers):
            own = folder / f"worker-{number}"
            arguments = [*options, "--work-dir", str(own), master]
            core = number if are_bound else None
            started.append(stack.enter_context(_started("worker.Worker", arguments, own, core)))
        on_cluster = replace(
            environment,
            home=folder / "home",
            spark_master=master,
            spark_cores=workers,
            spark_memory="1g",
        )
        server = running_server(on_cluster, 0)
        yield Cluster(environment=stack.enter_context(server), workers=started)


@contextmanager
def _started(
    name: str,
    arguments: list[str],
    folder: Path,
    core: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(parents=True)
    command = [str(spark_home() / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}"]
    if core is not None:
        # What it starts inherits that.
        command = ["taskset", "--cpu-list", str(core), *command]
    variables = {
        **os.environ,
        "JAVA_HOME": str(java_home()),
        "SPARK_HOME": str(spark_home()),
        "SPARK_CONF_DIR": str(folder),
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_DAEMON_MEMORY": "256m",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *arguments], env=variables, cwd=folder, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        stop(process)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not processes.answers(port):
        assert time.monotonic() < deadline, "the master does not start"
        time.sleep(0.1)
