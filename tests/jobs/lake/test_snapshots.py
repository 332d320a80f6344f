from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.lake import snapshots
from jobs.lake.locations import exists
from pipelines.days import Days
from pipelines.errors import NightshiftError, UsageError
from tests.jobs.training.small import FIRST, LAST, environment_at, publish, rows_of, run_of

ALL_DAYS = Days(FIRST, LAST)


def test_rows_come_in_one_order_however_they_were_written(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    days = Days(FIRST, FIRST + timedelta(days=2))
    run = run_of(environment, "train")
    rows = rows_of(days)
    publish(environment, rows)
    first = snapshots.read(run, snapshots.newest(run, "training"), days)
    backwards = pa.array(range(len(rows) - 1, -1, -1))
    publish(environment, rows.take(backwards))
    assert snapshots.read(run, snapshots.newest(run, "training"), days) == first
    assert len(first) == len(rows)


def test_a_pinned_version_does_not_see_what_is_published_later(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    run = run_of(environment, "train")
    publish(environment, rows_of(Days.of(FIRST)))
    pinned = snapshots.newest(run, "training")
    before = snapshots.read(run, pinned, ALL_DAYS)
    write_deltalake(environment.table_path("small.training"), rows_of(Days.of(LAST)), mode="append")
    after = snapshots.read(run, snapshots.newest(run, "training"), ALL_DAYS)
    assert snapshots.read(run, pinned, ALL_DAYS) == before
    assert len(after) == 2 * len(before)


def test_only_the_files_of_the_days_are_read(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    run = run_of(environment, "train")
    publish(environment, rows_of(ALL_DAYS))
    folder = Path(environment.table_path("small.training"))
    (other,) = folder.glob("landed_date=2013-01-02/*.parquet")
    other.unlink()
    days = Days(date(2013, 1, 3), date(2013, 1, 4))
    assert len(snapshots.read(run, snapshots.newest(run, "training"), days)) == 80


def test_only_the_columns_that_are_asked_for_are_read_beside_the_key(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    run = run_of(environment, "train")
    publish(environment, rows_of(Days.of(FIRST)))
    rows = snapshots.read(run, snapshots.newest(run, "training"), ALL_DAYS, ("x", "line"))
    assert rows.column_names == ["x", "line", "landed_date", "batch_date", "batch", "oven"]


def test_a_version_from_before_another_key_was_declared_is_refused_in_words(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    run = run_of(environment, "train")
    publish(environment, rows_of(Days.of(FIRST)))
    entity = (*run.pipeline.entity, "shelf")
    keyed = replace(run, pipeline=replace(run.pipeline, entity=entity))
    told = r"small\.training has no shelf in version 0, .* Declare the key of then"
    with pytest.raises(UsageError, match=told):
        snapshots.read(keyed, snapshots.newest(keyed, "training"), ALL_DAYS)


def test_a_table_that_was_never_published_tells_what_to_run(tmp_path: Path) -> None:
    run = run_of(environment_at(tmp_path), "train")
    assert not exists(run, "training")
    with pytest.raises(
        NightshiftError,
        match=(
            r"small.training does not exist yet. Run the stages from 'features' on first: "
            r"nightshift run small --date 2013-01-24"
        ),
    ):
        snapshots.newest(run, "training")


def test_between_keeps_both_ends() -> None:
    rows = rows_of(ALL_DAYS, per_day=1)
    days = Days(date(2013, 1, 3), date(2013, 1, 5))
    kept = snapshots.between(rows, "landed_date", days)["landed_date"].to_pylist()
    assert kept == list(days)
