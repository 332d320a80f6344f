"""The tutorial of a pipeline of one's own: its files in a copy of the checkout, its commands."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pipelines.environment import ROOT
from tests.checkout import copy_packages, typed, write_files
from tests.documents import commands

TUTORIAL = ROOT / "docs" / "tutorial" / "3-your-own-pipeline.md"
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
    copy_packages(tmp_path)
    write_files(TUTORIAL, tmp_path)
    return tmp_path


def test_the_files_of_the_tutorial_are_understood(checkout: Path) -> None:
    played, planned, *_ = commands(TUTORIAL)
    for shown in (played, planned):
        ended = typed(checkout, shown.words)
        assert ended.returncode == 0, f"{shown.text}\n{ended.stdout}\n{ended.stderr}"
    assert re.search(r"pumps.predictions +\| missing", ended.stdout)
    ended = typed(checkout, ["python", "-c", _SUITES])
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (
        0,
        ["5 suites, 12 tasks"],
    ), ended.stderr


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
