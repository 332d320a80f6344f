"""uv, which resolves and installs: the one on this machine, else our own from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.setup.console import TOOLS, SetupError, run, step
from tools.setup.machine import can_install

OLDEST = (0, 6)
"""The options that we use are there since about then."""
_TIMEOUT_SECONDS = "300"
"""For one download: TensorFlow and PySpark are half a gigabyte each."""
_OWN = TOOLS / "uv"
_LOCK = Path(__file__).with_name("uv.lock")


def uv() -> str:
    """Path of a uv, installed into the project's own folder when this machine has none.

    Raises:
        SetupError: there is none and pip cannot install one.
    """
    searched = [
        os.environ.get("PATH", ""),
        str(_OWN / "bin"),
        str(Path.home() / ".local" / "bin"),
        str(Path.home() / ".cargo" / "bin"),
    ]
    there = shutil.which("uv", path=os.pathsep.join(searched))
    if there and _version(there) >= OLDEST:
        return there
    return _install()


def _version(program: str) -> tuple[int, ...]:
    command = [program, "--version"]
    asked = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    numbers = re.search(r"(\d+)\.(\d+)", asked.stdout.decode())
    if not numbers:
        return (0,)
    return tuple(map(int, numbers.groups()))


def _install() -> str:
    with step("installing uv from PyPI into .tools/uv"):
        if not _has_pip() and can_install():
            _install_pip()
        if not _has_pip():
            raise SetupError(
                f"There is no uv, and no pip ({sys.executable} -m pip) to install it with. "
                "Install one (Debian: python3-pip)."
            )
        shutil.rmtree(_OWN, ignore_errors=True)
        locked = ["--quiet", "--require-hashes", "--no-deps", "-r", str(_LOCK)]
        run([sys.executable, "-m", "pip", "install", *locked, "--target", str(_OWN)])
    return str(_OWN / "bin" / "uv")


def _install_pip() -> None:
    run(["apt-get", "update", "-q"])
    run(
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", "python3-pip"],
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )


def _has_pip() -> bool:
    command = [sys.executable, "-m", "pip", "--version"]
    code = subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return code == 0


def variables() -> dict[str, str]:
    """Variables that every uv command of set-up runs with."""
    chosen = {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_HTTP_TIMEOUT": os.environ.get("UV_HTTP_TIMEOUT", _TIMEOUT_SECONDS),
        "UV_NO_PROGRESS": "1",
    }
    # uv does not read pip's variable, which a machine behind a mirror often has.
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL")
    if index:
        chosen["UV_DEFAULT_INDEX"] = index
    return chosen
