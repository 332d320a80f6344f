"""Which days a DAG run is about: what a person asked for, else what is due; replayed or not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.timetables.interval import CronDataIntervalTimetable

from dags.nights import Night, chosen_days, days_to_tell, night_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.flights import PIPELINE
from pipelines.replay import beginning, file_of
from tests.dags.conftest import context

BEGAN = datetime(2026, 11, 25, 20, tzinfo=UTC)
"""In New York the afternoon of the 25th: the night of the 24th was due in its morning."""
DUE = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
"""At 04:30 in New York."""
ONE_DAY = timedelta(days=1)


@pytest.fixture
def replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home in which the example lives since BEGAN: the 24th stands for 2013-04-02."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    path = file_of(PIPELINE, Environment.read())
    path.parent.mkdir(parents=True)
    path.write_text(beginning(PIPELINE, BEGAN, date(2013, 4, 2)).to_json())


def scheduled(due: datetime) -> Any:
    return context(run_type="scheduled", interval_start=due - ONE_DAY, interval_end=due)


@pytest.mark.parametrize(
    ("params", "days"),
    [
        ({}, None),
        ({"date": None, "from": "", "to": None}, None),
        ({"date": "2013-02-28"}, Days.of(date(2013, 2, 28))),
        (
            {"from": "2012-12-31", "to": "2013-03-31"},
            Days(date(2012, 12, 31), date(2013, 3, 31)),
        ),
    ],
)
def test_params_choose_the_days(params: dict[str, str], days: Days | None) -> None:
    assert chosen_days(params) == days


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"from": "2013-01-01"}, "both 'from' and 'to' for a range; given: from 2013-01-01"),
        ({"to": "2013-01-01"}, "given: to 2013-01-01"),
        (
            {"date": "2013-01-01", "from": "2013-01-01", "to": "2013-01-02"},
            "either 'date' for one night",
        ),
        ({"date": "2013-02-30"}, "'2013-02-30' is not a date"),
        ({"from": "2013-01-02", "to": "2013-01-01"}, "first day must not be after its last"),
    ],
)
def test_params_that_make_no_sense_fail_without_a_retry(
    params: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_days(params)
    with pytest.raises(AirflowFailException, match=message):
        night_of(PIPELINE, context(**params))


@pytest.mark.parametrize(
    ("interval_start", "day"),
    [
        # 04:30 EST.
        ("2013-03-09T09:30Z", "2013-03-09"),
        # 04:30 EDT: the clock has changed.
        ("2013-03-10T08:30Z", "2013-03-10"),
        # Still the day before in New York.
        ("2013-04-02T03:30Z", "2013-04-01"),
    ],
)
def test_without_params_the_night_is_the_local_day_that_the_data_interval_begins_on(
    interval_start: str, day: str
) -> None:
    start = datetime.fromisoformat(interval_start)
    scheduled = context(run_type="scheduled", interval_start=start)
    assert night_of(PIPELINE, scheduled).days == Days.of(date.fromisoformat(day))


def test_a_run_without_logical_date_processes_the_day_before_its_moment() -> None:
    triggered = context(run_after=datetime(2013, 4, 2, 8, 30, tzinfo=UTC))
    assert night_of(PIPELINE, triggered).days == Days.of(date(2013, 4, 1))


@pytest.mark.parametrize(
    ("zone", "schedule", "moment", "day"),
    [
        # Of 8 March there is no 02:30 in New York: the night of the 7th is due at 03:30.
        ("America/New_York", "30 2 * * *", "2026-03-08T05:00-04:00", "2026-03-07"),
        ("America/New_York", "30 2 * * *", "2026-03-08T23:59-04:00", "2026-03-07"),
        ("America/New_York", "30 2 * * *", "2026-03-08T01:59-05:00", "2026-03-06"),
        ("America/New_York", "30 2 * * *", "2026-03-09T05:00-04:00", "2026-03-08"),
        # In Cairo the hour after midnight is skipped.
        ("Africa/Cairo", "30 0 * * *", "2026-04-24T05:00+03:00", "2026-04-23"),
        ("Africa/Cairo", "30 0 * * *", "2026-04-23T23:59+02:00", "2026-04-22"),
        # Of 1 November there are two: 01:30 EDT and 01:30 EST.
        ("America/New_York", "30 1 * * *", "2026-11-01T05:00-05:00", "2026-10-31"),
        ("America/New_York", "30 1 * * *", "2026-11-01T01:00-04:00", "2026-10-30"),
        ("America/New_York", "30 23 * * *", "2026-11-01T05:00-05:00", "2026-10-30"),
    ],
)
def test_a_night_triggered_on_the_day_on_which_clocks_change_is_the_last_that_was_due(
    zone: str, schedule: str, moment: str, day: str
) -> None:
    live = replace(PIPELINE, last_day=None, replay=None, predictions_by=None, timezone=zone)
    triggered = context(run_after=datetime.fromisoformat(moment))
    night = night_of(replace(live, schedule=schedule), triggered)
    assert night.days == Days.of(date.fromisoformat(day))


def test_a_schedule_past_the_archive_skips_and_a_person_past_it_is_told() -> None:
    archive = replace(PIPELINE, replay=None)
    today = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    with pytest.raises(
        AirflowSkipException,
        match="Nothing to do for 2026-11-24: the feeds of 'flights' end on 2013-12-31",
    ):
        night_of(archive, context(run_type="scheduled", interval_start=today))
    with pytest.raises(
        AirflowFailException,
        match="no data for 2026-11-24: its feeds cover the days from 2012-12-31 to 2013-12-31",
    ):
        night_of(archive, context(run_type="manual", logical_date=today + ONE_DAY))
    with pytest.raises(AirflowFailException, match="no data for 2014-01-01"):
        night_of(archive, context(run_type="manual", date="2014-01-01"))


def test_a_live_feed_is_never_skipped() -> None:
    live = replace(PIPELINE, last_day=None, replay=None)
    today = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    scheduled = context(run_type="scheduled", interval_start=today)
    assert night_of(live, scheduled).days == Days.of(today.date())


@pytest.mark.usefixtures("replayed")
def test_scheduled_nights_go_through_the_recorded_days_one_by_one() -> None:
    due = [DUE + number * ONE_DAY for number in (1, 2, 30)]
    nights = [night_of(PIPELINE, scheduled(one)) for one in due]
    assert nights == [
        Night(
            days=Days.of(date(2013, 4, 3)),
            stands_for=date(2026, 11, 25),
        ),
        Night(
            days=Days.of(date(2013, 4, 4)),
            stands_for=date(2026, 11, 26),
        ),
        Night(
            days=Days.of(date(2013, 5, 2)),
            stands_for=date(2026, 12, 24),
        ),
    ]
    assert str(nights[0]) == "Night of 2013-04-03 (replayed for 2026-11-25)"


@pytest.mark.usefixtures("replayed")
def test_a_run_without_params_is_about_the_day_that_yesterday_stands_for() -> None:
    evening = context(run_after=BEGAN + timedelta(hours=1))
    assert night_of(PIPELINE, evening).days == Days.of(date(2013, 4, 2))
    next_day = context(run_after=BEGAN + ONE_DAY)
    assert night_of(PIPELINE, next_day).days == Days.of(date(2013, 4, 3))


@pytest.mark.usefixtures("replayed")
def test_a_night_that_was_due_before_the_replay_began_is_left_to_a_person() -> None:
    with pytest.raises(AirflowSkipException, match="its night was due at .* Trigger the DAG"):
        night_of(PIPELINE, scheduled(DUE))
    by_hand = context(
        interval_start=DUE - ONE_DAY, interval_end=DUE, logical_date=BEGAN + timedelta(minutes=1)
    )
    assert night_of(PIPELINE, by_hand).days == Days.of(date(2013, 4, 2))


def test_the_first_click_works_at_any_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    path = file_of(PIPELINE, Environment.read())
    path.parent.mkdir(parents=True)
    # At two in the morning in New York the last night that was due is that of the 23rd.
    began = datetime(2026, 11, 25, 7, tzinfo=UTC)
    path.write_text(beginning(PIPELINE, began).to_json())
    before = {"interval_start": DUE - 2 * ONE_DAY, "interval_end": DUE - ONE_DAY}
    for how in ("manual", "operator_triggered"):
        clicked = context(run_type=how, logical_date=began + timedelta(minutes=1), **before)
        assert night_of(PIPELINE, clicked).days == Days.of(date(2013, 3, 31))
    for other in ({"run_type": "backfill"}, {"logical_date": DUE - 2 * ONE_DAY}):
        with pytest.raises(AirflowSkipException, match="the replay begins with 2026-11-24"):
            night_of(PIPELINE, context(**other, **before))


@pytest.mark.usefixtures("replayed")
@pytest.mark.parametrize("run_type", ["scheduled", "manual", "backfill"])
def test_after_the_last_recorded_day_there_is_nothing_to_do(run_type: str) -> None:
    late = datetime(2027, 12, 1, 9, 30, tzinfo=UTC)
    asked = {"interval_start": late - ONE_DAY, "interval_end": late, "logical_date": late}
    ended = context(run_type=run_type, **asked)
    with pytest.raises(AirflowSkipException, match="the recorded days ended with 2013-12-31"):
        night_of(PIPELINE, ended)


@pytest.mark.usefixtures("replayed")
def test_recorded_days_that_are_named_or_backfilled_mean_themselves() -> None:
    named = night_of(PIPELINE, context(run_type="manual", date="2013-02-01"))
    assert named == Night(days=Days.of(date(2013, 2, 1)))
    start = datetime(2013, 2, 2, 9, 30, tzinfo=UTC)
    backfilled = context(run_type="backfill", interval_start=start)
    found = night_of(PIPELINE, backfilled)
    assert found == Night(days=Days.of(date(2013, 2, 2)))


@pytest.mark.parametrize("run_type", ["backfill", "scheduled"])
@pytest.mark.parametrize(
    "asked", [{"date": "2013-02-01"}, {"from": "2013-02-01", "to": "2013-02-03"}]
)
def test_a_run_with_a_day_of_its_own_is_not_told_another(
    run_type: str, asked: dict[str, Any]
) -> None:
    start = datetime(2013, 2, 2, 9, 30, tzinfo=UTC)
    own = context(run_type=run_type, interval_start=start, **asked)
    with pytest.raises(AirflowFailException, match=f"This {run_type} run is that of 2013-02-02,"):
        night_of(PIPELINE, own)
    triggered = context(interval_start=start, **asked)
    assert night_of(PIPELINE, triggered).days.first == date(2013, 2, 1), "a person's night decides"


def test_a_logical_date_that_a_person_chooses_means_the_night_that_was_due_last_by_then() -> None:
    # As Airflow infers it: the last interval that has ended. That of the 29th ends at 04:30.
    chosen = datetime(2013, 5, 1, tzinfo=UTC)
    timetable = CronDataIntervalTimetable(PIPELINE.schedule, timezone=PIPELINE.timezone)
    # Airflow's form gives the interval of the logical date, its command that of today, and a
    # program may give any.
    for asked in (chosen, DUE):
        interval = timetable.infer_manual_data_interval(run_after=asked)
        given = {"interval_start": interval.start, "interval_end": interval.end}
        for how in ("manual", "operator_triggered"):
            manual = context(run_type=how, logical_date=chosen, run_after=DUE, **given)
            assert night_of(PIPELINE, manual).days == Days.of(date(2013, 4, 29))


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        # In New York ten past midnight, and the hour of the schedule.
        ("2013-05-01T04:10Z", "2013-04-29"),
        ("2013-05-01T08:29Z", "2013-04-29"),
        ("2013-05-01T08:30Z", "2013-04-30"),
        # An hour is skipped in the night to the 10th.
        ("2013-03-10T08:29Z", "2013-03-08"),
        ("2013-03-10T08:30Z", "2013-03-09"),
    ],
)
def test_without_a_logical_date_it_is_the_night_that_was_due_last_when_it_was_triggered(
    moment: str, day: str
) -> None:
    triggered = context(run_after=datetime.fromisoformat(moment))
    assert night_of(PIPELINE, triggered).days == Days.of(date.fromisoformat(day))


@pytest.mark.usefixtures("replayed")
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"date": "2013-03-01"}, "2013-03-01"),
        ({"date": "2013-03-01", "from": "2013-03-01"}, "2013-04-02"),
        ({"date": "2031-01-01"}, "2013-04-02"),
    ],
)
def test_people_can_be_told_of_days_that_make_no_sense(asked: dict[str, Any], told: str) -> None:
    evening = context(run_after=BEGAN + timedelta(hours=1), **asked)
    assert days_to_tell(PIPELINE, evening) == Days.of(date.fromisoformat(told))


def test_people_can_be_told_where_no_night_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    unbegun = context(run_after=BEGAN, to="2013-03-01")
    assert days_to_tell(PIPELINE, unbegun) == Days.of(PIPELINE.first_day)


def test_a_home_that_has_not_begun_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    with pytest.raises(AirflowSkipException, match="has not begun in .*: `nightshift up` begins"):
        night_of(PIPELINE, scheduled(DUE))
