"""The platform's own tables keep what was appended, once, whoever writes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.lake import ops
from pipelines.environment import Environment
from pipelines.errors import UsageError


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def _stages(environment: Environment) -> list[tuple[str, str | None]]:
    rows = ops.read(environment, "stage_runs").to_pylist()
    return sorted((row["stage"], row["error"]) for row in rows)


def test_a_table_that_was_never_written_reads_as_empty(environment: Environment) -> None:
    assert _stages(environment) == []


def test_appends_add_up_and_missing_columns_are_null(environment: Environment) -> None:
    ops.append(environment, "stage_runs", [{"stage": "a", "error": "x"}])
    ops.append(environment, "stage_runs", [{"stage": "b"}])
    assert _stages(environment) == [("a", "x"), ("b", None)]


def test_replace_puts_rows_in_the_place_of_the_matching_ones_only(environment: Environment) -> None:
    ops.append(
        environment, "stage_runs", [{"stage": "a", "run_id": "1"}, {"stage": "b", "run_id": "2"}]
    )
    ops.replace(environment, "stage_runs", [{"stage": "c", "run_id": "1"}], "run_id = '1'")
    assert _stages(environment) == [("b", None), ("c", None)]


def test_concurrent_appends_all_land(environment: Environment) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(
                lambda i: ops.append(environment, "stage_runs", [{"stage": f"{i:02}"}]), range(12)
            )
        )
    assert [stage for stage, _ in _stages(environment)] == [f"{i:02}" for i in range(12)]


def test_an_unknown_ops_table_is_refused_with_the_near_miss(environment: Environment) -> None:
    with pytest.raises(UsageError, match="Did you mean 'stage_runs'"):
        ops.read(environment, "stage_run")
