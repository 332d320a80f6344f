"""A copy of our packages, with what a document says to write and to change, and commands in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.environment import ROOT
from tests.conftest import free_port
from tools import PACKAGES

_FILE = re.compile(r"^```python\n# (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CHANGE = re.compile(r"^```diff\n# (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def copy_packages(folder: Path, names: Sequence[str] = PACKAGES) -> None:
    """Copy packages into a folder, which gets the libraries of this checkout."""
    for name in names:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Spark's JARs are there.
    (folder / ".venv").symlink_to(ROOT / ".venv")


def write_files(document: Path, folder: Path) -> list[str]:
    """Write the files of a document, none of which was there; returns their names."""
    names: list[str] = []
    for name, content in _FILE.findall(document.read_text()):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        assert not file.exists(), name
        file.write_text(content)
        names.append(name)
    return names


def change_files(document: Path, folder: Path) -> list[str]:
    """Change files as a document says; returns their names, each once."""
    names: list[str] = []
    for name, block in _CHANGE.findall(document.read_text()):
        before = "".join(f"{line[1:]}\n" for line in block.splitlines() if line[:1] != "+")
        after = "".join(f"{line[1:]}\n" for line in block.splitlines() if line[:1] != "-")
        file = folder / name
        text = file.read_text()
        assert text.count(before) == 1, f"{name} has {text.count(before)} times:\n{before}"
        file.write_text(text.replace(before, after))
        names.append(name)
    return list(dict.fromkeys(names))


def typed(
    checkout: Path,
    words: Sequence[str],
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Type a command in the folder of the copy, whose home is `var` in it.

    Args:
        checkout: The folder.
        words: The command.
        more: Variables beside those of every command.
    """
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
        env={**os.environ, **variables, **more},
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=600,
    )
