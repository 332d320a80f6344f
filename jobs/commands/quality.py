"""The command `nightshift quality`.

What a run did on some days, how their data was judged, and where the report of it lies.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from jobs.lake import ops
from jobs.outcome import CURRENT
from jobs.output import show
from pipelines.days import Days
from pipelines.errors import Refused, UsageError
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

HEADER = (
    "at (UTC)",
    "run",
    "days",
    "stage",
    "table",
    "outcome",
    "rows",
    "quarantined",
    "checks",
    "failed",
    "warnings",
    "seconds",
    "found",
)
"""A row for each stage, without a table, and after it one for each table that it found something
of."""
_INGEST = STAGES[0].name
_REFUSED = "refused"
_ROWS = ("rows_staged", "rows", "predictions")
"""Metrics of a stage that say how many rows it has made."""
_VERDICT = ("run_id", "first_day", "last_day", "stage", "checked_at", "table_name")
"""Columns of `ops.check_results` that the checks of one verdict share."""
_Record = Mapping[str, Any]
"""A row of `ops.check_results`, or of `ops.stage_runs` with its metrics read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """What is told of a stage, or of a table in it."""

    run_id: str
    at: datetime
    order: int
    """Among those of one instant."""
    days: Days
    stage: str
    outcome: str
    table: str | None = None
    rows: int | None = None
    quarantined: int | None = None
    checks: int | None = None
    failed: int | None = None
    warnings: int | None = None
    seconds: float | None = None
    found: str = ""
    report: str | None = None

    @property
    def is_news(self) -> bool:
        """Whether it tells of something that was done, or failed; what was current tells none."""
        return self.outcome != CURRENT

    def values(self) -> tuple[object, ...]:
        """As `HEADER` names them."""
        return (
            f"{self.at:%Y-%m-%d %H:%M:%S}",
            self.run_id,
            str(self.days),
            self.stage,
            self.table,
            self.outcome,
            self.rows,
            self.quarantined,
            self.checks,
            self.failed,
            self.warnings,
            None if self.seconds is None else round(self.seconds, 1),
            self.found,
        )


def quality(
    pipeline: Pipeline,
    environment: Environment,
    days: Days,
    form: str,
    *,
    run_id: str | None = None,
    show_all: bool = False,
) -> int:
    """Print what the last run on these days did, stage by stage, and say where its report is.

    Args:
        pipeline: Whose data it is.
        environment: Whose lake it is in.
        days: The days.
        form: How it is printed.
        run_id: Another run.
        show_all: All runs, newest first, and every attempt of theirs.

    Returns:
        1 where the run, the newest of those that are shown and did something, was refused; else 0.

    Raises:
        UsageError: the run is on record with no stage of these days; or none has done anything on
            them, where no run is named.
    """
    pipeline.require_days(days)
    lines = _lines(pipeline, environment, days)
    runs = newest_first(lines)
    # The one that counts first.
    news = newest_first(line for line in lines if line.is_news)
    if run_id:
        if run_id not in runs:
            raise UsageError(f"No run '{run_id}' on {days}. {_known(runs)}")
        runs = news = [run_id]
    if not (runs if show_all else news):
        options = f"--from {days.first} --to {days.last}"
        if len(days) == 1:
            options = f"--date {days.first}"
        raise UsageError(
            f"No data of '{pipeline.name}' has been judged for {days} yet. "
            f"Judge it: nightshift run {pipeline.name} {options}"
        )
    of_run = [line for line in lines if line.run_id in news[:1]]
    last = last_attempts(of_run, days)
    shown = last
    if show_all:
        of_runs = [line for line in lines if line.run_id in runs]
        shown = sorted(of_runs, key=lambda line: runs.index(line.run_id))
    show(HEADER, [line.values() for line in shown], form)
    for report in dict.fromkeys(line.report for line in shown if line.report):
        print(f"Report: {environment.report(report)}", file=sys.stderr)
    if not show_all:
        _tell_where_it_ends(pipeline, environment, days, news[0])
    is_refused = any(line.outcome == _REFUSED for line in last)
    return Refused.exit_code if is_refused else 0


def _tell_where_it_ends(
    pipeline: Pipeline,
    environment: Environment,
    days: Days,
    run_id: str,
) -> None:
    """Say so where a run has not come to its last stage, though none before it went wrong."""
    columns = ("stage", "status", "started_at")
    # On whatever days: a night makes those that it corrects before its own.
    of_run = [
        ("pipeline", "=", pipeline.name),
        ("run_id", "=", run_id),
    ]
    rows = ops.read(environment, "stage_runs", of_run, columns).to_pylist()
    if not rows:
        return
    last = max(rows, key=itemgetter("started_at"))
    went_well = last["status"] in ("done", CURRENT)
    if not went_well or last["stage"] == STAGES[-1].name:
        return
    print(
        f"Nothing is on record of run {run_id} after {last['stage']}: it goes on, or was "
        "interrupted, or was asked for some stages alone. What is left: "
        f"nightshift plan {pipeline.name} --date {days.last}",
        file=sys.stderr,
    )


def newest_first(lines: Iterable[_Line]) -> list[str]:
    """The runs of which the lines tell, by the instant of the last."""
    last: dict[str, datetime] = {}
    for line in lines:
        before = last.get(line.run_id, line.at)
        last[line.run_id] = max(line.at, before)
    return sorted(last, key=lambda run_id: last[run_id], reverse=True)


def last_attempts(lines: Iterable[_Line], days: Days) -> list[_Line]:
    """What is told of each stage and its days since that stage was last begun.

    Without what did not succeed on a range that later attempts at its parts have covered, as far as
    it is among the days that are asked for.
    """
    of_run = list(lines)
    begun: dict[tuple[str, Days], _Line] = {}
    for line in of_run:
        key = (line.stage, line.days)
        if line.table is None and (key not in begun or begun[key].at <= line.at):
            begun[key] = line
    kept = []
    for line in of_run:
        last = begun.get((line.stage, line.days), line)
        if line.at >= last.at and not _is_made_up_for(last, begun.values(), days):
            kept.append(line)
    return kept


def _is_made_up_for(attempt: _Line, attempts: Iterable[_Line], days: Days) -> bool:
    """Whether it did not succeed, and its stage was begun later on all of its days that count.

    A success stays: a later one may have made other tables of the same days.
    """
    if attempt.outcome == "done":
        return False
    later: set[date] = set()
    for one in attempts:
        if one.stage == attempt.stage and one.at > attempt.at:
            later.update(one.days)
    return all(day in later for day in attempt.days if day in days)


def _lines(pipeline: Pipeline, environment: Environment, days: Days) -> list[_Line]:
    """All that is recorded of these days, oldest first."""
    touching = [
        ("pipeline", "=", pipeline.name),
        ("first_day", "<=", days.last),
        ("last_day", ">=", days.first),
    ]
    lines: list[_Line] = []
    for stage_run in ops.read(environment, "stage_runs", touching).to_pylist():
        metrics = json.loads(stage_run["metrics"] or "{}")
        record = {**stage_run, "metrics": metrics}
        lines += [_of_stage(record), *_of_feeds(pipeline, record), *_of_failures(record)]
    names = [f"{pipeline.name}.{table.name}" for table in pipeline.tables]
    judged: dict[tuple[Any, ...], list[_Record]] = {}
    for check in ops.read(environment, "check_results", touching).to_pylist():
        key = tuple(check[column] for column in _VERDICT)
        judged.setdefault(key, []).append(check)
    for checks in judged.values():
        table = checks[0]["table_name"]
        order = names.index(table) if table in names else len(names)
        lines.append(_of_verdict(checks, order))
    return sorted(lines, key=lambda line: (line.at, line.order))


def _of_stage(record: _Record) -> _Line:
    metrics = record["metrics"]
    error = record["error"] or ""
    return _Line(
        run_id=record["run_id"],
        at=record["started_at"],
        # Before its tables.
        order=-1,
        days=Days(record["first_day"], record["last_day"]),
        stage=record["stage"],
        outcome=record["status"],
        rows=next((metrics[name] for name in _ROWS if name in metrics), None),
        quarantined=metrics.get("rows_quarantined"),
        checks=metrics.get("checks"),
        warnings=metrics.get("warnings"),
        seconds=record["seconds"],
        # What follows it is told of the tables, and by the report.
        found=error.partition("\n")[0],
        report=metrics.get("report"),
    )


def _of_feeds(pipeline: Pipeline, record: _Record) -> list[_Line]:
    """What ingestion found in the files of each feed."""
    lines = []
    feeds = record["metrics"].get("feeds", {}) if record["stage"] == _INGEST else {}
    for order, (name, feed) in enumerate(feeds.items()):
        found = f"{feed['files']} file(s) with {feed['in_files']} rows"
        if feed["unchanged"]:
            found += f", {feed['unchanged']} of them unchanged"
        line = _Line(
            run_id=record["run_id"],
            at=record["started_at"],
            order=order,
            days=Days(record["first_day"], record["last_day"]),
            stage=record["stage"],
            table=f"{pipeline.name}.{name}",
            outcome="done",
            rows=feed["staged"],
            quarantined=feed["quarantined"],
            found=found,
        )
        lines.append(line)
    return lines


def _of_failures(record: _Record) -> list[_Line]:
    """Why ingestion refused files; a check's refusals are among its verdicts."""
    failures = record["metrics"].get("failures", []) if record["stage"] == _INGEST else []
    return [
        _Line(
            run_id=record["run_id"],
            at=record["started_at"],
            order=order,
            days=Days(record["first_day"], record["last_day"]),
            stage=record["stage"],
            table=failure["table"],
            outcome=_REFUSED,
            quarantined=failure["count"],
            failed=1,
            found=failure["says"],
        )
        for order, failure in enumerate(failures)
    ]


def _of_verdict(checks: Sequence[_Record], order: int) -> _Line:
    one = checks[0]
    unmet = [check for check in checks if not check["success"]]
    failed = [check for check in unmet if check["severity"] == "critical"]
    warned = [check for check in unmet if check["severity"] != "critical"]
    detail = json.loads(one["detail"])
    return _Line(
        run_id=one["run_id"],
        at=one["checked_at"],
        order=order,
        days=Days(one["first_day"], one["last_day"]),
        stage=one["stage"],
        table=one["table_name"],
        outcome=_REFUSED if failed else "passed",
        rows=detail["rows"],
        quarantined=detail.get("quarantined"),
        checks=len(checks),
        failed=len(failed),
        warnings=len(warned),
        found="; ".join(map(_finding, failed or warned)),
        report=one["report"],
    )


def _finding(check: _Record) -> str:
    return f"{check['column_name'] or check['expectation']}: {check['observed']}"


def _known(runs: Sequence[str]) -> str:
    return f"Known: {', '.join(runs)}." if runs else "None has looked at them yet."
