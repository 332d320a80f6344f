"""Rows with faults planted in them, and what a verdict says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from expectations.gate import Check, Verdict

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Fault = tuple[str, str]
"""Column, and the SQL value that breaks it."""


def planted(frame: DataFrame, faults: Sequence[Fault], order: Sequence[str]) -> DataFrame:
    """The rows with one fault in one row each, from the first row in that order on."""
    number = f"row_number() OVER (ORDER BY {', '.join(order)})"
    types = dict(frame.dtypes)
    cases: dict[str, list[str]] = {}
    for row, (column, value) in enumerate(faults, start=1):
        case = f"WHEN {row} THEN CAST({value} AS {types[column]})"
        cases.setdefault(column, []).append(case)
    columns = [_with_faults(column, cases.get(column, [])) for column in frame.columns]
    return frame.selectExpr("*", f"{number} AS row_number").selectExpr(*columns)


def failed(verdict: Verdict) -> set[tuple[str, str | None, str]]:
    """The expectations that failed."""
    return {_which(check) for check in verdict.checks if not check.success}


def failed_columns(verdict: Verdict) -> set[str | None]:
    """Columns and measures of the failures that block."""
    return {check.column for check in verdict.failures}


def _with_faults(column: str, cases: Sequence[str]) -> str:
    if not cases:
        return column
    return f"CASE row_number {' '.join(cases)} ELSE {column} END AS {column}"


def _which(check: Check) -> tuple[str, str | None, str]:
    return check.expectation, check.column, check.severity
