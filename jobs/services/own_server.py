"""A stage server for as long as a command takes, where the home has none up."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.services import stage_client
from jobs.services.die_with_parent import dying_with_parent
from pipelines.environment import ROOT, Environment

_START_SECONDS = 120
"""Without it work starts in new processes, which is slower and no fault: no need to wait longer."""
_LOOK_SECONDS = 0.1


@contextmanager
def preloaded(environment: Environment, libraries: Sequence[str]) -> Iterator[Environment]:
    """Where to have work done that needs these libraries, without importing them each time.

    Gives the environment with the home of a stage server: its own where it is up. The other has a
    home for itself, so that a `nightshift up` meanwhile finds its socket free. Ranks elsewhere use
    none, and those on executors need the home whose Spark is up.

    Args:
        environment: Whose lake is worked on.
        libraries: Modules; none: nothing is started.
    """
    is_needed = bool(libraries) and not environment.place_of_ranks
    if not is_needed or stage_client.available(environment):
        yield environment
        return
    with TemporaryDirectory(prefix="nightshift-") as home:
        own = replace(environment, home=Path(home))
        program = [sys.executable, "-m", "jobs.services.stage_server", *libraries]
        server = subprocess.Popen(
            dying_with_parent(program),
            env={**own.variables(), "PYTHONPATH": stage_client.python_path()},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(own, server)
            yield own
        finally:
            server.terminate()
            server.wait()


def _wait(environment: Environment, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        if stage_client.available(environment):
            return
        time.sleep(_LOOK_SECONDS)
    print("The libraries could not be kept ready: each training imports them.", file=sys.stderr)
