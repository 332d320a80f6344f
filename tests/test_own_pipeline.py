"""The tutorial of a pipeline of one's own: its files in a copy of the checkout, its commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.environment import ROOT
from tests.conftest import free_port
from tests.documents import commands
from tools import PACKAGES

TUTORIAL = ROOT / "docs" / "tutorial" / "3-your-own-pipeline.md"
_FILE = re.compile(r"^```python\n# (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


_SUITES = """
from datetime import date
from pipelines.catalog import pipeline
from pipelines.days import Days
from expectations import pumps
from jobs.transforms.pumps import labels, state
from airflow.dag_processing.dagbag import DagBag
day = Days.of(date(2024, 1, 9))
suites = [getattr(pumps, table.name)(day) for table in pipeline("pumps").tables]
dag = DagBag(dag_folder="dags/pumps.py").dags["pumps"]
print(f"{len(suites)} suites, {len(dag.tasks)} tasks")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of our packages with the files of the tutorial, none of which was there."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Spark's JARs are there.
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    for name, content in _FILE.findall(TUTORIAL.read_text()):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        assert not file.exists()
        file.write_text(content)
    return tmp_path


def typed(checkout: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Type a command in the folder of the copy, whose home is `var` in it."""
    program, *arguments = words
    known = {"nightshift": [sys.executable, "-m", "jobs"], "python": [sys.executable]}
    variables = {
        "PYTHONPATH": str(checkout),
        "NIGHTSHIFT_HOME": str(checkout / "var"),
        "AIRFLOW_HOME": str(checkout / "airflow"),
        "NIGHTSHIFT_SPARK_PORT": str(free_port()),
        "NIGHTSHIFT_AIRFLOW_PORT": str(free_port()),
        "NIGHTSHIFT_MLFLOW_PORT": str(free_port()),
    }
    return subprocess.run(
        [*known[program], *arguments],
        env={**os.environ, **variables},
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_files_of_the_tutorial_are_understood(checkout: Path) -> None:
    played, planned, *_ = commands(TUTORIAL)
    for shown in (played, planned):
        ended = typed(checkout, shown.words)
        assert ended.returncode == 0, f"{shown.text}\n{ended.stdout}\n{ended.stderr}"
    assert re.search(r"pumps.predictions +\| missing", ended.stdout)
    ended = typed(checkout, ["python", "-c", _SUITES])
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["5 suites, 12 tasks"]), (
        ended.stderr
    )


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("SOAK"), reason="minutes; `make soak` runs it")
def test_a_pipeline_of_ones_own_runs_its_first_nights(checkout: Path) -> None:
    said = {}
    for shown in commands(TUTORIAL):
        ended = typed(checkout, shown.words)
        assert ended.returncode == 0, f"{shown.text}\n{ended.stdout}\n{ended.stderr}"
        said[shown.text] = ended.stdout
    riskiest, foretold = [text for command, text in said.items() if " sql " in command]
    assert len(re.findall(r"^\| P\d\d ", riskiest, re.MULTILINE)) == 5
    assert "true" in foretold
    (models,) = [text for command, text in said.items() if " models " in command]
    assert "promoted" in models
