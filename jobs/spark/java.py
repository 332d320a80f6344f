"""Finds the Java that Spark needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import NightshiftError

# Spark 4 runs on no older one.
LEAST_VERSION = 17
_ANSWER_SECONDS = 30


def java_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The home of a Java that is new enough: `JAVA_HOME` first, then the `java` on `PATH`.

    Raises:
        NightshiftError: there is none; the message tells each place that was tried and what to
            install.
    """
    tried = []
    for source, java in _candidates(environ):
        major = version(java) if java else None
        if java and major and major >= LEAST_VERSION:
            # Debian's /usr/bin/java is a link into its home.
            return java.resolve().parent.parent
        what = f"version {major}" if major else "no working java"
        where = f" ({java})" if java else ""
        tried.append(f"{source}: {what}{where}")
    raise NightshiftError(
        f"Spark needs Java {LEAST_VERSION} or newer. Tried {'; '.join(tried)}. "
        "Install one (Debian: apt-get install openjdk-17-jre-headless) or point JAVA_HOME at it."
    )


def version(java: Path) -> int | None:
    """The major version of a `java` program; None when it does not run."""
    command = [str(java), "-version"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Java tells its version on stderr. Before version 9 it said 1.8 for 8.
    match = re.search(r'version "(?:1\.)?(\d+)', ran.stderr)
    return int(match.group(1)) if match else None


def _candidates(environ: Mapping[str, str]) -> list[tuple[str, Path | None]]:
    home = environ.get("JAVA_HOME")
    on_path = shutil.which("java", path=environ.get("PATH"))
    return [
        ("JAVA_HOME", Path(home) / "bin" / "java" if home else None),
        ("PATH", Path(on_path) if on_path else None),
    ]
