"""An executor in Kubernetes: Spark starts the image of one with the argument `executor`.

What it is to do comes by variables, which Spark's own image reads in its entrypoint
(https://spark.apache.org/docs/latest/running-on-kubernetes.html); here `nightshift executor` does.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from typing import NoReturn

from jobs.spark.java import java_home
from jobs.spark.server import spark_home
from pipelines.errors import UsageError

_MAIN_CLASS = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
_ARGUMENTS = {
    "--driver-url": "SPARK_DRIVER_URL",
    "--executor-id": "SPARK_EXECUTOR_ID",
    "--cores": "SPARK_EXECUTOR_CORES",
    "--app-id": "SPARK_APPLICATION_ID",
    "--hostname": "SPARK_EXECUTOR_POD_IP",
    "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
    "--podName": "SPARK_EXECUTOR_POD_NAME",
}
_MEMORY = "SPARK_EXECUTOR_MEMORY"
_OPTION_PREFIX = "SPARK_JAVA_OPT_"
_OPTION = re.compile(rf"{_OPTION_PREFIX}(\d+)")
_BEFORE_SPARK = ("SPARK_CONF_DIR", "HADOOP_CONF_DIR", "SPARK_CLASSPATH")


def become(environ: Mapping[str, str]) -> NoReturn:
    """Become the executor that a driver has asked Kubernetes for.

    Raises:
        UsageError: no driver has: its variables are not there.
        NightshiftError: there is no Java.
    """
    program = command(environ)
    # There Spark puts the JARs that it fetches; the image's own folder may be read-only.
    os.chdir(tempfile.mkdtemp(prefix="executor-"))
    os.execve(program[0], program, {**environ, "SPARK_HOME": str(spark_home())})


def command(environ: Mapping[str, str]) -> list[str]:
    """The command line of such an executor.

    Raises:
        UsageError: variables of Spark's are not there.
        NightshiftError: there is no Java.
    """
    needed = (*_ARGUMENTS.values(), _MEMORY)
    lacking = [name for name in needed if not environ.get(name)]
    if lacking:
        raise UsageError(
            "`nightshift executor` is for Spark, which starts it in a Pod and tells it by "
            f"variables what to do: {', '.join(lacking)} is not set. "
            "`nightshift up` starts a driver; docs/how-to/spark-cluster.md tells where it computes."
        )
    memory = environ[_MEMORY]
    command = [str(java_home(environ) / "bin" / "java"), *_options(environ)]
    command += [f"-Xms{memory}", f"-Xmx{memory}", "-cp", _class_path(environ), _MAIN_CLASS]
    for option, name in _ARGUMENTS.items():
        command += [option, environ[name]]
    return command


def _options(environ: Mapping[str, str]) -> list[str]:
    """Of Java, by their numbers: of two of one name the later one counts."""
    found = filter(None, map(_OPTION.fullmatch, environ))
    numbers = sorted(int(one[1]) for one in found)
    return [environ[f"{_OPTION_PREFIX}{number}"] for number in numbers]


def _class_path(environ: Mapping[str, str]) -> str:
    named = [environ.get(name, "") for name in _BEFORE_SPARK]
    places = [*named, f"{spark_home()}/jars/*", environ.get("SPARK_DIST_CLASSPATH", "")]
    return os.pathsep.join(filter(None, places))
