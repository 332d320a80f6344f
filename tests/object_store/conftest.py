"""An object store that is up, and a Spark server that reaches it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobs.services import processes
from jobs.spark.server import running_server
from jobs.spark.session import disconnect
from pipelines import places
from pipelines.environment import ROOT, Environment
from tests.conftest import free_port
from tests.object_store.server import CONTROL

_SECONDS = 60


@dataclass(frozen=True)
class ObjectStore:
    """The server of the tests."""

    address: str

    def new_bucket(self) -> str:
        """A bucket of nobody else; its name."""
        name = f"of-{uuid4().hex}"
        self._ask("PUT", f"/{name}")
        return name

    def fail(
        self,
        kind: str,
        path: str = ".*",
        method: str = ".*",
        times: int = -1,
    ) -> None:
        """Let the next requests fail; see `server.Fault`."""
        self._faults([{"kind": kind, "method": method, "path": path, "times": times}])

    def mend(self) -> dict[str, int]:
        """Let no request fail from here on; returns how many did, by kind."""
        return self._faults([])

    def _faults(self, faults: list[dict[str, Any]]) -> dict[str, int]:
        content = json.dumps(faults).encode()
        met: dict[str, int] = json.loads(self._ask("PUT", CONTROL, content))
        return met

    def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        request = urllib.request.Request(f"{self.address}{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            found: bytes = answer.read()
        return found


@pytest.fixture(scope="package")
def _store() -> Iterator[ObjectStore]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    variables = {
        "AWS_ACCESS_KEY_ID": "of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
        places.ENDPOINT: address,
    }
    before = dict(os.environ)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.object_store.server", str(port)], cwd=ROOT
    )
    try:
        os.environ.update(variables)
        os.environ.update(places.agreed(os.environ))
        deadline = time.monotonic() + _SECONDS
        while not processes.answers(port):
            assert process.poll() is None and time.monotonic() < deadline, "moto did not start"
            time.sleep(0.05)
        yield ObjectStore(address)
    finally:
        process.terminate()
        process.wait(timeout=_SECONDS)
        # Tests of other packages know no store.
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def store(_store: ObjectStore) -> Iterator[ObjectStore]:
    """The object store, without faults."""
    _store.mend()
    yield _store
    _store.mend()


@pytest.fixture(scope="package")
def _spark_at_store(
    _store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    home = tmp_path_factory.mktemp("home of the store")
    variables = {
        "NIGHTSHIFT_HOME": str(home),
        "NIGHTSHIFT_LAKE": "s3://nobody/lake",
        "NIGHTSHIFT_SPARK_MEMORY": "2g",
        "NIGHTSHIFT_AIRFLOW_PORT": str(free_port()),
        "NIGHTSHIFT_MLFLOW_PORT": str(free_port()),
    }
    with running_server(Environment.read(variables), port=0) as environment:
        yield environment
        disconnect(environment)


def in_bucket(environment: Environment, bucket: str, registry: Path) -> Environment:
    """The environment with all its places in a bucket, and a registry of models in a folder."""
    return replace(
        environment,
        lake=f"s3://{bucket}/lake",
        landing=places.place(f"s3://{bucket}/landing"),
        reports=places.place(f"s3://{bucket}/reports"),
        models=places.place(f"s3://{bucket}/models"),
        jobs=places.place(f"s3://{bucket}/jobs"),
        mlflow_uri=f"sqlite:///{registry}/mlflow.db",
    )
