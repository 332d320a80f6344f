"""What became of each model: the record that says which one serves which night.

The gate and people add events, and nothing else moves a model into service or out of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from operator import attrgetter, itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake import ops
from pipelines.environment import Environment

Row = dict[str, Any]
"""Of `ops.model_events`."""

TABLE = "model_events"
GATE = "the gate"
"""Who decided what no person did."""
SOMEBODY = "somebody"
"""Who moved an alias in MLflow, which does not keep it."""

NONE_IN_FORCE = "No model of '{name}' was in force on {days}: nothing can be scored."
"""How stage `predict` begins to say why it could score nothing."""

PROMOTED = "promoted"
"""By the gate."""
REFUSED = "refused"
"""By the gate: not fit to serve."""
AWAITING = "awaiting"
"""The gate would promote it, and a person must agree."""
APPROVED = "approved"
"""A person has agreed."""
EXPIRED = "expired"
"""Nobody has agreed in time. It may be evaluated, and await a person, again."""
REJECTED = "rejected"
"""A person has not."""
ROLLED_BACK = "rolled_back"
"""A person has taken it out of service."""
RESTORED = "restored"
"""A person has put it back into service, in the place of those that were rolled back."""
RELEASED = "released"
"""A person has said that newer fits of its recipe may take the place of one that was put back."""

ALIAS_MOVED = "alias_moved"
"""Somebody has pointed the alias in MLflow to this version by hand, and it was put back: no word
about the model, and no part of its history."""

OF_PEOPLE = (APPROVED, REJECTED, ROLLED_BACK, RESTORED)
"""What the gate never overrules."""
AGAINST = (REJECTED, ROLLED_BACK)
_FOR = (APPROVED, RESTORED)
_BEGINS = (PROMOTED, APPROVED)
_UNFIT = (REFUSED, REJECTED)
"""As if it had never been let into service."""
_COLUMNS = ("as_of", "event", "model_version", "created_at")


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A model serves from a night on, until the next turn."""

    night: date
    version: str
    said_at: datetime
    since: date
    """The night from which the model's age counts. A model that was put back takes over the nights
    of the one that goes, and serves no longer for that: of it, the newest night known by then."""
    is_held: bool = False
    """Whether newer fits of its recipe wait for evidence: a person has put the model back, and has
    not said since that they need not."""


def events(environment: Environment, pipeline: str, model_version: str | None = None) -> list[Row]:
    """What became of each model of the pipeline, or of one, oldest first."""
    recorded = _without_moves(_recorded(environment, pipeline))
    if model_version is not None:
        recorded = recorded.filter(pc.equal(recorded["model_version"], model_version))
    return _rows(recorded)


def highest_version(environment: Environment, pipeline: str) -> int:
    """The highest number of a version that the record tells of; 0: it tells of none."""
    versions = _recorded(environment, pipeline)["model_version"].to_pylist()
    return max((int(version) for version in versions if version), default=0)


def alias_moves(environment: Environment, pipeline: str) -> list[Row]:
    """Each time that somebody has moved the alias in MLflow by hand, oldest first."""
    recorded = _recorded(environment, pipeline)
    return _rows(recorded.filter(pc.equal(recorded["event"], ALIAS_MOVED)))


def last_judged(told: Iterable[Row]) -> Row | None:
    """Of events of one model, oldest first, the last with evidence."""
    measured = [one for one in told if one["metrics"]]
    return measured[-1] if measured else None


def record(environment: Environment, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add events, all of them in one commit; each gets this instant as `created_at`."""
    # In their order it is told what serves.
    at = ops.now_in_order(environment)
    ops.append(environment, TABLE, [{**row, "created_at": at} for row in rows])


def turns(environment: Environment, pipeline: str) -> list[Turn]:
    """Which model serves from which night on, in the order of the nights; the last serves now."""
    recorded = _without_moves(_recorded(environment, pipeline))
    return turns_of(_rows(recorded.select(_COLUMNS)))


def turns_of(recorded: Iterable[Row]) -> list[Turn]:
    """The same, of events that have been read, oldest first."""
    found: list[Turn] = []
    newest = date.min
    released: dict[str, datetime] = {}
    for event in _standing(recorded):
        version = event["model_version"]
        newest = max(newest, event["as_of"])
        if event["event"] in (ROLLED_BACK, *_UNFIT):
            # All its turns: a night of before that is scored again gets another model too.
            found = [turn for turn in found if turn.version != version]
        elif event["event"] == RESTORED:
            found.append(_turn(event, since=newest))
        elif event["event"] == RELEASED:
            released[version] = event["created_at"]
        elif event["event"] in _BEGINS:
            found.append(_turn(event, since=event["as_of"]))
    for place, turn in enumerate(found):
        # In one instant with the rollback, which comes before it then.
        if turn.version in released and turn.said_at <= released[turn.version]:
            found[place] = replace(turn, is_held=False)
    # Of turns of one night the last that was said: the sort is stable.
    return sorted(found, key=attrgetter("night"))


def in_turn(known: Sequence[Turn], night: date) -> Turn | None:
    """The turn that a night falls into."""
    by_then = bisect_right(known, night, key=attrgetter("night"))
    return known[by_then - 1] if by_then else None


def first_turns(recorded: Iterable[Row]) -> dict[str, Turn]:
    """For each model that was ever let into service its first turn, in the order of the nights.

    Without those that were found unfit to serve since.
    """
    found: dict[str, Turn] = {}
    for event in _standing(recorded):
        version = event["model_version"]
        if event["event"] in _UNFIT:
            found.pop(version, None)
        elif event["event"] in _BEGINS:
            found.setdefault(version, _turn(event, since=event["as_of"]))
    return dict(sorted(found.items(), key=lambda item: item[1].night))


def command_to_release(pipeline: str, version: str) -> str:
    """By which a person lets newer fits take the place of a version that was put back."""
    return f"nightshift rollback {pipeline} --to {version} --refresh --why TEXT"


def _recorded(environment: Environment, pipeline: str) -> pa.Table:
    # One night asks some ten times.
    of_all = ops.read_once(environment, TABLE)
    return of_all.filter(pc.equal(of_all["pipeline"], pipeline))


def _without_moves(recorded: pa.Table) -> pa.Table:
    return recorded.filter(pc.not_equal(recorded["event"], ALIAS_MOVED))


def _rows(recorded: pa.Table) -> list[Row]:
    """The oldest first."""
    rows: list[Row] = recorded.to_pylist()
    return sorted(rows, key=itemgetter("created_at"))


def _standing(recorded: Iterable[Row]) -> Iterator[Row]:
    """The events without the gate's refusals of what a person has let serve."""
    trusted: set[str] = set()
    for event in recorded:
        if event["event"] in _FOR:
            trusted.add(event["model_version"])
        if event["event"] != REFUSED or event["model_version"] not in trusted:
            yield event


def _turn(event: Row, since: date) -> Turn:
    return Turn(
        night=event["as_of"],
        version=event["model_version"],
        said_at=event["created_at"],
        since=since,
        is_held=event["event"] == RESTORED,
    )
