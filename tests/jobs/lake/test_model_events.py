"""Whatever is recorded, each night has one model or none, and never one of its future."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.commands.decide import Said, rows_of_rollback
from jobs.lake import model_events, ops
from pipelines.environment import Environment
from pipelines.errors import UsageError
from tests.jobs.training.small import FIRST, LAST, SMALL

SAID = Said(who="alice", why="odd")
BEGAN = datetime(2013, 2, 1, tzinfo=UTC)
_PROMOTION = st.tuples(st.just("promoted"), st.integers(0, 6))
_REFUSAL = st.tuples(st.just("refused"), st.integers(1, 4))
_ROLLBACK = st.tuples(
    st.just("rollback"),
    st.sampled_from([None, 1, 2, 3, 4]),
)


def _add(
    recorded: list[dict[str, Any]],
    rows: list[dict[str, Any]],
) -> None:
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


@given(st.lists(st.one_of(_PROMOTION, _ROLLBACK, _REFUSAL), max_size=12))
def test_whatever_the_gate_refuses_again_a_rollback_finds_its_way(
    history: list[tuple[str, int | None]],
) -> None:
    recorded: list[dict[str, Any]] = []
    versions = 0
    for what, number in history:
        if what == "rollback":
            with suppress(UsageError):
                rows = rows_of_rollback(recorded, SMALL, number and str(number), SAID)
                _add(recorded, rows)
                serves = model_events.turns_of(recorded)[-1].version
                assert serves == rows[-1]["model_version"]
        else:
            assert number is not None
            versions += what == "promoted"
            version = str(versions if what == "promoted" else number)
            night = FIRST + timedelta(days=number)
            _add(recorded, [{"as_of": night, "event": what, "model_version": version}])
        known = model_events.turns_of(recorded)
        assert {turn.version for turn in known} <= set(model_events.first_turns(recorded))


def test_a_verdict_against_a_model_takes_the_turns_that_no_person_gave_it() -> None:
    """What was said of version 2 -> whether it serves, and whether it may come back."""
    stories = {
        ("promoted",): (True, True),
        ("promoted", "kept"): (True, True),
        ("promoted", "refused"): (False, False),
        ("promoted", "refused", "promoted"): (True, True),
        ("promoted", "rolled_back", "refused"): (False, False),
        ("promoted", "awaiting", "rejected"): (False, False),
        ("awaiting", "approved", "refused"): (True, True),
        ("promoted", "rolled_back", "restored", "refused"): (True, True),
        ("promoted", "restored", "refused", "rolled_back"): (False, True),
        ("promoted", "awaiting", "expired"): (True, True),
    }
    for story, told in stories.items():
        recorded: list[dict[str, Any]] = []
        _add(recorded, [{"as_of": FIRST, "event": "promoted", "model_version": "1"}])
        _add(recorded, [{"as_of": LAST, "event": what, "model_version": "2"} for what in story])
        known = model_events.turns_of(recorded)
        serves = known[-1].version == "2"
        assert (serves, "2" in model_events.first_turns(recorded)) == told, story
        assert known[0].version == "1"


def test_a_rollback_counts_that_is_said_where_the_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    for version in (1, 2):
        promoted = {
            "pipeline": SMALL.name,
            "as_of": FIRST + timedelta(days=version),
            "event": model_events.PROMOTED,
            "model_version": str(version),
        }
        model_events.record(environment, [promoted])
    # Of another machine.
    behind = ops.now() - timedelta(minutes=10)
    monkeypatch.setattr(ops, "now", lambda: behind)
    recorded = model_events.events(environment, SMALL.name)
    model_events.record(environment, rows_of_rollback(recorded, SMALL, None, SAID))
    assert [turn.version for turn in model_events.turns(environment, SMALL.name)] == ["1", "1"]
    told = model_events.events(environment, SMALL.name)
    assert [one["event"] for one in told[-2:]] == ["rolled_back", "restored"]
