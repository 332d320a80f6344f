"""README and the tutorials, command by command, as a newcomer types them after `make demo`.

After the other tests here: the nights of the demo have run by then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.environment import ROOT
from tests.documents import Command, commands
from tests.e2e.conftest import NIGHT, Installation

pytestmark = pytest.mark.timeout(2400)
WALK = (
    "README.md",
    "docs/tutorial/1-a-first-night.md",
    "docs/tutorial/2-a-red-night.md",
)
_ANOTHER_INSTALLATION = ("make",)
"""What sets up and starts all of it: the tests themselves do."""


def test_what_readme_and_tutorials_show_works_in_their_order(
    installation: Installation, first_night: str, tmp_path: Path
) -> None:
    second = str(NIGHT + timedelta(days=1))
    installation.nightshift("land", "flights", "--date", second)
    installation.nightshift("run", "flights", "--date", second)
    wrong = []
    for document in WALK:
        for shown in commands(ROOT / document):
            if shown.words[0] in _ANOTHER_INSTALLATION:
                continue
            ended = typed(shown, installation, tmp_path)
            print(f"\n$ {shown.text}\n{ended.stdout}")
            if ended.returncode != shown.exit_code:
                wrong.append(f"{document}: {shown.text}: {ended.returncode}\n{ended.stderr}")
    assert wrong == []


def typed(
    shown: Command, installation: Installation, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Type the command into a shell, in a folder whose `var` is the installation's home."""
    if not (folder / "var").exists():
        (folder / "var").symlink_to(installation.environment.home)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(shutil.which("bash")), "-c", shown.text.replace("/tmp/", f"{folder}/")],
        env={**installation.variables, "PATH": programs},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
