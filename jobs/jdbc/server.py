"""The process of the service: `python -m jobs.jdbc.server`.

Python starts Spark, tells it who may come in and which tables there are, and goes on telling; the
rest is Spark's Thrift server, with the door of `Door.java`.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from deltalake.exceptions import DeltaError

from jobs.jdbc.registrar import Registrar
from jobs.services.accounts import accounts
from jobs.services.processes import LOOPBACK
from jobs.spark.server import configuration, fresh_folder, server_variables
from jobs.spark.session import settings_of_many_rows
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.for_ranks import OF_STORE, without
from pipelines.forwarding import OF_NETWORK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DOOR = Path(__file__).with_name("Door.java")
_FUNCTIONS = Path(__file__).with_name("functions.txt")
"""Names of functions of Spark that statements may call."""
_POOLS = Path(__file__).with_name("pools.xml")
_NICENESS = 5
"""The night comes first: this gets a third of the processor time that others ask for."""
_OF_A_CLIENT = (
    "SPARK_REMOTE",
    "SPARK_LOCAL_REMOTE",
    "SPARK_CONNECT_MODE_ENABLED",
    "SPARK_API_MODE",
)
"""Variables by which pyspark would be the client of another Spark, and start none."""
_OF_SPARK = (
    "JAVA_HOME",
    "SPARK_HOME",
    "SPARK_CONF_DIR",
    "SPARK_DIST_CLASSPATH",
    "SPARK_LOCAL_IP",
    "LC_ALL",
)
_LOOK_SECONDS = 10
"""How long it takes at most until a new table or column, or another password, is known."""
_TRUE_ANSWERS = {
    # Files that Arrow wrote tell bounds without NaN, which is the greatest number of Spark.
    "spark.sql.parquet.filterPushdown": "false",
    "spark.databricks.delta.stats.skipping": "false",
    # By its log alone Delta answers the first and last day with values that cannot be sent.
    "spark.databricks.delta.optimizeMetadataQuery.enabled": "false",
}
"""What makes some queries faster, and some wrong."""
_LIMITS = {
    # Of a table that is named by its path nobody would know whose it is.
    "spark.sql.runSQLOnFiles": "false",
    # `${env:NAME}` in a statement would read this process's variables.
    "spark.sql.variable.substitute": "false",
    # A script may loop for ever.
    "spark.sql.scripting.enabled": "false",
    # In seconds; who asks for more than can be had in that time waits for nothing.
    "spark.sql.thriftServer.queryTimeout": "600",
    # Rows go to the client as they are made, and not all into memory first.
    "spark.sql.thriftServer.incrementalCollect": "true",
    # A task that asks for more memory than there is ends, and not the server with it.
    "spark.executor.killOnFatalError.depth": "0",
    # A short statement doesn't wait until all tasks of a long one have been started.
    "spark.scheduler.mode": "FAIR",
    "spark.scheduler.allocation.file": _POOLS.as_uri(),
}


def main() -> None:
    """Serve until a signal ends it."""
    os.nice(_NICENESS)
    environment = Environment.read()
    spark = _start_spark(environment)
    door = _java(spark).nightshift.Door
    door.trust(spark._jsparkSession)
    registrar = Registrar(environment, spark)
    _follow(registrar)
    _admit(environment, door)
    door.open(spark._jsparkSession)
    while True:
        time.sleep(_LOOK_SECONDS)
        _admit(environment, door)
        _follow(registrar)


def _follow(registrar: Registrar) -> None:
    try:
        registrar.follow()
    except (NightshiftError, DeltaError, OSError) as error:
        # Such as a lake that is away for a while: what is registered goes on being answered.
        print(f"The tables could not be looked up, and will be again: {error}", flush=True)


def _admit(environment: Environment, door: Any) -> None:
    # Through the socket between Python and Java: no file, no command line, no variable has them.
    # Who has no password yet cannot come in.
    everyone = [one for one in accounts(environment) if one.password_file.exists()]
    door.admit([one.user for one in everyone], [one.password for one in everyone])


def _java(spark: SparkSession) -> Any:
    return spark.sparkContext._jvm


def _start_spark(environment: Environment) -> SparkSession:
    assert environment.jdbc_port is not None, "the service is defined only with a port"
    # A server like that of the nights, at another port and of another size.
    own = replace(
        environment,
        spark_port=environment.jdbc_port,
        spark_memory=environment.jdbc_memory,
        # It reads a little, and would hold cores of a cluster for itself.
        spark_master=None,
    )
    folder = fresh_folder(own)
    scratch = Path(configuration(own)["spark.local.dir"])
    settings = _settings(own, scratch)
    _leave_secrets(server_variables(own))
    _add_to_class_path(scratch / "classes")
    for name in _OF_A_CLIENT:
        os.environ.pop(name, None)
    os.chdir(folder)

    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    gateway = launch_gateway(conf)  # type: ignore[no-untyped-call]
    # Before Spark looks for its extensions.
    _compile(gateway.jvm, scratch / "classes")
    return SparkSession(SparkContext(conf=conf, gateway=gateway))


def _settings(environment: Environment, scratch: Path) -> dict[str, str]:
    """Every setting of Spark that is not Spark's own default."""
    shared = configuration(environment)
    options = " ".join(f"-D{name}={quote(value)}" for name, value in _of_hive(environment, scratch))
    return {
        **shared,
        # Questions may be about all rows, unlike those of a night.
        **settings_of_many_rows(environment),
        "spark.app.name": "nightshift-jdbc",
        "spark.driver.memory": environment.spark_memory,
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        # Else clients that list columns, instead of asking for them by SQL, see none.
        "spark.databricks.delta.catalog.update.enabled": "true",
        "spark.driver.extraJavaOptions": f"{shared['spark.driver.extraJavaOptions']} {options}",
        "spark.sql.extensions": f"{shared['spark.sql.extensions']},nightshift.Door$Extensions",
        **_TRUE_ANSWERS,
        **_LIMITS,
    }


def _of_hive(environment: Environment, scratch: Path) -> list[tuple[str, str]]:
    """Settings of the Thrift server, which is Hive's and reads Java's properties."""
    return [
        ("hive.server2.thrift.bind.host", LOOPBACK),
        ("hive.server2.thrift.port", str(environment.spark_port)),
        ("hive.server2.authentication", "CUSTOM"),
        ("hive.server2.custom.authentication.class", "nightshift.Door$Login"),
        ("hive.server2.enable.doAs", "false"),
        # Else it writes every statement into a file.
        ("hive.server2.logging.operation.enabled", "false"),
        ("hive.exec.scratchdir", str(scratch / "hive")),
        ("hive.exec.local.scratchdir", str(scratch / "hive")),
        # A store of tables that nobody uses, and that Hive insists on: in memory.
        ("javax.jdo.option.ConnectionURL", "jdbc:derby:memory:unused;create=true"),
        ("datanucleus.schema.autoCreateAll", "true"),
        ("hive.metastore.schema.verification", "false"),
        ("derby.stream.error.file", "/dev/null"),
    ]


def _leave_secrets(needed: dict[str, str]) -> None:
    """Give this process and its Java the variables that they need, and no secret of others."""
    for name in without(os.environ).keys() - {*OF_STORE, *OF_NETWORK}:
        os.environ.pop(name, None)
    for name in _OF_SPARK:
        if name in needed:
            os.environ[name] = needed[name]


def _add_to_class_path(folder: Path) -> None:
    """The folder, which is made, comes last: what is before it is that of CLASS_ARCHIVE."""
    folder.mkdir()
    before = os.environ.get("SPARK_DIST_CLASSPATH")
    parts = [before, str(folder)] if before else [str(folder)]
    os.environ["SPARK_DIST_CLASSPATH"] = os.pathsep.join(parts)


def _compile(jvm: Any, classes: Path) -> None:
    """Compile our class against Spark's, by the compiler that Spark brings."""
    java, janino = jvm.java, jvm.org.codehaus.janino
    loader = java.lang.Thread.currentThread().getContextClassLoader()
    no_sources = jvm.org.codehaus.commons.compiler.util.resource.ResourceFinder
    compiler = janino.Compiler(
        no_sources.EMPTY_RESOURCE_FINDER, janino.ClassLoaderIClassLoader(loader)
    )
    compiler.setDestinationDirectory(java.io.File(str(classes)), False)
    door = java.io.File(str(_DOOR))
    # Python's lists are no arrays of Java.
    files = java.lang.reflect.Array.newInstance(door.getClass(), 1)
    files[0] = door
    compiler.compile(files)
    # Beside the class, which reads it.
    shutil.copy(_FUNCTIONS, classes / "nightshift")


if __name__ == "__main__":
    main()
