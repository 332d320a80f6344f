from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import dataset
from pipelines.days import Days
from pipelines.errors import NightshiftError, Refused
from tests.jobs.training.small import FIRST, LAST, SMALL, environment_at, publish, rows_of, run_of


@given(st.integers(min_value=7, max_value=400))
def test_no_day_has_two_uses_and_none_is_left_out(age: int) -> None:
    as_of = FIRST + timedelta(days=age)
    window = dataset.window(SMALL, as_of)
    used = [*window.fit, *window.validation, *window.held_out]
    assert used == list(Days(window.fit.first, as_of))
    assert len(window.held_out) == SMALL.training.holdout_days
    assert window.fit.first >= FIRST
    assert len(window.trained) <= SMALL.training.window_days


def test_a_full_window_has_the_declared_days() -> None:
    window = dataset.window(SMALL, LAST)
    assert window == dataset.Window(
        fit=Days(date(2013, 1, 3), date(2013, 1, 14)),
        validation=Days(date(2013, 1, 15), date(2013, 1, 18)),
        held_out=Days(date(2013, 1, 19), date(2013, 1, 24)),
    )


def test_a_short_history_keeps_most_of_its_days_to_fit() -> None:
    window = dataset.window(SMALL, date(2013, 1, 10))
    assert (len(window.fit), len(window.validation), len(window.held_out)) == (3, 1, 6)


def test_a_history_without_a_day_to_fit_is_refused() -> None:
    with pytest.raises(
        Refused, match=r"as of 2013-01-07: it takes 8 days of labels, and they begin on 2013-01-01"
    ):
        dataset.window(SMALL, date(2013, 1, 7))


def test_rows_come_in_one_order_however_they_were_written(tmp_path: Path) -> None:
    environment, days = environment_at(tmp_path), Days(FIRST, FIRST + timedelta(days=2))
    run, rows = run_of(environment, "train"), rows_of(days)
    publish(environment, rows)
    first = dataset.labelled(run, dataset.snapshot(run, "training"), days)
    publish(environment, rows.take(pa.array(range(len(rows) - 1, -1, -1))))
    assert dataset.labelled(run, dataset.snapshot(run, "training"), days) == first
    assert len(first) == 39 * 3
    assert first["late"].null_count == 0


def test_a_pinned_version_does_not_see_what_is_published_later(tmp_path: Path) -> None:
    environment, days = environment_at(tmp_path), Days(FIRST, LAST)
    run = run_of(environment, "train")
    publish(environment, rows_of(Days.of(FIRST)))
    pinned = dataset.snapshot(run, "training")
    before = dataset.labelled(run, pinned, days)
    write_deltalake(environment.table_path("small.training"), rows_of(Days.of(LAST)), mode="append")
    assert dataset.labelled(run, pinned, days) == before
    assert len(dataset.labelled(run, dataset.snapshot(run, "training"), days)) == 2 * len(before)


def test_only_the_files_of_the_days_are_read(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    run = run_of(environment, "train")
    publish(environment, rows_of(Days(FIRST, LAST)))
    (other,) = Path(environment.table_path("small.training")).glob(
        "landed_date=2013-01-02/*.parquet"
    )
    other.unlink()
    assert (
        len(
            dataset.labelled(
                run, dataset.snapshot(run, "training"), Days(date(2013, 1, 3), date(2013, 1, 4))
            )
        )
        == 78
    )


def test_a_table_that_was_never_published_tells_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        NightshiftError,
        match=(
            r"small.training does not exist yet. Run the stages before first: nightshift run small"
        ),
    ):
        dataset.snapshot(run_of(environment_at(tmp_path), "train"), "training")
