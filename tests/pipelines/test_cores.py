"""What is ours of the machine's cores, and that Spark takes no more by default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import cores
from pipelines.environment import ROOT

_ON_ONE_CORE = """
import os

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

from pipelines.environment import Environment

print(Environment.read({}).spark_cores)
"""


@pytest.fixture(autouse=True)
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a container's quota, which is not there, on eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("max 100000", 8),
        ("250000 100000", 2),
        ("50000 100000", 0),
        ("900000 100000", 8),
    ],
)
def test_a_container_has_the_cores_of_its_quota(quota: Path, told: str, found: int) -> None:
    quota.write_text(f"{told}\n")
    assert cores.cores() == found
    assert cores.at_least_one() == max(1, found)


def test_where_there_is_no_quota_it_is_the_cores_that_the_system_allows() -> None:
    assert cores.cores() == 8


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is but one core")
def test_spark_takes_by_default_the_cores_that_its_process_may_use() -> None:
    command = [sys.executable, "-c", _ON_ONE_CORE]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "1"
