"""Makes the archive of Spark's classes that its servers share; `make setup` runs it.

Loading some 19,000 classes, each parsed and verified, is most of what a fresh Spark does until it
has answered its first queries. Java can write down the result (class data sharing, JEP 350).
"""

from __future__ import annotations

import os
import tempfile
from shlex import quote

from jobs.commands.warm_up import use_delta
from jobs.services.processes import free_port
from jobs.spark import server
from jobs.spark.session import connect, disconnect
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

_STOP_SECONDS = 300
"""Java writes the archive while it ends, which takes ten seconds on a quiet machine."""


def main() -> None:
    """Start a server in a home of its own, let it do what each does first, and end it.

    Raises:
        NightshiftError: the server did not start, or left no archive.
    """
    archive = server.CLASS_ARCHIVE
    # Or the server shared the classes of the old one, and the new one lacked them.
    archive.unlink(missing_ok=True)
    unfinished = archive.with_name(f"{archive.name}.part")
    unfinished.unlink(missing_ok=True)
    options = f"-XX:ArchiveClassesAtExit={quote(str(unfinished))} -Xlog:cds=off"
    os.environ["SPARK_SUBMIT_OPTS"] = options
    # Folders with files that others may set: Java archives no class path with such.
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="nightshift-classes-") as home:
        variables = {"NIGHTSHIFT_HOME": home, "NIGHTSHIFT_SPARK_PORT": str(free_port())}
        environment = Environment.read(variables)
        process = server.start(environment)
        try:
            use_delta(connect(environment), f"{environment.lake}/warm_up")
        finally:
            disconnect()
            server.stop(process, _STOP_SECONDS)
    if not unfinished.exists():
        raise NightshiftError(f"Java wrote no archive of classes to {archive}.")
    unfinished.replace(archive)


if __name__ == "__main__":
    main()
