"""Whether predictions are there in time is looked at, whatever became of their night."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from importlib import import_module, reload
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk.timezone import coerce_datetime
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable

from dags.deadlines import DeadlineOperator, deadline_arguments
from dags.nights import night_of
from jobs.__main__ import parser
from pipelines import catalog, replay
from pipelines.environment import Environment
from pipelines.flights import PIPELINE
from pipelines.spec import Pipeline
from tests.dags.conftest import context

SIX = datetime(2026, 11, 26, 11, tzinfo=UTC)
"""In New York."""
ONE_DAY = timedelta(days=1)


def begin(moment: datetime) -> None:
    path = replay.file_of(PIPELINE, Environment.read())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(replay.beginning(PIPELINE, moment).to_json())


@pytest.fixture
def replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home in which the example lives since the 25th: the 24th stands for 2013-03-31."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    begin(datetime(2026, 11, 25, 20, tzinfo=UTC))


def look(
    due: datetime,
    run_id: str = "scheduled__1",
    begins_after: timedelta = timedelta(),
    pipeline: Pipeline = PIPELINE,
) -> None:
    asked = context(
        run_type="scheduled",
        run_id=run_id,
        interval_start=due - ONE_DAY,
        interval_end=due,
        start_date=due + begins_after,
        declared={"date": None},
    )
    DeadlineOperator(pipeline=pipeline).execute(asked)


@pytest.mark.parametrize(
    ("file", "operator"), [("deadline", "DeadlineOperator"), ("sources", "SourceOperator")]
)
def test_a_pipeline_that_somebody_is_writing_takes_no_others_along(
    file: str, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    module = import_module(f"dags.{file}")
    home = import_module("dags.deadlines" if file == "deadline" else "dags.drops")
    monkeypatch.setattr(home, operator, lambda *, pipeline: made.append(pipeline.name))
    monkeypatch.setattr(catalog, "names", lambda: ["flights", "unfinished", "weather"])
    reload(module)
    assert "flights" in made
    assert "unfinished" not in made


@pytest.mark.usefixtures("replayed")
def test_at_its_hour_the_command_is_asked_for_the_night_that_was_due(stub: Path) -> None:
    look(SIX, run_id="scheduled__2026-11-26T11:00:00+00:00")
    (argv,) = map(json.loads, stub.read_text().splitlines())
    asked = parser().parse_args(argv)
    assert (asked.pipeline, asked.first, asked.last) == ("flights", "2013-04-01", "2013-04-01")
    assert (asked.event, asked.stage) == ("predictions_late", None)
    assert asked.since is None


@pytest.mark.usefixtures("replayed")
def test_a_deadline_that_airflow_makes_up_for_is_told_with_its_moment(stub: Path) -> None:
    look(SIX, begins_after=timedelta(hours=4))
    (argv,) = map(json.loads, stub.read_text().splitlines())
    assert parser().parse_args(argv).since == SIX.isoformat()


@pytest.mark.usefixtures("replayed")
@pytest.mark.parametrize(
    ("minutes_later", "night"),
    [
        # The night has been due since 04:30, and its predictions are not promised yet.
        (-1, "2013-04-01"),
        (0, "2013-04-02"),
    ],
)
def test_by_hand_it_looks_for_the_predictions_that_were_promised_last(
    stub: Path, minutes_later: int, night: str
) -> None:
    moment = SIX + ONE_DAY + timedelta(minutes=minutes_later)
    by_hand = context(logical_date=moment, run_after=moment, declared={"date": None})
    DeadlineOperator(pipeline=PIPELINE).execute(by_hand)
    (argv,) = map(json.loads, stub.read_text().splitlines())
    assert parser().parse_args(argv).last == night


@pytest.mark.usefixtures("replayed")
def test_a_night_that_was_due_before_the_replay_began_is_not_missed(stub: Path) -> None:
    with pytest.raises(AirflowSkipException, match="the replay of 'flights' began"):
        look(SIX - ONE_DAY)
    assert not stub.exists()


@pytest.mark.usefixtures("replayed")
def test_nothing_is_promised_on_the_day_on_which_the_replay_begins(stub: Path) -> None:
    # After the hour of the night, and before that of the deadline.
    begin(SIX - timedelta(hours=1))
    with pytest.raises(AirflowSkipException, match="The replay of 'flights' began on this day"):
        look(SIX)
    look(SIX + ONE_DAY)
    assert stub.exists()


def test_after_its_last_day_nothing_is_promised_any_more(stub: Path) -> None:
    archive = replace(PIPELINE, replay=None)
    end = datetime(2013, 12, 31, 11, tzinfo=UTC)
    look(end + ONE_DAY, pipeline=archive)
    (argv,) = map(json.loads, stub.read_text().splitlines())
    assert parser().parse_args(argv).last == "2013-12-31"
    with pytest.raises(AirflowSkipException, match="Nothing to do for 2014-01-01: the feeds of"):
        look(end + 2 * ONE_DAY, pipeline=archive)
    assert len(stub.read_text().splitlines()) == 1


def looks(
    pipeline: Pipeline,
    begins: datetime,
    number: int,
) -> list[tuple[str, str]]:
    """Of so many looks in a row the night that each is for, and when it is by the clocks there."""
    assert pipeline.predictions_by
    given = deadline_arguments(pipeline, pipeline.predictions_by)["schedule"]
    timetable = CronDataIntervalTimetable(given.expression, timezone=pipeline.timezone)
    found: list[tuple[str, str]] = []
    last = None
    of_all = TimeRestriction(earliest=coerce_datetime(begins), latest=None, catchup=True)
    for _ in range(number):
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=of_all)
        assert info
        last = info.data_interval
        run = context(run_type="scheduled", interval_start=last.start, interval_end=last.end)
        night = night_of(pipeline, run).days.last
        due = datetime.fromtimestamp(last.end.timestamp(), ZoneInfo(pipeline.timezone))
        found.append((str(night), f"{due:%m-%d %H:%M}"))
    return found


@pytest.mark.parametrize(
    ("zone", "by", "found"),
    [
        # Clocks go forward from 02:00 to 03:00, and back from 02:00 to 01:00.
        (
            "America/New_York",
            time(2, 30),
            [("2026-03-07", "03-08 03:30"), ("2026-03-08", "03-09 02:30")],
        ),
        (
            "America/New_York",
            time(1, 30),
            [("2026-10-31", "11-01 01:30"), ("2026-11-01", "11-02 01:30")],
        ),
        # Forward at midnight, and back at midnight to 23:00 of the day before.
        (
            "Africa/Cairo",
            time(0, 30),
            [("2026-04-23", "04-24 01:30"), ("2026-04-24", "04-25 00:30")],
        ),
        (
            "Africa/Cairo",
            time(23, 30),
            [("2026-10-28", "10-29 23:30"), ("2026-10-29", "10-30 23:30")],
        ),
    ],
)
def test_where_clocks_change_each_night_has_one_look_on_the_day_of_its_predictions(
    zone: str, by: time, found: list[tuple[str, str]]
) -> None:
    live = replace(PIPELINE, last_day=None, replay=None, timezone=zone, schedule="0 0 * * *")
    promised = replace(live, predictions_by=by)
    (first, _), *_ = found
    begins = datetime.combine(date.fromisoformat(first), time(), ZoneInfo(zone))
    assert looks(promised, begins, 2) == found


def test_on_days_on_which_no_night_is_due_nothing_is_promised() -> None:
    live = replace(PIPELINE, last_day=None, replay=None, schedule="30 4 * * MON-FRI")
    zone = ZoneInfo(live.timezone)
    # From a Thursday on: its night is due on Friday, and Friday's on Monday.
    assert looks(live, datetime(2026, 11, 26, tzinfo=zone), 2) == [
        ("2026-11-26", "11-27 06:00"),
        ("2026-11-27", "11-30 06:00"),
    ]
    daily = replace(live, schedule="@daily")
    (saturday,) = looks(daily, datetime(2026, 11, 28, tzinfo=zone), 1)
    assert saturday == ("2026-11-28", "11-29 06:00")


@pytest.mark.usefixtures("replayed")
def test_it_is_tried_again_while_nobody_can_be_told(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_EXIT", "3")
    with pytest.raises(
        AirflowException, match=r"Not everybody was told \(exit code 3\): Refused: the"
    ):
        look(SIX)


@pytest.mark.usefixtures("replayed")
def test_what_is_no_param_is_refused_and_nobody_told(stub: Path) -> None:
    asked = context(declared={"date": None}, day="2013-03-31")
    with pytest.raises(AirflowFailException, match="named 'day'. Known: date"):
        DeadlineOperator(pipeline=PIPELINE).execute(asked)
    assert not stub.exists()
