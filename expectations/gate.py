"""The gate: judges staged rows by a suite with Great Expectations, on Spark.

Spark is asked as little as possible, because on a night's rows a question costs more than its
answer: the rows are judged in one pass with `BOOLEAN_ONLY`, the measures of all days come from one
query, and only what failed is looked at again for the values and keys that it failed on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from great_expectations.expectations.expectation import Expectation

from expectations.suite import LACKING, OF_THE_RUN, ROWS, ROWS_OF_KEY, SURPLUS, Suite

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MAX_EXAMPLES = 20
"""Bad rows (or days) of one expectation that are kept and shown."""
MAX_EXPLAINED = 8
"""Failed expectations about rows whose bad rows are looked up, critical ones first: each costs
three questions."""
_PLACE = "place"
"""Key in an expectation's `meta`: its place in the suite, by which its result is found again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What became of one expectation."""

    expectation: str
    column: str | None
    says: str
    """What must hold, for people."""
    severity: str
    success: bool
    observed: str
    """What was found, for people."""
    unexpected: int | None = None
    """Rows (or days) that broke it; None: unknown."""
    examples: tuple[dict[str, str], ...] = ()
    """Some of them, at most `MAX_EXAMPLES`: column -> value."""
    error: str | None = None
    """The exception, when it could not be judged. Then it counts as failed."""

    @property
    def blocks(self) -> bool:
        """Whether it keeps the table from being published."""
        return not self.success and self.severity == "critical"

    def __str__(self) -> str:
        shown = "; ".join(
            ", ".join(f"{k}={v}" for k, v in one.items()) for one in self.examples[:3]
        )
        return f"{self.says} Found: {self.error or self.observed}." + (
            f" For example {shown}" if shown else ""
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate says of one table."""

    table: str
    """SQL name, `<pipeline>.<table>`."""
    rows: int
    checks: tuple[Check, ...]
    seconds: float
    result: ExpectationSuiteValidationResult = field(repr=False, compare=False)
    """The same as Great Expectations tells it, for its Data Docs."""

    @property
    def passed(self) -> bool:
        """Whether the table may be published."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """Failed checks that block."""
        return tuple(check for check in self.checks if check.blocks)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """Failed checks that do not."""
        return tuple(check for check in self.checks if not check.success and not check.blocks)


def judge(
    frame: DataFrame, suite: Suite, table: str, same_rows: DataFrame | None = None
) -> Verdict:
    """Judge the rows of a table. Nothing is cached and nothing is left behind.

    Args:
        same_rows: Rows of the table that `suite.same_rows_as` names, of the same days.
    """
    assert (same_rows is None) == (suite.same_rows_as is None), (
        f"{table}: the suite is to be judged beside {suite.same_rows_as}"
    )
    started = time.monotonic()
    if set(suite.declared_columns) <= set(frame.columns):
        days = _measure(frame, suite, same_rows)
        rows = int(days[ROWS].sum())
        judged = [*_judge_rows(frame, suite, rows), *_judge_days(days, suite)]
    else:
        rows, judged = frame.count(), _judge_columns(frame, suite)
    if any(check.error for check, _ in judged):
        frame.sparkSession.range(
            1
        ).count()  # Great Expectations swallows what a lost server raises, but that is no verdict
    return Verdict(
        table=table,
        rows=rows,
        checks=tuple(check for check, _ in judged),
        seconds=time.monotonic() - started,
        result=_whole_result(table, [result for _, result in judged if result is not None]),
    )


_Results = dict[int, ExpectationValidationResult]
"""Results by the expectation's place in the suite."""
_Told = tuple[Check, ExpectationValidationResult | None]


def _judge_columns(frame: DataFrame, suite: Suite) -> list[_Told]:
    missing = [column for column in suite.declared_columns if column not in frame.columns]
    with _batch_of_rows(frame) as batch:
        results = _validate(batch, {0: suite.columns}, {"result_format": "BASIC"})
    return [
        _told(
            suite.columns,
            results.get(0),
            observed=f"no column {', '.join(missing)}; nothing else was judged",
        )
    ]


def _judge_rows(frame: DataFrame, suite: Suite, rows: int) -> list[_Told]:
    declared = dict(enumerate(suite.every_row))
    key = ", ".join(f"`{column}`" for column in dict.fromkeys([suite.day, *suite.key]))
    derived = {ROWS_OF_KEY: f"count(1) OVER (PARTITION BY {key})", **suite.derived}
    with _batch_of_rows(
        frame.selectExpr("*", *(f"{sql} AS `{name}`" for name, sql in derived.items()))
    ) as batch:
        results = _validate(batch, declared, {"result_format": "BOOLEAN_ONLY"})
        results |= _validate(
            batch, _to_explain(declared, results), _detailed(suite.day, *suite.key)
        )
    return [
        _told(expectation, results.get(place), observed=_of_rows(results.get(place), rows))
        for place, expectation in declared.items()
    ]


def _to_explain(declared: Mapping[int, Expectation], results: _Results) -> dict[int, Expectation]:
    failed = [
        place for place, result in results.items() if not result.success and not _error(result)
    ]
    critical_first = sorted(
        failed, key=lambda place: (declared[place].severity.value != "critical", place)
    )
    return {place: declared[place] for place in critical_first[:MAX_EXPLAINED]}


def _judge_days(days: pd.DataFrame, suite: Suite) -> list[_Told]:
    declared = dict(enumerate(suite.every_day))
    with _batch_of_days(days) as batch:
        results = _validate(batch, declared, _detailed(suite.day))
    return [
        _told(expectation, results.get(place), observed=_of_days(days, expectation))
        for place, expectation in declared.items()
    ]


def _measure(frame: DataFrame, suite: Suite, same_rows: DataFrame | None) -> pd.DataFrame:
    """The measures, one row a day: every day of the run, and any other day that has rows."""
    measures = {ROWS: "count(1)", **suite.measures}
    figures = ", ".join(f"CAST({sql} AS DOUBLE) AS `{name}`" for name, sql in measures.items())
    query = f"SELECT `{suite.day}` AS day, {figures} FROM {{staged}} GROUP BY 1"
    table = _by_day(frame.sparkSession.sql(query, staged=frame))
    if same_rows is not None:
        table = table.join(_compare(frame, same_rows, suite), how="outer")
    expected = set(suite.days or ())
    table = table.reindex(sorted({*table.index, *expected}))
    table[ROWS] = table[ROWS].fillna(0)
    return table.assign(
        **{
            suite.day: table.index.map(str),
            OF_THE_RUN: [int(day in expected) for day in table.index],
        }
    )


def _compare(frame: DataFrame, other: DataFrame, suite: Suite) -> pd.DataFrame:
    """Per day, the keys that one of two tables has and the other lacks."""
    key = ", ".join(dict.fromkeys([suite.day, *suite.key]))
    query = f"""
        SELECT
            {suite.day} AS day,
            CAST(count_if(here IS NULL) AS DOUBLE) AS {LACKING},
            CAST(count_if(there IS NULL) AS DOUBLE) AS {SURPLUS}
        FROM (SELECT {key}, 1 AS here FROM {{staged}})
        FULL OUTER JOIN (SELECT {key}, 1 AS there FROM {{other}}) USING ({key})
        GROUP BY 1"""
    return _by_day(frame.sparkSession.sql(query, staged=frame, other=other))


def _by_day(figures: DataFrame) -> pd.DataFrame:
    rows = [row for row in figures.collect() if row[0] is not None]
    return pd.DataFrame(
        [row[1:] for row in rows],
        index=[row[0] for row in rows],
        columns=figures.columns[1:],
        dtype="float64",
    )


def _validate(
    batch: Any, declared: Mapping[int, Expectation], result_format: Mapping[str, Any]
) -> _Results:
    """The result of each expectation, by its place.

    One that Great Expectations dropped has none.
    """
    if not declared:
        return {}
    marked = [
        expectation.copy(update={"meta": {**(expectation.meta or {}), _PLACE: place}})
        for place, expectation in declared.items()
    ]
    # A suite logs and drops what it holds for invalid: the caller sees it by the missing result.
    outcome = batch.validate(
        gx.ExpectationSuite(name="suite", expectations=marked), result_format=dict(result_format)
    )
    return {result.expectation_config.meta[_PLACE]: result for result in outcome.results}


def _told(
    expectation: Expectation, result: ExpectationValidationResult | None, observed: str
) -> _Told:
    error = (
        "Great Expectations did not run it: it is not a valid expectation"
        if result is None
        else _error(result)
    )
    details = (result.result if result is not None else None) or {}
    check = Check(
        expectation=expectation.expectation_type,
        column=getattr(expectation, "column", None),
        says=expectation.description or expectation.expectation_type,
        severity=str(expectation.severity.value),
        success=error is None and result is not None and bool(result.success),
        observed=observed if error is None else "not judged",
        unexpected=details.get("unexpected_count"),
        examples=_examples(details),
        error=error,
    )
    return check, result


def _examples(details: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    key = details.get("unexpected_index_column_names") or ()
    bad = details.get("partial_unexpected_index_list") or ()
    return tuple(
        {name: str(one[name]) for name in dict.fromkeys([*key, *one])} for one in bad[:MAX_EXAMPLES]
    )


def _of_rows(result: ExpectationValidationResult | None, rows: int) -> str:
    if result is None or result.success:
        return f"{rows:,} rows"
    unexpected = (result.result or {}).get("unexpected_count")
    return f"{'some' if unexpected is None else format(unexpected, ',')} of {rows:,} rows"


def _of_days(days: pd.DataFrame, expectation: Expectation) -> str:
    values = sorted(days[expectation.column].dropna()) if expectation.column in days else []
    if len(values) < 2:
        return f"{values[0]:.6g}" if values else "no value"
    return f"{values[0]:.6g} to {values[-1]:.6g} on {len(values)} days"


def _detailed(*key: str) -> dict[str, Any]:
    return {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": list(dict.fromkeys(key)),
        "partial_unexpected_count": MAX_EXAMPLES,
    }


def _error(result: ExpectationValidationResult) -> str | None:
    """The exception that kept the expectation from being judged, on one line."""
    info = result.exception_info or {}
    raised = [
        one
        for one in (info, *info.values())
        if isinstance(one, dict) and one.get("raised_exception")
    ]
    if not raised:
        return None
    said = next((one for one in raised if one.get("exception_message")), raised[0])
    message = (
        said.get("exception_message")
        or str(said.get("exception_traceback", "")).strip().rpartition("\n")[2]
    )
    return " ".join(str(message).split())[:500] or "an exception without a message"


@contextmanager
def _batch_of_rows(frame: DataFrame) -> Iterator[Any]:
    # Without persist=False it would stay cached in the server.
    with _source("add_spark", persist=False) as source:
        yield _whole(source, frame)


@contextmanager
def _batch_of_days(days: pd.DataFrame) -> Iterator[Any]:
    with _source("add_pandas") as source:
        yield _whole(source, days)


@contextmanager
def _source(kind: str, **options: Any) -> Iterator[Any]:
    sources = _context(os.getpid()).data_sources
    name = uuid4().hex
    try:
        yield getattr(sources, kind)(name, **options)
    finally:
        sources.delete(name)


def _whole(source: Any, frame: DataFrame | pd.DataFrame) -> Any:
    return (
        source.add_dataframe_asset("rows")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": frame})
    )


@lru_cache(maxsize=1)
def _context(process_id: int) -> Any:
    """One context a process: a new one would become the current one of other threads."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context


def _whole_result(
    table: str, results: Sequence[ExpectationValidationResult]
) -> ExpectationSuiteValidationResult:
    good = sum(bool(result.success) for result in results)
    return ExpectationSuiteValidationResult(
        suite_name=table,
        success=good == len(results),
        results=list(results),
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": good,
            "unsuccessful_expectations": len(results) - good,
            "success_percent": 100 * good / len(results) if results else None,
        },
        meta={"great_expectations_version": gx.__version__},
    )
