"""The page of models: which one serves, and what became of each, by the record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from jobs.lake import approvals, model_events
from pipelines.environment import Environment
from pipelines.spec import Pipeline

EVENTS_SHOWN = 400
_RIVALS = ("candidate", "champion", "quantised")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One model measured on the held-out days."""

    name: str
    """`candidate`, `champion`, `quantised` (the candidate in 8 bits), or a baseline."""
    values: tuple[float | None, ...]
    """As `Event.measures` names them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What became of a model."""

    at: datetime
    event: str
    version: str
    rival: str | None
    as_of: date
    who: str
    why: str
    measures: tuple[str, ...]
    """Names of what was measured; none: a person said it."""
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Awaiting:
    """A model that waits for a person."""

    version: str
    until: datetime | None
    """When it can no longer be approved; None: never."""
    is_over: bool
    """Whether that time has come."""
    event: Event
    """What the gate says of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """All that the page shows."""

    champion: str | None
    """The version that serves; None: none does."""
    since: date | None
    """The night from which it serves."""
    before: tuple[str, ...]
    """Versions that were ever let into service, the newest first, without the champion."""
    awaiting: tuple[Awaiting, ...]
    events: tuple[Event, ...]
    """The newest first, at most `EVENTS_SHOWN`."""
    all_events: int
    cards: frozenset[str]
    """Versions that have a card among the reports."""


def models(environment: Environment, pipeline: Pipeline, now: datetime) -> Models:
    """What `ops.model_events` says of the models of a pipeline."""
    recorded = model_events.events(environment, pipeline.name)
    turns = model_events.turns_of(recorded)
    champion = turns[-1] if turns else None
    served = list(model_events.first_turns(recorded))
    waiting = approvals.awaiting(recorded)
    newest = recorded[::-1][:EVENTS_SHOWN]
    cards = environment.cards(pipeline.name).glob("*/index.html")
    return Models(
        champion=champion.version if champion else None,
        since=champion.night if champion else None,
        before=tuple(one for one in served[::-1] if champion and one != champion.version),
        awaiting=tuple(_awaiting(pipeline, one, now) for one in waiting),
        events=tuple(map(_event, newest)),
        all_events=len(recorded),
        cards=frozenset(page.parent.name for page in cards),
    )


def _awaiting(pipeline: Pipeline, event: model_events.Row, now: datetime) -> Awaiting:
    return Awaiting(
        version=event["model_version"],
        until=approvals.ends_at(event, pipeline),
        is_over=approvals.is_over(event, pipeline, now),
        event=_event(event),
    )


def _event(row: Mapping[str, Any]) -> Event:
    measured = json.loads(row["metrics"] or "{}")
    candidate = measured.get("candidate") or {}
    names = tuple(measured.get("metrics") or _numbers(candidate))
    by_name = {name: measured.get(name) or {} for name in _RIVALS}
    by_name |= measured.get("baselines") or {}
    evidence = []
    for name, values in by_name.items():
        if values:
            told = tuple(map(values.get, names))
            evidence.append(Evidence(name=name, values=told))
    return Event(
        at=row["created_at"],
        event=row["event"],
        version=row["model_version"],
        rival=row["rival_version"],
        as_of=row["as_of"],
        who=row["who"] or "",
        why=row["reason"] or "",
        measures=names if evidence else (),
        evidence=tuple(evidence),
    )


def _numbers(measured: Mapping[str, Any]) -> list[str]:
    """Of a record of before the measures were named."""
    return [name for name, value in measured.items() if isinstance(value, float)]
