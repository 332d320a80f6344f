"""An example's source drops what is due, once, and one file late when asked."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from dags.drops import SourceOperator
from pipelines.environment import Environment
from pipelines.flights import PIPELINE
from pipelines.replay import beginning, file_of
from tests.dags.conftest import context

BEGAN = datetime(2026, 11, 25, 20, tzinfo=UTC)
DROPS = datetime(2026, 11, 24, 9, tzinfo=UTC)
"""At 04:00 in New York on the day before BEGAN, whose day stands for 2013-04-02."""


@pytest.fixture
def home(stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which the example lives, and a `nightshift` that does nothing."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    path = file_of(PIPELINE, Environment.read())
    path.parent.mkdir(parents=True)
    path.write_text(beginning(PIPELINE, BEGAN, date(2013, 4, 2)).to_json())
    return path


def asked(start: datetime, **params: Any) -> Any:
    declared = {"date": None, "late": None, "late_minutes": 5}
    return context(run_type="scheduled", interval_start=start, declared=declared, **params)


def calls(stub: Path) -> list[list[str]]:
    return [json.loads(line) for line in stub.read_text().splitlines()]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("days_later", "until"),
    [
        # Begun between two drops: the first one brings all up to the first day.
        (-1, "2013-04-02"),
        (0, "2013-04-02"),
        (1, "2013-04-03"),
        # The year is over.
        (400, "2013-12-31"),
    ],
)
def test_it_drops_the_files_up_to_the_day_that_has_ended(
    stub: Path, days_later: int, until: str
) -> None:
    SourceOperator(pipeline=PIPELINE).execute(asked(DROPS + timedelta(days=days_later)))
    assert calls(stub) == [["land", "flights", "--until", until]]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("minutes_later", "until"),
    [
        (-1, "2013-04-03"),
        (0, "2013-04-04"),
    ],
)
def test_by_hand_it_drops_what_was_due_last(stub: Path, minutes_later: int, until: str) -> None:
    # At 04:00 and not at 04:30, when the nights are due.
    moment = DROPS + timedelta(days=3, minutes=minutes_later)
    declared = {"date": None, "late": None, "late_minutes": 5}
    by_hand = context(logical_date=moment, run_after=moment, declared=declared)
    SourceOperator(pipeline=PIPELINE).execute(by_hand)
    assert calls(stub) == [["land", "flights", "--until", until]]


@pytest.mark.usefixtures("home")
def test_a_late_file_comes_after_its_minutes(stub: Path) -> None:
    task = SourceOperator(pipeline=PIPELINE)
    where = asked(DROPS, date="2013-05-01", late="weather", late_minutes=7)
    with pytest.raises(TaskDeferred) as waits:
        task.execute(where)
    left = waits.value.trigger.moment - datetime.now(UTC)
    assert timedelta(minutes=6) < left <= timedelta(minutes=7)
    getattr(task, waits.value.method_name)(where, event="time is up", **waits.value.kwargs)
    until = ["land", "flights", "--until", "2013-05-01"]
    assert calls(stub) == [[*until, "--withhold", "weather"], until]


@pytest.mark.parametrize(
    ("exit_code", "is_retried"),
    [(2, False), (3, True)],
)
@pytest.mark.usefixtures("home")
def test_a_drop_that_fails_says_why(
    stub: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, is_retried: bool
) -> None:
    monkeypatch.setenv("STUB_EXIT", str(exit_code))
    with pytest.raises(AirflowException, match="Refused: the reason") as failed:
        SourceOperator(pipeline=PIPELINE).execute(asked(DROPS))
    assert isinstance(failed.value, AirflowFailException) is not is_retried


@pytest.mark.usefixtures("home")
def test_a_day_that_is_not_recorded_is_refused() -> None:
    with pytest.raises(AirflowFailException, match="no data for 2014-05-01"):
        SourceOperator(pipeline=PIPELINE).execute(asked(DROPS, date="2014-05-01"))


@pytest.mark.usefixtures("home")
def test_what_is_no_param_is_refused_and_nothing_dropped(stub: Path) -> None:
    with pytest.raises(AirflowFailException, match="named 'day'. Known: date, late, late_minutes"):
        SourceOperator(pipeline=PIPELINE).execute(asked(DROPS, day="2013-05-01"))
    assert not stub.exists()
