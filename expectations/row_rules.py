"""Row rules: expectations about rows that move the rows that break them out of the table.

A rule says of each row whether it breaks it, as SQL. So the rows can be counted in the pass that
measures the days anyway, and moved out by the same condition. What is left is judged by Great
Expectations as ever: were the two to disagree about a row, the table would be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from numbers import Integral
from typing import Any

from great_expectations.expectations.expectation import Expectation

from pipelines.errors import UsageError, refuse_unless
from pipelines.quoting import quoted

ANY_BROKEN = "_broken"
"""Figure of a day: rows that break any row rule. With a number after it: that rule of the suite."""
REASON = "_broken_reason"
"""Column of a row that breaks a rule: the rules in words, each with its column and value."""
RULE = "_broken_rule"
"""Column beside it: the rules by the names that `nightshift quality` tells."""
VALUE_SHOWN = 200
"""Characters of a value that a reason or an example shows: a message has several, and is sent."""
_SHARE = "quarantine_up_to"
"""Key in an expectation's `meta`."""


def quarantine_up_to(share: float, expectation: Expectation) -> Expectation:
    """Make a row rule of an expectation: rows that break it are quarantined.

    Args:
        share: Of the rows of each day, from 0 to 1. More of them refuse the day.
        expectation: About a row by itself, and critical.

    Raises:
        UsageError: the share is none, or nobody can say which rows break the expectation.
    """
    kind = type(expectation).__name__
    column = getattr(expectation, "column", None)
    refuse_unless(
        isinstance(share, int | float) and 0 <= share <= 1,
        f"{kind} of '{column}': quarantine_up_to({share!r}, …) is no share of a day's rows: "
        "give one from 0 to 1.",
    )
    refuse_unless(
        kind in _HOLDS,
        f"{kind} of '{column}' cannot quarantine: it does not say which rows break it. "
        f"Those that do: {', '.join(_HOLDS)}.",
    )
    refuse_unless(
        expectation.severity.value == "critical",
        f"{kind} of '{column}' is a warning, which publishes the rows that break it. "
        "Make it critical, or let it not quarantine.",
    )
    refuse_unless(
        not getattr(expectation, "row_condition", None),
        f"{kind} of '{column}' has a row_condition, which no row rule heeds. Let a derived column "
        "say what is wrong with a row, or null, and make the rule absent() of that.",
    )
    meta = {**(expectation.meta or {}), _SHARE: float(share)}
    ruled = expectation.copy(update={"meta": meta})
    # A value that SQL cannot say is told now, and not on some night.
    broken(ruled)
    return ruled


def share_of(expectation: Expectation) -> float | None:
    """The share of a day's rows that may break it and be quarantined; None: it is no row rule."""
    share: float | None = (expectation.meta or {}).get(_SHARE)
    return share


def broken(rule: Expectation) -> str:
    """SQL that is true of a row that breaks the rule, and false of any other."""
    holds = _HOLDS[type(rule).__name__](quoted(rule.column), rule)
    # A null passes, except where presence is what is expected.
    return f"coalesce(NOT ({holds}), false)"


def any_broken(rules: Iterable[Expectation]) -> str:
    """SQL that is true of a row that breaks one of the rules."""
    return " OR ".join(map(broken, rules))


def reasons(rules: Iterable[Expectation]) -> Mapping[str, str]:
    """SQL of the columns `REASON` and `RULE`, both null for a row that breaks no rule."""
    told = {REASON: [], RULE: []}  # type: dict[str, list[str]]
    for rule in rules:
        text = f"CAST({quoted(rule.column)} AS STRING)"
        value = f"coalesce(left({text}, {VALUE_SHOWN}), 'null')"
        says = rule.description or rule.expectation_type
        words = _text(f"{says} Found: {rule.column} = ")
        told[REASON].append(_when(broken(rule), f"concat({words}, {value})"))
        told[RULE].append(_when(broken(rule), _text(f"{rule.expectation_type} of {rule.column}")))
    return {name: f"nullif(concat_ws('; ', {', '.join(of)}), '')" for name, of in told.items()}


def _when(condition: str, value: str) -> str:
    return f"CASE WHEN {condition} THEN {value} END"


def _between(column: str, rule: Any) -> str:
    bounds = []
    if rule.min_value is not None:
        above = ">" if rule.strict_min else ">="
        bounds.append(f"{column} {above} {_literal(rule.min_value)}")
    if rule.max_value is not None:
        below = "<" if rule.strict_max else "<="
        bounds.append(f"{column} {below} {_literal(rule.max_value)}")
    return " AND ".join(bounds)


def _in_set(column: str, rule: Any) -> str:
    values = ", ".join(map(_literal, rule.value_set))
    return f"{column} IN ({values})" if values else f"{column} IS NULL"


_HOLDS: Mapping[str, Callable[[str, Any], str]] = {
    "ExpectColumnValuesToNotBeNull": lambda column, _: f"{column} IS NOT NULL",
    "ExpectColumnValuesToBeNull": lambda column, _: f"{column} IS NULL",
    "ExpectColumnValuesToBeBetween": _between,
    "ExpectColumnValuesToBeInSet": _in_set,
    "ExpectColumnValuesToMatchRegex": lambda column, rule: f"{column} RLIKE {_text(rule.regex)}",
}
"""Kind of expectation -> SQL that holds for a row that meets it."""


def _literal(value: object) -> str:
    # First: to Python True is an int.
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, float):
        # Without the cast, 0.1 would be a decimal. NumPy's own numbers name their type.
        return f"CAST('{float(value)!r}' AS DOUBLE)"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return f"DATE '{value}'"
    raise UsageError(
        f"A row rule cannot compare with {value!r}: give a number, a text, a truth value or a day."
    )


def _text(value: str) -> str:
    """As Spark's SQL writes a text, in which a backslash escapes."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
