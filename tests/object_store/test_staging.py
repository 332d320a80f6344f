"""What Spark stages in an object store is written once, and what a dead task left is not taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.lake import tables
from jobs.lake.data_files import found_in
from jobs.lake.locations import path
from jobs.lake.staging import require
from jobs.spark.session import connect
from pipelines import places
from pipelines.environment import Environment
from pipelines.run import Run
from tests.jobs.toy import READINGS, run_of
from tests.object_store.conftest import ObjectStore, in_bucket

ROWS = [(1, "2013-01-01"), (2, "2013-01-01"), (3, "2013-01-03")]


@pytest.fixture
def run(_spark_at_store: Environment, store: ObjectStore, tmp_path: Path) -> Run:
    at_store = in_bucket(_spark_at_store, store.new_bucket(), tmp_path)
    return run_of(at_store, "2013-01-01", "2013-01-03")


def _stage(run: Run) -> None:
    rows = connect(run.environment).createDataFrame(ROWS, "id INT, day STRING")
    of_days = rows.selectExpr("id", "CAST(day AS DATE) AS landed_date")
    tables.stage_rows(run, READINGS.name, of_days)


def _ids(run: Run) -> list[int]:
    return sorted(row["id"] for row in tables.staged(run, READINGS.name).collect())


def test_what_is_staged_is_written_in_its_place_and_published_from_there(
    run: Run, store: ObjectStore
) -> None:
    # Where Spark's own way writes, to rename twice by copies.
    store.fail("noted", path=".*_temporary.*")
    _stage(run)
    assert store.mend() == {}
    assert _ids(run) == [1, 2, 3]
    tables.publish(run, READINGS.name)
    published = tables.read(run, READINGS.name).collect()
    assert sorted((row["id"], str(row["landed_date"])) for row in published) == ROWS


def test_a_name_that_deltas_writer_refuses_is_staged_as_on_a_disk(run: Run) -> None:
    rows = connect(run.environment).createDataFrame(ROWS, "id INT, day STRING")
    of_days = rows.selectExpr("id", "id AS `the id`", "CAST(day AS DATE) AS landed_date")
    tables.stage_rows(run, READINGS.name, of_days)
    found = tables.staged(run, READINGS.name).collect()
    assert sorted(row["the id"] for row in found) == [1, 2, 3]


def test_no_rows_are_staged_as_none(run: Run) -> None:
    rows = connect(run.environment).createDataFrame([], "id INT, landed_date DATE")
    tables.stage_rows(run, READINGS.name, rows)
    assert require(run, READINGS.name).files == ()
    assert _ids(run) == []


def test_files_of_a_task_that_died_are_not_taken(run: Run) -> None:
    _stage(run)
    staging = require(run, READINGS.name)
    one, *_ = staging.files
    table = path(run, READINGS.name)
    written = places.place(f"{table}/{one.path}")
    written.with_name(f"part-of-a-dead-task-{written.name}").write_bytes(written.read_bytes())
    assert found_in(table, staging.folder) == list(staging.files)
    assert _ids(run) == [1, 2, 3]
