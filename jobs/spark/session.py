"""The Spark session of every stage: a thin client of one Spark Connect server.

On a local disk Delta is only safe inside one JVM, so a home has exactly one server: the one of
`nightshift up`, or one that a run embeds for its own time. A cluster's server takes its place by
`SPARK_REMOTE`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import IO, TYPE_CHECKING

from jobs.services import processes
from jobs.services.die_with_parent import dying_with_parent
from jobs.services.secrets import private_folder, secret
from jobs.services.text import tail
from jobs.spark.java import java_home
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START_SECONDS = 180
_RETRIES = 5
_SIGNS_OF_LOSS = ("StatusCode.UNAVAILABLE", "NO_ACTIVE_SESSION", "INVALID_HANDLE")
"""What Spark's client says when its server is gone, or when a new one at the same place does not
know the session."""
_JVM_FLAGS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=512m"
"""Halve the time to the first result: most of a night's queries run once, so the second compiler
does not pay off.

With one compiler Java reserves 48 MB for code, which Spark's generated classes fill within some
nights: then nothing is compiled any more.
"""
_sessions: dict[tuple[int, str], SparkSession] = {}
"""Open sessions by process and address: the process id keeps a forked child from using its parent's
channel."""
_one_opens = threading.Lock()
"""Threads of a stage that connect at once get one session: frames of two cannot be joined."""


def connect(environment: Environment) -> SparkSession:
    """This process's session on the server of the environment; the same one at every call.

    Raises:
        NightshiftError: no server answers.
    """
    key = (os.getpid(), _address(environment))
    with _one_opens:
        if key not in _sessions or _sessions[key].client.is_closed:
            if not environment.spark_remote:
                _require_own_server(environment)
            _sessions[key] = _new_session(environment)
        return _sessions[key]


def disconnect(environment: Environment | None = None) -> None:
    """End this process's session with the server of the environment (None.

    With every server), so that the server forgets it at once.

    A later `connect` makes a new one.
    """
    address = _address(environment) if environment else None
    for key in [key for key in _sessions if key[0] == os.getpid() and address in (None, key[1])]:
        _sessions.pop(key).stop()


def explain_loss(environment: Environment, error: BaseException) -> NightshiftError | None:
    """The plain words for an error of Spark's client whose server has ended or restarted.

    None for every other error.
    """
    from pyspark.errors import PySparkException

    if not isinstance(error, PySparkException) or not any(
        sign in str(error) for sign in _SIGNS_OF_LOSS
    ):
        return None
    reason = environment.spark_remote or environment.logs / "spark.log"
    return NightshiftError(
        f"The Spark Connect server ended or restarted while the stage ran; look in {reason} "
        "for the reason. Nothing of the stage was published by halves: run it again."
    )


@contextmanager
def server(environment: Environment, port: int | None = None) -> Iterator[Environment]:
    """A server for the time of the block.

    The one that is there, else one of our own that ends with the block.

    Args:
        environment: Whose server it is.
        port: Start a server of our own on this port (0: any free one), whether or not another runs.

    Yields:
        The environment that reaches the server.
    """
    if environment.spark_remote:
        yield environment
        return
    if port is not None:
        environment = replace(environment, spark_port=port or processes.free_port())
    with _shared_use(environment) as users:
        process = _start_unless_running(environment)
        try:
            yield environment
        finally:
            if process is not None:
                disconnect(environment)  # at its exit a client waits for a server that is gone
                _wait_for_other_users(users)
                stop(process)


def _start_unless_running(environment: Environment) -> subprocess.Popen[bytes] | None:
    with (environment.runtime / "spark.starting").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # of two that find no server, one starts it
        return None if _is_running(environment) else start(environment)


def start(environment: Environment) -> subprocess.Popen[bytes]:
    """Start a server that dies with this process, and wait until it accepts connections.

    Raises:
        PortTakenError: a program that is none of this home's uses the port.
        NightshiftError: the server did not start; the message holds the end of its log.
    """
    processes.require_free(
        environment.spark_port, "the Spark Connect server", "NIGHTSHIFT_SPARK_PORT"
    )
    log = environment.logs / "spark.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    program, variables = (
        dying_with_parent(command(environment), signal.SIGKILL),
        {**os.environ, **server_variables(environment)},
    )
    with log.open("ab") as output:  # a group of its own: Ctrl-C is for us, and then we end it
        process = subprocess.Popen(
            program,
            env=variables,
            cwd=fresh_folder(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
    try:
        _wait_until_up(environment, process, log)
    except BaseException:
        stop(process)
        raise
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server that `start` started."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def command(environment: Environment) -> list[str]:
    """The command line of the server.

    Its token is not in it, because every user of the machine can read it.
    """
    settings = [f"--conf={key}={value}" for key, value in configuration(environment).items()]
    main = ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    return [
        str(_spark_home() / "bin" / "spark-submit"),
        "--driver-memory",
        environment.spark_memory,
        *settings,
        *main,
    ]


def configuration(environment: Environment) -> dict[str, str]:
    """Every Spark setting of the server that is not Spark's own default."""
    folder, jars = _folder(environment), delta_jars()
    return {
        "spark.master": f"local[{environment.spark_cores}]",
        "spark.app.name": "nightshift",
        "spark.driver.extraClassPath": os.pathsep.join(str(jar) for jar in jars),
        "spark.driver.extraJavaOptions": (
            f"{_JVM_FLAGS} -Duser.timezone=UTC "
            f"-Djava.io.tmpdir={quote(str(folder / _tmp(environment)))}"
        ),
        "spark.driver.host": processes.LOOPBACK,
        "spark.driver.bindAddress": processes.LOOPBACK,
        "spark.connect.grpc.binding.address": processes.LOOPBACK,
        "spark.connect.grpc.binding.port": str(environment.spark_port),
        "spark.local.dir": str(folder / _tmp(environment)),
        "spark.log.level": "WARN",
        "spark.ui.enabled": "false",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(max(4, 2 * environment.spark_cores)),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.databricks.delta.snapshotPartitions": "2",
    }


def server_variables(environment: Environment) -> dict[str, str]:
    """Environment variables of the server's process.

    The token travels here, unreadable to other users.
    """
    return {
        **environment.variables(),
        "JAVA_HOME": str(java_home()),
        "SPARK_HOME": str(_spark_home()),
        "SPARK_CONF_DIR": str(_folder(environment) / "conf"),
        "SPARK_LOCAL_IP": processes.LOOPBACK,
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": secret(environment, "spark_token"),
        "PYSPARK_PYTHON": sys.executable,
    }


def fresh_folder(environment: Environment) -> Path:
    """The folder that a server is started in, rid of what a killed one left."""
    folder = _folder(environment)
    shutil.rmtree(folder / _tmp(environment))
    return _folder(environment)


def delta_jars() -> list[Path]:
    """Delta's JARs, fetched once by `make setup` so that no start resolves anything.

    Raises:
        NightshiftError: they are not there.
    """
    folder = ROOT / ".venv" / "jars"
    jars = sorted(folder.glob("*.jar"))
    if not any("delta-spark" in jar.name for jar in jars):
        raise NightshiftError(f"Delta's JARs are not in {folder}. Run `make setup`.")
    return jars


def _new_session(environment: Environment) -> SparkSession:
    from pyspark.sql import SparkSession  # seconds to import
    from pyspark.sql.connect.client.retries import DefaultPolicy

    session = SparkSession.builder.remote(_address(environment)).create()
    if not environment.spark_remote:
        # By default a client tries a dead server for ten minutes; on loopback it is gone for good.
        session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
    return session


def _address(environment: Environment) -> str:
    # The client sends a token without TLS only to the name "localhost", never to 127.0.0.1.
    return (
        environment.spark_remote
        or f"sc://localhost:{environment.spark_port}/;token={secret(environment, 'spark_token')}"
    )


def _require_own_server(environment: Environment) -> None:
    # The client itself would try for minutes.
    if not processes.answers(environment.spark_port):
        raise NightshiftError(
            f"No Spark Connect server answers on port {environment.spark_port}. Start the platform "
            f"with `nightshift up`; if it is up, read {environment.logs / 'spark.log'}."
        )


def _is_running(environment: Environment) -> bool:
    return processes.answers(environment.spark_port) and processes.belongs(
        processes.listener(environment.spark_port), environment.home
    )


def _wait_until_up(environment: Environment, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not processes.answers(environment.spark_port):
        if process.poll() is not None:
            raise NightshiftError(
                f"The Spark Connect server ended with exit code {process.returncode}. "
                f"The end of {log}:\n{tail(log)}"
            )
        if time.monotonic() > deadline:
            raise NightshiftError(
                f"The Spark Connect server did not start in {START_SECONDS} s. "
                f"The end of {log}:\n{tail(log)}"
            )
        time.sleep(0.1)


@contextmanager
def _shared_use(environment: Environment) -> Iterator[IO[str]]:
    """Tell others that this process uses the home's server.

    So that its owner does not end it under us.
    """
    place = private_folder(environment.runtime) / f"spark_{environment.spark_port}.users"
    with place.open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield users


def _wait_for_other_users(users: IO[str]) -> None:
    fcntl.flock(users, fcntl.LOCK_EX)


def _folder(environment: Environment) -> Path:
    """Where the server keeps what it needs only while it runs."""
    folder = environment.home / "spark"
    for part in ("conf", "warehouse", _tmp(environment)):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return folder


def _tmp(environment: Environment) -> str:
    return f"tmp-{environment.spark_port}"


def _spark_home() -> Path:
    # Found without importing it, which takes a second.
    found = find_spec("pyspark")
    assert found is not None, "pyspark is a dependency of this package"
    assert found.origin is not None
    return Path(found.origin).parent
