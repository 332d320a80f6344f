"""Which alarms are told: one for a cause, not one a night."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from jobs.lake import ops
from jobs.training import alarms
from jobs.training.alarms import Change, Measure
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.model import Watch
from tests.jobs.training import small

WATCH = Watch(nights=4, min_nights=2)
PIPELINE = replace(small.SMALL, watch=WATCH)
FIRST = date(2013, 3, 1)
X, Y = Measure("feature", "x", "wasserstein"), Measure("feature", "y", "wasserstein")
SKEW = Measure("skew", "x", "share_differing")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return small.environment_at(tmp_path)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def record(environment: Environment, measure: Measure, over: Iterable[int]) -> None:
    """The measure is over its threshold on those days, and on no other of twenty."""
    rows = []
    for number in range(20):
        row = {"pipeline": "small", "night": day(number), "is_over": number in over}
        rows.append(measure._asdict() | row)
    ops.append(environment, "drift", rows)


def told(environment: Environment) -> dict[int, Change]:
    """By day, where there is something to tell."""
    changes = {}
    for number in range(20):
        changes[number] = alarms.change(environment, PIPELINE, Days.of(day(number)))
    return {number: one for number, one in changes.items() if one.began or one.ended}


def test_a_measure_is_in_alarm_when_k_of_the_last_n_nights_are_over(
    environment: Environment,
) -> None:
    record(environment, X, over=(3, 6))
    in_alarm = [
        number for number in range(20) if alarms.of_night(environment, PIPELINE, day(number))
    ]
    assert in_alarm == [6]
    assert told(environment) == {
        6: Change(began=(X,), ended=(), lasting=(X,)),
        7: Change(began=(), ended=("feature",), lasting=()),
    }


def test_a_long_alarm_is_told_when_it_begins_and_when_it_ends(environment: Environment) -> None:
    record(environment, X, over=range(5, 12))
    changes = told(environment)
    found = [(number, one.began, one.ended) for number, one in changes.items()]
    assert found == [
        (6, (X,), ()),
        (14, (), ("feature",)),
    ]


def test_what_follows_while_another_of_the_kind_is_new_has_the_same_cause(
    environment: Environment,
) -> None:
    record(environment, X, over=range(4, 16))
    record(environment, Y, over=range(7, 9))
    record(environment, SKEW, over=range(6, 16))
    late = Measure("feature", "late", "wasserstein")
    record(environment, late, over=range(12, 16))
    changes = told(environment)
    began = {number: one.began for number, one in changes.items() if one.began}
    # Y begins three nights after X, and a skew is of another kind than a drift.
    assert began == {5: (X,), 7: (SKEW,), 13: (late,)}


def test_what_has_ended_hides_nothing_that_begins(environment: Environment) -> None:
    record(environment, X, over=(3, 4))
    record(environment, Y, over=range(7, 12))
    changes = told(environment)
    began = {number: one.began for number, one in changes.items() if one.began}
    assert began == {4: (X,), 8: (Y,)}


@pytest.mark.parametrize(
    ("first", "last", "began", "ended"),
    [
        # Both began on nights of the pass, the second while the first was new.
        (4, 8, (X, Y), ()),
        # The first was told of before.
        (6, 8, (), ()),
        (8, 12, (), ("feature",)),
        # What has come and gone meanwhile is no news.
        (4, 12, (), ()),
    ],
)
def test_nights_of_one_pass_are_told_of_together(
    environment: Environment,
    first: int,
    last: int,
    began: tuple[Measure, ...],
    ended: tuple[str, ...],
) -> None:
    record(environment, X, over=range(4, 9))
    record(environment, Y, over=range(6, 9))
    found = alarms.change(environment, PIPELINE, Days(day(first), day(last)))
    assert (found.began, found.ended) == (began, ended)


def test_other_pipelines_count_nothing(environment: Environment) -> None:
    record(environment, X, over=range(5, 12))
    other = replace(PIPELINE, name="other")
    assert alarms.of_night(environment, other, day(10)) == []


def test_of_many_measures_the_first_are_named() -> None:
    many = [Measure("feature", f"x{number}", "wasserstein") for number in range(7)]
    words = alarms.in_words(many, WATCH)
    assert "x4" in words and "x5" not in words
    assert words.endswith("and 2 more, over in 2 of the last 4 nights")
