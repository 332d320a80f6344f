"""The page of SQL: one statement, in a process of its own that is ended when it takes too much.

DuckDB's memory limit does not hold for all functions, and no statement can be trusted to end.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from threading import BoundedSemaphore

from deltalake import DeltaTable
from deltalake.schema import Field

from jobs.lake import dictionary, sql
from jobs.lake.ops_views import OPS_VIEWS
from jobs.output import jsonable
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError
from pipelines.spec import HISTORY_SUFFIX

ROWS_SHOWN = 1000
ROWS_OF_A_FILE = 100_000
SECONDS = 30
"""That a statement may run."""
_ADDRESS_SPACE = 6 * 1024**3
"""Bytes that the process may map: what DuckDB may have by default, libraries, and stacks."""
_LONGEST = 10_000
"""Characters of a text that is shown."""
_AT_ONCE = BoundedSemaphore(2)
"""Statements that run at one time; each may take a core and its memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    kind: str
    doc: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A table that can be queried."""

    name: str
    doc: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a statement gave."""

    columns: list[str]
    rows: list[list[object]]
    """As JSON can say them."""
    is_cut: bool
    """Whether there are more rows."""


def described(environment: Environment) -> list[Described]:
    """The tables of the lake, with what they and their columns mean."""
    return [_described(environment, name) for name in sql.tables(environment)]


def columns_of(environment: Environment, name: str) -> list[Column]:
    """The columns of a table or a view that is there, with what they mean."""
    docs = dictionary.column_docs(name)
    if name in OPS_VIEWS:
        return [Column(name=column, kind="", doc=docs[column]) for column in docs]
    columns = []
    for field in _fields(environment, name):
        # Of a list or a struct it has none.
        kind = str(getattr(field.type, "type", "nested"))
        doc = docs.get(field.name, "")
        columns.append(Column(name=field.name, kind=kind, doc=doc))
    return columns


def answer(environment: Environment, statement: str, rows: int, seconds: float = SECONDS) -> Answer:
    """Run a statement that only reads, and give its first rows.

    Args:
        environment: Whose lake is read.
        statement: One that gives rows, after any number that give none.
        rows: How many rows at most.
        seconds: After which it is ended.

    Raises:
        UsageError: DuckDB refuses it, it takes too long or too much memory, or others run.
    """
    if not _AT_ONCE.acquire(timeout=seconds):
        raise UsageError("Other statements run, and none has ended: try again.")
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs.pages.statements"],
            input=json.dumps({"statement": statement, "rows": rows}),
            env={**os.environ, **environment.variables()},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"The statement took longer than {seconds:g} s and was ended. Read fewer days, or run "
            "it with `nightshift sql`, which may take any time."
        ) from None
    finally:
        _AT_ONCE.release()
    if ended.returncode:
        # Killed, or a library that found no memory.
        raise UsageError(
            f"The statement needed too much memory and was ended. {ended.stderr[-300:]}"
        )
    told = json.loads(ended.stdout)
    if "error" in told:
        raise UsageError(str(told["error"]))
    return Answer(**told)


def main() -> None:
    """Run the statement of standard input; the answer, or what is wrong, on standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    asked = json.load(sys.stdin)
    try:
        found = _run(Environment.read(), asked["statement"], asked["rows"])
    except UsageError as error:
        json.dump({"error": str(error)}, sys.stdout)
    except MemoryError:
        json.dump({"error": "The statement needed more memory than a page may take."}, sys.stdout)
    else:
        json.dump(asdict(found), sys.stdout, allow_nan=False)


def _run(environment: Environment, statement: str, rows: int) -> Answer:
    for result in sql.results(environment, statement, most=1):
        # One more tells whether there are more.
        first = islice(result.rows, rows + 1)
        found = [_as_shown(row) for row in first]
        is_cut = len(found) > rows
        return Answer(columns=list(result.columns), rows=found[:rows], is_cut=is_cut)
    return Answer(columns=[], rows=[], is_cut=False)


def _as_shown(row: Iterable[object]) -> list[object]:
    return [_shown(value) for value in row]


def _shown(value: object) -> object:
    told = jsonable(value)
    if isinstance(told, str) and len(told) > _LONGEST:
        return f"{told[:_LONGEST]}…"
    # A browser's numbers are exact up to this.
    if isinstance(told, int) and abs(told) > 2**53:
        return str(told)
    return told


def _described(environment: Environment, name: str) -> Described:
    columns = columns_of(environment, name)
    return Described(name=name, doc=dictionary.table_doc(name), columns=tuple(columns))


def _fields(environment: Environment, name: str) -> list[Field]:
    table = name.removesuffix(HISTORY_SUFFIX)
    opened = DeltaTable(environment.table_path(table))
    return list(opened.schema().fields)


if __name__ == "__main__":
    main()
