"""MLflow's pages answer on loopback, and nobody without the login."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.services import processes
from jobs.services.definitions import services
from jobs.services.die_with_parent import dying_with_parent
from jobs.services.secrets import secret
from jobs.training.mlflow_ui import SignedIn
from jobs.training.registry import Registry
from pipelines.environment import ROOT, Environment
from tests.jobs.training import small
from tests.jobs.training.test_registry import keep

_READY_SECONDS = 120


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def shown(environment: Environment) -> Iterator[psutil.Process]:
    """The running service."""
    with (environment.home / "mlflow.log").open("wb") as log:
        service = subprocess.Popen(
            dying_with_parent([sys.executable, "-m", "jobs.training.mlflow_ui"]),
            env={**os.environ, **environment.variables(), "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not processes.answers(environment.mlflow_port):
            assert service.poll() is None, (environment.home / "mlflow.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield psutil.Process(service.pid)
    finally:
        service.terminate()
        assert service.wait(30) is not None


def test_the_service_shows_the_models_to_who_signs_in_and_to_nobody_else(tmp_path: Path) -> None:
    environment = replace(small.models_at(tmp_path), mlflow_port=processes.free_port())
    keep(Registry(environment, "small"), tmp_path, "one")
    password = secret(environment, "admin_password")
    models = "/api/2.0/mlflow/registered-models/search"
    with shown(environment) as service:
        answers = {}
        for name, login in {
            "none": None,
            "wrong": basic("admin", password + "x"),
            "other": basic("root", password),
            "right": basic("admin", password),
        }.items():
            paths = ("/", "/health", models)
            answers[name] = [_status(environment, path, login) for path in paths]
        listening = {one.laddr.ip for one in service.net_connections() if one.status == "LISTEN"}
        words = " ".join(service.cmdline()) + str(service.environ())
        with _open(environment, models, basic("admin", password)) as answer:
            told = answer.read().decode()
    assert answers == {
        "none": [401] * 3,
        "wrong": [401] * 3,
        "other": [401] * 3,
        "right": [200] * 3,
    }
    assert '"name": "small"' in told
    assert listening == {processes.LOOPBACK}
    assert password not in words
    assert password not in (tmp_path / "mlflow.log").read_text()


def test_a_websocket_is_not_opened_without_the_login() -> None:
    sent = asyncio.run(_asked({"type": "websocket", "headers": []}))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    login = basic("admin", "pw").encode()
    found = asyncio.run(_asked({"type": "websocket", "headers": [(b"authorization", login)]}))
    assert found == [{"type": "through"}]


async def _asked(scope: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def through(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "through"})

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    await SignedIn(through, "admin", "pw")(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("uri", "ours"),
    [
        (None, True),
        ("postgresql://user:pw@db/mlflow", True),
        ("mysql+pymysql://db/mlflow", True),
        ("https://mlflow.example", False),
        ("databricks", False),
    ],
)
def test_a_server_of_others_has_pages_of_its_own(uri: str | None, ours: bool) -> None:
    given = {"MLFLOW_TRACKING_URI": uri} if uri else {}
    environment = Environment.read({"NIGHTSHIFT_HOME": "/nowhere", **given})
    assert ("mlflow" in {one.name for one in services(environment)}) is ours


def test_the_first_work_of_a_start_does_not_wait_for_the_pages(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    warmed_up = {one.name for one in services(environment) if one.is_warmed_up}
    assert warmed_up == {"spark", "stages"}


def _open(environment: Environment, path: str, login: str | None) -> Any:
    url = f"http://{processes.LOOPBACK}:{environment.mlflow_port}{path}"
    headers = {"Authorization": login} if login else {}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)


def _status(environment: Environment, path: str, login: str | None) -> int:
    try:
        with _open(environment, path, login) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
