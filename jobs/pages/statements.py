"""The page of SQL: one statement, in a process of its own that is ended when it takes too much.

DuckDB's memory limit does not hold for all functions, and no statement can be trusted to end.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.schema import Field, Schema

from jobs.lake import datasets, dictionary, sql
from jobs.lake.ops_views import OPS_VIEWS
from jobs.lake.store_faults import in_place_of_doc
from jobs.night import message_of
from jobs.output import jsonable
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError
from pipelines.redaction import redacted
from pipelines.spec import HISTORY_SUFFIX

ROWS_SHOWN = 1000
ROWS_OF_A_FILE = 100_000
SECONDS = 30
"""That a statement may run."""
_ADDRESS_SPACE = 6 * 1024**3
"""Bytes that the process may map: what DuckDB may have by default, libraries, and stacks."""
_LONGEST = 10_000
"""Characters of a text that is shown."""
_BYTES = 16 * 1024**2
"""Of an answer: the API server, which hands it on, has no limit of its own."""
_TOO_LARGE = "One row is larger than the 16 MB that an answer may have: read fewer columns."


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


def described(environment: Environment) -> list[Described]:
    """The tables of the lake, with what they and their columns mean, or why one is not opened."""
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


def answer(environment: Environment, statement: str, rows: int, seconds: float = SECONDS) -> bytes:
    """Run a statement that only reads, and give its first rows as JSON.

    It is an object of `columns` (their names), `rows`, `is_cut`: whether there are more rows, and
    `notes`: what they lack, such as a table that cannot be opened.

    Args:
        environment: Whose lake is read.
        statement: One that gives rows, after any number that give none.
        rows: How many rows at most; fewer where they would be more than 16 MB.
        seconds: After which it is ended.

    Raises:
        UsageError: DuckDB refuses it, it takes too long or too much memory, a row is too large, or
            a table cannot be read.
    """
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs.pages.statements"],
            input=json.dumps({"statement": statement, "rows": rows}).encode(),
            env={**os.environ, **environment.variables()},
            cwd=ROOT,
            capture_output=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"The statement took longer than {seconds:g} s and was ended. Read fewer days, or run "
            "it with `nightshift sql`, which may take any time."
        ) from None
    if ended.returncode == UsageError.exit_code:
        raise UsageError(ended.stdout.decode())
    if ended.returncode:
        # Killed, or a library that found no memory.
        last = ended.stderr[-300:].decode(errors="replace")
        raise UsageError(f"The statement needed too much memory and was ended. {last}")
    # As it is: read into objects it would take many times as much.
    return ended.stdout


def main() -> int:
    """Run the statement of standard input; the answer, or what is wrong, on standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    asked = json.load(sys.stdin)
    try:
        told = _run(Environment.read(), asked["statement"], asked["rows"])
    except UsageError as error:
        # A statement may give it any length.
        told = str(error)[:_LONGEST]
    except MemoryError:
        told = "The statement needed more memory than a page may take."
    except Exception as error:  # such as a table that cannot be opened, or a store that is away
        told = message_of(error)[:_LONGEST]
    else:
        print(told)
        return 0
    sys.stdout.buffer.write(told.encode())
    return UsageError.exit_code


def _run(environment: Environment, statement: str, rows: int) -> str:
    notes: list[str] = []
    with sql.Session(environment, tell=notes.append) as session:
        for result in session.results(statement, most=1):
            return _written(result.columns, result.rows, rows, notes)
    return _written((), (), rows, notes)


def _written(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    most: int,
    notes: Sequence[str],
) -> str:
    """The answer as JSON: the first rows, as far as there is room."""
    names = json.dumps(list(columns))
    # They quote libraries, which may quote an address.
    beside = json.dumps(redacted("\n".join(notes))[:_LONGEST])
    room = _BYTES - len(names) - len(beside)
    if room < 0:
        raise UsageError(_TOO_LARGE)
    written: list[str] = []
    is_cut = False
    for row in rows:
        # Plain ASCII: as many bytes as characters.
        text = json.dumps([_shown(value) for value in row], allow_nan=False)
        room -= len(text) + len(",")
        if room < 0 and not written:
            raise UsageError(_TOO_LARGE)
        is_cut = room < 0 or len(written) == most
        if is_cut:
            break
        written.append(text)
    told = f'"columns": {names}, "rows": [{",".join(written)}], "is_cut": {json.dumps(is_cut)}'
    return f'{{{told}, "notes": {beside}}}'


def _shown(value: object) -> object:
    # Null would be a value that is not known.
    told = jsonable(value, odd=str)
    if isinstance(told, str) and len(told) > _LONGEST:
        return f"{told[:_LONGEST]}…"
    return _exact(told)


def _exact(told: object) -> object:
    """With a text in the place of each number that a browser would round."""
    if isinstance(told, list):
        return [_exact(one) for one in told]
    if isinstance(told, dict):
        return {name: _exact(one) for name, one in told.items()}
    # A browser's numbers are exact up to this.
    if isinstance(told, int) and abs(told) > 2**53:
        return str(told)
    return told


def _described(environment: Environment, name: str) -> Described:
    try:
        columns = columns_of(environment, name)
    except DeltaError as error:
        return Described(name=name, doc=in_place_of_doc(name, error), columns=())
    return Described(name=name, doc=dictionary.table_doc(name), columns=tuple(columns))


def _fields(environment: Environment, name: str) -> list[Field]:
    table = name.removesuffix(HISTORY_SUFFIX)
    opened = DeltaTable(environment.table_path(table))
    fields = list(opened.schema().fields)
    if table != name:
        fields += Schema.from_arrow(datasets.OF_HISTORY).fields
    return fields


if __name__ == "__main__":
    sys.exit(main())
