"""Which measures of `ops.drift` are in alarm: over their threshold in k of the last n nights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, NamedTuple

from jobs.lake import ops
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.model import Watch
from pipelines.spec import Pipeline

TABLE = "drift"
Row = dict[str, Any]
"""Of `ops.drift`."""
_MOST_NAMED = 5
"""Measures that a message names; the table of `nightshift drift` has them all."""


class Measure(NamedTuple):
    """What is measured each night."""

    kind: str
    feature: str
    statistic: str

    @classmethod
    def of(cls, row: Row) -> Measure:
        """What the row measures."""
        return cls(kind=row["kind"], feature=row["feature"], statistic=row["statistic"])

    def __str__(self) -> str:
        return f"{self.kind} {self.feature} ({self.statistic})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What the alarms of nights tell that the night before them did not."""

    began: tuple[Measure, ...]
    """To be told: none where another of the kind began in the last nights, and lasts."""
    ended: tuple[str, ...]
    """Kinds of which none is in alarm any more."""
    lasting: tuple[Measure, ...]
    """All that are in alarm."""


def rows_until(environment: Environment, pipeline: Pipeline, night: date, nights: int) -> list[Row]:
    """The rows of that many nights up to one."""
    days = Days.of(night).since(nights - 1)
    about: list[ops.Condition] = [
        ("pipeline", "=", pipeline.name),
        ("night", ">=", days.first),
        ("night", "<=", days.last),
    ]
    rows: list[Row] = ops.read(environment, TABLE, about).to_pylist()
    return rows


def nights_over(rows: Iterable[Row], night: date, watch: Watch) -> Counter[Measure]:
    """In how many of the last nights up to this one each measure lay over its threshold."""
    days = Days.of(night).since(watch.nights - 1)
    over = [row for row in rows if row["is_over"]]
    return Counter(Measure.of(row) for row in over if row["night"] in days)


def in_alarm(rows: Iterable[Row], night: date, watch: Watch) -> set[Measure]:
    """The measures that were over often enough."""
    counted = nights_over(rows, night, watch)
    return {measure for measure, nights in counted.items() if nights >= watch.min_nights}


def of_night(
    environment: Environment,
    pipeline: Pipeline,
    night: date,
    after: date = date.min,
) -> list[Measure]:
    """The measures in alarm as of a night.

    Args:
        environment: Whose record.
        pipeline: Whose measures.
        night: The last that counts.
        after: Only later nights count.
    """
    watch = pipeline.watch
    rows = rows_until(environment, pipeline, night, watch.nights)
    counted = [row for row in rows if row["night"] > after]
    return sorted(in_alarm(counted, night, watch))


def change(environment: Environment, pipeline: Pipeline, days: Days) -> Change:
    """What is new about the alarms of nights that are told of together."""
    # And of the nights before them that their own alarms count.
    nights = 2 * pipeline.watch.nights + len(days)
    rows = rows_until(environment, pipeline, days.last, nights)
    return change_by(rows, days, pipeline.watch)


def change_by(rows: Iterable[Row], days: Days, watch: Watch) -> Change:
    """The same, by the rows of those nights and of twice the last `Watch.nights` before them."""
    over = [row for row in rows if row["is_over"]]
    alarms = [in_alarm(over, night, watch) for night in days.since(watch.nights + 1)]
    # As the nights would have been told of one by one: what has ended since is no news.
    length = watch.nights + 2
    parts = [alarms[number : number + length] for number in range(len(days))]
    kinds = set[str]().union(*map(_new_kinds, parts))
    before, now = alarms[watch.nights], alarms[-1]
    return Change(
        began=tuple(sorted(one for one in now - before if one.kind in kinds)),
        ended=tuple(sorted(_kinds(before) - _kinds(now))),
        lasting=tuple(sorted(now)),
    )


def _new_kinds(alarms: Sequence[set[Measure]]) -> set[str]:
    """Kinds of which the last of these nights has something to tell that began with it."""
    begun = [now - before for before, now in pairwise(alarms)]
    # What began not long ago and lasts has the same cause, more likely than not.
    recent = set[Measure]().union(*begun[:-1]) & alarms[-1]
    return _kinds(begun[-1]) - _kinds(recent)


def _kinds(measures: Iterable[Measure]) -> set[str]:
    return {one.kind for one in measures}


def in_words(measures: Sequence[Measure], watch: Watch) -> str:
    """The measures in alarm, the first of many."""
    named = ", ".join(map(str, measures[:_MOST_NAMED]))
    others = len(measures) - _MOST_NAMED
    more = f" and {others} more" if others > 0 else ""
    return f"{named}{more}, over in {watch.min_nights} of the last {watch.nights} nights"
