"""A real YARN: its ResourceManager and one NodeManager, each a process of its own, on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

from jobs.services import processes
from jobs.services.processes import LOOPBACK
from jobs.spark.java import java_home
from jobs.spark.server import spark_home, stop
from tools.setup import jars

_PATIENCE_SECONDS = 120
_MANAGER, _NODE = "yarn.resourcemanager", "yarn.nodemanager"
_PACKAGE = "org.apache.hadoop.yarn.server"
_PROGRAMS = ("resourcemanager.ResourceManager", "nodemanager.NodeManager")
_PORTS = (
    f"{_MANAGER}.address",
    f"{_MANAGER}.scheduler.address",
    f"{_MANAGER}.resource-tracker.address",
    f"{_MANAGER}.admin.address",
    f"{_MANAGER}.webapp.address",
    f"{_NODE}.address",
    f"{_NODE}.localizer.address",
    f"{_NODE}.webapp.address",
)
_OF_SPARK = ("hadoop-client-*.jar", "slf4j-api*.jar", "log4j*.jar")
"""What YARN also takes, which Spark's own JARs hold."""


@contextmanager
def yarn(folder: Path) -> Iterator[Path]:
    """A cluster for the time of the block, whose node has room for a driver and two executors.

    Args:
        folder: For its settings, logs and what runs in its containers.

    Yields:
        The folder that `HADOOP_CONF_DIR` is to name.
    """
    jars.YARN.make()
    settings = folder / "conf"
    settings.mkdir(parents=True)
    addresses = {name: f"{LOOPBACK}:{processes.free_port()}" for name in _PORTS}
    of_yarn = {
        **addresses,
        f"{_NODE}.local-dirs": str(folder / "local"),
        f"{_NODE}.log-dirs": str(folder / "containers"),
        f"{_NODE}.resource.memory-mb": "6144",
        f"{_NODE}.resource.cpu-vcores": "3",
        # A disk of which nine tenths are taken is a bad one otherwise.
        f"{_NODE}.disk-health-checker.max-disk-utilization-per-disk-percentage": "100",
        "yarn.scheduler.minimum-allocation-mb": "256",
    }
    capacity = "yarn.scheduler.capacity"
    shares = {
        f"{capacity}.root.queues": "default",
        f"{capacity}.root.default.capacity": "100",
        # Spark asks for executors from a container of its own, which may take so much of it all.
        f"{capacity}.maximum-am-resource-percent": "0.5",
    }
    _write(settings / "core-site.xml", {"fs.defaultFS": "file:///"})
    _write(settings / "yarn-site.xml", of_yarn)
    _write(settings / "capacity-scheduler.xml", shares)
    with ExitStack() as stack:
        for program in _PROGRAMS:
            stack.enter_context(_started(program, settings, folder))
        _wait_for_node(addresses[f"{_MANAGER}.webapp.address"])
        yield settings


def _write(file: Path, settings: dict[str, str]) -> None:
    each = (
        f"<property><name>{name}</name><value>{value}</value></property>"
        for name, value in settings.items()
    )
    file.write_text("<configuration>\n" + "\n".join(each) + "\n</configuration>\n")


@contextmanager
def _started(program: str, settings: Path, folder: Path) -> Iterator[None]:
    jars_of_spark = spark_home() / "jars"
    of_spark = [jar for name in _OF_SPARK for jar in sorted(jars_of_spark.glob(name))]
    on_path = [settings, *sorted(jars.YARN.folder.glob("*.jar")), *of_spark]
    command = [
        str(java_home() / "bin" / "java"),
        "-Xmx400m",
        "-cp",
        os.pathsep.join(map(str, on_path)),
        f"-Dhadoop.log.dir={folder}",
        f"{_PACKAGE}.{program}",
    ]
    variables = {**os.environ, "HADOOP_CONF_DIR": str(settings), "JAVA_HOME": str(java_home())}
    with (folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        stop(process)


def _wait_for_node(address: str) -> None:
    """Return once containers could be started."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _running_nodes(address):
        assert time.monotonic() < deadline, "YARN does not start"
        time.sleep(0.5)


def _running_nodes(address: str) -> int:
    try:
        with urlopen(f"http://{address}/ws/v1/cluster/metrics", timeout=5) as answer:
            return int(json.load(answer)["clusterMetrics"]["activeNodes"])
    except (OSError, ValueError):
        return 0
