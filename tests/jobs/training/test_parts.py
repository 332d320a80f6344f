"""The shares of a table's files are dealt out so that each core has as much to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from jobs.training import parts
from jobs.training.file_scoring import _Score
from jobs.training.shards_on_spark import _Deal, _Learn
from jobs.version import source_hash
from pipelines.errors import Refused

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


@pytest.mark.parametrize("task", [_Score, _Learn, partial(_Deal, shards=1)])
def test_a_worker_with_other_code_refuses_its_task_and_names_both(
    task: Callable[..., Any],
) -> None:
    assert task(None, None).code == source_hash()
    told = rf"worker on \S+ has code {source_hash()}, and the stage has source-other: "
    with pytest.raises(Refused, match=told):
        next(task(None, None, code="source-other")(iter([])))
