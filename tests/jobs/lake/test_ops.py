"""The platform's own tables keep what was appended, once, whoever writes at the same time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

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


def _known(environment: Environment) -> list[str]:
    return sorted(ops.read_once(environment, "stage_runs")["stage"].to_pylist())


def test_a_table_that_has_not_changed_is_read_once(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _known(environment) == []
    ops.append(environment, "stage_runs", [{"stage": "a"}])
    assert _known(environment) == ["a"]
    with monkeypatch.context() as patch:
        patch.delattr(ops, "DeltaTable")
        assert _known(environment) == ["a"]
    ops.append(environment, "stage_runs", [{"stage": "b"}])
    assert _known(environment) == ["a", "b"]


def _append(table: DeltaTable | str, rows: dict[str, list[str]]) -> None:
    write_deltalake(table, pa.table(rows), mode="append", schema_mode="merge")


def test_a_table_is_opened_once_whoever_writes_to_it(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops.append(environment, "stage_runs", [{"stage": "a"}])
    path = environment.table_path("ops.stage_runs")
    of_another_process = DeltaTable(path)
    with monkeypatch.context() as patch:
        patch.delattr(ops, "DeltaTable")
        ops.append(environment, "stage_runs", [{"stage": "b"}])
        _append(of_another_process, {"stage": ["c"], "error": ["x"]})
        assert _stages(environment) == [("a", None), ("b", None), ("c", "x")]
        assert _known(environment) == ["a", "b", "c"]
        ops.replace(environment, "stage_runs", [], "stage = 'a'")
        assert _known(environment) == ["b", "c"]
    # Others see what was written by what was opened long ago.
    assert sorted(DeltaTable(path).to_pyarrow_table()["stage"].to_pylist()) == ["b", "c"]


def _known_elsewhere(environment: Environment) -> list[str]:
    """As `_known`, by another thread of this process."""
    with ThreadPoolExecutor(1) as others:
        return others.submit(_known, environment).result()


def test_rows_that_others_write_while_files_are_put_together_stay(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "_MOST_FILES", 3)
    path = environment.table_path("ops.stage_runs")
    write, ask = ops.write_deltalake, ops._query

    def seen_early(table: DeltaTable | str, rows: pa.Table, **how: Any) -> None:
        is_append = how.get("mode") == "append"
        # Others see a commit before its writer does, who then tidies the log.
        write(path if is_append else table, rows, **how)
        if is_append and isinstance(table, DeltaTable):
            _known_elsewhere(environment)
            table.update_incremental()

    def overtaken(table: DeltaTable, query: str) -> pa.Table:
        rows = ask(table, query)
        if query == "SELECT * FROM rows":
            _append(path, {"stage": ["of another home"]})
            assert "of another home" in _known_elsewhere(environment)
        return rows

    monkeypatch.setattr(ops, "write_deltalake", seen_early)
    monkeypatch.setattr(ops, "_query", overtaken)
    for stage in "abcd":
        ops.append(environment, "stage_runs", [{"stage": stage}])
    assert _known(environment) == ["a", "b", "c", "d", "of another home"]


def test_a_table_whose_old_log_is_gone_is_opened_again(
    environment: Environment,
) -> None:
    ops.append(environment, "stage_runs", [{"stage": "0"}])
    path = Path(environment.table_path("ops.stage_runs"))
    for stage in range(1, 25):
        _append(str(path), {"stage": [str(stage)]})
    for version in range(20):
        (path / "_delta_log" / f"{version:020}.json").unlink()
    assert len(_known(environment)) == 25


@pytest.mark.parametrize("is_made_again", [False, True])
def test_rows_that_were_read_are_not_taken_for_those_of_another_table_of_its_name(
    environment: Environment, is_made_again: bool
) -> None:
    ops.append(environment, "stage_runs", [{"stage": "a"}])
    assert _known(environment) == ["a"]
    shutil.rmtree(environment.table_path("ops.stage_runs"))
    if is_made_again:
        ops.append(environment, "stage_runs", [{"stage": "b"}])
    assert _known(environment) == (["b"] if is_made_again else [])


def test_what_another_process_has_written_is_read(environment: Environment) -> None:
    ops.append(environment, "stage_runs", [{"stage": "a"}])
    assert _known(environment) == ["a"]
    program = (
        "import sys; from jobs.lake import ops; from pipelines.environment import Environment; "
        "here = Environment.read({'NIGHTSHIFT_HOME': sys.argv[1]}); "
        "ops.append(here, 'stage_runs', [{'stage': 'b'}]); "
        "ops.replace(here, 'stage_runs', [], \"stage = 'a'\")"
    )
    subprocess.run([sys.executable, "-c", program, str(environment.home)], check=True)
    assert _known(environment) == ["b"]


def test_concurrent_appends_all_land(environment: Environment) -> None:
    names = [f"{number:02}" for number in range(12)]

    def append(name: str) -> None:
        ops.append(environment, "stage_runs", [{"stage": name}])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, names))
    assert [stage for stage, _ in _stages(environment)] == names


def _work(home: str, lake: str, own: str) -> None:
    """What one of several writers of a lake does: appends, and twice a replacement."""
    environment = Environment.read({"NIGHTSHIFT_HOME": home, "NIGHTSHIFT_LAKE": lake})
    for number in range(40):
        ops.append(environment, "stage_runs", [{"run_id": own, "stage": f"{number:02}"}])
    for first in ("a", "b"):
        rows = [{"run_id": own, "stage": stage} for stage in (first, "c")]
        inside = f"run_id = '{own}' AND stage IN ('a', 'b', 'c')"
        ops.replace(environment, "stage_runs", rows, inside)


def test_writers_of_other_homes_lose_and_double_nothing(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    owners = ["1", "2", "3", "4"]
    # Not forked: this process has threads of delta-rs.
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        works = [pool.submit(_work, str(tmp_path / own), lake, own) for own in owners]
        for work in works:
            work.result(timeout=120)
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_LAKE": lake})
    rows = ops.read(environment, "stage_runs", columns=["run_id", "stage"]).to_pylist()
    stages = [*(f"{number:02}" for number in range(40)), "b", "c"]
    expected = [(own, stage) for own in owners for stage in stages]
    assert sorted((row["run_id"], row["stage"]) for row in rows) == expected


def test_after_many_appends_there_are_few_files_and_every_row(environment: Environment) -> None:
    names = [f"{number:03}" for number in range(130)]
    for name in names:
        ops.append(environment, "stage_runs", [{"stage": name}])
    assert [stage for stage, _ in _stages(environment)] == names
    table = DeltaTable(environment.table_path("ops.stage_runs"))
    assert len(table.file_uris()) <= 51
    log = Path(environment.table_path("ops.stage_runs")) / "_delta_log"
    newest = max(log.glob("*.checkpoint.parquet")).name
    assert table.version() - int(newest.partition(".")[0]) <= 20


NAUGHTY = "o'brien \" -- %s; DROP TABLE rows \\"
SUMMER = timezone(timedelta(hours=2))
AT = datetime(2013, 1, 24, 5, 6, 7, 89, tzinfo=UTC)


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (("run_id", "=", NAUGHTY), ["a"]),
        (("run_id", "!=", NAUGHTY), ["b"]),
        (("run_id", "=", "' OR ''='"), []),
        (("first_day", "<=", DAY), ["a"]),
        (("first_day", ">", DAY), ["b"]),
        (("started_at", "=", AT), ["a"]),
        (("started_at", "=", AT.astimezone(SUMMER)), ["a"]),
        (("started_at", ">", AT), ["b"]),
        (("error", "=", "x"), []),
    ],
)
def test_a_condition_means_its_value(
    environment: Environment, condition: ops.Condition, found: list[str]
) -> None:
    moment = timedelta(microseconds=1)
    rows = [
        {"stage": "a", "run_id": NAUGHTY, "first_day": DAY, "started_at": AT},
        {
            "stage": "b",
            "run_id": "r",
            "first_day": DAY + timedelta(days=1),
            "started_at": AT + moment,
        },
    ]
    ops.append(environment, "stage_runs", rows)
    read = ops.read(environment, "stage_runs", [condition], ["stage"])
    assert read.to_pydict() == {"stage": found}


def test_what_is_read_has_the_declared_types(environment: Environment) -> None:
    ops.append(environment, "check_results", [{"success": True, "checked_at": AT}])
    read = ops.read(environment, "check_results")
    assert read.schema == ops.SCHEMAS["check_results"]
    (row,) = read.to_pylist()
    assert (row["success"], row["checked_at"], row["detail"]) == (True, AT, None)


def test_a_condition_on_a_column_that_is_not_there_yet_finds_nothing(
    environment: Environment,
) -> None:
    _written_before(environment, "model_version")
    of_model = [("model_version", "=", "1")]
    assert len(ops.read(environment, "live_quality", of_model)) == 0


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


def test_of_a_table_that_others_add_to_only_what_they_added_is_read(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops.append(environment, "publications", [{"table_name": "a"}])
    path = environment.table_path("ops.publications")
    before = ops.kept(environment, "publications")
    given = {"name": "b", "last_day": DAY}
    told_of = {"inputs": [given], "rows": 3}
    rows = [{"table_name": name, **told_of} for name in ("c", "d")]
    told = pa.Table.from_pylist(rows, schema=ops.SCHEMAS["publications"])
    with monkeypatch.context() as patch:
        patch.delattr(ops, "DeltaTable")
        for part in (told.slice(0, 1), told.slice(1)):
            write_deltalake(path, part, mode="append")
        # Of another writer, who knows few columns.
        _append(path, {"table_name": ["e"]})
        after = ops.kept(environment, "publications")
    assert after.reading == before.reading
    assert after.rows["table_name"].to_pylist() == ["a", "c", "d", "e"]
    assert after.rows["inputs"].to_pylist()[1][0]["last_day"] == DAY
    whole = DeltaTable(path).to_pyarrow_table()
    assert sorted(whole["table_name"].to_pylist()) == ["a", "c", "d", "e"]
    assert after.rows["rows"].to_pylist() == [None, 3, 3, None]


def test_what_others_do_but_adding_rows_is_read_as_a_whole(environment: Environment) -> None:
    ops.append(environment, "stage_runs", [{"stage": "a"}, {"stage": "b"}])
    path = environment.table_path("ops.stage_runs")
    readings = [ops.kept(environment, "stage_runs").reading]
    for predicate in ("stage = 'a'", "stage = 'nobody'"):
        DeltaTable(path).delete(predicate)
        assert _known(environment) == ["b"]
        readings.append(ops.kept(environment, "stage_runs").reading)
    assert readings[1] > readings[0]
    # A table that was deleted and made again.
    shutil.rmtree(path)
    ops.append(environment, "stage_runs", [{"stage": "c"}])
    assert _known(environment) == ["c"]
    assert ops.kept(environment, "stage_runs").reading > readings[-1]
