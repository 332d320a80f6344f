"""The commands `nightshift waive` and `nightshift waivers`.

Let a refused day through; who, why and until when stay on record in `ops.waivers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from jobs.lake import waivers as record
from jobs.output import harmless
from pipelines.errors import UsageError, no_such, refuse_unless
from pipelines.waivers import Waiver

if TYPE_CHECKING:
    from expectations.suite import Suite
    from pipelines.days import Days
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

HEADER = (
    "waiver_id",
    "state",
    "table",
    "days",
    "expectation",
    "column",
    "by",
    "why",
    "until",
    "created at (UTC)",
)
_MOST_CHARACTERS = 500
"""Of a reason: it is told in one line of a verdict."""


def waive(
    pipeline: Pipeline,
    environment: Environment,
    table: str,
    *,
    days: Days,
    expectation: str,
    column: str | None,
    by: str,
    why: str,
    until: date,
) -> int:
    """Record a waiver and say how to use it; returns 0.

    Args:
        pipeline: Whose table it is.
        environment: Where it is recorded.
        table: With the pipeline's name before it or without.
        days: Nights that it lets through.
        expectation: Great Expectations' name of it.
        column: Its column or measure; None: the only one.
        by: Who says so.
        why: A line of text.
        until: The last day on which it is in force.

    Raises:
        UsageError: one of them makes no sense, or the expectation cannot be waived.
    """
    from expectations.lookup import suite_of

    pipeline.require_days(days)
    name = table.removeprefix(f"{pipeline.name}.")
    pipeline.table(name)
    suite = suite_of(pipeline, name)(days)
    waiver = Waiver(
        waiver_id=record.new_id(),
        days=days,
        expectation=expectation,
        column=_column(f"{pipeline.name}.{name}", suite, expectation, column),
        by=_line("--by", by),
        why=_line("--why", why),
        until=until,
    )
    refuse_unless(
        until >= record.today(),
        f"--until {until} is in the past: today is {record.today()} (UTC).",
    )
    record.grant(environment, pipeline.name, f"{pipeline.name}.{name}", waiver)
    print(f"{waiver.waiver_id}: {pipeline.name}.{name} {days}, {_named(waiver)}: {waiver}.")
    print(f"Run the refused night again. To end it: {_revocation(pipeline, waiver)}")
    return 0


def revoke(
    pipeline: Pipeline,
    environment: Environment,
    waiver_id: str,
    by: str,
    why: str | None,
) -> int:
    """Record that a waiver is at its end; returns 0.

    Raises:
        UsageError: the pipeline has no such waiver, or it was revoked before.
    """
    known = {one.waiver.waiver_id: one for one in record.granted(environment, pipeline.name)}
    if waiver_id not in known:
        raise no_such(f"waiver of '{pipeline.name}'", waiver_id, known)
    one = known[waiver_id]
    # One that ran out too: in a run that began before, it is in force to the end of that run.
    refuse_unless(not one.is_revoked, f"{waiver_id} is at its end already: it was revoked.")
    reason = _line("--why", why) if why is not None else "revoked"
    who = _line("--by", by)
    record.revoke(environment, pipeline.name, one, by=who, why=reason)
    print(f"{waiver_id} is revoked. Days that it let through stay published.")
    return 0


def waivers(pipeline: Pipeline, environment: Environment) -> list[tuple[object, ...]]:
    """A row for each waiver that was ever granted, the newest first, as `HEADER` names it."""
    now = record.today()
    return [_row(one, now) for one in record.granted(environment, pipeline.name)]


def _column(
    table: str,
    suite: Suite,
    expectation: str,
    column: str | None,
) -> str | None:
    """The column that is meant.

    Raises:
        UsageError: the table has no such expectation, or it cannot be waived.
    """
    from expectations.suite import about

    everything = [*suite.every_row, *suite.every_day]
    of_kind = [one for one in everything if one.expectation_type == expectation]
    if not of_kind:
        kinds = dict.fromkeys(one.expectation_type for one in suite.waivable)
        raise no_such(f"expectation of {table}", expectation, kinds)
    columns = list(dict.fromkeys(map(about, of_kind)))
    # Nothing is offered that would be refused.
    offered = dict.fromkeys(about(one) for one in of_kind if one in suite.waivable)
    named = [str(one) for one in offered if one]
    if column is None and len(columns) > 1:
        _refuse_what_cannot_be_waived(table, suite, of_kind)
        raise UsageError(
            f"{table} has several of {expectation}. Say --column, one of: {', '.join(named)}."
        )
    chosen = columns[0] if column is None else column
    if chosen not in columns:
        raise no_such(f"column or measure of {table} under {expectation}", str(chosen), named)
    meant = [one for one in of_kind if about(one) == chosen]
    _refuse_what_cannot_be_waived(table, suite, meant)
    return chosen


def _refuse_what_cannot_be_waived(table: str, suite: Suite, meant: Sequence[object]) -> None:
    if any(one in suite.waivable for one in meant):
        return
    declared = [*suite.each_row, *suite.each_day]
    warnings = [one for one in declared if one.severity.value == "warning"]
    refuse_unless(
        not all(one in warnings for one in meant),
        f"{table}: that is a warning, which refuses nothing. There is nothing to waive.",
    )
    raise UsageError(
        f"{table}: that cannot be waived. Every table must have its columns, its day and its key, "
        "and no row may get lost or come twice: what reads it relies on that. Mend the file or "
        "the code."
    )


def _line(option: str, text: str) -> str:
    """A text that is told in one line of a verdict, a report and a terminal.

    Raises:
        UsageError: it is none.
    """
    stripped = text.strip()
    refuse_unless(
        any(map(str.isalnum, stripped)),
        f"{option} '{harmless(text)}' says nothing: people will read it and ask.",
    )
    refuse_unless(
        stripped.isprintable() and len(stripped) <= _MOST_CHARACTERS,
        f"{option} must be one line of at most {_MOST_CHARACTERS} printable characters.",
    )
    return stripped


def _row(one: record.Granted, now: date) -> tuple[object, ...]:
    waiver = one.waiver
    return (
        waiver.waiver_id,
        one.state(now),
        one.table,
        str(waiver.days),
        waiver.expectation,
        waiver.column,
        waiver.by,
        waiver.why,
        str(waiver.until),
        f"{one.created_at:%Y-%m-%d %H:%M:%S}",
    )


def _named(waiver: Waiver) -> str:
    expectation = waiver.expectation or "whatever fails"
    return f"{expectation} of {waiver.column}" if waiver.column else expectation


def _revocation(pipeline: Pipeline, waiver: Waiver) -> str:
    return f"nightshift waive {pipeline.name} --revoke {waiver.waiver_id}"
