"""Whatever is recorded, each night has one model or none, and never one of its future."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.commands.decide import Said, rows_of_rollback
from jobs.lake import model_events
from pipelines.errors import UsageError
from tests.jobs.training.small import FIRST, SMALL

SAID = Said(who="alice", why="odd")
BEGAN = datetime(2013, 2, 1, tzinfo=UTC)
_PROMOTION = st.tuples(st.just("promoted"), st.integers(0, 6))
_ROLLBACK = st.tuples(st.just("rollback"), st.sampled_from([None, 1, 2, 3, 4]))


def _add(recorded: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    at = BEGAN + timedelta(minutes=len(recorded))
    recorded += [{**row, "created_at": at} for row in rows]


@given(st.lists(st.one_of(_PROMOTION, _ROLLBACK), max_size=12))
def test_a_rollback_goes_where_it_was_told_and_what_it_took_away_stays_away(
    history: list[tuple[str, int | None]],
) -> None:
    recorded: list[dict[str, Any]] = []
    own_night: dict[str, date] = {}
    gone: set[str] = set()
    for what, number in history:
        if what == "promoted" and number is not None:
            version = str(len(own_night) + 1)
            own_night[version] = FIRST + timedelta(days=number)
            event = {"as_of": own_night[version], "event": what, "model_version": version}
            _add(recorded, [event])
        else:
            with suppress(UsageError):
                to = number and str(number)
                *withdrawn, restored = rows_of_rollback(recorded, SMALL, to, SAID)
                gone |= {row["model_version"] for row in withdrawn}
                gone.discard(restored["model_version"])
                _add(recorded, [*withdrawn, restored])
                now = model_events.turns_of(recorded)[-1]
                assert to in (None, now.version)
                assert now.version == restored["model_version"]
        known = model_events.turns_of(recorded)
        assert bool(known) == bool(own_night)
        assert not gone & {turn.version for turn in known}
        for turn in known:
            assert own_night[turn.version] <= turn.night, "a model of the future"


def test_a_night_is_served_by_the_last_turn_that_has_begun() -> None:
    recorded: list[dict[str, Any]] = []
    for version, day in (("1", 2), ("2", 5), ("3", 5)):
        night = FIRST + timedelta(days=day)
        _add(recorded, [{"as_of": night, "event": "promoted", "model_version": version}])
    known = model_events.turns_of(recorded)
    served = []
    for day in range(7):
        turn = model_events.in_turn(known, FIRST + timedelta(days=day))
        served.append(turn and turn.version)
    assert served == [None, None, "1", "1", "1", "3", "3"]
