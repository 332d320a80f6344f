"""The check stages: judge what a stage has staged, and publish all of it or nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from expectations import gate, report
from expectations.lookup import refuse_odd_rules, suite_of
from expectations.row_rules import REASON, RULE
from expectations.suite import about
from jobs.ingestion.text import AS_JSON
from jobs.lake import commits, ops, publications, quarantine, staging, tables, waivers
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import partition, sql_name
from jobs.stages import reports
from jobs.warehouse.catching_up import after_publication
from pipelines.days import Days, ranges
from pipelines.errors import Failure, GateRefused, NightshiftError, explaining
from pipelines.feeds import PROVENANCE
from pipelines.quoting import quoted
from pipelines.spec import PREDICTIONS, QUARANTINE_SUFFIX
from pipelines.waivers import Waiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from pyspark.sql import DataFrame

    from expectations.gate import Check, Verdict
    from expectations.suite import Suite
    from jobs.lake.publications import Publication
    from jobs.lake.staging import Staging
    from jobs.lake.waivers import Granted
    from pipelines.run import Run
    from pipelines.spec import Pipeline

T = TypeVar("T")
_TABLES_AT_ONCE = 3
"""The server plans one table while it computes another; more would only wait for its cores."""
_DAYS_SHOWN = 12
_WAIVED_DAYS = 7
"""How long the waiver is in force that a refusal offers to be copied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A staged table with its verdict."""

    suite: Suite
    verdict: Verdict
    staged: Staging
    """What its stage has staged."""
    rest: Staging
    """What may be published: the same, or that without the rows that row rules have moved out."""
    bad: DataFrame | None = None
    """Those rows, as the quarantine holds them; None: there are none."""


def check(run: Run) -> dict[str, object]:
    """Judge every table that the audited stage has staged, and publish them when all have passed.

    Of a run that is about some of these tables only them.

    Returns:
        Totals, and by table: rows, version, whether anything changed, what was found but does
        not block, and days that stay as they were served.

    Raises:
        GateRefused: a table failed; nothing of the stage is published.
    """
    made = [table.name for table in run.pipeline.tables if table.made_by == run.doing.audits]
    return audit_and_publish(run, list(filter(run.makes, made)))


def audit_and_publish(run: Run, names: Sequence[str]) -> dict[str, object]:
    """Judge these staged tables, record and report the verdicts, and publish when all have passed.

    PostgreSQL follows, where it is set; that it cannot undoes nothing.

    Raises:
        GateRefused: a table failed; none is published.
        UsageError: a table has no suite.
        NightshiftError: a table is not staged.
    """
    # All before the first is judged: a missing suite costs no work.
    suites = {name: suite_of(run.pipeline, name) for name in names}
    # Looked up once: what is published is the very staging that was judged.
    stagings = {name: staging.require(run, name) for name in names if _is_staged(run, name)}
    if not stagings:
        return {"tables": 0, "rows": 0, "published": {}}
    declared: dict[str, Suite] = {}
    for name, waiting in stagings.items():
        nights = _nights(run, name, waiting)
        declared[name] = suites[name](nights)
    refuse_odd_rules(run.pipeline, declared)
    granted = waivers.in_force(run)

    def judge_table(name: str) -> Judged:
        return judge(run, name, stagings[name], declared[name], granted)

    judged = _by_table(judge_table, stagings)
    verdicts = [one.verdict for one in judged.values()]
    failures = _failures(run, judged)
    # What passed is recorded too when another did not: nothing is published, and people ask why.
    report_index = _record(run, verdicts, failures)
    if failures:
        found_in = _made_from(judged, failures)
        notes = _of_before_corrections(run, judged, failures)
        raise GateRefused(failures, str(report_index), found_in, notes)
    # Else some tables would be of this run, and others as they were, or of another one.
    commits.refuse_stage(run, {name: one.rest for name, one in judged.items()})
    published = {}
    for name in in_order(run.pipeline, judged):
        published[name] = _publish(run, judged[name], name)
    followed = after_publication(run.environment, run.pipeline, list(published))
    return {
        "tables": len(judged),
        "rows": sum(verdict.rows for verdict in verdicts),
        "rows_quarantined": sum(verdict.quarantined for verdict in verdicts),
        "changed": sum(bool(table["changed"]) for table in published.values()),
        "checks": sum(len(verdict.checks) for verdict in verdicts),
        "warnings": sum(len(verdict.warnings) for verdict in verdicts),
        "report": str(report_index),
        "published": published,
        **followed,
    }


def in_order(pipeline: Pipeline, names: Iterable[str]) -> list[str]:
    """Tables of one stage in the order in which they are published.

    That in which they are made, a table after those that it reads. But reference tables first: a
    run that is killed in between has no night that has landed and lacks them.
    """
    references = {feed.name for feed in pipeline.feeds if feed.is_reference}
    return sorted(names, key=lambda name: name not in references)


def judge(
    run: Run,
    name: str,
    waiting: Staging,
    declared: Suite,
    granted: Sequence[Granted] = (),
) -> Judged:
    """The gate's verdict on the staged rows of a table.

    Args:
        run: Who judges.
        name: The table.
        waiting: Its staging.
        declared: What must hold of it.
        granted: The waivers of the pipeline that are in force.

    Raises:
        UsageError: the suite's SQL names what is not there.
    """
    rows = staging.frame(run, name, waiting)
    # Each table of it is looked up when it is first asked for, and once.
    knowledge = Knowledge(run)
    late = _waivers_of_late_nights(run, name, waiting, knowledge)
    beside = None
    if declared.same_rows_as:
        beside = _beside(run, declared.same_rows_as, name, waiting, knowledge)
    moved: list[tuple[Staging, DataFrame]] = []

    def set_aside(good: DataFrame, bad: DataFrame) -> DataFrame:
        # Of the same attempt: to a later one it is as late as what it comes from.
        again = replace(run, attempt=waiting.attempt)
        # Not kept as the staging of the days: judging them again begins with all of their rows.
        rest = staging.write(again, name, good, waiting.days, waiting.origin)
        moved.append((rest, _as_quarantined(run, name, bad)))
        return staging.frame(run, name, rest)

    suite = f"The suite `{name}` of expectations/{run.pipeline.name}.py cannot be judged as it says"
    # What is staged can be read: whatever Spark does not find there is asked by the suite's SQL.
    with explaining(PySparkException, suite):
        verdict = gate.judge(
            rows,
            declared,
            sql_name(run, name),
            beside,
            staged=waiting.days,
            waivers=[*_waivers_of(run, name, granted), *late],
            set_aside=set_aside,
        )
    for rest, bad in moved:
        return Judged(suite=declared, verdict=verdict, staged=waiting, rest=rest, bad=bad)
    return Judged(suite=declared, verdict=verdict, staged=waiting, rest=waiting)


def _nights(run: Run, name: str, waiting: Staging) -> Days:
    """A suite is declared for nights; partitions of a forecast lie ahead of theirs."""
    return waiting.span.shifted(-run.pipeline.table(name).partition_lead_days)


def _beside(
    run: Run,
    other: str,
    name: str,
    waiting: Staging,
    knowledge: Knowledge,
) -> DataFrame:
    """The rows of another table that the same nights write.

    As the same stage has staged them, or as an earlier one has published them; beside a table of
    the moment those that were known then.
    """
    own, others = run.pipeline.table(name), run.pipeline.table(other)
    shift = others.partition_lead_days - own.partition_lead_days
    written = waiting.span.shifted(shift)
    if others.made_by == own.made_by:
        rows = tables.current(run, other, written)
    else:
        rows = tables.read(run, other, written)
        if own.is_of_the_moment:
            seen = knowledge.seen_then(other)
            unseen = knowledge.unseen(other, written, seen)
            rows = tables.as_seen(run, other, rows, unseen, seen)
    if len(waiting.days) == len(written):
        return rows
    # Nights between may be left out, such as those that no model scores.
    staged = [day + timedelta(days=shift) for day in waiting.days]
    return rows.where(F.col(partition(run, other)).isin(*staged))


def _waivers_of(run: Run, name: str, granted: Sequence[Granted]) -> list[Waiver]:
    """The waivers of a table, for its partition dates."""
    lead_days = run.pipeline.table(name).partition_lead_days
    own = [one.waiver for one in granted if one.table == sql_name(run, name)]
    return [replace(one, days=one.days.shifted(lead_days)) for one in own]


def _waivers_of_late_nights(
    run: Run, name: str, waiting: Staging, knowledge: Knowledge
) -> list[Waiver]:
    """Of nights that lacked a drop of their own day: what they knew then has a gap for ever.

    Of feeds alone that the table is made from: others leave no gap in it.
    """
    table = run.pipeline.table(name)
    if not table.is_of_the_moment:
        return []
    found = []
    for feed in run.pipeline.feeds_behind(table):
        if feed.is_reference:
            continue
        latest = knowledge.latest(feed.name)
        seen = knowledge.seen_then(feed.name)
        for night in _nights(run, name, waiting):
            if night not in latest or night in seen:
                continue
            known = latest[night].known_day
            of_night = Waiver(
                waiver_id="late",
                days=Days.of(night).shifted(table.partition_lead_days),
                expectation=None,
                column=None,
                by="nightshift",
                why=f"{sql_name(run, feed.name)} of {night} is known from {known} on",
                until=None,
            )
            found.append(of_night)
    return found


def _as_quarantined(run: Run, name: str, bad: DataFrame) -> DataFrame:
    """Rows that break a row rule, with the columns of a quarantine."""
    where = [column for column in PROVENANCE if column in bad.columns]
    places = list(dict.fromkeys([partition(run, name), *where]))
    told = [column for column in bad.columns if column not in (REASON, RULE, *places)]
    record = F.to_json(F.struct(*map(quoted, told)), AS_JSON)
    return bad.select(
        *places,
        F.col(REASON).alias("reason"),
        record.alias("record"),
        F.col(RULE).alias(quarantine.RULE),
    )


def _is_staged(run: Run, name: str) -> bool:
    """False for a reference feed that brought nothing new: its stage has staged nothing.

    So it is for one that drops nothing on some days any more, and for nights that a later one
    catches up, and that have no model. Of any other table something must be.
    """
    may_be_none = [
        feed.name
        for feed in run.pipeline.feeds
        if feed.is_reference or run.pipeline.drop_days(feed, run.days) != run.days
    ]
    if run.days.last < run.night:
        may_be_none.append(PREDICTIONS)
    return name not in may_be_none or tables.is_staged(run, name)


def _by_table(
    function: Callable[[str], T],
    names: Collection[str],
) -> dict[str, T]:
    """What the function gives for each table, some of them at once."""
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        results = pool.map(function, names)
        return dict(zip(names, results, strict=True))


def _record(run: Run, verdicts: Sequence[Verdict], failures: Sequence[Failure]) -> Path:
    now = ops.now()
    ways = {
        (one.table, one.expectation, one.column): one.way_out for one in failures if one.way_out
    }
    folder = reports.folder(run)
    index = report.write_verdicts(folder, reports.about(run, now), verdicts, ways)
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
        "quarantined": verdict.quarantined,
        "unexpected": check.unexpected,
        "examples": check.examples,
        "least": check.least,
        "most": check.most,
    }
    if check.waivers:
        detail["waivers"] = [asdict(waiver) for waiver in check.waivers]
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
        "detail": json.dumps(detail, default=str),
        "report": str(index),
        "checked_at": now,
    }


def _made_from(
    judged: Mapping[str, Judged],
    failures: Iterable[Failure],
) -> tuple[str, ...]:
    """The files, or days of tables, that refused tables were made from, each with its digest."""
    refused = {failure.table for failure in failures}
    stagings = [one.staged for one in judged.values() if one.verdict.table in refused]
    found = set()
    for waiting in stagings:
        for given in chain.from_iterable(waiting.origin.inputs.values()):
            found.add(f"{given.name} {given.first_day}..{given.last_day} {given.digest}")
    return tuple(sorted(found))


def _of_before_corrections(
    run: Run,
    judged: Mapping[str, Judged],
    failures: Iterable[Failure],
) -> tuple[str, ...]:
    """What is said of refused tables that are made as before a correction, and then anew."""
    refused = {failure.table for failure in failures}
    told: list[str] = []
    for name, one in judged.items():
        if one.verdict.table in refused:
            parts = ranges(_nights_before_corrections(run, name, one.staged))
            told += [_of_before(run, one.verdict.table, nights) for nights in parts]
    return tuple(told)


def _of_before(run: Run, table: str, nights: Days) -> str:
    return (
        f"{table} of {nights} is made as nights before a late correction saw it, and from the "
        "correction next: a good file mends the latter alone. To have nights before see the "
        f"correction too: nightshift run {run.pipeline.name} "
        f"--restate --from {nights.first} --to {nights.last}"
    )


def _nights_before_corrections(run: Run, name: str, waiting: Staging) -> list[date]:
    """The nights of which a staged table that follows corrections has rows of before one."""
    table = run.pipeline.table(name)
    if table.made_by != "transform" or table.is_of_the_moment:
        return []
    found = []
    for day, inputs in waiting.origin.inputs.items():
        # Of what is known last nobody asks who knew it.
        if any(given.known_by for given in inputs):
            found.append(table.night_of(day))
    return found


def _failures(run: Run, judged: dict[str, Judged]) -> tuple[Failure, ...]:
    """What keeps tables from being published, each with the command that lets it through."""
    found = []
    for name, one in judged.items():
        waivable = {(each.expectation_type, about(each)) for each in one.suite.waivable}
        for check in one.verdict.failures:
            way_out = None
            if (check.expectation, check.column) in waivable and check.error is None:
                way_out = _way_through(run, name, _nights(run, name, one.staged), check)
            failure = Failure(
                table=one.verdict.table,
                expectation=check.expectation,
                column=check.column,
                says=str(check),
                count=check.unexpected,
                way_out=way_out,
            )
            found.append(failure)
    return tuple(found)


def _way_through(run: Run, name: str, nights: Days, check: Check) -> str:
    """The command that lets a failure through."""
    which = ["--date", str(nights.first)]
    if len(nights) > 1:
        which = ["--from", str(nights.first), "--to", str(nights.last)]
    column = ["--column", check.column] if check.column else []
    until = waivers.today() + timedelta(days=_WAIVED_DAYS)
    words = ["nightshift", "waive", run.pipeline.name, name, *which]
    words += ["--expectation", check.expectation, *column, "--until", str(until), "--why", "…"]
    return shlex.join(words)


def _publish(run: Run, judged: Judged, name: str) -> dict[str, object]:
    verdict = judged.verdict
    # The gate counts for itself: the files' own count is another.
    rows = (judged.staged.rows, judged.rest.rows)
    if rows != (verdict.rows + verdict.quarantined, verdict.rows):
        raise NightshiftError(
            f"{verdict.table}: {rows[0]} rows were staged and {rows[1]} may be published, but "
            f"{verdict.rows} were judged and {verdict.quarantined} quarantined. "
            "Nothing was published; this is a defect of Nightshift or of a disk."
        )
    # First, because a night that finds the table published does not judge it again.
    _quarantine(run, judged, name)
    # What was served is never replaced in silence.
    keeps_served = name == PREDICTIONS and not run.rescore
    published = commits.publish(run, name, judged.rest, keep_published=keeps_served)
    kept = [_kept(served, judged.rest) for served in published.kept]
    _tell_kept(verdict.table, kept)
    _tell_replaced(verdict.table, published, judged.rest)
    warnings = [str(warning) for warning in verdict.warnings]
    return {
        "rows": published.rows,
        "quarantined": verdict.quarantined,
        "version": published.version,
        "changed": published.changed,
        "replaced": list(map(str, published.replaced)),
        "warnings": warnings,
        "kept": kept,
    }


def _quarantine(run: Run, judged: Judged, name: str) -> None:
    moved = tables.write_quarantine_of_rules(run, name, judged.staged, judged.rest, judged.bad)
    if moved != judged.verdict.quarantined:
        raise NightshiftError(
            f"{judged.verdict.table}: {judged.verdict.quarantined} rows break a row rule, but "
            f"{moved} were quarantined. The table was not published; this is a defect of "
            "Nightshift or of a disk."
        )
    publications.forget_made_anew(run, name + QUARANTINE_SUFFIX, judged.staged.days)


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


def _tell_replaced(table: str, published: commits.Published, judged: Staging) -> None:
    """Say which published days have other rows now: a correction, or history made anew."""
    days = published.replaced
    if not days:
        return
    shown = ", ".join(map(str, days[:_DAYS_SHOWN]))
    more = f" and {len(days) - _DAYS_SHOWN} more" if len(days) > _DAYS_SHOWN else ""
    told = f"{table}: {len(days)} published day(s) have other rows now"
    rows = sum(map(judged.rows_of, days))
    print(f"{told}, {rows} in place of {published.rows_before}: {shown}{more}", flush=True)


def _tell_kept(table: str, kept: Sequence[dict[str, object]]) -> None:
    if not kept:
        return
    print(f"{table}: {len(kept)} day(s) differ from what was served and stay as they were served:")
    for one in kept[:_DAYS_SHOWN]:
        rows = f"{one['rows']} rows by {one['served_by']}"
        print(f"  - {one['day']}: {rows}; {one['rows_not_published']} rows not published")
    if len(kept) > _DAYS_SHOWN:
        print(f"  … and {len(kept) - _DAYS_SHOWN} more")
    print("Run again with --rescore to publish them as a new revision.", flush=True)
