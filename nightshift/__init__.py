"""The lake for notebooks and programs: `nightshift.read` and `nightshift.sql`.

They only read, need no service and no JVM, and open only the tables that are named. Which lake it
is say the variables of `nightshift config`, such as NIGHTSHIFT_HOME.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, overload

from jobs.lake import reading
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UnknownColumn, UnknownTable, UsageError, no_such

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["NightshiftError", "UnknownColumn", "UnknownTable", "UsageError", "read", "sql"]

_FORMS = ("arrow", "pandas", "polars")


@overload
def read(
    table: str,
    *,
    columns: Sequence[str] | None = None,
    filters: Collection[reading.Filter] | None = None,
    run: str | None = None,
    version: int | None = None,
    as_of: datetime | str | None = None,
    known_as_of: date | str | None = None,
    to: Literal["arrow"] = "arrow",
) -> pa.Table: ...
@overload
def read(
    table: str,
    *,
    columns: Sequence[str] | None = None,
    filters: Collection[reading.Filter] | None = None,
    run: str | None = None,
    version: int | None = None,
    as_of: datetime | str | None = None,
    known_as_of: date | str | None = None,
    to: Literal["pandas"],
) -> pd.DataFrame: ...
@overload
def read(
    table: str,
    *,
    columns: Sequence[str] | None = None,
    filters: Collection[reading.Filter] | None = None,
    run: str | None = None,
    version: int | None = None,
    as_of: datetime | str | None = None,
    known_as_of: date | str | None = None,
    to: Literal["polars"],
) -> pl.DataFrame: ...
def read(
    table: str,
    *,
    columns: Sequence[str] | None = None,
    filters: Collection[reading.Filter] | None = None,
    run: str | None = None,
    version: int | None = None,
    as_of: datetime | str | None = None,
    known_as_of: date | str | None = None,
    to: str = "arrow",
) -> Any:
    """The rows of a table: `read("flights.predictions", filters=[("flight_date", "=", day)])`.

    Columns and filters reach the files: what is not asked for is not read, and files of other days
    are not opened.

    Args:
        table: SQL name; without its pipeline where only one has such a table. `<table>_history`
            has every version of each day.
        columns: Those to read; None: all.
        filters: `(column, operator, value)`, all of which must hold; None: all rows. Operators are
            =, !=, <, <=, >, >=, "in" and "not in" (a list of values, or a column of Arrow, pandas
            or polars). A null fulfils none of them, except `=` None. A text is read as the column's
            type, so '2013-04-03' may stand for a day.
        run: The table as that run left it, as `nightshift sql --run`.
        version: The table at that version of its own, as VERSION AS OF.
        as_of: As it was published at that time (UTC without a zone), as TIMESTAMP AS OF.
        known_as_of: As the night of that day saw it, as KNOWN AS OF.
        to: "arrow" (a `pyarrow.Table`), "pandas" or "polars" (a DataFrame).

    Raises:
        UnknownTable: no table has that name; the message offers the near miss.
        UnknownColumn: the table has no column of that name; the message offers the near miss.
        UsageError: what is asked makes no sense: two moments at once, an operator that is none, a
            text that is no value of its column, a version that is not there.
        NightshiftError: a file of the table is gone or broken, or its store is away.
    """
    moment = reading.Moment(run=run, version=version, as_of=as_of, known_as_of=known_as_of)
    form = _form(to)
    rows = reading.read(Environment.read(), table, columns, filters or (), moment)
    return _as(form, rows)


@overload
def sql(
    statement: str,
    *,
    run: str | None = None,
    to: Literal["arrow"] = "arrow",
) -> pa.Table: ...
@overload
def sql(
    statement: str,
    *,
    run: str | None = None,
    to: Literal["pandas"],
) -> pd.DataFrame: ...
@overload
def sql(
    statement: str,
    *,
    run: str | None = None,
    to: Literal["polars"],
) -> pl.DataFrame: ...
def sql(
    statement: str,
    *,
    run: str | None = None,
    to: str = "arrow",
) -> Any:
    """The rows of a statement, as `nightshift sql` gives them.

    Args:
        statement: SQL, which can write nothing and reads nothing but tables of the lake.
        run: Show the tables of that run's pipeline as it left them; None: as of now.
        to: "arrow" (a `pyarrow.Table`), "pandas" or "polars" (a DataFrame).

    Raises:
        UsageError: the statement is refused, with DuckDB's message and the near miss; or it gives
            no rows.
        NightshiftError: a file of a table is gone or broken, or its store is away.
    """
    form = _form(to)
    return _as(form, reading.ask(Environment.read(), statement, run))


def _form(name: str) -> str:
    reading.require_text("to", name)
    if name not in _FORMS:
        raise no_such("form of rows", name, _FORMS)
    if name == "polars" and find_spec(name) is None:
        raise UsageError(
            "polars is not installed here, because no night needs it: install it, or ask for "
            "'arrow' or 'pandas'."
        )
    return name


def _as(form: str, rows: pa.Table) -> Any:
    if form == "pandas":
        return rows.to_pandas()
    if form == "polars":
        import polars as pl  # takes longer to import than all that is needed otherwise

        return pl.from_arrow(rows)
    return rows
