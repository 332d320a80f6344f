"""A case whose work does not end by itself, and a program that measures it as `bench` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from bench import cases
from bench.__main__ import main
from bench.harness import Answer, Case, Work

_NAME = "tests.bench.endless"
_PROGRAM = """
import sys, time
from pathlib import Path
(Path(sys.argv[1]).parent / "at work").touch()
time.sleep(600)
"""
CASE = Case(
    name=_NAME,
    what="a sleep",
    peers=(),
    sizes=(1,),
    quick_size=1,
    same=lambda *_: True,
)


def prepare(folder: Path, size: int) -> None:
    """Nothing."""


def ours(folder: Path) -> Work:
    """Another process works, whose command names the folder."""

    def work() -> Answer:
        subprocess.run([sys.executable, "-c", _PROGRAM, str(folder)], check=True)
        return lambda: pa.table({})

    try:
        yield work
    finally:
        (folder.parent / "cleared").touch()


if __name__ == "__main__":
    cases.NAMES = (_NAME,)
    sys.exit(main())
