"""Nights without a model are tried once, and again when that may give something else.

Their model was deleted in MLflow, or its files, or it has learned another label. What `predict` has
found is believed as long as the night is in the same turn, and the pipeline foretells the same: so
whoever plans a night asks MLflow nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, partial
from operator import itemgetter
from typing import TYPE_CHECKING

from jobs.lake import model_events, ops
from pipelines.days import Days

if TYPE_CHECKING:
    from jobs.lake.model_events import Row, Turn
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

_WHY = "why_without_model"
_FORETELLS = "foretells"
"""What `predict` records."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What `predict` has found of a night without a model."""

    why: str
    began: datetime
    """When it began to look."""


def facts(pipeline: Pipeline, why: Mapping[date, str]) -> dict[str, object]:
    """What `predict` records of nights whose model can score none.

    Args:
        pipeline: Whose nights they are.
        why: By night, as half a sentence.
    """
    return {
        _WHY: {str(night): told for night, told in why.items()},
        _FORETELLS: _foretold_by(pipeline),
    }


def reasons(environment: Environment, pipeline: Pipeline) -> dict[date, str]:
    """Why nights are left out that `predict` has tried, by night, with the ways out.

    Without those of which it may find something else by now.
    """
    recorded = model_events.events(environment, pipeline.name)
    now = model_events.turns_of(recorded)
    turns_at = cache(partial(_turns_at, recorded))
    alike: dict[tuple[Turn, str], list[date]] = {}
    for night, found in _last_found(environment, pipeline).items():
        turn = model_events.in_turn(now, night)
        if turn and turn == model_events.in_turn(turns_at(found.began), night):
            alike.setdefault((turn, found.why), []).append(night)
    told: dict[date, str] = {}
    for (_, why), nights in alike.items():
        reason = f"{why}; left out. Once that is mended: {ways_out(pipeline, nights)}"
        told |= dict.fromkeys(nights, reason)
    return told


def ways_out(pipeline: Pipeline, nights: Collection[date], *, rescore: bool = False) -> str:
    """The commands by which nights of one turn are scored, once its model can, or by another.

    Args:
        pipeline: Whose nights they are.
        nights: Which, in whatever order.
        rescore: Whether what was served of them is to be scored again.
    """
    days = Days(min(nights), max(nights))
    named = f"--date {days.last}"
    if len(days) > 1:
        named = f"--from {days.first} --to {days.last}"
    run = f"nightshift run {pipeline.name}"
    again = " --rescore" if rescore else ""
    # Another serves from the night on that it is trained for.
    another = f"{run} --date {days.first} --retrain{again}"
    return f"{run} {named}{again}; or by another model: {another}"


def _turns_at(recorded: Iterable[Row], moment: datetime) -> list[Turn]:
    return model_events.turns_of(one for one in recorded if one["created_at"] <= moment)


def _last_found(environment: Environment, pipeline: Pipeline) -> dict[date, _Found]:
    """Of each night that has no model what the last success of `predict` has found."""
    of_stage = [
        ("pipeline", "=", pipeline.name),
        ("stage", "=", "predict"),
        ("status", "=", "done"),
    ]
    columns = ["first_day", "last_day", "started_at", "metrics"]
    rows = ops.read(environment, "stage_runs", of_stage, columns).to_pylist()
    found: dict[date, _Found] = {}
    for row in sorted(rows, key=itemgetter("started_at")):
        told = json.loads(row["metrics"] or "{}")
        # A night of whose model another label is declared again may have one.
        is_of_today = told.get(_FORETELLS) == _foretold_by(pipeline)
        why = told[_WHY] if is_of_today else {}
        for night in Days(row["first_day"], row["last_day"]):
            found.pop(night, None)
            if str(night) in why:
                found[night] = _Found(why=why[str(night)], began=row["started_at"])
    return found


def _foretold_by(pipeline: Pipeline) -> list[str]:
    return [pipeline.training.label, pipeline.training.task]
