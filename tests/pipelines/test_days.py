"""A range of days behaves like the set of its days."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.days import Days, parse_day
from pipelines.errors import UsageError

some_day = st.dates(date(2000, 1, 1), date(2100, 1, 1))


def _days(first: date, more: int) -> Days:
    return Days(first, first + timedelta(days=more))


some_days = st.builds(_days, some_day, st.integers(0, 500))


@given(some_days.filter(lambda days: len(days) > 1))
def test_its_halves_are_the_range_and_alike_in_length(days: Days) -> None:
    first, second = days.halves()
    assert [*first, *second] == list(days)
    assert len(second) - len(first) in (0, 1)


@given(some_days)
def test_a_range_holds_its_days_in_order_and_no_other(days: Days) -> None:
    listed = list(days)
    assert listed == sorted(set(listed))
    assert len(listed) == len(days)
    assert (listed[0], listed[-1]) == (days.first, days.last)
    assert days.first - timedelta(days=1) not in days
    assert days.last + timedelta(days=1) not in days


@given(some_days, some_day, some_day)
def test_the_part_within_bounds_is_the_days_within_bounds(
    days: Days, first: date, last: date
) -> None:
    # None, not an empty range: a range has at least a day.
    kept = days.within(first, last) or ()
    assert list(kept) == [day for day in days if first <= day <= last]


@given(some_days, st.integers(-400, 400))
def test_shifting_moves_every_day_by_as_much(days: Days, by: int) -> None:
    assert list(days.shifted(by)) == [day + timedelta(days=by) for day in days]


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(UsageError, match="first day must not be after its last"):
        Days(date(2013, 1, 2), date(2013, 1, 1))


@pytest.mark.parametrize("text", ["2013-02-30", "yesterday", "", "01/02/2013"])
def test_an_impossible_date_is_refused_with_an_example_of_a_right_one(text: str) -> None:
    with pytest.raises(UsageError, match="YYYY-MM-DD"):
        parse_day(text)
