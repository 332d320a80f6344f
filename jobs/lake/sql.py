"""SQL over every table of the lake without a JVM.

DuckDB reads the Delta tables, each at its newest version or as one run left it, and beside those
of a pipeline every version of their days. Only the tables that a statement may mean are opened, so
that it takes no longer where the lake has many.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from itertools import chain
from textwrap import wrap
from typing import TYPE_CHECKING, Self, TypeVar

import duckdb
import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType

from jobs.lake import as_left, as_of, datasets, dictionary
from jobs.lake.as_left import Left
from jobs.lake.ops_views import OPS_VIEWS
from jobs.lake.store_faults import explain_store_fault
from jobs.lake.stored import stored_tables
from jobs.lake.tokens import (
    Token,
    as_name,
    encoded,
    lists_tables,
    quoted,
    text_of,
    tokens,
)
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UnknownTable, UsageError, no_such
from pipelines.spec import HISTORY_SUFFIX, OPS, PREDICTIONS, QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from jobs.lake.as_of import Past

_Given = TypeVar("_Given")
_LISTING = re.compile(
    r"show|describe|information_schema|duckdb_\w+|pragma\w*|pg_\w+|sqlite_\w+|query|query_table"
)
"""Words of statements that may read of any table without its name: the ways to list tables, and the
functions that take a name, or a statement, that may be put together."""
_SETTINGS = (
    *("TimeZone", "Calendar", "threads", "schema", "search_path", "default_order"),
    *("default_null_order", "integer_division", "ieee_floating_point_ops", "explain_output"),
    *("preserve_insertion_order", "order_by_non_integer_literal", "lambda_syntax"),
)
"""What a statement may set: nothing else is known to leave limits, files and the process alone."""
_LOCKED = re.compile(r'Cannot change configuration option "(\w+)"')
"""What DuckDB says of any other."""
_SETS_THREADS = ("threads", "worker_threads")
_FOR_ALL = "global"
"""May stand before the name of a setting."""
_DEFINING = (
    duckdb.StatementType.CREATE,
    duckdb.StatementType.DROP,
    duckdb.StatementType.ALTER,
    duckdb.StatementType.MULTI,
)
_MAKING = (*_DEFINING, duckdb.StatementType.PREPARE)
_OPTIONS_OF_EXPLAIN = ("analyze", "format")
_FILLING = ("create", "insert", "update", "delete", "merge", "copy")
"""First words of statements that give no rows, even of a PIVOT."""
_CHANGING = (
    duckdb.StatementType.INSERT,
    duckdb.StatementType.UPDATE,
    duckdb.StatementType.DELETE,
    duckdb.StatementType.MERGE_INTO,
)
"""Give the rows that they change if they say RETURNING, and else how many these are."""
_OBJECTS = """SELECT database_name, schema_name, oid, '' AS name FROM duckdb_schemas()
UNION ALL SELECT database_name, schema_name, view_oid, view_name FROM duckdb_views()
UNION ALL SELECT database_name, schema_name, table_oid, table_name FROM duckdb_tables()"""
_COLUMNS_OF_SESSION = """SELECT database_name, schema_name, table_name, column_name, data_type
FROM duckdb_columns() WHERE NOT internal
AND NOT (database_name = 'memory' AND schema_name IN (SELECT unnest($schemas::VARCHAR[])))
ORDER BY database_name, schema_name, table_name, column_index"""
_OWN = """SELECT view_name, sql FROM duckdb_views() WHERE NOT internal
AND NOT (database_name = 'memory' AND schema_name IN (SELECT unnest($schemas::VARCHAR[])))
UNION ALL SELECT function_name, coalesce(macro_definition, '') FROM duckdb_functions()
WHERE NOT internal UNION ALL SELECT name, statement FROM duckdb_prepared_statements()"""
"""What a person has made that reads tables when it is named, and what it says."""
_MAIN = "main"
"""Schema whose tables, and those of what is temporary, need no schema before their names."""
_STEP = 0.1
"""Seconds."""
_STILL_ENDING = "Still ending: within a single value DuckDB does not look up."
_OF_DATABASES = (duckdb.StatementType.ATTACH, duckdb.StatementType.DETACH)
_NAME = re.compile(r'"?[A-Za-z_]\w*"?(?:\."?[A-Za-z_]\w*"?)*')
"""What may name a table in a statement: with its schema or without, in quotes or not."""
_NAMES_NO_TABLE = re.compile(
    r'Table with name "?([^"]+?)"? does not exist|No catalog \+ schema named "([^"]+)"'
)
"""What DuckDB says of a table, or of a pipeline after USE, that is not there."""
_GUESS = re.compile(r'\nDid you mean "([^"]*)"\?')
"""DuckDB's own near miss, which may be a table of its catalog: of the lake it knows those alone
that the statement names."""
_UNREAD = "reading the Arrow source failed: "
"""What DuckDB says where a file that a table names is gone or broken, or its store is away."""
_WRITES = re.compile(
    "is not an table|an only (delete from|update|merge into|create an index on)( a)? base table"
    "|Can only modify view|of type View, trying to drop"
)
"""What DuckDB says of a statement that would change a table of the lake, which to it is a view."""
_IS_READ = (
    "The tables of the lake are read, and no statement writes into one. Rows of your own: CREATE "
    "TEMP TABLE mine AS FROM …"
)
_ITS_CATALOG = ("information_schema.", "pg_", "duckdb_", "sqlite_")
_AT_A_VERSION = re.compile(r" (?:KNOWN|TIMESTAMP|VERSION) AS OF ", re.IGNORECASE)
OUT_OF_MEMORY = (
    "The memory of statements is NIGHTSHIFT_SQL_MEMORY: ask for less at once, or set it higher."
)
_COLUMNS = 100
"""Of the lines that list the tables."""
_ROWS_AT_ONCE = 10_000
"""Rows of a result in memory, however many it has; fewer where they are wide."""
_MORE_ROWS = 10
"""Times as many as before at the most, for the next ones may be wider."""
_BYTES_AT_ONCE = 16 * 1024**2
_ROWS_OF_BATCH = 2048
"""In Arrow: DuckDB makes none smaller."""
_CELL = 64
"""Bytes of what is no text, about."""
_LARGE = "hugeint"
_DIGITS = 38
"""Of a decimal, at the most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one statement gave."""

    columns: Sequence[str]
    rows: Iterator[tuple[object, ...]]
    """Read as they are asked for, before the next statement runs."""
    is_plan: bool
    """Whether they are what EXPLAIN draws, in texts of several lines."""


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Session:
    """Statements of one person: what one of them sets (`USE`, `SET`) holds for the next.

    Each reads the tables as they are when it runs.
    """

    def __init__(
        self,
        environment: Environment,
        run_id: str | None = None,
        tell: Callable[[str], None] = _tell,
    ) -> None:
        """Open it.

        Args:
            environment: Whose lake is read.
            run_id: Show the tables of that run's pipeline as it left them; None: as of now.
            tell: Is given what the rows lack, as a text.
        """
        self._environment = environment
        self._run_id = run_id
        self._tell = tell
        self._noted: list[str] = []
        self._pasts: dict[str, Past] = {}
        """Tables as they were, of all statements: what a person has made may name them again."""
        self._has_own = False
        """Whether a statement may have made a view, a macro or a prepared statement."""
        self._database = duckdb.connect(":memory:")
        _close_to_all_else(self._database, environment.sql_memory)
        # Tables are opened over a connection of its own, so that USE and SET stay as they are.
        self._opener = self._database.cursor()
        self._worker = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown()
        self._opener.close()
        self._database.close()

    @property
    def schema(self) -> str:
        """The pipeline whose tables need no pipeline before their names; `main`: none."""
        found = self._database.execute("SELECT current_schema()").fetchall()
        return str(found[0][0])

    @property
    def _schemas(self) -> list[str]:
        """All schemas in use, as `SET search_path` may name several."""
        found = self._database.execute("SELECT current_schemas(false)").fetchall()
        # After RESET there is none.
        return found[0][0] or [_MAIN]

    @property
    def memory(self) -> int:
        """Bytes that DuckDB may take: those of NIGHTSHIFT_SQL_MEMORY."""
        asked = "SELECT parse_formatted_bytes(current_setting('memory_limit'))"
        ((found,),) = self._opener.execute(asked).fetchall()
        return int(found)

    def own_tables(self, known: Sequence[str]) -> dict[str, dict[str, str]]:
        """Columns with their types, by the names of the tables and views of the person's own.

        Args:
            known: SQL names of the tables of the lake.
        """
        schemas = sorted({_schema_and_view(name)[0] for name in known})
        # What is temporary is there for its own connection alone.
        asked = self._database.execute(_COLUMNS_OF_SESSION, {"schemas": schemas})
        own: dict[str, dict[str, str]] = {}
        for _, schema, table, column, kind in asked.fetchall():
            said = as_name(table)
            name = said if schema == _MAIN else f"{as_name(schema)}.{said}"
            own.setdefault(name, {})[column] = kind
        return own

    def waited(self, do: Callable[[], _Given]) -> _Given:
        """What DuckDB gives, however long it takes; Ctrl-C ends it."""
        # In a thread, because DuckDB looks for Ctrl-C in some of its loops alone.
        given: Future[_Given] = Future()
        try:
            # It is known before it begins: Ctrl-C may come while the thread is being started.
            self._worker.submit(_do, do, given)
            # Step by step: other libraries let a thread that waits sleep through a signal.
            while not given.done():
                wait([given], _STEP)
        except BaseException:
            self._end(given)
            raise
        return given.result()

    def _end(self, given: Future[_Given]) -> None:
        """Wait until what runs has noticed that it is to end: then another one may begin."""
        # One that has not begun never does.
        given.cancel()
        is_told = False
        while not given.done():
            try:
                # One that has not quite begun does not notice.
                self.interrupt()
                wait([given], _STEP)
            except KeyboardInterrupt:
                if not is_told:
                    print(_STILL_ENDING, file=sys.stderr, flush=True)
                is_told = True

    def interrupt(self) -> None:
        """End the statement that runs, from another thread or a signal's handler."""
        self._database.interrupt()

    def results(self, statements: str, most: int | None = None) -> Iterator[Result]:
        """The results of SQL statements, in order; see `results`."""
        left, known = self._tables()
        with refusals(statements, known):
            for one in self._prepared(statements, most, left, known):
                ran = self._run(one, known)
                if _gives_rows(one):
                    columns = [column[0] for column in ran.description or ()]
                    yield Result(
                        columns=columns,
                        rows=self._rows(ran, statements, known),
                        is_plan=tokens(one.query)[0].word == "explain",
                    )

    def batches(self, statements: str) -> pa.RecordBatchReader | None:
        """The rows of the only statement that gives some, in Arrow; None: none does.

        Statements after it run once its rows have been read.

        Raises:
            UsageError: see `results`.
        """
        left, known = self._tables()
        with refusals(statements, known):
            asked = self._prepared(statements, 1, left, known)
            for one in asked:
                if _gives_rows(one):
                    relation = _exact(self._database.sql(one.query))
                    rows = self.waited(partial(relation.to_arrow_reader, _ROWS_OF_BATCH))
                else:
                    self._run(one, known)
                    continue
                then = self._followed(rows, asked, statements, known)
                return pa.RecordBatchReader.from_batches(rows.schema, then)
        return None

    def _followed(
        self,
        rows: pa.RecordBatchReader,
        after: Iterable[duckdb.Statement],
        statements: str,
        known: Sequence[str],
    ) -> Iterator[pa.RecordBatch]:
        """The rows, and then what the statements after them do."""
        with suppress(StopIteration):
            while True:
                yield self.waited(rows.read_next_batch)
        with refusals(statements, known):
            for one in after:
                self._run(one, known)

    def _run(self, one: duckdb.Statement, known: Sequence[str]) -> duckdb.DuckDBPyConnection:
        if one.type not in _DEFINING or _gives_rows(one):
            return self.waited(partial(self._database.execute, one))
        before = self._of_lake(known)
        self._database.execute("BEGIN")
        try:
            self.waited(partial(self._database.execute, one))
            if self._of_lake(known) != before:
                raise UsageError(
                    "The schemas of pipelines hold the tables of the lake, and no statement "
                    "changes what is in them. Say CREATE TEMP, or CREATE SCHEMA mine and "
                    "mine.<name>."
                )
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        return self._database.execute("COMMIT")

    def _of_lake(self, known: Sequence[str]) -> list[tuple[object, ...]]:
        """The schemas of pipelines, and what they hold."""
        schemas = sorted({_schema_and_view(name)[0] for name in known})
        return self._database.execute(
            f"WITH found AS ({_OBJECTS}) FROM found WHERE database_name = 'memory' AND "
            "schema_name IN (SELECT unnest($schemas)) ORDER BY ALL",
            {"schemas": schemas},
        ).fetchall()

    def _rows(
        self, ran: duckdb.DuckDBPyConnection, statements: str, known: Sequence[str]
    ) -> Iterator[tuple[object, ...]]:
        with refusals(statements, known):
            asked = 1
            while some := self.waited(partial(ran.fetchmany, asked)):
                yield from some
                wide = max(1, sum(map(_size, some)) // len(some))
                asked = max(1, min(asked * _MORE_ROWS, _ROWS_AT_ONCE, _BYTES_AT_ONCE // wide))

    def rows_of(
        self, table: str, past: Past | None = None, filtered: Collection[str] = ()
    ) -> duckdb.DuckDBPyRelation:
        """The rows of one table, of which none is read before they are asked for.

        Args:
            table: Its name, with its pipeline or without.
            past: The table as it was, in the place of it as it is; of the same name.
            filtered: Columns by which rows will be chosen: files without such values stay closed.

        Raises:
            UnknownTable: there is none of that name, or tables of several pipelines are.
            UsageError: see `results`.
        """
        left, known = self._tables()
        name = known_as(known, table)
        self._open(known, left, [name], filtered)
        shown = name
        if past is not None:
            found = replace(past, table=name)
            shown = f"{_schema_and_view(name)[0]}.{found.view}"
            self._open_pasts(known, {shown: found}, filtered)
        return self._database.sql(f"FROM memory.{_quoted_table(shown)}")

    def _tables(self) -> tuple[Left, list[str]]:
        """What a run has left, and the names of all tables."""
        known = tables(self._environment)
        if self._run_id is None:
            return Left(), known
        left = as_left.versions(self._environment, self._run_id, known)
        self._note(left.notes)
        # What was first published after the run was not there for it.
        return left, [name for name in known if left.versions.get(name, 0) is not None]

    def _note(self, notes: list[str]) -> None:
        """Say once what the run has not done, beside the rows."""
        if notes != self._noted:
            self._tell("\n".join(notes))
        self._noted = notes

    def _prepared(
        self,
        statements: str,
        most: int | None,
        left: Left,
        known: Sequence[str],
    ) -> Iterator[duckdb.Statement]:
        """The statements, with the tables open that they may read."""
        schemas = self._schemas
        text, pasts = as_of.rewritten(_with_list(statements, known), known, schemas)
        found = self._database.extract_statements(text)
        _refuse_what_acts(found)
        self._refuse_what_acts_in_explain(found)
        _refuse_unless_fit(found, most)
        # The schemas in use are as good as named.
        in_use = " ".join(map(quoted, schemas))
        said = [*tokens(in_use), *_reading(statements)]
        named = _named(said, known)
        self._open(known, left, named)
        others: list[str] = []
        again: Mapping[str, Past] = {}
        if behind := self._behind(said, known):
            said += behind
            others += _named(said, known)
            own = text_of(behind)
            again_named = [name for name in self._pasts if _is_named(name, own)]
            again = {name: self._pasts[name] for name in again_named}
        if _lists(said):
            others += known
        self._open_if_it_can_be(known, left, {*others} - {*named})
        self._open_pasts(known, {**again, **pasts})
        self._pasts |= pasts
        # Those of this text are all opened for what they name.
        self._has_own = self._has_own or any(one.type in _MAKING for one in found)
        return self._at_their_lines(found)

    def _behind(self, said: Sequence[Token], known: Sequence[str]) -> list[Token]:
        """The words of the person's own views, macros and statements that are named, and so on."""
        # The functions, among which macros are, take DuckDB 8 ms to list.
        if not self._has_own:
            return []
        schemas = sorted({_schema_and_view(name)[0] for name in known})
        # What is temporary is there for its own connection alone.
        left = self._database.execute(_OWN, {"schemas": schemas}).fetchall()
        behind: list[Token] = []
        text = text_of(said)
        while found := [one for one in left if _is_said(one[0], text)]:
            left = [one for one in left if one not in found]
            text = "\n".join(definition for _, definition in found)
            behind += tokens(text)
        return behind

    def _refuse_what_acts_in_explain(self, asked: Iterable[duckdb.Statement]) -> None:
        """EXPLAIN ANALYZE runs what it explains, so that must be one that may run by itself."""
        for one in asked:
            # Not by its type, which is another one where a PIVOT stands in it.
            if tokens(one.query)[0].word != "explain":
                continue
            explained = self._database.extract_statements(_explained(one.query))
            _refuse_what_acts(explained)
            if any(inner.type in _DEFINING and not _gives_rows(inner) for inner in explained):
                raise UsageError(
                    "EXPLAIN explains what reads tables, and makes and changes none: leave it out."
                )

    def _at_their_lines(self, found: Iterable[duckdb.Statement]) -> Iterator[duckdb.Statement]:
        """The statements, each as if it stood alone at its line of the text.

        Of one among others DuckDB looks for the place of a fault in the text of all, and shows what
        stands there in that of the one: another line, or none.
        """
        lines = 0
        for one in found:
            (alone,) = self._database.extract_statements("\n" * lines + one.query)
            yield alone
            lines += one.query.count("\n")

    def _open_if_it_can_be(
        self,
        known: Sequence[str],
        left: Left,
        names: Collection[str],
    ) -> None:
        """Open what is listed, or behind what the person has made: one stops none of the others."""
        for name in sorted(names):
            try:
                self._open(known, left, [name])
            except Exception as error:  # whatever it has, the others are told
                # Its rows of before are not those of now.
                self._opener.execute(f"DROP VIEW IF EXISTS memory.{_quoted_table(name)}")
                # Below its first line stands what a developer of the library would look for.
                why = str(error).partition("\n")[0]
                self._tell(f"{name} is left out, for it cannot be opened: {why}")

    def _open(
        self,
        known: Sequence[str],
        left: Left,
        named: Sequence[str],
        filtered: Collection[str] = (),
    ) -> None:
        """Make a view of each table that is named, at its version."""
        # All, so that USE knows each pipeline.
        for schema in {_schema_and_view(name)[0] for name in known}:
            self._opener.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        views = [name for name in named if name in OPS_VIEWS]
        read = chain.from_iterable(OPS_VIEWS[name].reads for name in views)
        for name in {*named, *read}.difference(views):
            self._show_as(name, _dataset(self._environment, name, left, filtered))
        for name in views:
            self._opener.execute(f"CREATE OR REPLACE VIEW memory.{name} AS {OPS_VIEWS[name].query}")

    def _open_pasts(
        self,
        known: Sequence[str],
        pasts: Mapping[str, Past],
        filtered: Collection[str] = (),
    ) -> None:
        every = {*known, *_histories(known)}
        for name, past in pasts.items():
            # Of an unknown one DuckDB itself says so, and what may be meant.
            if past.table in every:
                self._show_as(name, past.open(self._environment, filtered))

    def _show_as(self, name: str, rows: object) -> None:
        schema, view = _schema_and_view(name)
        # A view of the dataset itself: a registered dataset would be listed beside its view. It is
        # made in the schema in use, because create_view takes 'a.b' for one name.
        self._opener.execute(f"USE memory.{quoted(schema)}")
        self._opener.from_arrow(rows).create_view(view)


def results(
    environment: Environment,
    statements: str,
    most: int | None = None,
    run_id: str | None = None,
) -> Iterator[Result]:
    """The results of SQL statements, in order; tables are named `<pipeline>.<table>`.

    A statement that gives no rows, such as SET, gives no result.

    Args:
        environment: Whose lake is read.
        statements: Separated by semicolons. A table may be asked for as it was; see `as_of`.
        most: How many results the caller can take; None: any number.
        run_id: Show the tables of that run's pipeline as it left them; None: as of now.

    Raises:
        UsageError: DuckDB refuses a statement (the message is DuckDB's own, and offers the near
            miss), there is none, or there are more results than `most`: then none has run. Or the
            run is unknown, has not done all stages, or what it left has been deleted.
    """
    with Session(environment, run_id) as session:
        yield from session.results(statements, most)


def query(
    environment: Environment,
    statement: str,
    run_id: str | None = None,
) -> tuple[list[str], list[tuple[object, ...]]]:
    """Column names and rows of one SQL statement; see `results`."""
    for result in results(environment, statement, most=1, run_id=run_id):
        return list(result.columns), list(result.rows)
    return [], []


def tables(environment: Environment) -> list[str]:
    """SQL names of the tables in the lake, sorted, of histories of predictions, and of views.

    Every other table has a history too; listed, they would hide the tables.
    """
    names = stored_tables(environment)
    there = set(names)
    of_predictions = [name for name in names if name.endswith(f".{PREDICTIONS}")]
    histories = [name + HISTORY_SUFFIX for name in of_predictions]
    views = [name for name, view in OPS_VIEWS.items() if there.issuperset(view.reads)]
    return sorted(names + histories + views)


def known_as(known: Sequence[str], table: str) -> str:
    """The SQL name of a table that a person names, with its pipeline or without.

    Args:
        known: SQL names of the tables, as `tables` gives them.
        table: As the person says it.

    Raises:
        UnknownTable: there is none of that name, or tables of several pipelines are.
    """
    name = table.lower()
    every = [*known, *_histories(known)]
    meant = [one for one in every if name in _names_of(one)]
    if len(meant) == 1:
        return meant[0]
    if not meant and (told := _not_yet(name)):
        raise UnknownTable(told)
    raise no_such("table", table, meant or known, UnknownTable)


def _names_of(table: str) -> tuple[str, str]:
    """By which a person names it, in small letters: with its pipeline, and without."""
    name = table.lower()
    return name, name.partition(".")[2]


def meant(statements: str, known: Sequence[str]) -> list[str]:
    """The tables that the statements may read, and perhaps more: all that they name.

    A table is named by its own name and, before that or in another statement such as USE, by its
    pipeline's.
    """
    said = _reading(statements)
    if _lists(said):
        return list(known)
    text = text_of(said)
    return [name for name in known if _is_named(name, text)]


def near_misses(statement: str, known: Sequence[str]) -> dict[str, list[str]]:
    """Names in the statement that are nearly tables, each with the tables that may be meant.

    A table's name without its pipeline means that of any pipeline.
    """
    pipelines = {name.partition(".")[0] for name in known}
    missed = {}
    for word in dict.fromkeys(_NAME.findall(statement)):
        name = word.replace('"', "").lower()
        schema, _, _ = name.rpartition(".")
        bare = [table for table in known if table.partition(".")[2] == name]
        if name in known:
            continue
        # Of each word, and a statement may list thousands: what takes longer is asked last.
        if bare:
            missed[word] = bare
        elif schema and get_close_matches(schema, pipelines) and not _not_yet(name):
            missed[word] = get_close_matches(name, known, n=1)
    return {word: near for word, near in missed.items() if near}


def _not_yet(name: str) -> str:
    """What is told of a declared table that nothing was written into; empty: there is no such."""
    table = name.removesuffix(HISTORY_SUFFIX)
    if table != name and not _has_history(table):
        return ""
    doc = dictionary.table_doc(name)
    is_declared = dictionary.table_doc(table.removesuffix(QUARANTINE_SUFFIX))
    if not (doc and is_declared):
        return ""
    return f"{name} holds nothing yet, and so is not there: {doc}"


@contextmanager
def refusals(statements: str, known: Sequence[str]) -> Iterator[None]:
    """DuckDB's errors as ours, each with DuckDB's own message and the way out."""
    try:
        yield
    except RuntimeError as error:
        # What DuckDB makes of Ctrl-C.
        if "Query interrupted" in str(error):
            raise KeyboardInterrupt from None
        raise
    except duckdb.OutOfMemoryException as error:
        # Its other lines name settings that no statement changes here.
        raise UsageError(f"{str(error).splitlines()[0]}\n{OUT_OF_MEMORY}") from None
    except duckdb.Error as error:
        if locked := _LOCKED.search(str(error)):
            raise UsageError(_kept(locked[1])) from None
        told = str(error)
        if found := _NAMES_NO_TABLE.search(told):
            missing = found[1] or found[2]
            if len(parts := _AT_A_VERSION.split(missing)) > 1:
                # DuckDB names it, and shows the statement, as we have written it.
                missing = parts[0]
                told = f"Catalog Error: Table with name {missing} does not exist!"
            told = "\n".join(_of_no_table(told, missing, statements, known))
            raise UsageError(told) from None
        if _WRITES.search(told):
            raise UsageError(f"{told}\n{_IS_READ}") from None
        raise as_ours(error) from None


def as_ours(error: Exception) -> NightshiftError:
    """What DuckDB says, as an error of ours: of the statement, or of files that are not read."""
    told = str(error)
    _, is_unread, why = told.partition(_UNREAD)
    if not is_unread:
        return UsageError(told)
    return explain_store_fault(error) or NightshiftError(f"A table's rows cannot be read: {why}")


def _of_no_table(
    told: str,
    missing: str,
    statements: str,
    known: Sequence[str],
) -> list[str]:
    """What DuckDB says of a table that is not there, what may be meant, and all that are."""
    near = _meant(missing, statements, known)
    guess = _GUESS.search(told)
    if guess and (near or guess[1].startswith(_ITS_CATALOG)):
        told = told.replace(guess[0], "")
    lines = [told]
    for word, names in near.items():
        lines.append(f"No table named '{word}'. Did you mean {' or '.join(names)}?")
    for name in dict.fromkeys(map(_plain, _NAME.findall(statements))):
        if name not in known and name.endswith(missing.lower()):
            lines += filter(None, [_not_yet(name)])
    listed = f"Tables of the lake: {', '.join(known) or 'none yet, run a night first'}."
    lines += wrap(listed, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    return lines


def _meant(
    missing: str,
    statements: str,
    known: Sequence[str],
) -> dict[str, list[str]]:
    """Near misses among the words that say what is missing: others may well be there."""
    name = missing.lower()
    missed = near_misses(statements, known)
    said = {word: missed[word] for word in missed if _plain(word).endswith(name)}
    if said or name not in map(_plain, _NAME.findall(statements)):
        return said
    # A table without its pipeline, for which DuckDB offers one of its own.
    own_names = {table: table.partition(".")[2] for table in known}
    near = get_close_matches(name, own_names.values(), n=1)
    meant = [table for table, own_name in own_names.items() if own_name in near]
    return {missing: meant} if meant else {}


def _plain(name: str) -> str:
    return name.replace('"', "").lower()


def _close_to_all_else(database: duckdb.DuckDBPyConnection, memory: str) -> None:
    """Let no statement open a file or an address, write anywhere, or take more memory."""
    # Else instants are shown in the zone of the machine, and differ from one to the next.
    database.execute("SET TimeZone = 'UTC'")
    _draw_no_bar(database)
    # What does not fit is refused and not written to disk.
    database.execute("SET temp_directory = ''")
    database.execute("SET enable_external_access = false")
    database.execute(f"SET memory_limit = '{memory}'")
    database.execute("SET allowed_configs = $settings", {"settings": list(_SETTINGS)})
    # From here on no statement can turn this back.
    database.execute("SET lock_configuration = true")


def _draw_no_bar(database: duckdb.DuckDBPyConnection) -> None:
    """Where Python itself looks interactive, DuckDB draws a bar among the rows of what is slow."""
    (drawn,) = database.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    # A notebook without ipywidgets draws none, and refuses the setting as such.
    if drawn == (True,):
        database.execute("SET enable_progress_bar = false")


def _refuse_unless_fit(asked: Sequence[duckdb.Statement], most: int | None) -> None:
    if not asked:
        raise UsageError("There is no SQL statement. For example: SHOW TABLES")
    giving = sum(map(_gives_rows, asked))
    if most is not None and giving > most:
        raise UsageError(
            f"{giving} statements give rows, but csv, json and parquet hold the rows of one. "
            "Run them one by one, or by nightshift sql as --format table."
        )


def _refuse_what_acts(asked: Sequence[duckdb.Statement]) -> None:
    for one in asked:
        kind = _kind(one)
        if kind == duckdb.StatementType.TRANSACTION:
            raise UsageError("Nothing can be written here, so there are no transactions.")
        if kind in _OF_DATABASES:
            raise UsageError(
                "There is no database here but that of the session. Tables of your own: CREATE "
                "TEMP TABLE, or CREATE SCHEMA mine and mine.<name>."
            )
        if kind == duckdb.StatementType.SET:
            _refuse_more_threads(one.query)


def _explained(statement: str) -> str:
    """What an EXPLAIN explains: all behind that word and its options."""
    said = tokens(statement)
    place = 1
    if said[place].word == "analyze":
        place += 1
    elif said[place].text == "(" and said[place + 1].word in _OPTIONS_OF_EXPLAIN:
        place = [token.text for token in said].index(")") + 1
    return encoded(statement)[said[place].start :].decode()


def _kind(statement: duckdb.Statement) -> duckdb.StatementType:
    try:
        return statement.type
    except ValueError:
        # Kinds that have no name in Python, such as UPDATE EXTENSIONS.
        raise UsageError(f"No statement like this can run here: {statement.query}") from None


def _refuse_more_threads(statement: str) -> None:
    # A system that has no more of them ends the process.
    said = [token.word or token.text for token in tokens(statement)]
    words = [one for one in said if one not in (";", _FOR_ALL)]
    if words[0] == "reset" or not any(one in _SETS_THREADS for one in words):
        return
    most = os.cpu_count() or 1
    # A number alone: DuckDB works out what is more than that.
    match words:
        case ["set", _, "=" | "to", number] | ["pragma", _, "=", number]:
            if number.isdecimal() and 1 <= int(number) <= most:
                return
    raise UsageError(f"threads is a number from 1 to {most}, the cores of this machine.")


def _kept(setting: str) -> str:
    """Why no statement changes it."""
    if setting in ("memory_limit", "max_memory"):
        return "The memory of statements is NIGHTSHIFT_SQL_MEMORY; no statement changes it."
    return f"No statement changes {setting} here, but these settings: {', '.join(_SETTINGS)}."


def _with_list(statements: str, known: Sequence[str]) -> str:
    """The statements with the names of the tables where they say SHOW TABLES."""
    # DuckDB's own looks only into the schema in use.
    names = ", ".join("'{}'".format(name.replace("'", "''")) for name in known)
    query = f"SELECT unnest([{names}]::VARCHAR[]) AS name".encode()
    said = tokens(statements)
    text = encoded(statements)
    written = b""
    done = 0
    for place in range(len(said)):
        if lists_tables(said, place):
            written += text[done : said[place].start] + query
            done = said[place + 1].end
    return (written + text[done:]).decode()


def _named(said: Sequence[Token], known: Sequence[str]) -> list[str]:
    """The tables, and histories, that the statements name."""
    text = text_of(said)
    return [name for name in [*known, *_histories(known)] if _is_named(name, text)]


def _size(value: object) -> int:
    """About how many bytes a value takes, or a row of them."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, chain(value, value.values())))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return _CELL


def _reading(statements: str) -> list[Token]:
    """The words of the statements, without SHOW TABLES, which reads none."""
    said = tokens(statements)
    asks = {place for place in range(len(said)) if lists_tables(said, place)}
    return [token for place, token in enumerate(said) if not asks & {place, place - 1}]


def _lists(said: Sequence[Token]) -> bool:
    """Whether they may read of any table, or list them."""
    for place, token in enumerate(said):
        word = token.word
        after = [one.text for one in said[place + 1 : place + 2]]
        if not _LISTING.fullmatch(word):
            continue
        # `query` is a good name of a column.
        if word.startswith("query") and after != ["("]:
            continue
        # DESCRIBE by itself lists all tables.
        if word == "describe" and after not in ([], [";"], [")"]):
            continue
        return True
    return False


def _is_named(name: str, statements: str) -> bool:
    schema, view = (re.escape(part) for part in _schema_and_view(name))
    # A name before a dot is that of a pipeline, or of a table that is named elsewhere too.
    is_table = rf'(?<!\w){view}(?!\w)(?!"?\s*\.)'
    is_pipeline = rf"(?<!\w){schema}(?!\w)"
    patterns = (is_table, is_pipeline)
    return all(re.search(one, statements, re.IGNORECASE) for one in patterns)


def _do(do: Callable[[], _Given], given: Future[_Given]) -> None:
    if not given.set_running_or_notify_cancel():
        return
    try:
        given.set_result(do())
    except BaseException as error:
        given.set_exception(error)


def _is_said(name: str, text: str) -> bool:
    """Whether a view, a macro or a prepared statement of that name may be named in a text."""
    said = re.escape(name.replace('"', '""'))
    return bool(re.search(rf"(?<!\w){said}(?!\w)", text, re.IGNORECASE))


def _quoted_table(name: str) -> str:
    return ".".join(map(quoted, _schema_and_view(name)))


def _schema_and_view(name: str) -> tuple[str, str]:
    schema, _, view = name.partition(".")
    return schema, view


def _exact(rows: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The rows in types by which Arrow tells each value as it is."""
    wanted = list(map(_type_for_arrow, rows.types))
    if wanted == rows.types:
        return rows
    columns: list[str] = []
    for place, name in enumerate(rows.columns):
        # By its place: two may have one name.
        value = f"#{place + 1}"
        cast = f"{value}::{wanted[place]}"
        if rows.types[place].id == _LARGE:
            cast = f"coalesce(TRY_CAST({value} AS {wanted[place]}), {_too_large(name, value)})"
        columns.append(f"{cast} AS {quoted(name)}")
    return rows.project(", ".join(columns))


def _too_large(name: str, value: str) -> str:
    """SQL that refuses a value, other than null, with the name of its column."""
    before = f"Column '{name}': ".replace("'", "''")
    after = f" has more than the {_DIGITS} digits of a decimal. Cast it to VARCHAR."
    return f"CASE WHEN {value} IS NOT NULL THEN error('{before}' || {value} || '{after}') END"


def _type_for_arrow(kind: DuckDBPyType) -> DuckDBPyType:
    """The type itself, or that in whose place Arrow would tell other values without a word.

    By the type alone, so that a column's type never depends on its rows.
    """
    match kind.id:
        case "uhugeint" | "bit" | "bignum" | "time with time zone" | "variant":
            return duckdb.type("VARCHAR")
        case "array":
            size = dict(kind.children)["size"]
            assert isinstance(size, int), "an array has as many values in each row"
            return duckdb.array_type(_inner(kind, "child"), size)
        case "hugeint":
            # What a sum is. One digit more than a decimal has is refused.
            return duckdb.decimal_type(_DIGITS, 0)
        case "list":
            return duckdb.list_type(_inner(kind, "child"))
        case "map":
            return duckdb.map_type(_inner(kind, "key"), _inner(kind, "value"))
        case "struct":
            fields = dict(kind.children)
            return duckdb.struct_type({name: _inner(kind, name) for name in fields})
    return kind


def _inner(kind: DuckDBPyType, part: str) -> DuckDBPyType:
    found = dict(kind.children)[part]
    assert isinstance(found, DuckDBPyType), "what a type holds is a type"
    return _type_for_arrow(found)


def _gives_rows(statement: duckdb.Statement) -> bool:
    if statement.type in _CHANGING:
        # A reserved word: in quotes alone it names something.
        return any(token.text.lower() == "returning" for token in tokens(statement.query))
    # Others (SET, USE, CREATE) only report success or a count, whatever DuckDB's cursor holds.
    if statement.type == duckdb.StatementType.MULTI:
        # PIVOT, wherever it stands, is several statements to DuckDB; the last one does it.
        return tokens(statement.query)[0].word not in _FILLING
    return statement.expected_result_type == [duckdb.ExpectedResultType.QUERY_RESULT]


def _dataset(environment: Environment, name: str, left: Left, filtered: Collection[str]) -> object:
    table = name.removesuffix(HISTORY_SUFFIX)
    version = left.versions.get(table)
    if table != name and _has_history(table):
        pipeline, _ = _schema_and_view(table)
        at = left.ended.get(pipeline)
        return datasets.history(environment, table, version, filtered, at)
    return datasets.in_force(environment, name, version, filtered)


def _histories(known: Sequence[str]) -> list[str]:
    """Names of the histories that are not among the known tables."""
    names = [name + HISTORY_SUFFIX for name in known if _has_history(name)]
    return [name for name in names if name not in known]


def _has_history(table: str) -> bool:
    """Whether versions of its days are told: not of the platform's own tables and refused rows."""
    schema, view = _schema_and_view(table)
    return schema != OPS and not view.endswith((QUARANTINE_SUFFIX, HISTORY_SUFFIX))
