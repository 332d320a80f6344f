"""Each day of today's calendar stands for one recorded day, and no start or stop moves it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import catalog
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.flights import PIPELINE
from pipelines.replay import Calendar, NothingDue, beginning, calendar, file_of
from pipelines.spec import Replay

FIRST = date(2013, 3, 31)
LAST = date(2013, 12, 31)
HUNDRED_YEARS = 100 * 365 * 24 * 60
MOMENTS = st.integers(min_value=0, max_value=HUNDRED_YEARS).map(
    lambda minutes: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)
RECORDED_DAYS = (LAST - FIRST).days + 1
PLAYED = [one for one in map(catalog.pipeline, catalog.names()) if one.replay]


def began(moment: datetime) -> Calendar:
    return beginning(PIPELINE, moment)


@given(MOMENTS)
def test_every_recorded_day_is_replayed_once_in_its_order_and_none_is_left_out(
    moment: datetime,
) -> None:
    played = began(moment)
    days = [played.first_today + timedelta(days=n) for n in range(RECORDED_DAYS)]
    assert [played.day_of(day) for day in days] == [
        FIRST + timedelta(days=n) for n in range(RECORDED_DAYS)
    ]
    assert days[-1] == played.last_today


@given(MOMENTS, st.integers(min_value=-400, max_value=RECORDED_DAYS + 400))
def test_the_home_gives_the_same_day_whenever_it_is_asked(moment: datetime, later: int) -> None:
    played = began(moment)
    kept = played.to_json()
    again = Calendar(
        began=datetime.fromisoformat(kept.split('"')[3]),
        timezone=played.timezone,
        first=date.fromisoformat(kept.split('"')[7]),
        last=played.last,
    )
    assert again == played
    day = played.first_today + timedelta(days=later)
    delivered = played.delivered_by(day)
    assert FIRST <= delivered <= LAST
    if 0 <= later < RECORDED_DAYS:
        assert delivered == again.day_of(day)
    else:
        with pytest.raises(NothingDue, match=str(day)):
            again.day_of(day)


@pytest.mark.parametrize(
    ("moment", "yesterday"),
    [
        ("2026-11-25T23:00Z", "2026-11-24"),
        # Still the 24th in New York.
        ("2026-11-25T04:30Z", "2026-11-23"),
        # A leap day is a day.
        ("2028-03-01T12:00Z", "2028-02-29"),
    ],
)
def test_it_begins_with_the_local_day_before(moment: str, yesterday: str) -> None:
    played = began(datetime.fromisoformat(moment))
    assert played.first_today == date.fromisoformat(yesterday)
    assert played.day_of(played.first_today) == FIRST


def test_a_leap_day_stands_for_a_day_of_its_own() -> None:
    played = began(datetime(2028, 2, 28, 12, tzinfo=UTC))
    around = [
        date(2028, 2, 28),
        date(2028, 2, 29),
        date(2028, 3, 1),
    ]
    assert [str(played.day_of(day)) for day in around] == ["2013-04-01", "2013-04-02", "2013-04-03"]


def test_before_and_after_it_says_so_and_the_source_has_its_first_and_last_drop() -> None:
    played = began(datetime(2026, 11, 25, 12, tzinfo=UTC))
    with pytest.raises(NothingDue, match=r"begins with 2026-11-24, which stands for 2013-03-31"):
        played.day_of(date(2026, 11, 23))
    assert played.delivered_by(date(2026, 11, 23)) == FIRST
    end = date(2027, 8, 26)
    assert played.day_of(end) == LAST
    with pytest.raises(NothingDue, match="ended with 2013-12-31, for which 2027-08-26 stood"):
        played.day_of(end + timedelta(days=1))
    assert played.delivered_by(date(2030, 1, 1)) == LAST


def test_a_home_keeps_when_it_began(tmp_path: Path) -> None:
    home = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    with pytest.raises(NothingDue, match="`nightshift up` begins it"):
        calendar(PIPELINE, home)
    path = file_of(PIPELINE, home)
    path.parent.mkdir(parents=True)
    kept = beginning(
        PIPELINE,
        datetime(2026, 11, 25, 12, tzinfo=UTC),
        date(2013, 4, 2),
    )
    path.write_text(kept.to_json())
    assert calendar(PIPELINE, home) == kept
    assert kept.day_of(date(2026, 11, 25)) == date(2013, 4, 3)
    path.write_text("{}")
    with pytest.raises(UsageError, match=r"flights\.json does not say .* Remove it"):
        calendar(PIPELINE, home)


def test_a_live_feed_is_not_replayed() -> None:
    with pytest.raises(UsageError, match="has a live feed"):
        beginning(replace(PIPELINE, replay=None), datetime.now(UTC))


def test_a_replay_begins_with_a_recorded_day() -> None:
    with pytest.raises(UsageError, match="begins with 2014-01-01, which is no recorded day"):
        replace(PIPELINE, replay=Replay(first=date(2014, 1, 1), drops="0 4 * * *"))
    with pytest.raises(UsageError, match="no recorded day: 2012-12-31 to None"):
        replace(PIPELINE, last_day=None)


def test_both_examples_are_replayed() -> None:
    assert [one.name for one in PLAYED] == ["flights", "weather"]
