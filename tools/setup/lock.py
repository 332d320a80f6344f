"""Resolves requirements.in and runtime.in into locks with hashes.

They hold for every Python that Nightshift runs on.
"""

from __future__ import annotations

from pathlib import Path

from tools.setup.console import ROOT, run, step
from tools.setup.uv import uv, variables

_HERE = Path(__file__).parent
_COMPILE = (
    "pip",
    "compile",
    "--quiet",
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-header",
    "--no-annotate",
)


def resolve() -> None:
    """Write the locks anew. Pins that still fit are kept.

    Delete a line of a lock to have its package moved on.
    """
    program = uv()
    with step("resolving requirements.in"):
        _compile(program, ROOT / "requirements.in")
        # What an image gets is what was tested.
        as_tested = ("--constraints", str(ROOT / "requirements.lock"))
        _compile(program, ROOT / "runtime.in", *as_tested)
        for added in ("gpu.in", "kubernetes.in"):
            _compile(program, _HERE / added, *as_tested)
        for asked in (_HERE / "horovod.in", _HERE / "uv.in", ROOT / "bench" / "lightgbm.in"):
            _compile(program, asked, "--no-deps")


def _compile(program: str, asked: Path, *options: str) -> None:
    """Resolve a `.in` file into the `.lock` beside it."""
    files = [str(asked), "-o", str(asked.with_suffix(".lock"))]
    run([program, *_COMPILE, *options, *files], env=variables())
