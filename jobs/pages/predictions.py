"""The page of predictions: those of a day, how they spread, and how good they turned out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, cast

from jobs.lake import ops, publications, sql
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.spec import PREDICTIONS, SCORING, TRAINING, Pipeline

ROWS_SHOWN = 200
DAYS_SHOWN = 30
_BINS = 20
_PARTS = 10
"""Of the predictions whose calibration is shown."""
_CALIBRATED_DAYS = 28
"""The newest that have labels."""
MEASURES = {
    "binary_classification": ("auc", "log_loss"),
    "regression": ("rmse", "bias"),
}
"""By task the measures that are shown over time."""
_Row = Mapping[str, Any]
_Values = tuple[object, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """How many predictions lie from `low` to `high`."""

    low: float
    high: float
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Covered:
    """How many of a day were to be scored, were scored, and are known by now."""

    day: date
    to_score: int
    scored: int
    labelled: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """How good the predictions of each day were: of the labels that came together, the most."""

    name: str
    by_day: tuple[tuple[date, float], ...]
    """The oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """Predictions that are alike, and what came true of them."""

    rows: int
    foretold: float
    """Mean prediction."""
    came: float
    """Mean label: of a class its share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """All that the page shows."""

    days: tuple[date, ...]
    """Days that have predictions, the newest first."""
    day: date | None
    """The day that is shown; None: there is none yet."""
    night: date | None
    """That has scored it."""
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    """At most `ROWS_SHOWN`, sorted as was asked."""
    found: int
    """Rows that have the words that were searched for."""
    all_rows: int
    mean: float | None
    """Of the predictions of the day."""
    spread: tuple[Bin, ...]
    """How they are distributed."""
    measures: tuple[Measure, ...]
    calibration: tuple[Calibrated, ...]
    """Of the days whose labels came last, in parts of as many rows, the lowest first."""
    coverage: tuple[Covered, ...]
    """The newest first, at most `DAYS_SHOWN`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which predictions, and in which order."""

    day: date | None = None
    """None: the newest."""
    words: str = ""
    """All of which a row has in one of its columns."""
    sort: str = ""
    """A column; empty: the prediction, the highest first."""
    is_ascending: bool = False


def predictions(environment: Environment, pipeline: Pipeline, asked: Asked) -> Predictions:
    """Predictions of a day as they are in force, and the quality of all days.

    Raises:
        UsageError: the day has no predictions, or the column to sort by is none.
    """
    scored = _rows_by_day(environment, f"{pipeline.name}.{PREDICTIONS}")
    days = sorted(scored, reverse=True)
    if asked.day is not None and asked.day not in scored:
        newest = f"the newest day that has is {days[0]}" if days else "no day has any yet"
        raise UsageError(f"{asked.day} has no predictions of '{pipeline.name}'; {newest}.")
    day = asked.day or next(iter(days), None)
    columns, rows = _of_day(environment, pipeline, day)
    found = _sorted(pipeline, columns, _with_words(rows, asked.words), asked)
    values = _values(pipeline, columns, rows)
    of_pipeline = [("pipeline", "=", pipeline.name)]
    live = ops.read(environment, "live_quality", of_pipeline).to_pylist()
    is_share = pipeline.training.task == "binary_classification"
    return Predictions(
        days=tuple(days),
        day=day,
        night=day and pipeline.table(PREDICTIONS).night_of(day),
        columns=columns,
        rows=tuple(found[:ROWS_SHOWN]),
        found=len(found),
        all_rows=len(rows),
        mean=sum(values) / len(values) if values else None,
        spread=_spread(values, is_share=is_share),
        measures=tuple(_measure(name, live) for name in MEASURES[pipeline.training.task]),
        calibration=_calibration(environment, pipeline, [row["event_date"] for row in live]),
        coverage=tuple(_coverage(environment, pipeline, scored, live)[:DAYS_SHOWN]),
    )


def _rows_by_day(environment: Environment, table: str) -> dict[date, int]:
    told = publications.latest(publications.of_table(environment, table))
    return {day: one.rows for day, one in told.items()}


def _of_day(
    environment: Environment, pipeline: Pipeline, day: date | None
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    own = [name for name in pipeline.entity if name != pipeline.event_date]
    names = (*own, pipeline.prediction, *pipeline.carried, "model_version")
    columns = tuple(dict.fromkeys(names))
    if day is None:
        return columns, []
    listed = ", ".join(f'"{name}"' for name in columns)
    table = f"{pipeline.name}.{PREDICTIONS}"
    where = f"\"{pipeline.event_date}\" = DATE '{day}'"
    _, rows = sql.query(environment, f"SELECT {listed} FROM {table} WHERE {where}")
    return columns, rows


def _with_words(rows: Sequence[_Values], words: str) -> list[_Values]:
    wanted = words.lower().split()
    found = []
    for row in rows:
        texts = " ".join(str(value).lower() for value in row)
        if all(word in texts for word in wanted):
            found.append(row)
    return found


def _sorted(
    pipeline: Pipeline,
    columns: Sequence[str],
    rows: Sequence[tuple[object, ...]],
    asked: Asked,
) -> list[tuple[object, ...]]:
    by = asked.sort or pipeline.prediction
    if by not in columns:
        raise UsageError(f"No column '{by}'. Columns: {', '.join(columns)}.")
    place = list(columns).index(by)
    known: list[Any] = []
    unknown: list[_Values] = []
    for row in rows:
        # NaN, which is not even itself, would leave those beside it in any order.
        is_known = row[place] is not None and row[place] == row[place]
        (known if is_known else unknown).append(row)
    known.sort(key=lambda row: row[place], reverse=not asked.is_ascending)
    return known + unknown


def _values(
    pipeline: Pipeline, columns: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> list[float]:
    place = list(columns).index(pipeline.prediction)
    numbers = [row[place] for row in rows]
    return [one for one in numbers if isinstance(one, int | float) and math.isfinite(one)]


def _spread(values: Sequence[float], *, is_share: bool) -> tuple[Bin, ...]:
    """How many values lie in each of some ranges of one width; a share lies from 0 to 1."""
    if not values:
        return ()
    low, high = (0.0, 1.0) if is_share else (min(values), max(values))
    width = (high - low) / _BINS or 1.0
    counts = [0] * _BINS
    for value in values:
        place = int((value - low) / width)
        # The highest value belongs to the last range.
        counts[min(max(place, 0), _BINS - 1)] += 1
    bins = []
    for place, count in enumerate(counts):
        begin = low + place * width
        bins.append(Bin(low=begin, high=begin + width, rows=count))
    return tuple(bins)


def _measure(name: str, live: Sequence[_Row]) -> Measure:
    best: dict[date, _Row] = {}
    for row in live:
        before = best.get(row["event_date"])
        is_more = before is None or row["rows"] > before["rows"]
        if is_more and row[name] is not None:
            best[row["event_date"]] = row
    values = {day: float(best[day][name]) for day in sorted(best)}
    return Measure(name=name, by_day=tuple(values.items()))


def _calibration(
    environment: Environment, pipeline: Pipeline, days: Sequence[date]
) -> tuple[Calibrated, ...]:
    newest = sorted(set(days))[-_CALIBRATED_DAYS:]
    if not newest or f"{pipeline.name}.{TRAINING}" not in sql.tables(environment):
        return ()
    entity = ", ".join(f'"{name}"' for name in pipeline.entity)
    label = f'"{pipeline.training.label}"'
    span = f"\"{pipeline.event_date}\" BETWEEN DATE '{newest[0]}' AND DATE '{newest[-1]}'"
    _, rows = sql.query(
        environment,
        f"""
        WITH known AS (
            SELECT "{pipeline.prediction}" AS foretold, CAST({label} AS DOUBLE) AS came
            FROM {pipeline.name}.{PREDICTIONS} JOIN {pipeline.name}.{TRAINING} USING ({entity})
            WHERE {span} AND {label} IS NOT NULL AND isfinite("{pipeline.prediction}")),
        parted AS (SELECT *, ntile({_PARTS}) OVER (ORDER BY foretold) AS part FROM known)
        SELECT count(*), avg(foretold), avg(came) FROM parted GROUP BY part ORDER BY part""",
    )
    parts = []
    for row in rows:
        count, foretold, came = (cast("float", value) for value in row)
        parts.append(Calibrated(rows=int(count), foretold=foretold, came=came))
    return tuple(parts)


def _coverage(
    environment: Environment, pipeline: Pipeline, scored: Mapping[date, int], live: Sequence[_Row]
) -> list[Covered]:
    labelled: dict[date, int] = defaultdict(int)
    for row in live:
        labelled[row["event_date"]] += row["rows"]
    table = pipeline.table(PREDICTIONS)
    to_score = _rows_by_day(environment, f"{pipeline.name}.{SCORING}")
    return [
        Covered(
            day=day,
            to_score=to_score.get(table.night_of(day), 0),
            scored=scored[day],
            labelled=labelled[day],
        )
        for day in sorted(scored, reverse=True)
    ]
