"""The platform's own tables keep what was appended, once, whoever writes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from jobs.lake import ops
from pipelines.environment import Environment
from pipelines.errors import UsageError

DAY = date(2013, 1, 24)


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
    rows = [{"stage": "a", "run_id": "1"}, {"stage": "b", "run_id": "2"}]
    ops.append(environment, "stage_runs", rows)
    ops.replace(environment, "stage_runs", [{"stage": "c", "run_id": "1"}], "run_id = '1'")
    assert _stages(environment) == [("b", None), ("c", None)]


def test_concurrent_appends_all_land(environment: Environment) -> None:
    names = [f"{number:02}" for number in range(12)]

    def append(name: str) -> None:
        ops.append(environment, "stage_runs", [{"stage": name}])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, names))
    assert [stage for stage, _ in _stages(environment)] == names


def _written_before(environment: Environment, column: str) -> None:
    """A table with one row, from before there was the column."""
    schema = ops.SCHEMAS["live_quality"]
    old = schema.remove(schema.get_field_index(column))
    row = {"pipeline": "small", "landed_date": DAY, "auc": 0.7}
    path = environment.table_path("ops.live_quality")
    write_deltalake(path, pa.Table.from_pylist([row], schema=old))


def _live_quality(environment: Environment) -> list[tuple[float | None, float | None]]:
    table = ops.read(environment, "live_quality")
    assert table.schema.names == ops.SCHEMAS["live_quality"].names
    rows = [(row["auc"], row["rmse"]) for row in table.to_pylist()]
    return sorted(rows, key=str)


def test_a_column_that_a_table_has_not_got_yet_reads_as_null(environment: Environment) -> None:
    _written_before(environment, "rmse")
    assert _live_quality(environment) == [(0.7, None)]


def test_an_append_gives_an_old_table_its_new_column(environment: Environment) -> None:
    _written_before(environment, "rmse")
    ops.append(environment, "live_quality", [{"pipeline": "twin", "rmse": 2.5}])
    assert _live_quality(environment) == [(0.7, None), (None, 2.5)]
    path = environment.table_path("ops.live_quality")
    names = [field.name for field in DeltaTable(path).schema().fields]
    assert set(names) == set(ops.SCHEMAS["live_quality"].names)


def test_a_replacement_gives_an_old_table_its_new_column(environment: Environment) -> None:
    _written_before(environment, "rmse")
    row = {"pipeline": "twin", "rmse": 2.5}
    ops.replace(environment, "live_quality", [row], "pipeline = 'twin'")
    assert _live_quality(environment) == [(0.7, None), (None, 2.5)]
    ops.replace(environment, "live_quality", [], "pipeline = 'small'")
    assert _live_quality(environment) == [(None, 2.5)]


def test_an_unknown_ops_table_is_refused_with_the_near_miss(environment: Environment) -> None:
    with pytest.raises(UsageError, match="Did you mean 'stage_runs'"):
        ops.read(environment, "stage_run")
