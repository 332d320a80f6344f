"""A connection to PostgreSQL on which nothing can wait for ever."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from jobs.output import harmless
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError

VARIABLE = "NIGHTSHIFT_WAREHOUSE_URL"
OWNER, READER = "nightshift_owner", "nightshift_reader"
"""Roles by convention: who owns the schemas and tables, and who may read."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WRONG_VALUE, _BROKEN_CONSTRAINT = "22", "23"
_OF_THE_SERVER = ("08", "53", "57P", "55P03")
"""Beginnings of the SQLSTATEs that say something of the server and nothing of what it was given:
connection, resources, shutdown, a lock that somebody holds."""
_QUOTED = re.compile(r'".*"')
_COLUMN = re.compile(r"COPY [^,]*, line \d+, column ([^:]+)")
"""Where in a COPY something is wrong, as PostgreSQL tells it before it quotes the value."""
_ROW_LEVEL = "row-level security"
Connection = psycopg.Connection[tuple[Any, ...]]
Cursor = psycopg.Cursor[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Seconds after which something is given up."""

    connect: int = 10
    lock: float = 10
    """To get a lock that somebody else holds."""
    statement: float = 120
    transaction: float = 300
    """A day, or the making of a table. The server ends one whose client says nothing any more, and
    the client one whose server does not answer."""
    night: float = 600
    """What a stage publishes; the rest is left to the next night."""


LIMITS = Limits()
BY_HAND = Limits(lock=60, statement=3600, transaction=7200)
"""Where a person waits, who can end it: a first load of large days."""


class WarehouseAway(NightshiftError):
    """PostgreSQL cannot be used now: it is away or full, or somebody holds a lock."""


@contextmanager
def opened(environment: Environment, limits: Limits = LIMITS) -> Iterator[Connection]:
    """A connection for the time of the block.

    Raises:
        UsageError: no address is set, or it makes no sense.
        WarehouseAway: PostgreSQL does not answer or refuses us, or ceases to answer in the block.
    """
    given = _given(environment, limits)
    try:
        # Who pools connections may give each transaction another one: nothing is prepared.
        connection = psycopg.connect(autocommit=True, prepare_threshold=None, **given)
    except psycopg.OperationalError as error:
        raise WarehouseAway(in_words(error)) from None
    except psycopg.Error:
        # It may quote the address.
        raise UsageError(f"{VARIABLE} holds a setting that PostgreSQL does not know.") from None
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    with connection, _translated(connection):
        yield connection


def version_at(address: str, seconds: int) -> str:
    """The version of the PostgreSQL at an address, such as Airflow's database.

    Raises:
        WarehouseAway: it does not answer within so many seconds, or refuses us.
    """
    try:
        with psycopg.connect(address, connect_timeout=seconds) as connection:
            return version_of(connection)
    except psycopg.OperationalError as error:
        raise WarehouseAway(in_words(error)) from None
    except psycopg.Error:
        # It may quote the address.
        raise WarehouseAway("PostgreSQL's client cannot read the address.") from None


def version_of(connection: Connection) -> str:
    """The version of the server, such as 15.3."""
    number = connection.info.server_version
    # As PostgreSQL writes it since version 10.
    return f"{number // 10_000}.{number % 10_000}"


@contextmanager
def transaction(connection: Connection, limits: Limits = LIMITS) -> Iterator[Cursor]:
    """A transaction for the time of the block, with its limits set.

    Raises:
        WarehouseAway: the server is full, somebody holds a lock, or the connection is lost.
        psycopg.Error: PostgreSQL refuses what it was given, or has worked on it for too long.
            Either way nothing of it is visible.
    """
    with (
        _translated(connection),
        _ended_after(connection, limits.transaction),
        connection.transaction(),
        connection.cursor() as cursor,
    ):
        cursor.execute(_SETTINGS, _values(limits))
        yield cursor


_SETTINGS = """
SELECT set_config('lock_timeout', %(lock)s, true),
       set_config('statement_timeout', %(statement)s, true),
       set_config('idle_in_transaction_session_timeout', %(transaction)s, true),
       set_config('datestyle', 'ISO, YMD', true),
       set_config('quote_all_identifiers', 'off', true),
       set_config('search_path', 'pg_catalog, pg_temp', true)
"""
"""For the transaction alone: the session may be shared by others. Every name is written in full,
and the path keeps objects of other users from being taken for PostgreSQL's own."""


def _values(limits: Limits) -> dict[str, str]:
    seconds = {
        "lock": limits.lock,
        "statement": limits.statement,
        "transaction": limits.transaction,
    }
    return {name: f"{value * 1000:.0f}ms" for name, value in seconds.items()}


def _given(environment: Environment, limits: Limits) -> dict[str, Any]:
    if environment.warehouse_url is None:
        raise UsageError(
            f"{VARIABLE} is not set: no PostgreSQL is published to. Set it to an address such as "
            "postgresql://user:password@host:5432/database."
        )
    try:
        address = conninfo_to_dict(environment.warehouse_url)
    except psycopg.Error:
        # It quotes the part that it cannot read, which may be the password.
        raise UsageError(
            f"{VARIABLE} is not an address such as postgresql://user:password@host:5432/database: "
            "PostgreSQL's client cannot read it. Write '%40' for an '@' within a password."
        ) from None
    ours: dict[str, Any] = {
        "connect_timeout": limits.connect,
        "application_name": "nightshift",
    }
    if "service" in address and "sslmode" not in address:
        raise UsageError(
            f"{VARIABLE} names a service, which does not tell whether the connection is to be "
            "encrypted. Add it: &sslmode=verify-full or &sslmode=require."
        )
    if _needs_encryption(address):
        ours["sslmode"] = "require"
    # Rows are sent as UTF-8, whatever the address says of others.
    return {**ours, **address, "client_encoding": "utf8"}


def _needs_encryption(address: Mapping[str, Any]) -> bool:
    """Whether the connection leaves the machine, and nobody says how it is to be protected."""
    given: dict[str, Any] = {}
    # From PGHOST, PGSSLMODE and others like them, and from a service that PGSERVICE names.
    for option in Conninfo.get_defaults():
        if option.val and option.val != option.compiled:
            given[option.keyword.decode()] = option.val.decode()
    effective = {**given, **address}
    if "sslmode" in effective:
        return False
    places = effective.get("hostaddr") or effective.get("host") or "localhost"
    return not all(map(_is_local, places.split(",")))


def _is_local(place: str) -> bool:
    # A path is that of a socket.
    return place in _LOOPBACK or place.startswith("/")


@contextmanager
def _translated(connection: Connection) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if connection.closed or (error.sqlstate or "").startswith(_OF_THE_SERVER):
            raise WarehouseAway(in_words(error)) from None
        raise


@contextmanager
def _ended_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Hang up after so many seconds.

    The server's own limits do not help where it is frozen, or a network swallows what it says.
    """

    def hang_up() -> None:
        # It may have been closed, which is as good.
        with suppress(OSError, psycopg.Error):
            same = socket.socket(fileno=os.dup(connection.fileno()))
            with same:
                same.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def in_words(error: psycopg.Error) -> str:
    """What PostgreSQL says, on one line and without the rows that it may quote."""
    # Without an answer of the server, the client says why there is none.
    words = (_said(error) or str(error)).split()
    what = harmless(" ".join(words)).rstrip(".") or type(error).__name__
    return f"PostgreSQL: {what}.{_way_out(error)}"


def _said(error: psycopg.Error) -> str:
    told = error.diag
    first = told.message_primary or ""
    kind = (error.sqlstate or "")[:2]
    if isinstance(error, psycopg.errors.UntranslatableCharacter):
        # It quotes the names of encodings alone.
        return first
    if kind == _BROKEN_CONSTRAINT:
        # It names the constraint or the column, and the detail has the row.
        return first
    if kind == _WRONG_VALUE:
        column = _COLUMN.match(told.context or "")
        where = f" (column {column[1]})" if column else ""
        return _QUOTED.sub('"…"', first) + where
    return " ".join(filter(None, (first, told.message_detail)))


def _way_out(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return (
            " Somebody holds a lock on the table: SELECT * FROM pg_stat_activity WHERE "
            "state <> 'idle' tells who."
        )
    if isinstance(error, psycopg.errors.DiskFull):
        return " Give it space."
    if isinstance(error, psycopg.errors.UntranslatableCharacter):
        return " Publish to a database made with ENCODING 'UTF8', which takes every character."
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return " docs/how-to/postgresql.md says what to grant."
    if isinstance(error, psycopg.errors.FeatureNotSupported) and _ROW_LEVEL in str(error):
        return (
            " Somebody has set FORCE ROW LEVEL SECURITY, by which the owner too sees only some "
            "rows: ALTER TABLE … NO FORCE ROW LEVEL SECURITY on the table whose name begins "
            "with '_'."
        )
    if isinstance(error, psycopg.errors.DependentObjectsStillExist):
        return " Drop what depends on it, publish, and make that again."
    return ""
