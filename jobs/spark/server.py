"""The Spark Connect server of a home.

On a local disk Delta is only safe inside one JVM, so a home has exactly one server: the one of
`nightshift up`, which is this module's process (`python -m jobs.spark.server`), or one that a run
embeds for its own time.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from urllib.parse import urlsplit

from jobs.services import locks, processes
from jobs.services.die_with_parent import die_with_parent, dying_with_parent
from jobs.services.secrets import secret
from jobs.services.text import tail
from jobs.spark import properties, trust
from jobs.spark.java import java_home
from jobs.spark.session import FEW_ROWS, MEANING, disconnect
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.places import (
    PROXY_OF_HADOOP,
    address_of_store,
    settings_of_hadoop,
    variables_of_proxy,
)

START_SECONDS = 180
_STOP_SECONDS = 10
_MASTER_SECONDS = 60
"""As long as a driver itself asks for one. A master that moves to another machine takes less."""
_LOOK_SECONDS = 0.1
_EVERYWHERE = "0.0.0.0"
_MOST_FILES = 10_000
"""That are looked at one after another: 0.4 ms each."""
_STANDALONE = "spark://"
_KUBERNETES = "k8s://"
_HTTPS_PORT = 443
_OF_EXECUTORS = "spark.executorEnv."
"""How settings begin that are variables of executors, for what runs in Python there."""
_IMAGE = "spark.kubernetes.container.image"
_MAIN_CLASS = "org.apache.spark.sql.connect.service.SparkConnectServer"
_SAME_ROWS = "-Duser.timezone=UTC -Duser.language=en -Duser.country=US"
"""Whatever the machine's are: in Turkish `upper('zürich')` is another text, and in Bengali names of
data files have other digits.
"""
_EVERY_JVM = f"-XX:+UseSerialGC -XX:ReservedCodeCacheSize=512m {_SAME_ROWS}"
"""With one compiler Java reserves 48 MB for code, which Spark's generated classes fill within some
nights: then nothing is compiled any more.
"""
_FOR_A_COMMAND = "-XX:TieredStopAtLevel=1"
"""Halves the time to the first result: most of a night's queries run once, so that Java's second
compiler does not pay off where the server ends with them.
"""
_FOR_MANY_NIGHTS = (
    "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
    "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000"
)
"""The second compiler, for what is called ten times as often as Java asks for: so it takes little
from the first night, and the later ones need a seventh less time (docs/performance.md).
"""
_EXECUTOR_FLAGS = f"-XX:-DontCompileHugeMethods {_EVERY_JVM}"
"""Executors are there for many rows. Of a wide table Spark makes methods of over 8,000 bytes, which
Java interprets otherwise. With both a file of 0.4 GB is ingested in half the time.
"""
_OF_CHECKOUT = ROOT / ".venv"
_VENV = (_OF_CHECKOUT if _OF_CHECKOUT.exists() else Path(sys.prefix)).resolve()
"""An installed package has no environment below it: it runs in that of a checkout."""
LOCAL_FILES = _VENV / "jars" / "own" / "local-files.jar"
"""How Spark's own process writes files of this machine; see `tools/setup/LocalFiles.java`."""
CLASS_ARCHIVE = _VENV / "spark.jsa"
"""Spark's classes, parsed and verified once, by `jobs.commands.class_archive`: a server that shares
them needs 60 % of the processor time until it has answered its first queries.

Java checks that the archive was made by itself, from the JARs of this class path in this order. If
not, or where there is no archive, as in an image, it loads the classes from the JARs.
"""


@contextmanager
def running_server(
    environment: Environment,
    port: int | None = None,
    *,
    lasting: bool = False,
) -> Iterator[Environment]:
    """A server for the time of the block.

    The one that is there, else one of our own that ends with the block.

    Args:
        environment: Whose server it is.
        port: Start a server of our own on this port (0: any free one), whether or not another runs.
        lasting: Whether one of our own is as that of `up`, which is there for many nights.

    Yields:
        The environment that reaches the server.
    """
    if environment.spark_remote:
        yield environment
        return
    if port is not None:
        environment = replace(environment, spark_port=port or processes.free_port())
    process = None
    try:
        with _shared_use(environment):
            process = _start_unless_running(environment, lasting)
            yield environment
    finally:
        if process is not None:
            with _no_other_use(environment):
                # Not before: another thread may use the session. At its exit a client waits for a
                # server that is gone.
                disconnect(environment)
                stop(process)


def start(environment: Environment, *, lasting: bool = False) -> subprocess.Popen[bytes]:
    """Start a server that dies with this process, and wait until it accepts connections.

    Args:
        environment: Whose server it is.
        lasting: Whether it is there for many nights, or for what a command asks.

    Raises:
        PortTakenError: a program that is none of this home's uses the port.
        NightshiftError: the server did not start, and the message holds the end of its log; or the
            cluster that it is to compute on does not answer.
    """
    processes.require_free(
        environment.spark_port, "the Spark Connect server", "NIGHTSHIFT_SPARK_PORT"
    )
    _require_own_address(environment)
    _await_master(environment)
    log = environment.logs / "spark.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = _launch(environment, log, lasting)
    try:
        _wait_until_up(environment, process, log)
    except BaseException:
        # Ctrl-C too: nobody else knows of the server yet.
        stop(process)
        raise
    return process


def stop(process: subprocess.Popen[bytes], seconds: float = _STOP_SECONDS) -> None:
    """End a server that `start` started; one that has not ended after so many seconds is killed."""
    process.terminate()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def command(environment: Environment, *, lasting: bool = False) -> list[str]:
    """The command line of a server, for many nights or for what a command asks.

    Its token is not in it, because every user of the machine can read it.
    """
    settings = configuration(environment, lasting=lasting)
    properties.require_others(properties.read(environment), settings)
    return [
        str(spark_home() / "bin" / "spark-submit"),
        *properties.options(environment.spark_properties),
        "--driver-memory",
        environment.spark_memory,
        *(f"--conf={key}={value}" for key, value in settings.items()),
        "--class",
        _MAIN_CLASS,
        "spark-internal",  # spark-submit's own word for: the class is in Spark's JARs
    ]


def configuration(environment: Environment, *, lasting: bool = False) -> dict[str, str]:
    """Every Spark setting of the server that is not Spark's own default."""
    return {
        **_computing(environment),
        "spark.app.name": "nightshift",
        "spark.log.level": "WARN",
        "spark.python.daemon.module": "jobs.spark.python_daemon",
        **_addresses(environment),
        **_java_settings(environment, lasting),
        **_sql_settings(environment),
        **_store_settings(environment),
    }


def server_variables(environment: Environment) -> dict[str, str]:
    """Environment variables of the server's process.

    The token travels here, unreadable to other users.
    """
    return {
        **environment.variables(),
        "JAVA_HOME": str(java_home()),
        "SPARK_HOME": str(spark_home()),
        # Without files: settings that others made on this machine take no part. Of no home, because
        # it is on the class path, which is part of CLASS_ARCHIVE.
        "SPARK_CONF_DIR": str(_VENV / "spark-conf"),
        **_jars_of_store(environment),
        **_locale(),
        # Else Spark looks up the machine's name, which need not lead anywhere.
        "SPARK_LOCAL_IP": _host(environment),
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": secret(environment, "spark_token"),
        "PYSPARK_PYTHON": properties.read(environment).get("spark.pyspark.python", sys.executable),
    }


def _locale() -> dict[str, str]:
    """What has Java read names of files in UTF-8, as Python does in the plain locale too."""
    told = [os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    locale = next(filter(None, told), "C")
    return {"LC_ALL": "C.UTF-8"} if locale in ("C", "POSIX") else {}


def fresh_folder(environment: Environment) -> Path:
    """The folder that a server is started in, rid of what a killed one left."""
    folder = _folder(environment)
    shutil.rmtree(folder / _scratch(environment))
    _folder(environment)
    if environment.uses_object_store:
        trust.write(_trusted(environment), os.environ)
    return folder


def own_jars(environment: Environment) -> list[Path]:
    """JARs beside Spark's own, fetched once by `make setup` so that no start resolves anything.

    Raises:
        NightshiftError: they are not there.
    """
    return [*_fetched_jars("delta", "delta-spark"), *_store_jars(environment)]


def _store_jars(environment: Environment) -> list[Path]:
    return _fetched_jars("s3", "hadoop-aws") if environment.uses_object_store else []


def _fetched_jars(name: str, needed: str) -> list[Path]:
    places = dict.fromkeys([ROOT / ".venv", Path(sys.prefix)])
    folders = [place.resolve() / "jars" / name for place in places]
    for folder in folders:
        jars = sorted(folder.glob("*.jar"))
        if any(needed in jar.name for jar in jars):
            return jars
    tried = " nor in ".join(map(str, folders))
    raise NightshiftError(f"The JARs of {needed} are not in {tried}. Run `make setup`.")


def main() -> None:
    """Replace this process by the server of its environment's home."""
    environment = Environment.read()
    try:
        program = command(environment, lasting=True)
        _require_own_address(environment)
        _await_master(environment)
    except NightshiftError as error:
        # The end of the log, which `up` shows.
        sys.exit(str(error))
    variables = {**os.environ, **server_variables(environment)}
    os.chdir(fresh_folder(environment))
    die_with_parent(signal.SIGKILL)
    os.execve(program[0], program, variables)


def master_answers(master: str) -> bool:
    """Whether one does of the masters, which stand by for each other.

    Where YARN is, its own configuration says; so nothing is asked here.
    """
    addresses = _addresses_of_master(master)
    return not addresses or any(processes.answers(port, host) for host, port in addresses)


def _addresses_of_master(master: str) -> list[tuple[str, int]]:
    if master.startswith(_KUBERNETES):
        server = urlsplit(f"//{master.removeprefix(_KUBERNETES).rpartition('//')[2]}")
        return [(str(server.hostname), server.port or _HTTPS_PORT)]
    if not master.startswith(_STANDALONE):
        return []
    parts = [one.rpartition(":") for one in master.removeprefix(_STANDALONE).split(",")]
    return [(host, int(port)) for host, _, port in parts]


def _require_own_address(environment: Environment) -> None:
    """Refuse an address at which a driver cannot listen; it would end in a Java stack.

    Raises:
        UsageError: it is not one of this machine.
        NightshiftError: it is a name that cannot be looked up just now.
    """
    if environment.spark_master is None:
        return
    host = environment.spark_host
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        with socket.socket(family) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            raise NightshiftError(
                f"NIGHTSHIFT_SPARK_HOST={host!r} cannot be looked up just now ({why}): "
                "run it again, or set it to an address, for which nobody is asked."
            ) from None
        raise UsageError(
            f"NIGHTSHIFT_SPARK_HOST={host!r} is no address of this machine ({why}): set it to the "
            f"one by which executors of {environment.spark_master} reach it, without a port."
        ) from None


def _await_master(environment: Environment) -> None:
    """Return when a master of the cluster answers; a driver without one ends in a Java stack.

    Raises:
        NightshiftError: none does.
    """
    master = environment.spark_master
    if master is None or master_answers(master):
        return
    print(f"Waiting for the Spark cluster at {master}.", file=sys.stderr, flush=True)
    deadline = time.monotonic() + _MASTER_SECONDS
    while not master_answers(master):
        if time.monotonic() > deadline:
            raise NightshiftError(
                f"No master of the Spark cluster answers at {master} within {_MASTER_SECONDS} s. "
                "Start it, or unset NIGHTSHIFT_SPARK_MASTER to compute on this machine."
            )
        time.sleep(_LOOK_SECONDS)


def _computing(environment: Environment) -> dict[str, str]:
    """Where queries are computed: on this machine's cores, or on executors of a cluster."""
    if environment.spark_master is None:
        # Executors of a cluster touch files before they have our JARs.
        files = {"spark.hadoop.fs.file.impl": "nightshift.LocalFiles"}
        has_own = LOCAL_FILES.exists()
        return {"spark.master": f"local[{environment.spark_cores}]", **(files if has_own else {})}
    _require_reachable(environment, environment.spark_master)
    return {
        "spark.master": environment.spark_master,
        **_executors(environment, environment.spark_master),
        **_unless_given(environment, environment.spark_master),
        "spark.executor.memory": environment.spark_memory,
        # Those of this machine, which executors fetch from it.
        "spark.jars": ",".join(map(str, own_jars(environment))),
        "spark.executor.extraJavaOptions": _EXECUTOR_FLAGS,
        **{f"{_OF_EXECUTORS}{name}": value for name, value in _store_variables(environment)},
    }


def _executors(environment: Environment, master: str) -> dict[str, str]:
    """How many executors a cluster is asked for, in its own words.

    Raises:
        UsageError: the cluster's kind needs to be told more.
    """
    if master.startswith(_STANDALONE):
        return {"spark.cores.max": str(environment.spark_cores)}
    given = properties.read(environment)
    _require_told(master, given)
    if "spark.executor.instances" in given or "spark.dynamicAllocation.enabled" in given:
        return {}
    each = _cores_of_executor(given)
    return {"spark.executor.instances": str(max(1, environment.spark_cores // each))}


def _of_long_life(master: str) -> dict[str, str]:
    """A driver ends itself when so many executors were lost, by default four within its life.

    Ours stays for weeks.
    """
    if master.startswith(_STANDALONE):
        return {}
    return {
        "spark.executor.failuresValidityInterval": "10m",
        "spark.executor.maxNumFailures": "100",
    }


def _driver_in_pod(environment: Environment, master: str) -> dict[str, str]:
    """Where it asks for executors, and whose they are: they go with this Pod."""
    namespace = environment.kubernetes_account / "namespace"
    if not master.startswith(_KUBERNETES) or not namespace.exists():
        return {}
    return {
        "spark.kubernetes.namespace": namespace.read_text().strip(),
        "spark.kubernetes.driver.pod.name": socket.gethostname(),
    }


def _unless_given(environment: Environment, master: str) -> dict[str, str]:
    """What a site's own file may say otherwise."""
    own = {
        # Our code lies in the same place on every machine, such as in one image.
        f"{_OF_EXECUTORS}PYTHONPATH": str(ROOT),
        **_of_long_life(master),
        **_driver_in_pod(environment, master),
    }
    given = properties.read(environment)
    return {name: value for name, value in own.items() if name not in given}


def cores_at_once(environment: Environment) -> int:
    """Cores that work for the server's queries, as far as settings tell."""
    if environment.spark_master is None or environment.spark_master.startswith(_STANDALONE):
        return environment.spark_cores
    given = properties.read(environment)
    executors = [
        given[name]
        for name in ("spark.executor.instances", "spark.dynamicAllocation.maxExecutors")
        if given.get(name, "").isdecimal()
    ]
    each = _cores_of_executor(given)
    return max([environment.spark_cores, *(int(count) * each for count in executors)])


def _cores_of_executor(given: Mapping[str, str]) -> int:
    cores = given.get("spark.executor.cores", "1")
    return max(1, int(cores)) if cores.isdecimal() else 1


def _require_told(master: str, given: Mapping[str, str]) -> None:
    """Refuse what spark-submit would end for in a Java stack."""
    if master.startswith(_KUBERNETES):
        if _IMAGE not in given and f"{_IMAGE.rpartition('.')[0]}.executor.image" not in given:
            raise UsageError(
                f"Executors in Kubernetes run an image: say which by {_IMAGE} in the file of "
                "NIGHTSHIFT_SPARK_PROPERTIES."
            )
    elif not (os.environ.get("HADOOP_CONF_DIR") or os.environ.get("YARN_CONF_DIR")):
        raise UsageError(
            f"NIGHTSHIFT_SPARK_MASTER={master} needs HADOOP_CONF_DIR: the folder of yarn-site.xml "
            "and core-site.xml, which say where the cluster is."
        )


def _require_reachable(environment: Environment, master: str) -> None:
    """Refuse what would wait for ever: executors elsewhere call their own loopback.

    Raises:
        UsageError: the cluster is on other machines, and nothing says how they reach this one.
    """
    is_here = master.startswith((f"spark://{processes.LOOPBACK}:", "spark://localhost:"))
    host = environment.spark_host
    if host == _EVERYWHERE or (_is_own(host) and not is_here):
        raise UsageError(
            f"Executors of {master} cannot reach this machine by {host}: set "
            "NIGHTSHIFT_SPARK_HOST to its address on their network."
        )


def _is_own(host: str) -> bool:
    """Whether each machine means itself by that."""
    return host == "localhost" or host.startswith("127.")


def _host(environment: Environment) -> str:
    """Where the driver listens: only executors on other machines need to reach it."""
    return environment.spark_host if environment.spark_master else processes.LOOPBACK


def _addresses(environment: Environment) -> dict[str, str]:
    return {
        "spark.driver.host": _host(environment),
        "spark.driver.bindAddress": _host(environment),
        "spark.connect.grpc.binding.address": processes.LOOPBACK,
        "spark.connect.grpc.binding.port": str(environment.spark_port),
        # The page needs no login: every user of the machine could read rows in it.
        "spark.ui.enabled": "false",
    }


def _java_settings(environment: Environment, lasting: bool) -> dict[str, str]:
    scratch = str(_folder(environment) / _scratch(environment))
    jars = [str(jar) for jar in _fetched_jars("delta", "delta-spark")]
    if LOCAL_FILES.exists():
        jars.append(str(LOCAL_FILES))
    compiled = _FOR_MANY_NIGHTS if lasting else _FOR_A_COMMAND
    options = [compiled, _EVERY_JVM, f"-Djava.io.tmpdir={quote(scratch)}"]
    if CLASS_ARCHIVE.exists():
        # An archive that does not fit is no news to anyone: Java does without.
        options.append(f"-XX:SharedArchiveFile={quote(str(CLASS_ARCHIVE))} -Xlog:cds=off")
    if environment.uses_object_store:
        options += trust.options(_trusted(environment), os.environ)
    return {
        "spark.driver.extraClassPath": os.pathsep.join(jars),
        "spark.driver.extraJavaOptions": " ".join(options),
        "spark.local.dir": scratch,
    }


def _jars_of_store(environment: Environment) -> dict[str, str]:
    """The end of the class path: what lies before it is the same with and without a store."""
    jars = [str(jar) for jar in _store_jars(environment)]
    given = os.environ.get("SPARK_DIST_CLASSPATH")
    if given:
        jars.append(given)
    return {"SPARK_DIST_CLASSPATH": os.pathsep.join(jars)} if jars else {}


def _sql_settings(environment: Environment) -> dict[str, str]:
    return {
        # Tables are reached by their paths, so no metastore has to be there.
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.warehouse.dir": str(_folder(environment) / "warehouse"),
        **MEANING,
        # A night has few; a client that has more says so.
        **FEW_ROWS,
        **_looking_at_files(environment),
        # Delta reads a table's log in 50 tasks by default, for a few kilobytes each.
        "spark.databricks.delta.snapshotPartitions": "2",
    }


def _looking_at_files(environment: Environment) -> dict[str, str]:
    """How Spark looks at each of many files: on a disk one after another.

    A job with a task for each takes ten times as long there, and less where each look is a request.
    """
    if environment.uses_object_store:
        return {}
    return {"spark.sql.sources.parallelPartitionDiscovery.threshold": str(_MOST_FILES)}


def _store_variables(environment: Environment) -> Iterable[tuple[str, str]]:
    """Where the object store is, for executors; they have credentials of their own."""
    if not environment.uses_object_store:
        return ()
    return {**address_of_store(os.environ), **_proxy_of_executors(environment)}.items()


def _proxy_of_executors(environment: Environment) -> dict[str, str]:
    """How they find the proxy; nothing where the site's own file tells them of one."""
    given = properties.read(environment)
    is_told = any(map(_is_of_proxy, given))
    return {} if is_told else variables_of_proxy(os.environ)


def _is_of_proxy(name: str) -> bool:
    is_variable = name.startswith(_OF_EXECUTORS) and name.lower().endswith("_proxy")
    return is_variable or name.startswith(PROXY_OF_HADOOP)


def _store_settings(environment: Environment) -> dict[str, str]:
    if not environment.uses_object_store:
        return {}
    own = settings_of_hadoop(os.environ)
    if not any(name.startswith(PROXY_OF_HADOOP) for name in properties.read(environment)):
        return own
    # Executors elsewhere may have another proxy, or need none.
    return {name: value for name, value in own.items() if not name.startswith(PROXY_OF_HADOOP)}


def _start_unless_running(
    environment: Environment, lasting: bool
) -> subprocess.Popen[bytes] | None:
    with locks.hold(environment, "spark.start"):  # of two that find no server, one starts it
        return None if _is_running(environment) else start(environment, lasting=lasting)


def _is_running(environment: Environment) -> bool:
    if not processes.answers(environment.spark_port):
        return False
    holder = processes.listener(environment.spark_port)
    return processes.belongs(holder, environment.home)


def _launch(environment: Environment, log: Path, lasting: bool) -> subprocess.Popen[bytes]:
    program = dying_with_parent(command(environment, lasting=lasting), signal.SIGKILL)
    variables = {**os.environ, **server_variables(environment)}
    folder = fresh_folder(environment)
    with log.open("ab") as output:
        return subprocess.Popen(
            program,
            env=variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,  # Ctrl-C reaches us alone, and then we end the server
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
        time.sleep(_LOOK_SECONDS)


def _shared_use(environment: Environment) -> AbstractContextManager[None]:
    """Keep the server's owner from ending it under us."""
    return locks.hold(
        environment,
        f"spark.{environment.spark_port}",
        is_shared=True,
        waiting="Waiting for another command to end its Spark server.",
    )


def _no_other_use(environment: Environment) -> AbstractContextManager[None]:
    """Wait until nobody else uses the server, and let nobody begin to."""
    return locks.hold(
        environment,
        f"spark.{environment.spark_port}",
        waiting="Waiting for another command that uses the Spark server of this one.",
    )


def _folder(environment: Environment) -> Path:
    """Where the server keeps what it needs only while it runs."""
    folder = environment.home / "spark"
    for part in ("warehouse", _scratch(environment)):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return folder


def _scratch(environment: Environment) -> str:
    # By port: a run may embed a second server beside the first (see `running_server`).
    return f"tmp-{environment.spark_port}"


def _trusted(environment: Environment) -> Path:
    return environment.home / "spark" / _scratch(environment) / "trusted.p12"


def spark_home() -> Path:
    """Where the installed Spark lies, with its programs and JARs."""
    # Found without importing it, which takes a second.
    spec = find_spec("pyspark")
    assert spec is not None, "pyspark is a dependency of this package"
    assert spec.origin is not None
    # Its true path, which CLASS_ARCHIVE knows.
    return Path(spec.origin).resolve().parent


if __name__ == "__main__":
    main()
