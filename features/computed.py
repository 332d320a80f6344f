"""Rows that Spark computes once, for plans that ask them more than once."""

from __future__ import annotations

from pyspark import StorageLevel
from pyspark.sql import DataFrame

_ON_ONE_MACHINE = "local"
"""What Spark's master begins with where the executor is the server itself."""


def computed(rows: DataFrame) -> DataFrame:
    """The rows, computed here and now, and kept where Spark computes.

    Spark forgets how they were made. So on a cluster each part is kept by two executors: one that
    dies takes none with it.
    """
    master = rows.sparkSession.conf.get("spark.master")
    if master is not None and master.startswith(_ON_ONE_MACHINE):
        return rows.localCheckpoint()
    return rows.localCheckpoint(storageLevel=StorageLevel.MEMORY_AND_DISK_2)
