"""The vocabulary of a suite.

What must hold of a table, as a value made of Great Expectations' own typed objects.

A suite gives a range of days the verdicts that its nights would get, one by one. So nothing here is
a share or a mean over the rows of a run: a row is judged by itself, and measures (counts, shares,
means) are those of one day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import (
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    Expectation,
    MulticolumnMapExpectation,
)

from expectations.row_rules import ANY_BROKEN, share_of
from pipelines.days import Days
from pipelines.errors import UsageError, refuse_unless
from pipelines.kinds import refuse_odd_kinds

Severity = Literal["critical", "warning"]
Bound = float | date
ROWS = "rows"
"""Measure that every suite has: how many rows the day holds."""
ROWS_OF_KEY = "rows_of_key"
"""Derived column that every suite has: how many rows of the day share the row's key."""
OF_THE_RUN = "day_of_the_run"
"""Measure that every suite has: 1 for a day that the run may write, 0 for any other."""
LACKING = "rows_lacking"
"""Measure of a suite with `same_rows_as`: keys that only the other table has."""
SURPLUS = "rows_surplus"
"""Measure of a suite with `same_rows_as`: keys that only this table has."""
_OWN_MEASURES = (ROWS, ROWS_OF_KEY, OF_THE_RUN, LACKING, SURPLUS)
"""What no measure of a suite may be named, besides its day and the figures of row rules."""
_OF_ROWS = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
"""Kinds of expectations that give each row a verdict."""
_BY_OTHER_ROWS = frozenset(
    {
        *("ExpectColumnValueZScoresToBeLessThan", "ExpectColumnValuesToBeDecreasing"),
        *("ExpectColumnValuesToBeIncreasing", "ExpectColumnValuesToBeUnique"),
        *("ExpectColumnValuesToNotBeOutliers", "ExpectCompoundColumnsToBeUnique"),
    }
)
"""Those of them by which a row's verdict depends on what other rows a run has."""
_NO_BOUND = (
    "a bound is a number, a date or an instant. For texts, have `derived` make a column of what is "
    "wrong, and say by absent or one_of what it must be."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """What must hold of one table.

    A failed expectation blocks, unless its severity is 'warning'.
    """

    days: Days | None
    """Partition dates that the run writes; None: none of its days can have rows."""
    day: str = "landed_date"
    """The partition column."""
    key: tuple[str, ...]
    """Columns that identify a row within a day; also how a bad row is shown."""
    has: tuple[str, ...]
    """Columns that the table must have. When one is missing, nothing else is judged."""
    same_rows_as: str | None = None
    """Table of the pipeline that holds the same keys on the same days: no row may get lost or
    appear between them."""
    derived: Mapping[str, str] = field(default_factory=dict)
    """Columns that only the suite needs: name -> SQL expression over the row."""
    each_row: tuple[Expectation, ...] = ()
    """About columns of the table and derived ones. Nulls pass, except where presence is what is
    expected. One that is made by `quarantine_up_to` is a row rule: rows that break it are moved
    out before all else is judged."""
    measures: Mapping[str, str] = field(default_factory=dict)
    """Figures of a day: name -> SQL aggregate over its rows; null for a day without rows. NaN lies
    above every bound."""
    each_day: tuple[Expectation, ...] = ()
    """About measures."""

    def __post_init__(self) -> None:
        refuse_odd_kinds("Suite", self)
        for expectation in self.each_row + self.each_day:
            # Not every kind of expectation has `mostly`; 1 is its default.
            if getattr(expectation, "mostly", 1) != 1:
                kind = type(expectation).__name__
                raise UsageError(
                    f"{kind} has mostly={expectation.mostly}, a share of the run's rows. "
                    "Measure the share of each day instead."
                )
            _refuse_if_of_the_run(expectation)
        for name in self.declared_columns:
            refuse_unless(
                "." not in name,
                f"The column '{name}' of a suite's day, key or has holds a dot, by which Great "
                "Expectations does not find it. Name it otherwise where it is made.",
            )
        self._refuse_own_names("A measure", self.measures, _OWN_MEASURES)
        self._refuse_own_names("A derived column", self.derived, (ROWS_OF_KEY,))
        self._refuse_odd_rules()

    def _refuse_own_names(
        self,
        what: str,
        names: Iterable[str],
        own: Iterable[str],
    ) -> None:
        """Refuse names that the gate has itself: one of two things of one name would get lost."""
        # Spark takes 'Rows' and 'rows' for the same column.
        taken = {*own, self.day.lower()}
        for name in names:
            plain = name.lower()
            refuse_unless(
                plain not in taken and not plain.startswith(ANY_BROKEN),
                f"{what} must not be named '{name}': the gate has that name itself. Name it "
                f"otherwise, such as 'own_{name.lstrip('_')}', or leave it out where the gate's "
                "own is meant.",
            )

    def _refuse_odd_rules(self) -> None:
        refuse_unless(
            not any(share_of(one) is not None for one in self.each_day),
            "A measure is of a day and not of a row: an expectation of each_day cannot quarantine.",
        )
        refuse_unless(
            not (self.rules and self.same_rows_as),
            f"The suite has a row rule and same_rows_as='{self.same_rows_as}': the rows that the "
            f"rule moves out would lack. Give the rule to {self.same_rows_as}.",
        )
        for rule in self.rules:
            refuse_unless(
                rule.column not in (self.day, ROWS_OF_KEY),
                f"A row rule cannot be about '{rule.column}': it is not of one row of a day.",
            )

    @property
    def rules(self) -> tuple[Expectation, ...]:
        """The row rules among the expectations about rows."""
        return tuple(one for one in self.each_row if share_of(one) is not None)

    @property
    def waivable(self) -> tuple[Expectation, ...]:
        """Expectations of which a waiver may let a failure through.

        Not those that every table has, nor the presence of the key: without them a table is not
        what its readers take it for.
        """
        form = [(one.expectation_type, about(one)) for one in all_present(self.key)]
        declared = [*self.each_row, *self.each_day]
        critical = [one for one in declared if one.severity.value == "critical"]
        named = [((one.expectation_type, about(one)), one) for one in critical]
        return tuple(one for name, one in named if name not in form)

    @property
    def every_row(self) -> tuple[Expectation, ...]:
        """Expectations about rows, with those that every table has."""
        key = ", ".join(self.key)
        unique = one_of(ROWS_OF_KEY, [1], says=f"No other row of the day has the same ({key}).")
        return (self.columns, present(self.day), unique, *self.each_row)

    @property
    def every_day(self) -> tuple[Expectation, ...]:
        """Expectations about days, with those that every table has."""
        belongs = one_of(OF_THE_RUN, [1], says=f"{self.day} is a day of the run.")
        if self.same_rows_as is None:
            return (belongs, *self.each_day)
        lacking = one_of(LACKING, [0], says=f"Every row of {self.same_rows_as} has its row here.")
        surplus = one_of(SURPLUS, [0], says=f"Every row has its row in {self.same_rows_as}.")
        return (belongs, lacking, surplus, *self.each_day)

    @property
    def columns(self) -> Expectation:
        """The expectation that the columns are there, on which all others rest."""
        return gxe.ExpectTableColumnsToMatchSet(
            column_set=list(self.declared_columns),
            # Ingestion adds its own, such as a row's file and line.
            exact_match=False,
            description="Every declared column is there.",
        )

    @property
    def declared_columns(self) -> tuple[str, ...]:
        """Names of the columns that the table must have."""
        # Each once: the day may be part of the key.
        return tuple(dict.fromkeys([self.day, *self.key, *self.has]))


def about(expectation: Expectation) -> str | None:
    """The column or measure that an expectation is about; several, joined by commas.

    None: it is about no column.
    """
    one = getattr(expectation, "column", None)
    pair = [getattr(expectation, name, None) for name in ("column_A", "column_B")]
    columns = getattr(expectation, "column_list", None) or [one, *pair]
    return ", ".join(filter(None, columns)) or None


def present(
    column: str, *, severity: Severity = "critical", says: str | None = None
) -> Expectation:
    """The column has a value."""
    text = says or f"{column} has a value."
    return gxe.ExpectColumnValuesToNotBeNull(column=column, severity=severity, description=text)


def all_present(columns: Iterable[str]) -> tuple[Expectation, ...]:
    """Each of the columns has a value."""
    return tuple(present(column) for column in columns)


def between(
    column: str,
    least: Bound | None,
    most: Bound | None,
    *,
    severity: Severity = "critical",
    says: str | None = None,
) -> Expectation:
    """The value lies from `least` to `most`, both included; None: no bound.

    Raises:
        UsageError: neither is a bound, one is no number, date or instant, or nothing lies between.
    """
    refuse_unless(
        least is not None or most is not None,
        f"between('{column}', None, None) lets everything through: give a bound. For a value that "
        f"must be there: present('{column}').",
    )
    given = f"between({column!r}, {least!r}, {most!r})"
    text = says or f"{column} is {_bounds(least, most)}."
    try:
        made = gxe.ExpectColumnValuesToBeBetween(
            column=column,
            min_value=least,
            max_value=most,
            severity=severity,
            description=text,
        )
    except ValueError:
        # Pydantic's own is one.
        raise UsageError(f"{given}: {_NO_BOUND}") from None
    _refuse_odd_bounds(given, made.min_value, made.max_value)
    return made


def one_of(
    column: str,
    values: Iterable[object],
    *,
    severity: Severity = "critical",
    says: str | None = None,
) -> Expectation:
    """The value is one of a few.

    Raises:
        UsageError: `values` is a text.
    """
    refuse_unless(
        not isinstance(values, str),
        f"one_of('{column}', …): its values are the text '{values}', which would be its letters. "
        f"Of one value: ('{values}',).",
    )
    allowed = list(values)
    listed = ", ".join(map(str, allowed))
    text = says or f"{column} is one of {listed}."
    return gxe.ExpectColumnValuesToBeInSet(
        column=column, value_set=allowed, severity=severity, description=text
    )


def matches(
    column: str, regex: str, *, severity: Severity = "critical", says: str | None = None
) -> Expectation:
    """The text holds what matches the regular expression; `^` and `$` are its ends."""
    text = says or f"{column} matches {regex}."
    return gxe.ExpectColumnValuesToMatchRegex(
        column=column, regex=regex, severity=severity, description=text
    )


def absent(column: str, *, severity: Severity = "critical", says: str) -> Expectation:
    """The column, usually a derived one that holds what is wrong, has no value."""
    return gxe.ExpectColumnValuesToBeNull(column=column, severity=severity, description=says)


def _bounds(least: Bound | None, most: Bound | None) -> str:
    if least is None:
        return f"at most {_shown(most)}"
    if most is None:
        return f"at least {_shown(least)}"
    return f"from {_shown(least)} to {_shown(most)}"


def _refuse_odd_bounds(given: str, least: Any, most: Any) -> None:
    for bound in (least, most):
        # NaN is in no order.
        refuse_unless(bound is None or bound == bound, f"{given}: {_NO_BOUND}")
    if least is None or most is None:
        return
    try:
        is_empty = least > most
    except TypeError:
        raise UsageError(
            f"{given}: these cannot be compared. Give two numbers, two dates, or two instants that "
            "both have a zone or both have none."
        ) from None
    refuse_unless(not is_empty, f"{given}: no value lies there.")


def _shown(bound: Bound | None) -> str:
    return f"{bound:,}" if isinstance(bound, int | float) else str(bound)


def _refuse_if_of_the_run(expectation: Expectation) -> None:
    """Refuse one about all rows of a run: a range would get another verdict than its nights."""
    kind = type(expectation).__name__
    refuse_unless(
        isinstance(expectation, _OF_ROWS) and kind not in _BY_OTHER_ROWS,
        f"{kind} is about all rows of a run together, and a range has those of many days. Have "
        "`measures` say what must hold of a day, such as avg(amount), and each_day between which "
        "bounds it lies; what is unique on a day is the `key`.",
    )
