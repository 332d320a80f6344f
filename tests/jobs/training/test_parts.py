"""The shares of a table's files are dealt out so that each core has as much to do."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import TYPE_CHECKING

import pytest

from jobs.training import parts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DAY = date(2024, 1, 1)
_MB = 1_000_000


@pytest.mark.parametrize(
    ("megabytes", "cores", "expected"),
    [
        # Too little to be shared out.
        (0, 2, 1),
        (3, 2, 1),
        # A task a core, however little it is below a full task.
        (64, 2, 2),
        (300, 2, 2),
        (300, 8, 8),
        # No more than pays off.
        (100, 16, 3),
        # As many for each core.
        (900, 2, 4),
        (900, 3, 3),
        (9000, 2, 36),
    ],
)
def test_each_core_gets_as_many_tasks(megabytes: int, cores: int, expected: int) -> None:
    assert parts.count_of_tasks(megabytes * _MB, cores) == expected


@pytest.mark.parametrize("shares", [0, 1, 3, 60])
def test_shares_are_spread_over_the_tasks(spark: SparkSession, shares: int) -> None:
    paths = [f"part-{number:03}" for number in range(shares)]
    rows = [(_DAY, path, 0, 1) for path in paths]
    # Twelve tasks, where there are as many shares.
    dealt = parts.deal(spark, rows, parts.COLUMNS, 3000 * _MB, 2)
    of_tasks = dealt.selectExpr("spark_partition_id() AS task", "path").collect()
    assert sorted(row.path for row in of_tasks) == paths
    counts = Counter(row.task for row in of_tasks)
    assert all(task < 12 for task in counts)
    # Each of the server's two cores deals out half of them, from a task on that it draws.
    assert max(counts.values(), default=0) <= -(-shares // 12) + 1
