"""The page of data quality: every check on every night, a measure over time, and refused rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from jobs.lake import ops, sql
from jobs.lake.store_faults import what_store_says
from jobs.pages.nights import REFUSED, below_reports
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.spec import QUARANTINE_SUFFIX, Pipeline
from pipelines.stages import STAGES

NIGHTS_SHOWN = 366
"""The newest: a year. Of those before nothing is read."""
FAILURES_SHOWN = 50
ROWS_SHOWN = 200
"""Rows of a quarantine, the newest."""
PASSED, WARNING, FAILED = "passed", "warning", "failed"
_STATES = ("", PASSED, WARNING, FAILED)
"""From the best to the worst."""
_WORST = {state: place for place, state in enumerate(_STATES)}
_ONE_DAY = timedelta(days=1)
_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_OBSERVED = re.compile(rf"({_NUMBER})(?: to ({_NUMBER}) on \d+ days)?")
"""What a check of each day has found: a number, or of several days the least and the most."""
_OF_LAST_VERDICTS = """
    CREATE TABLE of_last_verdicts AS
    WITH by_night AS (
        SELECT
            table_name,
            expectation,
            coalesce(column_name, '') AS column_name,
            CASE WHEN success THEN 1 WHEN severity = 'critical' THEN 3 ELSE 2 END AS state,
            checked_at,
            place,
            greatest(first_day, $since::DATE) + unnest(range(
                last_day - greatest(first_day, $since::DATE) + 1
            ))::INTEGER AS night
        FROM recorded
    )
    FROM by_night
    QUALIFY checked_at = max(checked_at) OVER (PARTITION BY table_name, night)
"""
"""What the last verdict about each night says of each check; `state` is a place in `_STATES`."""
_ALIKE = """
    WITH worst AS (
        SELECT
            table_name,
            expectation,
            column_name,
            night,
            max(state) AS state,
            min(place) AS place
        FROM of_last_verdicts
        GROUP BY GROUPING SETS (
            (table_name, expectation, column_name, night),
            (table_name, night)
        )
    ),
    followed AS (
        SELECT *, night - (row_number() OVER (
            PARTITION BY table_name, expectation, column_name, state ORDER BY night
        ))::INTEGER AS same_while_they_follow
        FROM worst
    )
    SELECT table_name, expectation, column_name, state, min(night), max(night)
    FROM followed
    GROUP BY table_name, expectation, column_name, state, same_while_they_follow
    ORDER BY min(min(place)) OVER (PARTITION BY table_name, expectation, column_name), min(night)
"""
"""Nights that follow each other and were judged alike: by check, and of all checks of a table (no
name). Checks come as they were recorded."""
_COUNTING = "SELECT DISTINCT place, state FROM of_last_verdicts ORDER BY place"
_READ = ("first_day", "last_day", "status", "started_at", "metrics", "error")
_Row = Mapping[str, Any]
_Counts = list[tuple[date, int]]
"""By day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A check of a table."""

    table: str
    """SQL name."""
    expectation: str
    column: str
    """The column or measure that it is about; empty: the table."""

    @property
    def text(self) -> str:
        """As an address names it."""
        return f"{self.table}|{self.expectation}|{self.column}"

    @property
    def label(self) -> str:
        """In a few words, beside the table's name."""
        what = self.expectation.removeprefix("expect_").replace("_", " ")
        return f"{self.column}: {what}" if self.column else what

    @classmethod
    def of(cls, row: _Row) -> Key:
        """Of a row of `ops.check_results`."""
        column = row["column_name"] or ""
        return cls(table=row["table_name"], expectation=row["expectation"], column=column)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Nights that follow each other and were judged alike."""

    days: Days
    state: str
    """`passed`, `warning` or `failed`; empty: not judged."""


_Judged = Mapping[str, Mapping[Key | None, Sequence[Segment]]]
"""By table and check; None: all checks of the table, each night as the worst of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """A line of the heat map: all nights."""

    key: Key | None
    """None: all checks of a table, each night as the worst of them."""
    segments: tuple[Segment, ...]

    @property
    def label(self) -> str:
        """Of its check; empty: of all."""
        return self.key.label if self.key else ""

    @property
    def worst(self) -> str:
        """The worst that was found on any night."""
        return max((one.state for one in self.segments), key=_WORST.__getitem__, default="")


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A table: all its checks together, and each."""

    table: str
    together: Strip
    checks: tuple[Strip, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What a check found on a night, or the least and the most on several."""

    days: Days
    low: float
    high: float
    least: float | None
    """Its bounds on that night."""
    most: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A check that does not hold, by the last verdict about its nights."""

    key: Key
    days: Days
    state: str
    says: str
    observed: str
    examples: tuple[str, ...]
    report: str | None
    """Path below the folder of reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedFiles:
    """Files that were refused as they were read: no check has seen their rows."""

    days: Days
    at: datetime
    """When they were read last."""
    says: str
    report: str | None
    """Path below the folder of reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """What was judged, on at most `NIGHTS_SHOWN` nights."""

    refused_files: tuple[RefusedFiles, ...] = ()
    """Those that no later attempt of their nights has taken, the newest first, at most
    `FAILURES_SHOWN`."""
    nights: Days | None = None
    """From the first that is shown to the last that was judged; None: none was."""
    tables: tuple[Judged, ...] = ()
    failures: tuple[Failure, ...] = ()
    """The newest first, at most `FAILURES_SHOWN`."""
    failing: int = 0
    """How many there are."""
    shown: Key | None = None
    """The check whose measure is shown; None: nothing was judged."""
    trend: tuple[Point, ...] = ()
    """Of its verdicts that are the last about some night; by the middle of their nights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantine:
    """Rows of one table that were refused."""

    names: tuple[str, ...] = ()
    """SQL names of all quarantines that are there."""
    name: str = ""
    """Whose rows these are; empty: there is none."""
    by_day: tuple[tuple[date, int], ...] = ()
    """The newest first."""
    day: date | None = None
    """Whose rows are shown; None: those of all days."""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    all_rows: int = 0
    """How many there are, of the day where one is shown."""
    rest: str = ""
    """The statement that gives those that are not shown; empty: all are."""


def quality(environment: Environment, pipeline: Pipeline, check: str = "") -> Quality:
    """All verdicts of a pipeline; of each night the last counts.

    Args:
        environment: Whose lake is read.
        pipeline: Whose checks they are.
        check: `Key.text` of the one whose measure is shown over time; empty: one is chosen.

    Raises:
        UsageError: there is no such check.
    """
    of_pipeline = [("pipeline", "=", pipeline.name)]
    refused = tuple(_refused_files(environment, of_pipeline))[:FAILURES_SHOWN]
    ends = ops.read(environment, "check_results", of_pipeline, ["last_day"])
    if not len(ends):
        return Quality(refused_files=refused)
    last = pc.max(ends["last_day"]).as_py()
    since = last - timedelta(days=NIGHTS_SHOWN - 1)
    of_nights = [*of_pipeline, ("last_day", ">=", since)]
    recorded = ops.read(environment, "check_results", of_nights).sort_by("checked_at")
    judged, counting = _judged(recorded, since)
    nights = Days(max(since, pc.min(recorded["first_day"]).as_py()), last)
    failures = list(_failures(environment, counting))
    shown = _chosen(judged, check)
    return Quality(
        refused_files=refused,
        nights=nights,
        tables=tuple(_tables(pipeline, judged, nights)),
        failures=tuple(failures[:FAILURES_SHOWN]),
        failing=len(failures),
        shown=shown,
        trend=tuple(_trend(counting, shown)),
    )


def quarantine(
    environment: Environment, pipeline: Pipeline, name: str = "", day: date | None = None
) -> Quarantine:
    """Rows that were refused, the newest first.

    Args:
        environment: Whose lake is read.
        pipeline: Whose rows they are.
        name: SQL name of the quarantine; empty: the first that has rows.
        day: Of whose drop; None: of all.

    Raises:
        UsageError: there is no such quarantine.
    """
    begin = f"{pipeline.name}."
    there = [one for one in sql.tables(environment) if one.startswith(begin)]
    names = [one for one in there if one.endswith(QUARANTINE_SUFFIX)]
    if name and name not in names:
        raise UsageError(f"There is no quarantine '{name}'. Known: {', '.join(names) or 'none'}.")
    counts = _by_day(environment, [name]) if name else _by_day_of_all(environment, names)
    filled = [one for one in counts if counts[one]]
    chosen = next(iter([*filled, *counts]), "")
    if not chosen:
        return Quarantine(names=tuple(names))
    where = f"WHERE landed_date = DATE '{day}'" if day else ""
    statement = (
        f"SELECT landed_date, source_file, source_line, reason, record FROM {chosen} {where} "
        "ORDER BY landed_date DESC, source_file, source_line"
    )
    columns, rows = sql.query(environment, f"{statement} LIMIT {ROWS_SHOWN}")
    all_rows = sum(rows for of_day, rows in counts[chosen] if day in (None, of_day))
    return Quarantine(
        names=tuple(names),
        name=chosen,
        by_day=tuple(counts[chosen]),
        day=day,
        columns=tuple(columns),
        rows=tuple(rows),
        all_rows=all_rows,
        rest=f"{statement} OFFSET {ROWS_SHOWN}" if all_rows > ROWS_SHOWN else "",
    )


def _by_day_of_all(environment: Environment, names: Sequence[str]) -> dict[str, _Counts]:
    """Rows by day of each table that can be opened: what keeps one from it hides no other."""
    try:
        return _by_day(environment, names)
    except DeltaError as error:
        if what_store_says(error):
            raise
    found: dict[str, _Counts] = {}
    for name in names:
        with suppress(DeltaError):
            found |= _by_day(environment, [name])
    return found


def _by_day(environment: Environment, names: Sequence[str]) -> dict[str, _Counts]:
    """Rows by day, the newest first, of each table: in one session, which takes time to open."""
    if not names:
        return {}
    counted = "SELECT landed_date, count(*) FROM {} GROUP BY ALL ORDER BY 1 DESC"
    results = sql.results(environment, "; ".join(map(counted.format, names)))
    found = {}
    for name, result in zip(names, results, strict=True):
        found[name] = [*_counts(result)]
    return found


def _counts(result: sql.Result) -> Iterator[tuple[date, int]]:
    for day, rows in result.rows:
        assert isinstance(day, date) and isinstance(rows, int)
        yield day, rows


def _refused_files(
    environment: Environment, of_pipeline: Sequence[ops.Condition]
) -> Iterable[RefusedFiles]:
    """What the last attempt to read the files of each night has refused."""
    # One that failed, such as by a service that was away, has taken none.
    ended = ("status", "!=", "failed")
    of_reading = [*of_pipeline, ("stage", "=", STAGES[0].name), ended]
    attempts = ops.read(environment, "stage_runs", of_reading, _READ).to_pylist()
    last: dict[date, _Row] = {}
    for row in sorted(filter(_came_to_files, attempts), key=itemgetter("started_at")):
        last.update(dict.fromkeys(Days(row["first_day"], row["last_day"]), row))
    told: list[_Row] = []
    for night in sorted(last, reverse=True):
        row = last[night]
        # One attempt may be of many nights.
        if row["status"] == REFUSED and row not in told:
            told.append(row)
    for row in told:
        metrics = json.loads(row["metrics"] or "{}")
        says = [f"{one['table']}: {one['says']}" for one in metrics.get("failures", ())]
        first_line = (row["error"] or "").partition("\n")[0]
        yield RefusedFiles(
            days=Days(row["first_day"], row["last_day"]),
            at=row["started_at"],
            says="; ".join(says) or first_line,
            report=below_reports(environment, metrics.get("report")),
        )


def _came_to_files(attempt: _Row) -> bool:
    """Not so one that was refused before, for nights that lack theirs: it has no report."""
    return attempt["status"] != REFUSED or "report" in json.loads(attempt["metrics"] or "{}")


def _judged(recorded: pa.Table, since: date) -> tuple[_Judged, pa.Table]:
    """What the last verdict about each night says, and those rows that are of a last verdict.

    Each of those rows has its `state` beside, a place in `_STATES`.

    Nights before `since` are left out.

    A verdict is about all checks of a table. Of checks that only differ in their bounds the worst
    is told.
    """
    places = pa.array(range(len(recorded)), pa.int64())
    found: dict[str, dict[Key | None, list[Segment]]] = {}
    with duckdb.connect(":memory:") as database:
        database.register("recorded", recorded.append_column("place", places))
        database.execute(_OF_LAST_VERDICTS, {"since": since})
        for row in database.execute(_ALIKE).fetchall():
            table, expectation, column, state, first, last = row
            # What has no name is all checks of the table together.
            key = _key(table, expectation, column) if expectation else None
            segment = Segment(days=Days(first, last), state=_STATES[state])
            found.setdefault(table, {}).setdefault(key, []).append(segment)
        counting = database.sql(_COUNTING).to_arrow_table()
    rows = recorded.take(counting["place"])
    return found, rows.append_column("state", counting["state"])


def _key(table: str, expectation: str, column: str) -> Key:
    return Key(table=table, expectation=expectation, column=column)


def _tables(pipeline: Pipeline, judged: _Judged, nights: Days) -> Iterable[Judged]:
    """The tables that were judged, in the order in which a night makes them."""
    for table in pipeline.tables:
        name = f"{pipeline.name}.{table.name}"
        if name not in judged:
            continue
        strips = [
            Strip(key=key, segments=tuple(_filled(segments, nights)))
            for key, segments in judged[name].items()
        ]
        together = next(strip for strip in strips if strip.key is None)
        checks = [strip for strip in strips if strip.key]
        # What fails comes first.
        checks.sort(key=lambda strip: (-_WORST[strip.worst], strip.label))
        yield Judged(table=name, together=together, checks=tuple(checks))


def _filled(segments: Iterable[Segment], nights: Days) -> Iterator[Segment]:
    """All nights: those that were judged, and those between, before and after that were not."""
    due = nights.first
    for segment in segments:
        if segment.days.first > due:
            yield Segment(days=Days(due, segment.days.first - _ONE_DAY), state="")
        yield segment
        due = segment.days.last + _ONE_DAY
    if due <= nights.last:
        yield Segment(days=Days(due, nights.last), state="")


def _failures(environment: Environment, counting: pa.Table) -> Iterable[Failure]:
    """What does not hold on some night by the last verdict about it, the newest night first."""
    rows = counting.filter(pc.greater(counting["state"], _WORST[PASSED])).to_pylist()
    for row in sorted(rows, key=itemgetter("last_day", "checked_at"), reverse=True):
        detail = json.loads(row["detail"] or "{}")
        examples = [_in_words(one) for one in detail.get("examples", ())]
        yield Failure(
            key=Key.of(row),
            days=Days(row["first_day"], row["last_day"]),
            state=_STATES[row["state"]],
            says=detail.get("says", ""),
            observed=row["observed"] or "",
            examples=tuple(examples),
            report=below_reports(environment, row["report"]),
        )


def _in_words(example: Mapping[str, object]) -> str:
    return ", ".join(f"{column}={value}" for column, value in example.items())


def _chosen(judged: _Judged, check: str) -> Key:
    """The check that is meant; where none is, one that counts rows."""
    keys = [key for checks in judged.values() for key in checks if key]
    by_text = {key.text: key for key in keys}
    if check and check not in by_text:
        raise UsageError(
            f"No check '{check}' was ever judged, or none of its verdicts about the last "
            f"{NIGHTS_SHOWN} nights counts any more."
        )
    if check:
        return by_text[check]
    counts = [key for key in keys if key.column == "rows"]
    return next(iter(counts or keys))


def _trend(counting: pa.Table, key: Key) -> Iterable[Point]:
    """What the check found over time, as far as it found numbers; of a night the last counts."""
    same = pc.equal(counting["table_name"], key.table)
    same = pc.and_(same, pc.equal(counting["expectation"], key.expectation))
    columns = pc.fill_null(counting["column_name"], "")
    same = pc.and_(same, pc.equal(columns, key.column))
    last: dict[Days, Point] = {}
    for row in counting.filter(same).to_pylist():
        days = Days(row["first_day"], row["last_day"])
        found = _OBSERVED.fullmatch(row["observed"] or "")
        last.pop(days, None)
        if found:
            detail = json.loads(row["detail"] or "{}")
            low = float(found[1])
            last[days] = Point(
                days=days,
                low=low,
                high=float(found[2] or low),
                least=detail.get("least"),
                most=detail.get("most"),
            )
    return sorted(last.values(), key=_middle)


def _middle(point: Point) -> int:
    """Twice where it is drawn: nights may lie within others that were judged together."""
    return point.days.first.toordinal() + point.days.last.toordinal()
