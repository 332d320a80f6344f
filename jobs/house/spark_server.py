"""Becomes the home's Spark Connect server: `python -m jobs.house.spark_server`, as a service of the house."""

from __future__ import annotations

import os
import signal

from jobs import session
from jobs.house.tether import tie_to_parent
from pipelines.environment import Environment


def main() -> None:
    """Replace this process by the server."""
    environment = Environment.read()
    program, variables = session.command(environment), {**os.environ, **session.server_variables(environment)}
    os.chdir(session.fresh_folder(environment))
    tie_to_parent(signal.SIGKILL)
    os.execve(program[0], program, variables)


if __name__ == "__main__":
    main()
