"""The check stages: judge what a stage has staged, and publish all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from expectations import gate, report
from jobs.lake import commits, ops, staging, tables
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import sql_name
from pipelines.catalog import part
from pipelines.errors import GateRefused, NightshiftError, UsageError
from pipelines.spec import PREDICTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame

    from expectations.gate import Check, Verdict
    from expectations.suite import Suite
    from jobs.lake.publications import Publication
    from jobs.lake.staging import Staging
    from pipelines.days import Days
    from pipelines.run import Run

T = TypeVar("T")
_TABLES_AT_ONCE = 3
"""The server plans one table while it computes another; more would only wait for its cores."""
_KEPT_DAYS_SHOWN = 12


def check(run: Run) -> dict[str, object]:
    """Judge every table that the audited stage has staged, and publish them when all have passed.

    Returns:
        Totals, and by table: rows, version, whether anything changed, what was found but does
        not block, and days that stay as they were served.

    Raises:
        GateRefused: a table failed; nothing of the stage is published.
    """
    made = [table.name for table in run.pipeline.tables if table.made_by == run.doing.audits]
    return audit_and_publish(run, made)


def audit_and_publish(run: Run, names: Sequence[str]) -> dict[str, object]:
    """Judge these staged tables, record and report the verdicts, and publish when all have passed.

    Raises:
        GateRefused: a table failed; none is published.
        UsageError: a table has no suite.
        NightshiftError: a table is not staged.
    """
    # All before the first is judged: a missing suite costs no work.
    suites = {name: _suite_of(run, name) for name in names}
    # Looked up once: what is published is the very staging that was judged.
    stagings = {name: staging.require(run, name) for name in names if _is_staged(run, name)}

    def verdict_on(name: str) -> Verdict:
        return judge(run, name, stagings[name], suites[name])

    verdicts = _by_table(verdict_on, stagings)
    judged = list(verdicts.values())
    _refuse_failures(run, judged)
    report_index = _record(run, judged)
    # In the order in which they are made: a table is published after those that it reads.
    published = {}
    for name, judged_rows in stagings.items():
        published[name] = _publish(run, verdicts[name], judged_rows, name)
    return {
        "tables": len(judged),
        "rows": sum(verdict.rows for verdict in judged),
        "changed": sum(bool(table["changed"]) for table in published.values()),
        "checks": sum(len(verdict.checks) for verdict in judged),
        "warnings": sum(len(verdict.warnings) for verdict in judged),
        "report": str(report_index),
        "published": published,
    }


def judge(
    run: Run,
    name: str,
    waiting: Staging,
    suite: Callable[[Days], Suite],
) -> Verdict:
    """The gate's verdict on the staged rows of a table."""
    replaced = waiting.span
    # A suite is declared for nights; partitions of a forecast lie ahead of theirs.
    nights = replaced.shifted(-run.pipeline.table(name).partition_lead_days)
    declared = suite(nights)
    rows = staging.frame(run, name, waiting)
    beside = None
    if declared.same_rows_as:
        beside = _rows_beside(run, name, declared.same_rows_as, replaced)
    return gate.judge(rows, declared, sql_name(run, name), beside)


def report_folder(run: Run) -> Path:
    """Where the report of the run's days lies."""
    return run.environment.reports / run.pipeline.name / f"{run.days.first}..{run.days.last}"


def _rows_beside(run: Run, name: str, other: str, days: Days) -> DataFrame:
    """The rows of another table that were known when those of these days were made."""
    beside = _days_of(run, other, name, days)
    rows = tables.current(run, other, beside)
    if not run.pipeline.table(name).is_of_the_moment:
        return rows
    knowledge = Knowledge(run)
    seen = knowledge.seen_then(other)
    return tables.as_seen(run, other, rows, knowledge.unseen(other, beside, seen), seen)


def _days_of(run: Run, other: str, name: str, days: Days) -> Days:
    """The partition dates of another table that the same nights write."""
    own_lead_days = run.pipeline.table(name).partition_lead_days
    lead_days = run.pipeline.table(other).partition_lead_days
    return days.shifted(lead_days - own_lead_days)


def _suite_of(run: Run, name: str) -> Callable[[Days], Suite]:
    suites = part("expectations", run.pipeline, "its suites")
    suite = getattr(suites, name, None)
    if not callable(suite):
        raise UsageError(
            f"{sql_name(run, name)} has no suite. "
            f"Write `def {name}(days: Days) -> Suite` in expectations/{run.pipeline.name}.py."
        )
    return suite  # type: ignore[no-any-return]


def _is_staged(run: Run, name: str) -> bool:
    """False for a reference feed that brought nothing new: its stage has staged nothing.

    Of any other table something must be.
    """
    references = [feed.name for feed in run.pipeline.feeds if feed.is_reference]
    return name not in references or tables.is_staged(run, name)


def _by_table(
    function: Callable[[str], T],
    names: Collection[str],
) -> dict[str, T]:
    """What the function gives for each table, some of them at once."""
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        results = pool.map(function, names)
        return dict(zip(names, results, strict=True))


def _record(run: Run, verdicts: Sequence[Verdict]) -> Path:
    now = ops.now()
    gated = [sql_name(run, table.name) for table in run.pipeline.tables]
    about = report.About(
        title=run.pipeline.title,
        pipeline=run.pipeline.name,
        days=str(run.days),
        run_id=run.run_id,
        stage=run.doing.name,
        checked_at=now.isoformat(),
        tables=tuple(gated),
    )
    index = report.write(report_folder(run), about, verdicts)
    rows: list[dict[str, Any]] = []
    for verdict in verdicts:
        rows += [_row(run, verdict, check, now, index) for check in verdict.checks]
    ops.append(run.environment, "check_results", rows)
    return index


def _row(
    run: Run,
    verdict: Verdict,
    check: Check,
    now: datetime,
    index: Path,
) -> dict[str, Any]:
    """A check as a row of `ops.check_results`."""
    detail = {
        "says": check.says,
        "rows": verdict.rows,
        "unexpected": check.unexpected,
        "examples": check.examples,
    }
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "table_name": verdict.table,
        "first_day": run.days.first,
        "last_day": run.days.last,
        "stage": run.doing.name,
        "expectation": check.expectation,
        "column_name": check.column,
        "severity": check.severity,
        "success": check.success,
        # Of what could not be judged nothing was observed: the error says why.
        "observed": check.error or check.observed,
        "detail": json.dumps(detail),
        "report": str(index),
        "checked_at": now,
    }


def _refuse_failures(run: Run, verdicts: Sequence[Verdict]) -> None:
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if not failed:
        return
    # What passed is recorded too: this run publishes none of it, and people ask why.
    index = _record(run, verdicts)
    lines: list[str] = []
    for verdict in failed:
        lines += [_line(verdict, check) for check in verdict.failures]
    names = ", ".join(verdict.table for verdict in failed)
    raise GateRefused(names, tuple(lines), str(index))


def _line(verdict: Verdict, check: Check) -> str:
    return f"{verdict.table} {check.column or ''}: {check}"


def _publish(
    run: Run,
    verdict: Verdict,
    judged: Staging,
    name: str,
) -> dict[str, object]:
    # The gate counts for itself: the files' own count is another.
    if judged.rows != verdict.rows:
        raise NightshiftError(
            f"{verdict.table}: {judged.rows} rows were staged, but {verdict.rows} were judged. "
            "Nothing was published; this is a defect of Nightshift or of a disk."
        )
    # What was served is never replaced in silence.
    keeps_served = name == PREDICTIONS and not run.rescore
    published = commits.publish(run, name, judged, keep_published=keeps_served)
    kept = [_kept(served, judged) for served in published.kept]
    _tell_kept(verdict.table, kept)
    warnings = [str(warning) for warning in verdict.warnings]
    return {
        "rows": published.rows,
        "version": published.version,
        "changed": published.changed,
        "warnings": warnings,
        "kept": kept,
    }


def _kept(served: Publication, judged: Staging) -> dict[str, object]:
    """A day that stays as it was served, as the metrics tell it."""
    return {
        "day": str(served.day),
        "rows": served.rows,
        # A home of long ago has days that no record told of.
        "served_by": served.run_id or "an unknown run",
        "served_at": served.published_at.isoformat(),
        "rows_not_published": judged.rows_of(served.day),
    }


def _tell_kept(table: str, kept: Sequence[dict[str, object]]) -> None:
    if not kept:
        return
    print(f"{table}: {len(kept)} day(s) differ from what was served and stay as they were served:")
    for one in kept[:_KEPT_DAYS_SHOWN]:
        rows = f"{one['rows']} rows by {one['served_by']}"
        print(f"  - {one['day']}: {rows}; {one['rows_not_published']} rows not published")
    if len(kept) > _KEPT_DAYS_SHOWN:
        print(f"  … and {len(kept) - _KEPT_DAYS_SHOWN} more")
    print("Run again with --rescore to publish them as a new revision.", flush=True)
