"""Finds the Java that Spark needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import NightshiftError

LEAST_VERSION = 17


def java_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The home of a Java that is new enough: `JAVA_HOME` first, then the `java` on `PATH`.

    Raises:
        NightshiftError: there is none; the message tells each place that was tried and what to
            install.
    """
    tried = []
    for source, java in _candidates(environ):
        found = version(java) if java else None
        if java and found and found >= LEAST_VERSION:
            return java.resolve().parent.parent
        what = f"version {found}" if found else "no working java"
        tried.append(f"{source}: {what} ({java})" if java else f"{source}: {what}")
    raise NightshiftError(
        f"Spark needs Java {LEAST_VERSION} or newer. Tried {'; '.join(tried)}. "
        "Install one (Debian: apt-get install openjdk-17-jre-headless) or point JAVA_HOME at it."
    )


def version(java: Path) -> int | None:
    """The major version of a `java` program; None when it does not run."""
    try:
        output = subprocess.run(
            [str(java), "-version"], capture_output=True, text=True, timeout=30
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(found.group(1)) if found else None


def _candidates(environ: Mapping[str, str]) -> list[tuple[str, Path | None]]:
    home = environ.get("JAVA_HOME")
    on_path = shutil.which("java", path=environ.get("PATH"))
    return [
        ("JAVA_HOME", Path(home) / "bin" / "java" if home else None),
        ("PATH", Path(on_path) if on_path else None),
    ]
