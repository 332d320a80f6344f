"""The command `nightshift drift`: what nights were watched for, and what drifts most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from jobs.training import alarms
from jobs.training.alarms import Measure, Row
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.places import write_whole
from pipelines.spec import Pipeline

HEADER = (
    "kind",
    "feature",
    "statistic",
    "value",
    "low",
    "high",
    "threshold",
    "times_allowed",
    "nights_over",
    "in_alarm",
)
_MOST_DRAWN = 40
"""Measures in the picture: those that lie highest on one of its nights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the command prints."""

    rows: Sequence[tuple[object, ...]]
    """Of the last night, with the columns of `HEADER`."""
    picture: Path


def drift(environment: Environment, pipeline: Pipeline, days: Days) -> Told:
    """The last night's measures, the highest first, and a picture of nights and measures.

    Args:
        environment: Whose lake it is.
        pipeline: Which was watched.
        days: Nights of the picture; of one night, also those that it is compared with.

    Raises:
        UsageError: the last night was not watched, or nothing could be told of it; or the feeds do
            not cover the nights.
    """
    pipeline.require_days(days)
    night, watch = days.last, pipeline.watch
    shown = days if len(days) > 1 else days.since(watch.reference_nights - 1)
    read = max(len(shown), watch.nights)
    rows = alarms.rows_until(environment, pipeline, night, read)
    of_night = [row for row in rows if row["night"] == night]
    if not of_night:
        raise UsageError(
            f"Nothing of {pipeline.name} was measured in the night {night}. The stage monitor "
            f"does, of drift once there are {watch.nights + watch.reference_nights} nights: "
            f"nightshift run {pipeline.name} --date {night} --stage monitor"
        )
    over = alarms.nights_over(rows, night, watch)
    told = []
    for row in sorted(of_night, key=_times, reverse=True):
        measure = Measure.of(row)
        nights = over[measure]
        figures = [row[name] for name in ("value", "low", "high", "threshold")]
        is_alarm = nights >= watch.min_nights
        told.append((*measure, *figures, _times(row), nights, is_alarm))
    return Told(rows=told, picture=_draw(environment, pipeline, shown, rows))


def _times(row: Row) -> float:
    """The value in multiples of what is allowed; of an interval its lower end, which is judged."""
    judged = row["value"] if row["low"] is None else row["low"]
    return float(judged / row["threshold"])


def _draw(
    environment: Environment,
    pipeline: Pipeline,
    nights: Days,
    rows: Sequence[Row],
) -> Path:
    from jobs.training import plots
    from jobs.training.page_parts import png_of

    times: dict[Measure, dict[date, float]] = {}
    for row in rows:
        if row["night"] in nights:
            of_measure = times.setdefault(Measure.of(row), {})
            of_measure[row["night"]] = _times(row)

    def highest_time(measure: Measure) -> float:
        return max(times[measure].values())

    highest = sorted(times, key=highest_time, reverse=True)
    by_measure: dict[str, list[float]] = {}
    for measure in highest[:_MOST_DRAWN]:
        known = times[measure]
        by_measure[str(measure)] = [known.get(night, math.nan) for night in nights]
    left_out = len(highest) - len(by_measure)
    title = f"{pipeline.name}: {len(by_measure)} of {len(highest)} measures, the highest first"
    if not left_out:
        title = f"{pipeline.name}: all that is watched"
    names = [str(night) for night in nights]
    figure = plots.nights_and_measures(title, names, by_measure)
    folder = environment.reports / pipeline.name / f"{nights.last}..{nights.last}"
    picture = folder / f"drift-{len(nights)}-nights.png"
    write_whole(picture, png_of(figure))
    return picture
