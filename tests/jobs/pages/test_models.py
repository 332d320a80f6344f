"""The page of models tells the record."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench import recorded_year
from bench.recorded_year import YEAR
from jobs.lake import model_events, ops, sql
from jobs.pages.models import EVENTS_SHOWN, Awaiting, models
from pipelines.environment import Environment
from pipelines.flights import PIPELINE as FLIGHTS

NOW = datetime(2013, 3, 9, tzinfo=UTC)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def say(
    environment: Environment,
    what: str,
    version: str,
    night: int,
    **more: Any,
) -> None:
    row = {
        "pipeline": "flights",
        "as_of": date(2013, 2, night),
        "event": what,
        "model_version": version,
        "created_at": datetime(2013, 3, night, tzinfo=UTC),
        "who": "the gate",
        **more,
    }
    ops.append(environment, "model_events", [row])


def test_without_a_record_no_model_serves(environment: Environment) -> None:
    found = models(environment, FLIGHTS, NOW)
    assert found.champion is None
    assert found.before == ()
    assert found.awaiting == ()
    assert found.events == ()


def test_the_champion_and_the_ways_back_are_those_of_the_record(environment: Environment) -> None:
    say(environment, model_events.PROMOTED, "1", 1)
    say(environment, model_events.PROMOTED, "2", 2)
    say(environment, "kept", "3", 3)
    say(environment, model_events.AWAITING, "4", 4)
    found = models(environment, FLIGHTS, NOW)
    assert (found.champion, found.since) == ("2", date(2013, 2, 2))
    assert found.before == ("1",)
    newest = found.events[0]
    waiting = Awaiting(version="4", until=None, is_over=False, event=newest)
    assert found.awaiting == (waiting,)
    assert [one.version for one in found.events] == ["4", "3", "2", "1"]
    say(environment, model_events.APPROVED, "4", 5, who="ann", reason="good")
    found = models(environment, FLIGHTS, NOW)
    assert found.champion == "4"
    assert found.before == ("2", "1")
    assert found.awaiting == ()
    assert found.events[0].who == "ann"
    assert found.events[0].why == "good"


def test_a_model_awaits_a_person_for_as_long_as_its_pipeline_says(
    environment: Environment,
) -> None:
    promotion = replace(FLIGHTS.promotion, needs_approval=True, approval_hours=36)
    pipeline = replace(FLIGHTS, promotion=promotion)
    say(environment, model_events.AWAITING, "4", 4)
    end = datetime(2013, 3, 5, 12, tzinfo=UTC)
    for now, is_over in (
        (end, False),
        (end + timedelta(seconds=1), True),
    ):
        found = models(environment, pipeline, now)
        event = found.events[0]
        waiting = Awaiting(version="4", until=end, is_over=is_over, event=event)
        assert found.awaiting == (waiting,)
    say(environment, model_events.EXPIRED, "4", 6)
    assert models(environment, pipeline, end).awaiting == ()


def test_the_evidence_of_each_verdict_is_told(environment: Environment) -> None:
    measured = {
        "metrics": ["auc", "log_loss"],
        "candidate": {"auc": 0.7, "log_loss": 0.5},
        "champion": None,
        "baselines": {"rate": {"auc": 0.6, "rows": 9}},
    }
    say(environment, "kept", "1", 1, metrics=json.dumps(measured))
    (event,) = models(environment, FLIGHTS, NOW).events
    assert event.measures == ("auc", "log_loss")
    told = {one.name: one.values for one in event.evidence}
    assert told == {"candidate": (0.7, 0.5), "rate": (0.6, None)}


def test_a_year_of_models_is_shown(environment: Environment) -> None:
    ops.append(environment, "model_events", list(recorded_year.model_events(FLIGHTS, YEAR)))
    found = models(environment, FLIGHTS, NOW)
    counted = "SELECT count(*), max(model_version::int) FROM ops.model_events"
    assert sql.query(environment, counted)[1] == [(len(found.events), 365)]
    assert len(found.events) == found.all_events <= EVENTS_SHOWN
