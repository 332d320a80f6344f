"""A shell completes our command lines by asking the command itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.commands.completion import HOW, SHELLS, script
from pipelines import catalog
from pipelines.stages import STAGES


def completions(line: str, answer: Path) -> list[str]:
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": " ",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, "-m", "jobs"]
    subprocess.run(command, env=environment, check=True, timeout=60)
    return answer.read_text().split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nightshift sta", ["status"]),
        ("nightshift run f", ["flights"]),
        ("nightshift run flights --da", ["--date"]),
        ("nightshift run flights --stage ", [stage.name for stage in STAGES]),
        ("nightshift quality flights --format ", ["table", "csv", "json"]),
        ("nightshift logs spa", ["spark"]),
        ("nightshift completion z", ["zsh"]),
    ],
)
def test_what_may_follow_is_offered(line: str, expected: list[str], tmp_path: Path) -> None:
    assert completions(line, tmp_path / "answer") == expected


def test_every_pipeline_is_offered(tmp_path: Path) -> None:
    offered = completions("nightshift models ", tmp_path / "answer")
    assert [name for name in offered if not name.startswith("-")] == catalog.names()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_and_a_way_to_use_it(shell: str) -> None:
    assert "nightshift" in script(shell)
    assert "_ARGCOMPLETE" in script(shell)
    assert f"nightshift completion {shell}" in HOW[shell]


def test_bash_understands_its_script() -> None:
    checked = subprocess.run(["bash", "-n"], input=script("bash"), text=True)
    assert checked.returncode == 0
