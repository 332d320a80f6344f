"""Makes and evolves what PostgreSQL holds: schemas, tables, views, indexes, comments, roles.

Nothing is touched where all is as it shall be: making a view anew would wait for whoever reads it.
A column is added and never taken away, and never changes its type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import LiteralString

import psycopg
from psycopg import sql

from jobs.warehouse.connection import OWNER, READER, Connection, Cursor, Limits, transaction
from jobs.warehouse.shape import Column, Shape
from pipelines.errors import Refused
from pipelines.spec import WAREHOUSE

_ONE_AT_A_TIME = 0x6E69676874
"""Of PostgreSQL's advisory locks that of who makes tables: "night" in ASCII."""
_PUBLICATIONS = """
CREATE TABLE IF NOT EXISTS {schema}.publications (
  pipeline text NOT NULL,
  table_name text NOT NULL,
  day date NOT NULL,
  lake text,
  version bigint,
  run_id text,
  rows bigint,
  checksum text,
  published_at timestamp with time zone,
  written_at timestamp with time zone,
  PRIMARY KEY (pipeline, table_name, day)
)
"""
_SHAPES = """
CREATE TABLE IF NOT EXISTS {schema}.shapes (
  pipeline text NOT NULL,
  table_name text NOT NULL,
  shape text NOT NULL,
  PRIMARY KEY (pipeline, table_name)
)
"""
_DOC = "Which publication of the lake each day holds; version is that of the Delta table."
_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_IS_OWNER = """
SELECT pg_has_role(session_user, oid, 'MEMBER')
   AND coalesce((SELECT nspowner = pg_roles.oid FROM pg_namespace WHERE nspname = %s), true)
FROM pg_roles WHERE rolname = %s
"""
_INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = %s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Provided:
    """What was found about a table, which is there by now."""

    lacking: str
    """What is not as it should be and keeps nothing from being published; empty: nothing."""
    is_anew: bool
    """Whether the table, or a column that it had, was gone: no day counts as published any more."""


def provide(connection: Connection, shape: Shape, limits: Limits) -> Provided:
    """Make the table, or bring it to its shape, also after somebody has changed it by hand.

    Raises:
        Refused: a column would change its type, or somebody has changed it.
        WarehouseAway: PostgreSQL cannot be used, or who reads the view holds it for too long.
    """
    with transaction(connection, limits) as cursor:
        act_as_owner(cursor)
        if _is_there(cursor, shape):
            return Provided(lacking=_lacking(cursor), is_anew=False)
        act_as_user(cursor)
        # Two that make the same at once would stumble over each other.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ONE_AT_A_TIME])
        _make_roles(cursor)
        act_as_owner(cursor)
        _make_bookkeeping(cursor)
        _make_schema(cursor, shape.schema)
        is_anew = _make_table(cursor, shape)
        _make_indexes(cursor, shape)
        _make_view(cursor, shape)
        _describe(cursor, shape)
        _let_read(cursor, shape)
        _remember(cursor, shape)
        return Provided(lacking=_lacking(cursor), is_anew=is_anew)


def examine(connection: Connection, shape: Shape, limits: Limits) -> bool:
    """Whether `provide` would find `Provided.is_anew`; changes nothing.

    Raises:
        Refused: `provide` would be refused.
        WarehouseAway: PostgreSQL cannot be used.
    """
    with transaction(connection, limits) as cursor:
        act_as_owner(cursor)
        there = _columns(cursor, shape.schema, shape.table)
        if not there:
            return True
        _require_types(cursor, shape, there)
        lacks_columns = any(column.name not in there for column in shape.columns)
        return lacks_columns and _is_remembered(cursor, shape)


def breaks_key(shape: Shape, error: psycopg.errors.UniqueViolation) -> bool:
    """Whether rows were refused because the key does not tell them apart."""
    (of_key, *_) = shape.indexes
    return error.diag.constraint_name == of_key


def give_up_uniqueness(connection: Connection, shape: Shape, limits: Limits) -> None:
    """Have the index of the key take rows that the key does not tell apart.

    Raises:
        WarehouseAway: PostgreSQL cannot be used, or who reads the table holds it for too long.
    """
    (name, columns), *_ = shape.indexes.items()
    with transaction(connection, limits) as cursor:
        act_as_owner(cursor)
        cursor.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(shape.schema, name)))
        _make_index(cursor, shape, name, columns, is_unique=False)


def act_as_owner(cursor: Cursor) -> None:
    """Own what is made, and use what is there, as the owner role, where the user belongs to it.

    Not where all was made before there was that role: it belongs to the user.
    """
    if _is_owner(cursor):
        _run(cursor, "SET LOCAL ROLE {role}", role=OWNER)


def act_as_user(cursor: Cursor) -> None:
    """Make what only the user may: roles, and schemas."""
    cursor.execute("RESET ROLE")


def has_column(cursor: Cursor, shape: Shape, column: str) -> bool:
    """Whether the table is there, with that column."""
    return column in _columns(cursor, shape.schema, shape.table)


def has_bookkeeping(cursor: Cursor) -> bool:
    """Whether anything was ever published to this database."""
    return _exists(cursor, WAREHOUSE, "publications") and _exists(cursor, WAREHOUSE, "shapes")


def _is_there(cursor: Cursor, shape: Shape) -> bool:
    return _is_remembered(cursor, shape) and _is_untouched(cursor, shape)


def _is_remembered(cursor: Cursor, shape: Shape) -> bool:
    """Whether the table was brought to this very shape."""
    if not has_bookkeeping(cursor):
        return False
    cursor.execute(
        "SELECT shape FROM nightshift.shapes WHERE pipeline = %s AND table_name = %s",
        [shape.schema, shape.view],
    )
    return cursor.fetchone() == (_remembered(cursor, shape),)


def _is_untouched(cursor: Cursor, shape: Shape) -> bool:
    """Whether nobody has taken away columns, indexes, the view or the right to read it."""
    there = _columns(cursor, shape.schema, shape.table)
    shown = _columns(cursor, shape.schema, shape.view)
    wanted = {one.name: one.type for one in shape.columns}
    has_columns = wanted.items() <= there.items()
    has_indexes = set(shape.indexes) <= _indexes(cursor, shape)
    if not (has_columns and has_indexes and shown == there):
        return False
    return not _has_role(cursor, READER) or _may_read(cursor, shape.schema, shape.view)


def _exists(cursor: Cursor, schema: str, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [_quoted(cursor, schema, name)])
    return cursor.fetchone() == (True,)


def _remembered(cursor: Cursor, shape: Shape) -> str:
    """The shape, and whether there is somebody to be let read."""
    return f"{shape.digest()} {_has_role(cursor, READER)}"


def _has_role(cursor: Cursor, role: str) -> bool:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
    return cursor.fetchone() is not None


def _is_owner(cursor: Cursor) -> bool:
    cursor.execute(_IS_OWNER, [WAREHOUSE, OWNER])
    return cursor.fetchone() == (True,)


def _make_roles(cursor: Cursor) -> None:
    """Make the roles that are not there, where the user may."""
    cursor.execute("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = session_user")
    if cursor.fetchone() != (True,):
        return
    for role in (OWNER, READER):
        if not _has_role(cursor, role):
            _run(cursor, "CREATE ROLE {role} NOLOGIN", role=role)
            if role == OWNER:
                _run(cursor, "GRANT {role} TO SESSION_USER", role=role)


def _lacking(cursor: Cursor) -> str:
    if _has_role(cursor, READER):
        return ""
    return (
        f"Nobody but the owner may read: there is no role {READER}, and this user may make none. "
        f"Have an administrator run: CREATE ROLE {READER} NOLOGIN"
    )


def _make_bookkeeping(cursor: Cursor) -> None:
    if has_bookkeeping(cursor) and not _is_reader_new(cursor):
        return
    _make_schema(cursor, WAREHOUSE)
    for statement in (_PUBLICATIONS, _SHAPES):
        _run(cursor, statement, schema=WAREHOUSE)
    comment = sql.SQL("COMMENT ON TABLE {} IS {}")
    cursor.execute(comment.format(sql.Identifier(WAREHOUSE, "publications"), sql.Literal(_DOC)))
    if _has_role(cursor, READER):
        _grant(cursor, WAREHOUSE, "publications")


def _is_reader_new(cursor: Cursor) -> bool:
    """Whether there is a role of readers that may not read how fresh the days are."""
    if not _has_role(cursor, READER):
        return False
    return not _may_read(cursor, WAREHOUSE, "publications")


def _may_read(cursor: Cursor, schema: str, name: str) -> bool:
    """Whether the role of readers may."""
    cursor.execute(
        "SELECT has_schema_privilege(%s, %s, 'USAGE') AND has_table_privilege(%s, %s, 'SELECT')",
        [READER, schema, READER, _quoted(cursor, schema, name)],
    )
    return cursor.fetchone() == (True,)


def _make_schema(cursor: Cursor, schema: str) -> None:
    cursor.execute("SELECT to_regnamespace(%s) IS NOT NULL", [_quoted(cursor, schema)])
    if cursor.fetchone() == (True,):
        return
    act_as_user(cursor)
    if _is_owner(cursor):
        _run(cursor, "CREATE SCHEMA {schema} AUTHORIZATION {role}", schema=schema, role=OWNER)
    else:
        _run(cursor, "CREATE SCHEMA {schema}", schema=schema)
    act_as_owner(cursor)


def _make_table(cursor: Cursor, shape: Shape) -> bool:
    """Make the table or the columns that it lacks; returns `Provided.is_anew`."""
    table = sql.Identifier(shape.schema, shape.table)
    there = _columns(cursor, shape.schema, shape.table)
    if not there:
        columns = sql.SQL(", ").join(map(_declared, shape.columns))
        cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(table, columns))
        forget(cursor, shape)
        return True
    _require_types(cursor, shape, there)
    is_anew = False
    for column in shape.columns:
        if column.name not in there:
            added = sql.SQL("ALTER TABLE {} ADD COLUMN {}").format(table, _declared(column))
            cursor.execute(added)
            # A column that is new in the lake has no values for the days before it.
            is_anew = is_anew or _is_remembered(cursor, shape)
            if column.name == shape.day:
                # Nobody knows any more which day the rows are of.
                cursor.execute(sql.SQL("DELETE FROM {}").format(table))
    if is_anew:
        forget(cursor, shape)
    return is_anew


def _require_types(cursor: Cursor, shape: Shape, there: Mapping[str, str]) -> None:
    """Refuse a table of which a column is of another type.

    Raises:
        Refused: it would change its type, or somebody has changed it.
    """
    for column in shape.columns:
        kind = there.get(column.name, column.type)
        if kind == column.type:
            continue
        if _is_remembered(cursor, shape):
            raise Refused(_altered(cursor, shape, column, kind))
        raise Refused(
            f"{shape.schema}.{shape.view}: column '{column.name}' is {kind} in PostgreSQL and "
            f"would become {column.type}. A type is never changed under those who read it: "
            "give the new column another name, and deprecate the old one "
            "(`nightshift contract`)."
        )


def _altered(cursor: Cursor, shape: Shape, column: Column, kind: str) -> str:
    """What is told of a column whose type is another one than that with which it was made."""
    table = _quoted(cursor, shape.schema, shape.table)
    name = _quoted(cursor, column.name)
    return (
        f"{shape.schema}.{shape.view}: somebody has altered column '{column.name}' in PostgreSQL "
        f"from {column.type} to {kind}. Have it altered back, and publish: "
        f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {column.type}"
    )


def forget(
    cursor: Cursor,
    shape: Shape,
    held: Mapping[date, int | None] | None = None,
) -> None:
    """Have days count as never published.

    Args:
        cursor: Of the transaction in which it is done.
        shape: Of the table.
        held: The days, each with the version that was found, which another run may have replaced
            since; None: all days.
    """
    own = "DELETE FROM nightshift.publications WHERE pipeline = %s AND table_name = %s"
    of_table = [shape.schema, shape.view]
    if held is None:
        cursor.execute(own, of_table)
        return
    cursor.execute(
        f"{own} AND (day, version) IN (SELECT * FROM unnest(%s::date[], %s::bigint[]))",
        [*of_table, list(held), list(held.values())],
    )


def _columns(cursor: Cursor, schema: str, name: str) -> Mapping[str, str]:
    """Types of the columns that are there, in their order; none: there is no such table."""
    cursor.execute(_COLUMNS, [_quoted(cursor, schema, name)])
    return dict(cursor.fetchall())


def _declared(column: Column) -> sql.Composed:
    # The type is one of ours, as shape.py writes it: no name of anybody.
    kind = sql.SQL(column.type)
    return sql.SQL("{} {}").format(sql.Identifier(column.name), kind)


def _make_indexes(cursor: Cursor, shape: Shape) -> None:
    there = _indexes(cursor, shape)
    # Of a key of before: rows of today would break it. Others are somebody's own.
    for name in there - set(shape.indexes):
        if shape.is_index(name):
            cursor.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(shape.schema, name)))
    for number, (name, columns) in enumerate(shape.indexes.items()):
        if name not in there:
            _make_index(cursor, shape, name, columns, is_unique=number == 0)


def _indexes(cursor: Cursor, shape: Shape) -> set[str]:
    """Names of those that the table has."""
    cursor.execute(_INDEXES, [shape.schema, shape.table])
    return {name for (name,) in cursor.fetchall()}


def _make_index(
    cursor: Cursor, shape: Shape, name: str, columns: Sequence[str], *, is_unique: bool
) -> None:
    """Make an index; where rows are there that a unique one would refuse, a plain one."""
    named = sql.SQL(", ").join(map(sql.Identifier, columns))
    table = sql.Identifier(shape.schema, shape.table)
    rest = sql.SQL("INDEX {} ON {} ({})").format(sql.Identifier(name), table, named)
    if is_unique:
        # Days of a wider key of before may hold rows that this one does not tell apart.
        with suppress(psycopg.errors.UniqueViolation), cursor.connection.transaction():
            cursor.execute(sql.SQL("CREATE UNIQUE {}").format(rest))
            return
    cursor.execute(sql.SQL("CREATE {}").format(rest))


def _make_view(cursor: Cursor, shape: Shape) -> None:
    """Every column that the table ever had, in the order in which they came."""
    there = _columns(cursor, shape.schema, shape.table)
    columns = sql.SQL(", ").join(map(sql.Identifier, there))
    view = sql.Identifier(shape.schema, shape.view)
    rest = sql.SQL("VIEW {} AS SELECT {} FROM {}").format(
        view, columns, sql.Identifier(shape.schema, shape.table)
    )
    try:
        with cursor.connection.transaction():
            cursor.execute(sql.SQL("CREATE OR REPLACE {}").format(rest))
    except psycopg.errors.InvalidTableDefinition:
        # A column was renamed by hand: such a view cannot be replaced. Where somebody's own view
        # reads it, it cannot go either, and they are told so.
        cursor.execute(sql.SQL("DROP VIEW {}").format(view))
        cursor.execute(sql.SQL("CREATE {}").format(rest))


def _describe(cursor: Cursor, shape: Shape) -> None:
    view = sql.Identifier(shape.schema, shape.view)
    cursor.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(shape.doc)))
    table = sql.Identifier(shape.schema, shape.table)
    behind = sql.Literal(f"The rows of the view {shape.schema}.{shape.view}: query that one.")
    cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, behind))
    comment = sql.SQL("COMMENT ON COLUMN {} IS {}")
    for column in shape.columns:
        name_of = sql.Identifier(shape.schema, shape.view, column.name)
        cursor.execute(comment.format(name_of, sql.Literal(column.doc)))


def _let_read(cursor: Cursor, shape: Shape) -> None:
    if _has_role(cursor, READER):
        _grant(cursor, shape.schema, shape.view)


def _grant(cursor: Cursor, schema: str, name: str) -> None:
    reader = sql.Identifier(READER)
    usage = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), reader)
    cursor.execute(usage)
    select = sql.SQL("GRANT SELECT ON {} TO {}").format(sql.Identifier(schema, name), reader)
    cursor.execute(select)


def _remember(cursor: Cursor, shape: Shape) -> None:
    cursor.execute(
        "INSERT INTO nightshift.shapes (pipeline, table_name, shape) VALUES (%s, %s, %s) "
        "ON CONFLICT (pipeline, table_name) DO UPDATE SET shape = excluded.shape",
        [shape.schema, shape.view, _remembered(cursor, shape)],
    )


def _run(cursor: Cursor, statement: LiteralString, **names: str) -> None:
    identifiers = {place: sql.Identifier(name) for place, name in names.items()}
    cursor.execute(sql.SQL(statement).format(**identifiers))


def _quoted(cursor: Cursor, *names: str) -> str:
    return sql.Identifier(*names).as_string(cursor)
