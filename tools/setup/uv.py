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
_OWN = TOOLS / "uv"
_LOCK = Path(__file__).with_name("uv.lock")


def uv() -> str:
    """Path of a uv, installed into the project's own folder when this machine has none.

    Raises:
        SetupError: there is none and pip cannot install one.
    """
    beside = [
        str(_OWN / "bin"),
        str(Path.home() / ".local" / "bin"),
        str(Path.home() / ".cargo" / "bin"),
    ]
    found = shutil.which("uv", path=os.pathsep.join([os.environ.get("PATH", ""), *beside]))
    return found if found and _version(found) >= OLDEST else _install()


def _version(program: str) -> tuple[int, ...]:
    said = subprocess.run(
        [program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout.decode()
    numbers = re.search(r"(\d+)\.(\d+)", said)
    return tuple(map(int, numbers.groups())) if numbers else (0,)


def _install() -> str:
    with step("installing uv from PyPI into .tools/uv"):
        if not _has_pip() and can_install():
            run(["apt-get", "update", "-q"])
            run(
                ["apt-get", "install", "-q", "-y", "--no-install-recommends", "python3-pip"],
                env={"DEBIAN_FRONTEND": "noninteractive"},
            )
        if not _has_pip():
            raise SetupError(
                f"There is no uv, and no pip ({sys.executable} -m pip) to install it with. "
                "Install one (Debian: python3-pip)."
            )
        shutil.rmtree(_OWN, ignore_errors=True)
        run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "--no-deps",
                "--target",
                _OWN,
                "-r",
                _LOCK,
            ]
        )
    return str(_OWN / "bin" / "uv")


def _has_pip() -> bool:
    return (
        subprocess.call(
            [sys.executable, "-m", "pip", "--version"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        == 0
    )


def variables() -> dict[str, str]:
    """Variables that every uv command of set-up runs with."""
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL")
    return {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_HTTP_TIMEOUT": os.environ.get(
            "UV_HTTP_TIMEOUT", "300"
        ),  # TensorFlow and PySpark are half a gigabyte each
        "UV_NO_PROGRESS": "1",
        **({"UV_DEFAULT_INDEX": index} if index else {}),
    }
