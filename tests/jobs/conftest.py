"""Ranks are forked by a stage server of the tests' own, which imports TensorFlow once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jobs.services import promptly, stage_client
from pipelines.environment import ROOT, Environment
from tests import empty_registry
from tests.jobs.training.small import environment_at

_SERVE = """
from jobs.services.stage_server import StageServer
from pipelines import wire
from pipelines.environment import Environment
libraries = ("numpy", "tensorflow", "keras", "horovod.tensorflow")
StageServer(wire.socket_path(Environment.read(), "stages"), preload=libraries).serve()
"""


@pytest.fixture
def patient_tellers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Who tells people waits for the lake as long as a machine may pause, where a test says so.

    What was told once would be told twice, and for good reason, where its record is late.
    """
    for name in ("MOST_SECONDS", "RECORD_SECONDS"):
        monkeypatch.setattr(promptly, name, 60.0)
    yield
    # While one that was too late goes on, nobody asks: not even the next test.
    for late in promptly._late.values():
        late.join(60)


@pytest.fixture(scope="session")
def rank_server() -> Iterator[tuple[Environment, int]]:
    """A home whose stage server is up, and the server's process id."""
    with TemporaryDirectory() as home:
        environment = environment_at(Path(home))
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env={**environment.variables(), "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=ROOT,
        )
        try:
            deadline = time.monotonic() + 120
            while not stage_client.available(environment):
                assert process.poll() is None and time.monotonic() < deadline, (
                    "the stage server of the tests did not start"
                )
                time.sleep(0.1)
            yield environment, process.pid
            assert process.poll() is None, "the stage server of the tests died"
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.fixture
def ranked(rank_server: tuple[Environment, int], tmp_path: Path) -> Environment:
    """An environment with ranks to fork and an empty lake and model registry of the test's own."""
    own_registry = empty_registry.put_in(tmp_path)
    return replace(rank_server[0], lake=str(tmp_path / "lake"), mlflow_uri=own_registry)
