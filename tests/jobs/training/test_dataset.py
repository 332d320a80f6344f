from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.lake import snapshots
from jobs.training import dataset
from pipelines.days import Days
from pipelines.errors import Refused, UsageError
from pipelines.spec import TRAINING as TRAINING_TABLE
from pipelines.spec import Pipeline
from tests.jobs.training.small import (
    FIRST,
    LAST,
    SMALL,
    TRAINING,
    content,
    data_of,
    environment_at,
    publish,
    rows_of,
    run_of,
    with_column,
    without_values,
)


def late_by(lag: int) -> Pipeline:
    """The pipeline, whose labels come so many days late."""
    return replace(SMALL, promotion=replace(SMALL.promotion, label_lag_days=lag))


@given(
    st.integers(min_value=7, max_value=400),
    st.integers(min_value=0, max_value=SMALL.training.holdout_days - 1),
)
def test_no_day_has_two_uses_and_none_is_left_out_but_those_whose_labels_come_late(
    age: int, lag: int
) -> None:
    as_of = FIRST + timedelta(days=age + lag)
    window = dataset.window(late_by(lag), as_of)
    first_held_out = window.held_out.first
    late = [first_held_out - timedelta(days=back) for back in range(lag, 0, -1)]
    used = [*window.fit, *window.validation, *late, *window.held_out]
    assert used == list(Days(window.fit.first, as_of))
    assert {*late} <= {*window.fresh}
    assert len(window.held_out) == SMALL.training.holdout_days
    assert window.fit.first >= FIRST
    assert len(window.trained) <= SMALL.training.window_days
    newest = Days.of(as_of).since(SMALL.training.window_days - 1)
    assert window.fresh == newest.within(FIRST, None)


def test_the_judged_model_learns_nothing_that_was_not_known_when_held_out_rows_were_scored() -> (
    None
):
    lag = 5
    window = dataset.window(late_by(lag), LAST)
    oldest_event = window.held_out.first - timedelta(days=lag)
    scored_on = oldest_event - timedelta(days=1)
    assert window.trained.last == scored_on
    assert window.held_out == dataset.window(SMALL, LAST).held_out
    assert window.fresh == dataset.window(SMALL, LAST).fresh


def test_a_first_model_waits_as_many_days_more_as_labels_come_late() -> None:
    lag = 5
    night = dataset.first_night(late_by(lag))
    assert night == dataset.first_night(SMALL) + timedelta(days=lag)
    assert len(dataset.window(late_by(lag), night).trained) == 2
    told = rf"it takes 13 days of labels, and they begin on {FIRST}"
    with pytest.raises(Refused, match=told):
        dataset.window(late_by(lag), night - timedelta(days=1))


def test_events_whose_labels_are_declared_to_come_late_have_them_too(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    about = Days(FIRST, FIRST + timedelta(days=2))
    rows = rows_of(about)
    landed = [day + timedelta(days=10) for day in rows["batch_date"].to_pylist()]
    place = rows.column_names.index("landed_date")
    publish(environment, rows.set_column(place, "landed_date", pa.array(landed)))
    promotion = replace(SMALL.promotion, label_lag_days=10)
    training = replace(SMALL.training, holdout_days=11)
    late = replace(SMALL, promotion=promotion, training=training)
    run = run_of(environment, "train", pipeline=late)
    found = dataset.labelled_events(run, snapshots.newest(run, TRAINING_TABLE), about)
    assert len(found) == len(rows) - rows["failed"].null_count > 0


def test_an_outcome_that_a_later_drop_tells_anew_is_learned_once_and_as_it_was_told_last(
    tmp_path: Path,
) -> None:
    environment = environment_at(tmp_path)
    days = Days(LAST - timedelta(days=9), LAST)
    rows = rows_of(days)
    told_anew = rows.slice(0, 39)
    opposite = [1 - label for label in told_anew["failed"].to_pylist()]
    flipped = pa.array(opposite, pa.int32())
    later = with_column(told_anew, "failed", flipped)
    last_day = pa.repeat(pa.scalar(LAST), len(later))
    later = with_column(later, "landed_date", last_day)
    # Taken back: it is known no more.
    withdrawn = with_column(rows.slice(40, 1), "landed_date", last_day.slice(0, 1))
    withdrawn = without_values(withdrawn, "failed")
    publish(environment, pa.concat_tables([rows, later, withdrawn]))
    run = run_of(environment, "train")
    snapshot = snapshots.newest(run, TRAINING_TABLE)
    found = dataset.labelled(run, snapshot, days)
    key = [found[name].to_pylist() for name in SMALL.entity]
    keys = list(zip(*key, strict=True))
    assert len(keys) == len(set(keys)) == 39 * 10 - 1
    of_first_day = found.filter(pc.equal(found["batch_date"], days.first))
    assert by_batch(of_first_day) == by_batch(later)
    assert set(of_first_day["landed_date"].to_pylist()) == {LAST}
    # A night before it knew nothing of it.
    nights_before = Days(days.first, days.last - timedelta(days=1))
    before = dataset.labelled(run, snapshot, nights_before)
    of_first_day = before.filter(pc.equal(before["batch_date"], days.first))
    assert by_batch(of_first_day) == by_batch(told_anew)
    events = dataset.labelled_events(run, snapshot, Days.of(days.first))
    assert len(events) == 39


def test_rows_that_were_made_with_another_entity_are_not_taken_for_one(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    days = Days(FIRST, LAST)
    changed_on = FIRST + timedelta(days=3)
    days_before = Days(FIRST, changed_on - timedelta(days=1))
    before = rows_of(days_before).rename_columns({"oven": "stove"})
    after = rows_of(Days(changed_on, LAST))
    publish(environment, pa.concat_tables([after, before], promote_options="default"))
    run = run_of(environment, "train")
    snapshot = snapshots.newest(run, "training")
    told = rf"120 rows .* have no 'oven', .* --restate --from {FIRST} --to {LAST}"
    with pytest.raises(UsageError, match=told):
        dataset.labelled(run, snapshot, days)
    since = dataset.labelled(run, snapshot, Days(changed_on, LAST))
    assert len(since) == 39 * (len(days) - 3)


def test_rows_that_were_made_with_another_label_are_told_with_the_way_out(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    publish(environment, rows_of(Days(FIRST, LAST)).rename_columns({"failed": "broke"}))
    run = run_of(environment, "train")
    message = "small.training has no column 'failed', .* nightshift run small --restate --from"
    with pytest.raises(UsageError, match=message):
        dataset.labelled(run, snapshots.newest(run, TRAINING_TABLE), Days(FIRST, LAST))


def by_batch(rows: pa.Table) -> list[tuple[int, int]]:
    """The label of each batch, in their order."""
    batches, labels = (rows[name].to_pylist() for name in ("batch", "failed"))
    return sorted(zip(batches, labels, strict=True))


def test_a_full_window_has_the_declared_days() -> None:
    window = dataset.window(SMALL, LAST)
    assert window == dataset.Window(
        fit=Days(date(2013, 1, 3), date(2013, 1, 14)),
        validation=Days(date(2013, 1, 15), date(2013, 1, 18)),
        held_out=Days(date(2013, 1, 19), date(2013, 1, 24)),
        fresh=Days(date(2013, 1, 9), date(2013, 1, 24)),
    )


def test_a_short_history_keeps_most_of_its_days_to_fit() -> None:
    window = dataset.window(SMALL, date(2013, 1, 10))
    lengths = (len(window.fit), len(window.validation), len(window.held_out))
    assert lengths == (3, 1, 6)


def test_a_history_without_a_day_to_fit_is_refused() -> None:
    with pytest.raises(
        Refused, match=r"as of 2013-01-07: it takes 8 days of labels, and they begin on 2013-01-01"
    ):
        dataset.window(SMALL, date(2013, 1, 7))


def test_only_rows_with_a_label_are_learned_from(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    days = Days(FIRST, FIRST + timedelta(days=2))
    run = run_of(environment, "train")
    publish(environment, rows_of(days))
    rows = dataset.labelled(run, snapshots.newest(run, "training"), days)
    assert len(rows) == 39 * 3
    assert rows["failed"].null_count == 0


def test_the_rows_to_fit_on_are_shuffled_by_the_seed_alone() -> None:
    first = data_of()
    again = data_of()
    other = data_of(replace(TRAINING, seed=1))
    assert content(again.fit) == content(first.fit)
    assert content(other.fit) != content(first.fit)
    shuffled = other.fit.numeric[:, 0]
    assert sorted(shuffled) == sorted(first.fit.numeric[:, 0])
    assert first.validation is not None
    assert other.validation is not None
    assert content(other.validation) == content(first.validation)


def test_the_model_that_serves_learns_from_every_labelled_row_up_to_the_night(
    tmp_path: Path,
) -> None:
    environment = environment_at(tmp_path)
    run = run_of(environment, "train")
    publish(environment, rows_of(Days(FIRST, LAST + timedelta(days=3))))
    days = dataset.window(SMALL, LAST)
    rows = dataset.labelled(run, snapshots.newest(run, "training"), days.all)
    judged = dataset.judged(run, rows, days)
    fresh = dataset.fresh(run, rows, days)
    assert len(judged.fit) == 39 * 12
    assert len(fresh.fit) == 39 * 16
    assert (fresh.validation, fresh.calibration) == (None, None)
