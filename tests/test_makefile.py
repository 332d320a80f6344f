"""`make` targets that ask or stop work before anything is set up, and never set up themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipelines.environment import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile alone."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # With `false` for Python a target that sets up fails, and touches no environment.
    command = ["make", "--no-print-directory", "-C", str(folder), "PYTHON=false", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def pretend_to_be_set_up(folder: Path) -> None:
    program = folder / ".venv" / "bin" / "nightshift"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)


def test_down_of_what_is_not_set_up_has_nothing_to_do(checkout: Path) -> None:
    done = make(checkout, "down")
    assert done.returncode == 0, done.stderr
    assert "Nothing is set up here" in done.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("target", ["status", "logs"])
def test_what_is_not_set_up_has_no_status_and_no_logs(target: str, checkout: Path) -> None:
    done = make(checkout, target)
    assert done.returncode != 0
    assert "Nothing is set up here" in done.stdout
    assert "make up" in done.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("target", ["down", "status", "logs"])
def test_what_is_set_up_is_asked_at_once(target: str, checkout: Path) -> None:
    pretend_to_be_set_up(checkout)
    done = make(checkout, target, "ARGS=--help")
    assert (done.returncode, done.stdout) == (0, f"{target} --help\n")


def test_one_case_is_measured_alone(checkout: Path) -> None:
    done = make(checkout, "--dry-run", "bench", "ONLY=scoring", "ARGS=--repeats 3")
    assert ".venv/bin/python -m bench scoring --repeats 3" in done.stdout
