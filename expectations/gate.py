"""The gate: judges staged rows by a suite with Great Expectations, on Spark.

Spark is asked as little as possible, because on a night's rows a question costs more than its
answer: the measures of all days come from one query, which counts the rows too; the rows are judged
in one pass with `BOOLEAN_ONLY`; and only what failed is looked at again for the values and keys
that it failed on.

The order: the columns; then the row rules, whose broken rows are counted by the query of the
measures and moved out when there are any; then everything else, on the rows that are left; then the
waivers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from great_expectations.expectations.expectation import Expectation

from expectations.row_rules import (
    ANY_BROKEN,
    REASON,
    RULE,
    VALUE_SHOWN,
    any_broken,
    broken,
    reasons,
    share_of,
)
from expectations.suite import LACKING, OF_THE_RUN, ROWS, ROWS_OF_KEY, SURPLUS, Suite, about
from pipelines.errors import without_stack
from pipelines.quoting import aliased, quoted
from pipelines.redaction import redacted
from pipelines.waivers import Waiver

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

MAX_EXAMPLES = 20
"""Bad rows (or days) of one expectation that are kept and shown."""
MAX_EXPLAINED = 8
"""Failed expectations about rows whose bad rows are looked up, critical ones first: each costs
three questions."""
_EXAMPLES_IN_A_MESSAGE = 3
"""The report shows all that are kept."""
_ERROR_CHARACTERS = 500
"""Spark's messages hold whole query plans; the first lines say what is wrong."""
_ROW_COUNT = "table.row_count"
"""Name that Great Expectations gives the number of rows."""
_CONDITION = "row_condition"
"""Key in what a metric is about: which of the rows."""
_POSITION = "position"
"""Key in an expectation's `meta`: its position in the suite, by which its result is recognized."""


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
    waivers: tuple[Waiver, ...] = ()
    """Those that let the failure through, which made it a warning."""
    least: float | None = None
    """The bound below what must hold; None: there is none."""
    most: float | None = None
    """The bound above it."""

    @property
    def blocks(self) -> bool:
        """Whether it keeps the table from being published."""
        return not self.success and self.severity == "critical"

    def __str__(self) -> str:
        if self.error:
            # A good file would not help.
            return f"{self.says} It could not be judged, so mend the suite: {self.error}"
        sentence = f"{self.says} Found: {self.observed}."
        if not self.examples:
            return sentence
        shown = [_in_words(example) for example in self.examples[:_EXAMPLES_IN_A_MESSAGE]]
        return f"{sentence} For example {'; '.join(shown)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate says of one table."""

    table: str
    """SQL name, `<pipeline>.<table>`."""
    rows: int
    """Those that may be published."""
    quarantined: int = 0
    """Rows that break a row rule, and are not among them."""
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
        failed = [check for check in self.checks if not check.success]
        return tuple(check for check in failed if not check.blocks)


SetAside = Callable[["DataFrame", "DataFrame"], "DataFrame"]
"""Given the rows that break no row rule and those that do, the latter with the columns `REASON` and
`RULE`: puts both where they belong, and gives the first back to be judged."""


def judge(
    frame: DataFrame,
    suite: Suite,
    table: str,
    same_rows: DataFrame | None = None,
    *,
    staged: Collection[date] | None = None,
    waivers: Sequence[Waiver] = (),
    set_aside: SetAside = lambda good, _: good,
) -> Verdict:
    """Judge the rows of a table. Nothing is cached and nothing is left behind.

    Args:
        frame: The rows.
        suite: What must hold of them.
        table: SQL name of the table.
        same_rows: Rows of the table that `suite.same_rows_as` names, of the same days.
        staged: Days that the rows are of: of others in the suite nothing is said. None: all are.
        waivers: What is let through.
        set_aside: Called when rows break a row rule, and only then.
    """
    assert (same_rows is None) == (suite.same_rows_as is None), (
        f"{table}: the suite is to be judged beside {suite.same_rows_as}"
    )
    started = time.monotonic()
    quarantined = 0
    expected = set(suite.days or ())
    if staged is not None:
        expected.intersection_update(staged)
    if set(suite.declared_columns) <= set(frame.columns):
        days, without_day = _measure_all(frame, suite, same_rows, expected)
        quarantined = int(days[ANY_BROKEN].sum())
        moved = None
        if quarantined:
            columns = list(map(quoted, frame.columns))
            good, bad = _split(frame, suite)
            moved = _Moved(days=days, bad=bad)
            told = bad.selectExpr(*columns, REASON, RULE)
            frame = set_aside(good.selectExpr(*columns), told)
            days, without_day = _measure(frame, suite, same_rows, expected)
        rows = int(days[ROWS].sum())
        judging = partial(_judge_all, frame, suite, days, without_day, waivers, moved)
    else:
        rows = frame.count()
        judging = partial(_judge_columns, frame, suite, rows)
    judged = judging()
    if any(check.error for check, _ in judged):
        _raise_what_is_no_verdict(frame, suite)
        # What was over by then, as of a store that was away, is none either.
        judged = judging()
    checks = tuple(check for check, _ in judged)
    results = [result for _, result in judged if result is not None]
    return Verdict(
        table=table,
        rows=rows,
        quarantined=quarantined,
        checks=checks,
        seconds=time.monotonic() - started,
        result=_whole_result(table, results),
    )


def _raise_what_is_no_verdict(frame: DataFrame, suite: Suite) -> None:
    """Ask Spark what it would raise again.

    Great Expectations swallows what Spark raises of a lost server, of the suite's derived columns,
    and of files that it cannot read.
    """
    _with_derived(frame, suite).limit(0).collect()
    # Reads all of them, and keeps nothing.
    frame.write.format("noop").mode("overwrite").save()


_Declared = Mapping[int, Expectation]
"""Expectations by their position in the suite."""
_Results = dict[int, ExpectationValidationResult]
"""Results by the expectation's position in the suite."""
_Judged = tuple[Check, ExpectationValidationResult | None]
"""A check and the result that it was made from; None: Great Expectations gave none."""


def _judge_columns(frame: DataFrame, suite: Suite, rows: int) -> list[_Judged]:
    missing = [column for column in suite.declared_columns if column not in frame.columns]
    observed = f"no column {', '.join(missing)}; nothing else was judged"
    with _batch_of_rows(frame, rows) as batch:
        results = _validate(batch, {0: suite.columns}, {"result_format": "BASIC"})
    return [_judged(suite.columns, results.get(0), observed)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Moved:
    """What the row rules have moved out."""

    days: pd.DataFrame
    """Figures of the days before."""
    bad: DataFrame
    """The rows, with the reason."""


def _judge_all(
    frame: DataFrame,
    suite: Suite,
    days: pd.DataFrame,
    without_day: int,
    waivers: Sequence[Waiver],
    moved: _Moved | None,
) -> list[_Judged]:
    def of_rows(expectations: Sequence[Expectation], among: Sequence[date]) -> list[_Judged]:
        is_all = len(among) == len(days)
        listed = ", ".join(f"DATE '{day}'" for day in among)
        rows = frame if is_all else frame.where(f"`{suite.day}` IN ({listed})")
        count = int(days.loc[among, ROWS].sum()) + (without_day if is_all else 0)
        judged = _judge_rows(rows, suite, expectations, count)
        if moved is None:
            return judged
        return [
            (_with_moved(check, expectation, suite, moved, among), result)
            for (check, result), expectation in zip(judged, expectations, strict=True)
        ]

    def of_days(expectations: Sequence[Expectation], among: Sequence[date]) -> list[_Judged]:
        return _judge_days(days.loc[among], suite, expectations)

    return [
        *_judge_unless_waived(suite, suite.every_row, waivers, of_rows, list(days.index)),
        *_judge_unless_waived(suite, suite.every_day, waivers, of_days, list(days.index)),
    ]


def _judge_unless_waived(
    suite: Suite,
    expectations: Sequence[Expectation],
    waivers: Sequence[Waiver],
    judge_among: Callable[[Sequence[Expectation], Sequence[date]], list[_Judged]],
    days: Sequence[date],
) -> list[_Judged]:
    """What was judged, with failures that waivers cover as warnings.

    Args:
        judge_among: Judges expectations by some of the days.
        days: All of them.
    """
    found: list[_Judged] = []
    judged = judge_among(expectations, days)
    of_days = [one for one in waivers if any(day in one.days for day in days)]
    for (check, result), expectation in zip(judged, expectations, strict=True):
        covering = _covering(check, expectation, suite, of_days)
        if not covering:
            found.append((check, result))
            continue
        others = [day for day in days if not _is_waived(day, covering)]
        # A night that no waiver names is judged as if it had been alone.
        elsewhere = judge_among([expectation], others) if others else []
        failed = [one for one in elsewhere if one[0].blocks]
        found += failed or [(_waived(check, covering), result)]
    return found


def _is_waived(day: date, waivers: Sequence[Waiver]) -> bool:
    return any(day in one.days for one in waivers)


def _covering(
    check: Check, expectation: Expectation, suite: Suite, waivers: Sequence[Waiver]
) -> tuple[Waiver, ...]:
    # Of what could not be judged nobody knows what is let through.
    if not check.blocks or check.error or expectation not in suite.waivable:
        return ()
    return tuple(one for one in waivers if one.covers(check.expectation, check.column))


def _waived(check: Check, waivers: tuple[Waiver, ...]) -> Check:
    told = "; ".join(map(str, waivers))
    observed = f"{check.observed}, {told}"
    return replace(check, severity="warning", observed=observed, waivers=waivers)


def _split(frame: DataFrame, suite: Suite) -> tuple[DataFrame, DataFrame]:
    """The rows that break no row rule, and those that do; both with the columns of the rules."""
    told = aliased(reasons(suite.rules))
    marked = _with_columns_of_rules(frame, suite).selectExpr("*", *told)
    # A row without a day is no day's: that it has none refuses the table.
    is_bad = f"({REASON} IS NOT NULL AND `{suite.day}` IS NOT NULL)"
    return marked.where(f"NOT {is_bad}"), marked.where(is_bad)


def _with_columns_of_rules(frame: DataFrame, suite: Suite) -> DataFrame:
    """The rows with the derived columns, if a row rule may be about one."""
    return frame.selectExpr("*", *aliased(suite.derived)) if suite.rules else frame


def _with_moved(
    check: Check,
    expectation: Expectation,
    suite: Suite,
    moved: _Moved,
    among: Sequence[date],
) -> Check:
    """What was judged of the rows that are left, with those that this row rule has moved out.

    A warning, and a failure if there were too many on one of the days.
    """
    share = share_of(expectation)
    # Were a row left that breaks it all the same, that would be the finding.
    if share is None or not check.success:
        return check
    figures = moved.days.loc[among]
    counts = figures[_count_of(expectation, suite)]
    if not counts.any():
        return check
    found = f"{int(counts.sum()):,} of {int(figures[ROWS].sum()):,} rows, which are quarantined"
    shares = counts / figures[ROWS]
    over = shares[shares > share]
    if not over.empty:
        worst = over.idxmax()
        found = (
            f"{int(counts[worst]):,} of {int(figures[ROWS][worst]):,} rows of {worst} "
            f"({over.max():.2%}), more than the {share:.2%} of a day that may be quarantined"
        )
    if len(over) > 1:
        found += f", and too many on {len(over) - 1} other day(s)"
    return replace(
        check,
        success=False,
        severity="warning" if over.empty else "critical",
        observed=found,
        unexpected=int(counts.sum()),
        examples=_examples_of_rule(expectation, suite, moved.bad, list(over.index) or among),
    )


def _examples_of_rule(
    rule: Expectation, suite: Suite, bad: DataFrame, days: Sequence[date]
) -> tuple[dict[str, str], ...]:
    listed = ", ".join(f"DATE '{day}'" for day in days)
    key = list(dict.fromkeys([suite.day, *suite.key, rule.column]))
    columns = [_as_shown(name, bad) for name in key]
    rows = bad.where(broken(rule)).where(f"`{suite.day}` IN ({listed})").selectExpr(*columns)
    shown = rows.orderBy(*map(quoted, key)).limit(MAX_EXAMPLES).collect()
    return tuple(_example(row.asDict(), *key) for row in shown)


def _as_shown(name: str, rows: DataFrame) -> str:
    # Python knows no instant and no day beyond the year 9999.
    is_odd = dict(rows.dtypes).get(name, "").startswith(("timestamp", "date"))
    column = quoted(name)
    return f"CAST({column} AS STRING) AS {column}" if is_odd else column


def _judge_rows(
    frame: DataFrame, suite: Suite, expectations: Sequence[Expectation], rows: int
) -> list[_Judged]:
    declared = dict(enumerate(expectations))
    with _batch_of_rows(_with_derived(frame, suite), rows) as batch:
        results = _validate(batch, declared, {"result_format": "BOOLEAN_ONLY"})
        # What failed is judged a second time, now with the rows that it failed on.
        failed = _to_explain(declared, results)
        explained = _validate(batch, failed, _detailed(suite.day, *suite.key))
    # Rows that cannot be shown, as an instant of the year 10000, take nothing from the verdict.
    results |= {at: result for at, result in explained.items() if _error(result) is None}
    judged = []
    for position, expectation in declared.items():
        result = results.get(position)
        judged.append(_judged(expectation, result, _of_rows(result, rows)))
    return judged


def _with_derived(frame: DataFrame, suite: Suite) -> DataFrame:
    """The rows with the columns that only the suite needs."""
    # A day that is part of the key is named once.
    key = dict.fromkeys([suite.day, *suite.key])
    partition = ", ".join(map(quoted, key))
    derived = {ROWS_OF_KEY: f"count(1) OVER (PARTITION BY {partition})", **suite.derived}
    return frame.selectExpr("*", *aliased(derived))


def _to_explain(declared: _Declared, results: _Results) -> _Declared:
    """The failed expectations whose bad rows are looked up, critical ones first."""
    failed = [position for position in sorted(results) if _has_bad_rows(results[position])]
    critical = [position for position in failed if _is_critical(declared[position])]
    others = [position for position in failed if position not in critical]
    chosen = [*critical, *others][:MAX_EXPLAINED]
    return {position: declared[position] for position in chosen}


def _has_bad_rows(result: ExpectationValidationResult) -> bool:
    return not result.success and _error(result) is None


def _is_critical(expectation: Expectation) -> bool:
    return bool(expectation.severity.value == "critical")


def _judge_days(
    days: pd.DataFrame, suite: Suite, expectations: Sequence[Expectation]
) -> list[_Judged]:
    declared = dict(enumerate(expectations))
    with _batch_of_days(days) as batch:
        results = _validate(batch, declared, _detailed(suite.day))
    return [
        _judged(expectation, results.get(position), _of_days(days, expectation))
        for position, expectation in declared.items()
    ]


def _measure_all(
    frame: DataFrame,
    suite: Suite,
    same_rows: DataFrame | None,
    expected: Set[date],
) -> tuple[pd.DataFrame, int]:
    """As `_measure`, of the rows before any is moved out."""
    try:
        return _measure(frame, suite, same_rows, expected)
    except Exception:
        if not (suite.rules and suite.measures):
            raise
        # A row that a rule moves out may be what a measure cannot be made of. A server that is
        # away, and the like, is told by the next question.
        counted = _measure(frame, replace(suite, measures={}), same_rows, expected)
        if not counted[0][ANY_BROKEN].any():
            raise
        return counted


def _measure(
    frame: DataFrame,
    suite: Suite,
    same_rows: DataFrame | None,
    expected: Set[date],
) -> tuple[pd.DataFrame, int]:
    """The measures, one row a day: every expected day, and any other day that has rows.

    With the numbers of rows that break the row rules.

    Returns:
        The measures, and how many rows have no day: that they have none is an expectation of its
        own.
    """
    measures = {ROWS: "count(1)", **suite.measures, **_broken_counts(suite)}
    # Of one type, as counts and shares come into one frame.
    numbers = {name: f"CAST({sql} AS DOUBLE)" for name, sql in measures.items()}
    asked = _verbatim(f"SELECT `{suite.day}` AS day, {', '.join(aliased(numbers))}")
    query = f"{asked} FROM {{staged}} GROUP BY 1"
    rows = _with_columns_of_rules(frame, suite)
    table, without_day = _by_day(frame.sparkSession.sql(query, staged=rows))
    if same_rows is not None:
        table = table.join(_compare(frame, same_rows, suite), how="outer")
    # A day of the run without rows is judged too: there, its measures are null.
    table = table.reindex(sorted({*table.index, *expected}))
    counted = [ROWS, *_broken_counts(suite)]
    table[counted] = table[counted].fillna(0)
    table[suite.day] = table.index.map(str)
    table[OF_THE_RUN] = [int(day in expected) for day in table.index]
    return table, sum(int(row[ROWS]) for row in without_day)


def _broken_counts(suite: Suite) -> dict[str, str]:
    """Aggregates of a day: rows that break any row rule, and those that break each."""
    counts = {ANY_BROKEN: f"count_if({any_broken(suite.rules) or 'false'})"}
    for rule in suite.rules:
        counts[_count_of(rule, suite)] = f"count_if({broken(rule)})"
    return counts


def _count_of(rule: Expectation, suite: Suite) -> str:
    """Name of the figure that tells how many rows of a day break the rule."""
    return f"{ANY_BROKEN}{suite.rules.index(rule)}"


def _compare(frame: DataFrame, other: DataFrame, suite: Suite) -> pd.DataFrame:
    """Per day, the keys that one of two tables has and the other lacks."""
    columns = dict.fromkeys([suite.day, *suite.key])
    # By numbers: as a source names its columns, they may be words of SQL, or those used here.
    numbered = {f"key_{number}": name for number, name in enumerate(columns)}
    named = _verbatim(", ".join(f"{quoted(name)} AS {key}" for key, name in numbered.items()))
    query = f"""
        SELECT
            key_0 AS day,
            CAST(count_if(here IS NULL) AS DOUBLE) AS {LACKING},
            CAST(count_if(there IS NULL) AS DOUBLE) AS {SURPLUS}
        FROM (SELECT {named}, 1 AS here FROM {{staged}})
        FULL OUTER JOIN (SELECT {named}, 1 AS there FROM {{other}}) USING ({", ".join(numbered)})
        GROUP BY 1"""
    compared, _ = _by_day(frame.sparkSession.sql(query, staged=frame, other=other))
    return compared


def _verbatim(sql: str) -> str:
    """SQL of a suite in a query that Spark's client puts tables into, by their names in braces.

    There a brace of its own, such as that of a regular expression, is written twice.
    """
    return sql.replace("{", "{{").replace("}", "}}")


def _by_day(figures: DataFrame) -> tuple[pd.DataFrame, list[Row]]:
    """The figures of each day, and those of rows without one."""
    answer = figures.collect()
    rows = [row for row in answer if row[0] is not None]
    days = [row[0] for row in rows]
    measures = [list(map(_as_spark_orders, row[1:])) for row in rows]
    columns = figures.columns[1:]
    table = pd.DataFrame(measures, index=days, columns=columns, dtype="float64")
    return table, [row for row in answer if row[0] is None]


def _as_spark_orders(figure: float | None) -> float | None:
    """A figure of a day, with NaN as what it is to Spark: above every number.

    pandas takes it for a missing one, and a missing one passes.
    """
    return math.inf if figure is not None and math.isnan(figure) else figure


def _validate(batch: Any, declared: _Declared, result_format: Mapping[str, Any]) -> _Results:
    """The result of each expectation, by its position.

    One that Great Expectations dropped has none.
    """
    if not declared:
        return {}
    marked = [_marked(expectation, position) for position, expectation in declared.items()]
    # A suite logs and drops what it holds for invalid: the caller sees it by the missing result.
    suite = gx.ExpectationSuite(name="suite", expectations=marked)
    outcome = batch.validate(suite, result_format=dict(result_format))
    return {result.expectation_config.meta[_POSITION]: result for result in outcome.results}


def _marked(expectation: Expectation, position: int) -> Expectation:
    meta = {**(expectation.meta or {}), _POSITION: position}
    return expectation.copy(update={"meta": meta})


def _judged(
    expectation: Expectation, result: ExpectationValidationResult | None, observed: str
) -> _Judged:
    if result is None:
        error: str | None = "Great Expectations did not run it: it is not a valid expectation"
        success = False
        details: Mapping[str, Any] = {}
    else:
        error = _error(result)
        success = error is None and bool(result.success)
        details = result.result or {}
    check = Check(
        expectation=expectation.expectation_type,
        column=about(expectation),
        says=expectation.description or expectation.expectation_type,
        severity=str(expectation.severity.value),
        success=success,
        observed=observed if error is None else "not judged",
        unexpected=details.get("unexpected_count"),
        examples=_examples(details),
        error=error,
        least=_number(expectation, "min_value"),
        most=_number(expectation, "max_value"),
    )
    return check, result


def _number(expectation: Expectation, name: str) -> float | None:
    """A bound of an expectation that has one; one that is a day or a text counts as none."""
    value = getattr(expectation, name, None)
    return value if isinstance(value, int | float) else None


def _examples(details: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    key = details.get("unexpected_index_column_names") or ()
    bad = details.get("partial_unexpected_index_list") or ()
    return tuple(_example(row, *key) for row in bad[:MAX_EXAMPLES])


def _example(row: Mapping[str, Any], *key: str) -> dict[str, str]:
    """A bad row as text, its key first."""
    columns = dict.fromkeys([*key, *row])
    return {column: _beginning(str(row[column])) for column in columns}


def _beginning(text: str) -> str:
    return text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}…"


def _in_words(example: Mapping[str, str]) -> str:
    values = [f"{column}={value}" for column, value in example.items()]
    return ", ".join(values)


def _of_rows(result: ExpectationValidationResult | None, rows: int) -> str:
    if result is None or result.success:
        return f"{rows:,} rows"
    unexpected = (result.result or {}).get("unexpected_count")
    # Unknown when the failure was not explained: beyond MAX_EXPLAINED nothing was counted.
    bad = "some" if unexpected is None else f"{unexpected:,}"
    return f"{bad} of {rows:,} rows"


def _of_days(days: pd.DataFrame, expectation: Expectation) -> str:
    column = getattr(expectation, "column", None)
    if column is None:
        # About several measures: the examples show their values.
        return f"{len(days)} days"
    if column not in days:
        return "no value"
    values = sorted(days[column].dropna())
    if not values:
        return "no value"
    if len(values) == 1:
        return f"{values[0]:.6g}"
    return f"{values[0]:.6g} to {values[-1]:.6g} on {len(values)} days"


def _detailed(*key: str) -> dict[str, Any]:
    return {
        # Examples and counts; COMPLETE would bring every bad row to this process.
        "result_format": "SUMMARY",
        "unexpected_index_column_names": list(dict.fromkeys(key)),
        "partial_unexpected_count": MAX_EXAMPLES,
    }


def _error(result: ExpectationValidationResult) -> str | None:
    """The exception that kept the expectation from being judged, on one line."""
    info = result.exception_info or {}
    # Great Expectations gives one exception, or one for each metric that it failed to compute.
    possible = [info, *info.values()]
    raised = [one for one in possible if isinstance(one, dict) and one.get("raised_exception")]
    if not raised:
        return None
    with_message = [one for one in raised if one.get("exception_message")]
    message = with_message[0]["exception_message"] if with_message else _last_line(raised[0])
    on_one_line = " ".join(without_stack(str(message)).split())
    return redacted(on_one_line)[:_ERROR_CHARACTERS] or "an exception without a message"


def _last_line(raised: Mapping[str, Any]) -> str:
    """The last line of a traceback says what was raised."""
    traceback = str(raised.get("exception_traceback", ""))
    return traceback.strip().rpartition("\n")[2]


@contextmanager
def _batch_of_rows(frame: DataFrame, rows: int) -> Iterator[Any]:
    # Without persist=False it would stay cached in the server.
    with _source("add_spark", persist=False) as source:
        batch = _whole(source, frame)
        _tell_rows(source.get_execution_engine(), rows)
        yield batch


def _tell_rows(engine: Any, rows: int) -> None:
    """Let Great Expectations know how many rows there are.

    It asks for that before anything else, by a question of its own: a tenth of a second a table.
    """
    compute = engine.resolve_metric_bundle

    def know_or_compute(metric_fn_bundle: Iterable[Any]) -> dict[Any, Any]:
        known: dict[Any, Any] = {}
        unknown = []
        for one in metric_fn_bundle:
            metric = one.metric_configuration
            if metric.metric_name == _ROW_COUNT and not one.compute_domain_kwargs.get(_CONDITION):
                known[metric.id] = rows
            else:
                unknown.append(one)
        known.update(compute(metric_fn_bundle=unknown))
        return known

    engine.resolve_metric_bundle = know_or_compute


@contextmanager
def _batch_of_days(days: pd.DataFrame) -> Iterator[Any]:
    with _source("add_pandas") as source:
        yield _whole(source, days)


@contextmanager
def _source(kind: str, **options: Any) -> Iterator[Any]:
    sources = _context(os.getpid()).data_sources
    # Tables are judged by several threads at once, in one context.
    name = uuid4().hex
    try:
        yield getattr(sources, kind)(name, **options)
    finally:
        sources.delete(name)


def _whole(source: Any, frame: DataFrame | pd.DataFrame) -> Any:
    asset = source.add_dataframe_asset("rows")
    definition = asset.add_batch_definition_whole_dataframe("all")
    return definition.get_batch({"dataframe": frame})


@lru_cache(maxsize=1)
def _context(process_id: int) -> Any:
    """One context a process: a new one would become the current one of other threads.

    A forked child needs its own, hence the process id.
    """
    context = gx.get_context(mode="ephemeral")
    # Its bars would fill the logs of the nights.
    context.variables.progress_bars = {"globally": False}
    return context


def _whole_result(
    table: str, results: Sequence[ExpectationValidationResult]
) -> ExpectationSuiteValidationResult:
    good = sum(bool(result.success) for result in results)
    percent = 100 * good / len(results) if results else None
    return ExpectationSuiteValidationResult(
        suite_name=table,
        success=good == len(results),
        results=list(results),
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": good,
            "unsuccessful_expectations": len(results) - good,
            "success_percent": percent,
        },
        meta={"great_expectations_version": gx.__version__},
    )
