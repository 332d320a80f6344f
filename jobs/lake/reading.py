"""Rows for programs: those of one table, or of a statement, in Arrow.

What is not asked for is not read: filters and columns reach the files, and files of other days
are not opened.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
from duckdb import ColumnExpression, ConstantExpression, Expression

from jobs.lake import sql
from jobs.lake.as_of import KNOWN, TIMESTAMP, VERSION, Past
from pipelines.errors import UnknownColumn, UsageError, no_such, refuse_unless

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

    from pipelines.environment import Environment

Filter = tuple[str, str, object]
"""Column, operator (one of `OPERATORS`), and what it is compared with."""
_COMPARISONS: dict[str, Callable[[Expression, Expression], Expression]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OF_SEVERAL = {"in": Expression.isin, "not in": Expression.isnotin}
_OF_NULL = {
    "=": Expression.isnull,
    "==": Expression.isnull,
    "!=": Expression.isnotnull,
}
OPERATORS = (*_COMPARISONS, *_OF_SEVERAL)
_ROWS_AT_ONCE = 100_000
_TRUTH_VALUES = ("bool", "bool_")
_TIME_OF_DAY = re.compile(r"\d[T ].*[1-9]")
"""Within a text that begins with a day: midnight is the day itself."""
_WHOLE = ("int", "integer")
"""Ends of the names of DuckDB's types of whole numbers."""
_FLOATS = ("double", "float")
_FRACTIONS = (*_FLOATS, "decimal")
_EXCERPT = "\n\nLINE "
"""Before DuckDB shows where in a statement something is wrong."""
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Of decimals that are never rounded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """The state of a table that is asked for: as of now, or by one of these."""

    run: str | None = None
    """As that run left the tables of its pipeline."""
    version: int | None = None
    """Of the table."""
    as_of: datetime | str | None = None
    """As it was published at that time; UTC when it has no zone."""
    known_as_of: date | str | None = None
    """As the night of that day saw it."""

    def __post_init__(self) -> None:
        told = (self.run, self.version, self.as_of, self.known_as_of)
        given = [one for one in told if one is not None]
        _require_run(self.run)
        refuse_unless(
            len(given) <= 1, "Say only one of run, version, as_of and known_as_of: which is meant?"
        )

    def of(self, table: str) -> Past | None:
        """The table as it was; None: as the run left it, or as of now."""
        kinds = {VERSION: self.version, TIMESTAMP: self.as_of, KNOWN: self.known_as_of}
        for kind, value in kinds.items():
            if value is not None:
                return Past(table=table, kind=kind, value=_said(kind, value))
        return None


def read(
    environment: Environment,
    table: str,
    columns: Sequence[str] | None,
    filters: Iterable[Filter],
    moment: Moment,
) -> pa.Table:
    """The rows of one table for which all filters hold.

    Args:
        environment: Whose lake is read.
        table: SQL name, with its pipeline or without.
        columns: Those to read; None: all.
        filters: A null fulfils none, except `=` None. A text is read as the column's type.
        moment: Which state of it.

    Raises:
        UnknownTable: there is no such table.
        UnknownColumn: the table has no column that is named.
        UsageError: a filter makes no sense, or there was no such table then.
    """
    require_text("table", table)
    if isinstance(columns, str):
        raise UsageError(f"columns is a list of names, not a text: say columns=['{columns}'].")
    if columns is not None and not isinstance(columns, Iterable):
        raise UsageError(f"columns is a list of names, not {columns!r}.")
    if not isinstance(filters, Iterable):
        raise UsageError(f"filters is a list of (column, operator, value), not {filters!r}.")
    # What gives each only once is asked for more than once below.
    filters = list(filters)
    for one in filters:
        if not _is_filter(one):
            raise UsageError(
                f"filters is a list of (column, operator, value), such as [('day', '=', day)]: "
                f"{one!r} is none."
            )
        require_text("the column of a filter", one[0])
    with (
        _without_excerpts(),
        sql.Session(environment, moment.run) as session,
        sql.refusals("", [table]),
    ):
        filtered = [column for column, _, _ in filters]
        rows = session.rows_of(table, moment.of(table), filtered)
        types = dict(zip(rows.columns, rows.types, strict=True))
        wanted = rows.columns if columns is None else list(columns)
        refuse_unless(bool(wanted), f"columns=[] names no column of {table}: leave it out for all.")
        for name in wanted:
            require_text("the name of a column", name)
        for name in (*wanted, *filtered):
            if name not in types:
                raise no_such(f"column of {table}", name, types, UnknownColumn)
        for column, how, value in filters:
            rows = rows.filter(_condition(column, how, value, types[column]))
        chosen = rows.select(*map(ColumnExpression, wanted))
        return session.waited(lambda: _all_of(chosen.to_arrow_reader(_ROWS_AT_ONCE)))


@contextmanager
def _without_excerpts() -> Iterator[None]:
    """Tell what DuckDB says without the statement, which nobody has written."""
    try:
        yield
    except UsageError as error:
        told = str(error)
        if _EXCERPT not in told:
            raise
        raise UsageError(told.partition(_EXCERPT)[0]) from None


def ask(environment: Environment, statements: str, run: str | None) -> pa.Table:
    """The rows of the only statement that gives some.

    Args:
        environment: Whose lake is read.
        statements: SQL; see `sql.results`.
        run: See `sql.results`.

    Raises:
        UsageError: see `sql.results`; or none gives rows.
    """
    require_text("statement", statements)
    _require_run(run)
    with sql.Session(environment, run) as session:
        found = session.batches(statements)
        if found is None:
            raise UsageError("No statement gives rows: there is nothing to read.")
        return _all_of(found)


def require_text(what: str, given: object) -> None:
    """Raise unless it is a text: what a program hands over may be of any type.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(given, str):
        raise UsageError(f"{what} is a text, not {given!r}.")


def _require_run(given: object) -> None:
    if given is not None:
        require_text("run", given)


def _said(kind: str, value: object) -> str:
    """A moment as a statement says it."""
    if kind == KNOWN and isinstance(value, datetime) and value.time() == time.min:
        # As pandas has a day.
        return str(value.date())
    return str(value)


def _is_filter(given: object) -> bool:
    return isinstance(given, tuple | list) and len(given) == len(("column", "operator", "value"))


def _condition(column: str, how: str, value: object, kind: DuckDBPyType) -> Expression:
    name = ColumnExpression(column)
    require_text("the operator of a filter", how)
    if how in _OF_SEVERAL:
        return _of_several(column, how, value, kind)
    refuse_unless(how != "<>", f"No operator of a filter named '<>': {column} '!=' says it.")
    if how not in _COMPARISONS:
        raise no_such("operator of a filter", how, OPERATORS)
    if value is None:
        if how not in _OF_NULL:
            raise UsageError(f"Filter {column} {how} None holds for no row: say '=' or '!='.")
        return _OF_NULL[how](name)
    # A column of floats may hold NaN, which DuckDB finds.
    is_nan = isinstance(value, float) and kind.id in _FLOATS
    if _is_missing(value) and not is_nan:
        raise UsageError(
            f"Filter {column} {how} {value!r} compares with what equals nothing. The rows without "
            f"a value are those of ('{column}', '=', None)."
        )
    return _COMPARISONS[how](name, _constant(column, value, kind))


def _of_several(column: str, how: str, value: object, kind: DuckDBPyType) -> Expression:
    if isinstance(value, pa.Array | pa.ChunkedArray):
        # A column that was read before.
        value = value.to_pylist()
    if isinstance(value, str) or not isinstance(value, Collection):
        raise UsageError(f"Filter {column} {how} needs a list of values, not {value!r}.")
    # numpy and pandas have no truth value of several.
    values = list(value)
    if any(map(_is_missing, values)):
        raise UsageError(
            f"Filter {column} {how} has None in its list, or NaN, NaT or NA, which equals nothing. "
            f"Leave it out; the rows without a value are those of ('{column}', '=', None)."
        )
    if not values:
        # SQL has no empty list.
        return ConstantExpression(how == "not in")
    constants = [_constant(column, one, kind) for one in values]
    return _OF_SEVERAL[how](ColumnExpression(column), *constants)


def _is_missing(value: object) -> bool:
    """Whether it stands for no value: None, and what numpy, pandas and polars have for it."""
    try:
        return not pa.scalar(value, from_pandas=True).is_valid
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        # Of no kind that Arrow knows: what it is, DuckDB says.
        return False


def _constant(column: str, value: object, kind: DuckDBPyType) -> Expression:
    # By name, because numpy has a truth value of its own.
    if type(value).__name__ in _TRUTH_VALUES and _is_number(kind):
        raise UsageError(
            f"{value!r} is no value of column '{column}', which is {kind}: say a number."
        )
    try:
        constant = ConstantExpression(value)
    except (TypeError, duckdb.Error):
        raise UsageError(f"{value!r} is no value of a column: nothing equals it.") from None
    # '2013-04-03' means the day; a number keeps what it says, whatever the column holds.
    if not isinstance(value, str):
        return constant
    if _is_rounded(value, kind):
        raise UsageError(
            f"'{value}' is no value of column '{column}', which is {kind}: it would be rounded to "
            "one. Without quotes, as a number or a datetime, it is compared as it is."
        )
    return constant.cast(kind)


def _is_rounded(text: str, kind: DuckDBPyType) -> bool:
    """Whether DuckDB would read a number with fewer places, or a day without its time."""
    if kind.id == "date":
        return bool(_TIME_OF_DAY.search(text))
    try:
        said = Decimal(text).normalize(_EXACT)
    except ArithmeticError:
        # Not as numbers are mostly written: DuckDB says what it is.
        return False
    return said.is_finite() and -int(said.as_tuple().exponent) > _places(kind)


def _is_number(kind: DuckDBPyType) -> bool:
    return kind.id in _FRACTIONS or kind.id.endswith(_WHOLE)


def _places(kind: DuckDBPyType) -> float:
    """Digits behind the point that a column of that type keeps."""
    if kind.id.endswith(_WHOLE):
        return 0
    if kind.id == "decimal":
        scale = dict(kind.children)["scale"]
        assert isinstance(scale, int), "a decimal tells two numbers of itself"
        return scale
    return math.inf


def _all_of(batches: pa.RecordBatchReader) -> pa.Table:
    try:
        return batches.read_all()
    except OSError as error:
        # How Arrow tells of what DuckDB says of a row.
        raise sql.as_ours(error) from None
