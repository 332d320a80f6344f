"""Spark's Python workers start with the libraries of one process, and without our code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.spark import python_daemon
from pipelines.environment import ROOT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TOLD = """
import json, sys
from pyspark import daemon
daemon.manager = lambda: print(json.dumps(sorted(sys.modules)))
from jobs.spark import python_daemon
"""


def _imported(*changes: str) -> set[str]:
    """Modules that the process has when it begins to fork workers."""
    code = "\n".join([_TOLD, *changes, "python_daemon.main()"])
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    return set(json.loads(told.stdout))


def test_libraries_are_there_before_a_worker_is_forked_and_our_modules_are_not() -> None:
    imported = _imported()
    assert imported >= set(python_daemon.PRELOAD)
    own = {name for name in imported if name.partition(".")[0] in ("jobs", "pipelines")}
    assert own == {"jobs", "jobs.spark", "jobs.spark.python_daemon"}


def test_a_library_that_is_not_there_is_left_to_who_needs_it() -> None:
    imported = _imported("python_daemon.PRELOAD = ('no_such_library', 'numpy')")
    assert "numpy" in imported
    assert "pandas" not in imported


def test_the_servers_workers_are_its_children(spark: SparkSession) -> None:
    def parent(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_text()
        for batch in batches:
            yield pa.record_batch({"command": [command] * len(batch)})

    ((command,),) = spark.range(1).mapInArrow(parent, "command string").collect()
    assert "jobs.spark.python_daemon" in command.split("\0")
