"""Becomes the home's Spark Connect server.

`python -m jobs.spark.server_process`, as a service of the platform.
"""

from __future__ import annotations

import os
import signal

from jobs.services.die_with_parent import die_with_parent
from jobs.spark import session
from pipelines.environment import Environment


def main() -> None:
    """Replace this process by the server."""
    environment = Environment.read()
    program, variables = (
        session.command(environment),
        {**os.environ, **session.server_variables(environment)},
    )
    os.chdir(session.fresh_folder(environment))
    die_with_parent(signal.SIGKILL)
    os.execve(program[0], program, variables)


if __name__ == "__main__":
    main()
