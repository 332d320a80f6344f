"""The command `nightshift plan`: what is missing, stale or current up to a night, and why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from pipelines.days import Days

if TYPE_CHECKING:
    from jobs.survey import Finding, Hole
    from pipelines.run import Run

HEADER = ("table", "state", "nights", "days", "reason")
"""`nights` is how many, `days` which: the first and the last of consecutive ones."""


def plan(run: Run) -> Sequence[tuple[object, ...]]:
    """A row for each table and run of nights that have the same state for the same reason.

    What follows from tables that are to be made anew counts as stale; nothing is changed.
    """
    from jobs.survey import Survey

    survey = Survey(run)
    rows = [_row_of_hole(run, hole) for hole in survey.holes]
    for findings in survey.foreseen():
        rows += [_row(run, part) for part in _alike(findings)]
    return rows


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one table, those together that say the same of consecutive nights."""
    groups = groupby(findings, key=lambda one: (one.state, one.reason))
    return [list(group) for _, group in groups]


def _row_of_hole(run: Run, hole: Hole) -> tuple[object, ...]:
    reason = f"{', '.join(hole.files)} has not landed"
    return run.pipeline.name, "hole", 1, str(hole.night), reason


def _row(run: Run, findings: Sequence[Finding]) -> tuple[object, ...]:
    first = findings[0]
    nights = Days(first.night, findings[-1].night)
    name = f"{run.pipeline.name}.{first.table.name}"
    return name, first.state, len(findings), str(nights), first.reason
