"""The shares of a table's files are dealt out so that each core has as much to do."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from jobs.training import parts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DAY = date(2024, 1, 1)
_MB = 1_000_000


@pytest.mark.parametrize(
    ("shares", "megabytes", "cores", "expected"),
    [
        # Too little to be shared out.
        (0, 0, 2, 1),
        (20, 3, 2, 1),
        # A task a core, however little it is below a full task.
        (20, 64, 2, 2),
        (20, 300, 2, 2),
        (20, 300, 8, 8),
        # No more than pays off.
        (20, 100, 16, 3),
        # As many for each core.
        (40, 900, 2, 4),
        (40, 900, 3, 3),
        (400, 9000, 2, 36),
        # No more than there are shares.
        (3, 9000, 2, 3),
    ],
)
def test_each_core_gets_as_many_tasks(
    spark: SparkSession, shares: int, megabytes: int, cores: int, expected: int
) -> None:
    paths = [f"part-{number:03}" for number in range(shares)]
    rows = [(_DAY, path, 0, 1) for path in paths]
    dealt = parts.deal(spark, rows, parts.COLUMNS, megabytes * _MB, cores)
    of_tasks = dealt.selectExpr("spark_partition_id() AS task", "path").collect()
    assert sorted(row.path for row in of_tasks) == paths
    counts = [0] * expected
    for row in of_tasks:
        counts[row.task] += 1
    # Each of the server's two cores deals out half of them, from a task on that it draws.
    assert max(counts) - min(counts) <= 2
