"""Which code made a row."""

from __future__ import annotations

import hashlib
import subprocess
from functools import lru_cache
from pathlib import Path

from pipelines.environment import ROOT

# Dags and plugins only have stages run: they make no row.
_PACKAGES = ("pipelines", "jobs", "expectations", "features")


@lru_cache(maxsize=1)
def code_version() -> str:
    """The commit of this checkout, with `-dirty` when files differ from it.

    Without git a hash of the source files.
    """
    try:
        described = subprocess.run(
            # Of one length: git's own grows with the repository, and a commit would get two names.
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return source_hash()
    return described.stdout.strip() if described.returncode == 0 else source_hash()


def source_hash() -> str:
    """SHA-256 (12 digits) over the names and bytes of our own source files."""
    digest = hashlib.sha256()
    paths: list[Path] = []
    for package in _PACKAGES:
        paths += (ROOT / package).rglob("*.py")
    for path in sorted(paths):
        name = str(path.relative_to(ROOT)).encode()
        # With a zero behind each, so that no end of a name can pass for the begin of its content.
        digest.update(name + b"\0" + path.read_bytes() + b"\0")
    return f"source-{digest.hexdigest()[:12]}"


if __name__ == "__main__":
    print(source_hash())
