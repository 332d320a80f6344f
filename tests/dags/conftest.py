"""Airflow reads its home when it is imported.

Give it a throw-away one before any test module here does so.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.environment import ROOT

if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

STUB = """#!/usr/bin/env python3
import json, os, sys, time
print("arguments", json.dumps(sys.argv[1:]))
with open(os.environ["STUB_CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
for argument in sys.argv:
    if argument.startswith("--result="):
        if os.environ.get("STUB_RESULT"):
            open(argument.partition("=")[2], "w").write(os.environ["STUB_RESULT"])
print(os.environ.get("STUB_SAYS", "Refused: the reason"), file=sys.stderr, flush=True)
time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
ends = "STUB_NOTIFY_EXIT" if sys.argv[1] == "notify" else "STUB_EXIT"
sys.exit(int(os.environ.get(ends, os.environ.get("STUB_EXIT", "0"))))
"""
"""Stands for `nightshift`: notes its arguments, says something, and ends as it is told to.

Where a result is asked for, it writes the one that it was given, if any."""
_MAKE = """
from airflow.utils.db import initdb
initdb()
print("made")
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `nightshift` that does nothing; returns the file with its calls, one JSON list a line."""
    command = tmp_path / "nightshift"
    command.write_text(STUB)
    command.chmod(0o755)
    calls = tmp_path / "calls"
    monkeypatch.setenv("STUB_CALLS", str(calls))
    # Not the home of this checkout, whose stage server may be up and would be asked instead.
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("dags.tasks.executable", lambda: command)
    return calls


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's own database, which it takes seconds to make; for copies."""
    home = tmp_path_factory.mktemp("made")
    in_airflow(home, _MAKE)
    return home / "airflow.db"


def home_of_airflow(folder: Path, made_database: Path, name: str) -> Path:
    """A home for `in_airflow` with one file of DAGs: each `dag.test()` reads all that there are."""
    home = folder / "airflow"
    (home / "dags").mkdir(parents=True)
    shutil.copy(made_database, home)
    shutil.copy(ROOT / "dags" / f"{name}.py", home / "dags")
    return home


def in_airflow(home: Path, program: str, *arguments: str, **variables: str) -> str:
    """The last line that a program prints with an Airflow of its own.

    In a process of its own: the database of Airflow is chosen by what is in force when it is
    imported.
    """
    airflow = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": str(ROOT),
    }
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | airflow | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        # A task that Airflow would try again keeps `dag.test()` waiting.
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout.splitlines()[-1]


_OF_A_NIGHT = {
    **dict.fromkeys(("date", "from", "to")),
    **dict.fromkeys(("restate", "allow_gap", "from_start"), False),
    **dict.fromkeys(("retrain", "allow_mixed", "rescore"), False),
}


class Instance:
    """Keeps what a task hands on; of its attempts it is the only one."""

    try_number = 1
    max_tries = 0

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, *, task_ids: list[str], key: str) -> list[Any]:
        return [self.pushed.get(key), *[None] * (len(task_ids) - 1)]


def context(
    *,
    run_type: str = "manual",
    interval_start: datetime | None = None,
    interval_end: datetime | None = None,
    logical_date: datetime | None = None,
    run_after: datetime | None = None,
    start_date: datetime | None = None,
    run_id: str = "manual__1",
    declared: Mapping[str, Any] = _OF_A_NIGHT,
    **params: Any,
) -> Any:
    """What Airflow gives a task, as far as ours look at it.

    Args:
        declared: The params of its DAG, with what they are by default.
        params: Those that somebody has given.
    """
    run = SimpleNamespace(
        run_id=run_id,
        run_type=run_type,
        data_interval_start=interval_start,
        data_interval_end=interval_end,
        logical_date=logical_date,
        run_after=run_after or datetime(2013, 3, 2, 12, tzinfo=UTC),
        start_date=start_date,
    )
    return {
        "params": {**declared, **params},
        "dag_run": run,
    }


def printed_until(capsys: pytest.CaptureFixture[str], text: str) -> str:
    """What is printed until the text is in it, or half a minute has passed."""
    seen = ""
    began = time.monotonic()
    while text not in seen and time.monotonic() < began + 30:
        seen += capsys.readouterr().out
        time.sleep(0.02)
    return seen
