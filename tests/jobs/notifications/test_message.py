"""A message says what happened, where and when, and has a line for people."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobs.notifications.message import compose, line
from pipelines.events import Event, Notification
from tests.jobs.notifications.conftest import promoted

AT = datetime(2013, 1, 6, 9, 31, 2, 55, tzinfo=UTC)


def test_a_message_holds_every_field_when_it_was_sent_and_a_line_for_people() -> None:
    assert json.loads(json.dumps(compose(promoted(), AT))) == {
        "event": "model_promoted",
        "pipeline": "toy",
        "days": "2013-01-05",
        "run_id": "r1",
        "stage": "evaluate",
        "message": "Model 4. Better.",
        "page": None,
        "report": None,
        "at": "2013-01-06T09:31:02+00:00",
        "text": "toy 2013-01-05: a new model serves. Model 4. Better.",
    }


@pytest.mark.parametrize(
    ("event", "stage", "text"),
    [
        (Event.STAGE_REFUSED, "check_raw", "toy 2013-01-05: check_raw was refused. Why"),
        (Event.STAGE_FAILED, "train", "toy 2013-01-05: train failed. Why"),
        (Event.STAGE_FAILED, None, "toy 2013-01-05: the night failed. Why"),
        (Event.FEED_LATE, "ingest", "toy 2013-01-05: a feed is late. Why"),
        (Event.FEED_MISSING, "ingest", "toy 2013-01-05: the night ended without a feed. Why"),
        (Event.NIGHT_DONE, None, "toy 2013-01-05: the night is done. Why"),
        (Event.MODEL_PROMOTED, "evaluate", "toy 2013-01-05: a new model serves. Why"),
        (Event.PREDICTIONS_LATE, None, "toy 2013-01-05: predictions are late. Why"),
        (Event.RECOVERED, None, "toy 2013-01-05: recovered. Why"),
    ],
)
def test_the_line_says_what_happened_and_the_first_line_of_why(
    event: Event, stage: str | None, text: str
) -> None:
    notification = Notification(
        event=event,
        pipeline="toy",
        days="2013-01-05",
        run_id="r1",
        stage=stage,
        message="Why\nand the rest of it",
    )
    assert line(notification) == text


def test_the_line_has_the_first_thing_that_is_wrong_and_where_to_see_more() -> None:
    refused = "weather was refused: 2 expectations.\n  - temp: 9 of 72 rows.\n  - wind\nWay out"
    told = replace(promoted(refused), page="http://host/run", report="http://host/report")
    assert line(told) == (
        "toy 2013-01-05: a new model serves. weather was refused: 2 expectations. "
        "temp: 9 of 72 rows. http://host/run http://host/report"
    )
    endless = replace(told, message="x" * 100_000)
    assert line(endless).endswith("… http://host/run http://host/report")


def test_every_event_has_words() -> None:
    for event in Event:
        assert line(promoted(event=event))


def test_a_line_is_one_line_that_a_terminal_can_print() -> None:
    hostile = line(promoted("\x1b[2Jred\rlines\x00 of a value\nmore"))
    assert hostile.isprintable()
    assert hostile.endswith("[2Jred lines  of a value")


def test_an_endless_error_is_cut() -> None:
    message = compose(promoted("x" * 100_000), AT)
    assert len(message["message"] or "") == 4000
    assert len(message["text"] or "") == 300
    assert (message["text"] or "").endswith("…")
