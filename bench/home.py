"""A home of the platform that is a measurement's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.services.processes import free_port
from pipelines.environment import Environment
from pipelines.stages import STAGES

_PORTS = ("NIGHTSHIFT_SPARK_PORT", "NIGHTSHIFT_AIRFLOW_PORT", "NIGHTSHIFT_MLFLOW_PORT")
_KEPT = ("NIGHTSHIFT_SPARK_MEMORY", "NIGHTSHIFT_SPARK_CORES", "NIGHTSHIFT_RANKS")
"""Settings that hold for this home too; the others may lead to tables and models elsewhere."""


class Home:
    """The command `nightshift` in a home below the folder of a case, on ports of its own."""

    def __init__(self, folder: Path, name: str = "home") -> None:
        settings = {one.variable for one in Environment.settings().values()}
        elsewhere = settings - set(_KEPT)
        given = {one: said for one, said in os.environ.items() if one not in elsewhere}
        ports = {name: str(free_port()) for name in _PORTS}
        self.variables = {**given, "NIGHTSHIFT_HOME": str(folder / name), **ports}

    def __call__(self, *arguments: str) -> None:
        """Run it; an error ends the measurement."""
        run(arguments, self.environment)

    @property
    def environment(self) -> Environment:
        """The home, as code of ours sees it."""
        return Environment.read(self.variables)

    @contextmanager
    def up(self) -> Iterator[None]:
        """The platform, for so long."""
        try:
            self("up")
            yield
        finally:
            self("down")


def words_of_stages(last: str) -> list[str]:
    """Arguments of `nightshift run`: all stages until that one, which is among them."""
    names = [stage.name for stage in STAGES]
    words = []
    for name in names[: names.index(last) + 1]:
        words += ["--stage", name]
    return words


def run(arguments: Sequence[str], environment: Environment) -> None:
    """Run the command there; an error ends the measurement."""
    program = [sys.executable, "-m", "jobs", *arguments]
    variables = {**os.environ, **environment.variables()}
    subprocess.run(program, check=True, env=variables, stdout=subprocess.DEVNULL)
