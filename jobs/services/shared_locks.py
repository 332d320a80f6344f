"""Locks by which machines take turns that share a lake and a registry of models.

On one machine that is a home's lock. Where the registry is a PostgreSQL database, which all
machines of an installation share, it is an advisory lock of that database too: PostgreSQL releases
it when the connection ends, so a process or a machine that dies leaves none behind. Where the
registry is an MLflow server, or another database, the lock is one of Airflow's PostgreSQL; and
where that is none either, machines take no turns, which `up` and `doctor` tell.

They keep work from being done twice. That nothing wrong is published by two who did it at once is
the matter of each commit (`jobs/lake/commits.py`), also where a lock is lost with its connection.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any

from jobs.services import locks
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    import psycopg

_SCHEME = "postgresql"
_REGISTRY, _AIRFLOW = "mlflow_uri", "airflow_database"
"""Settings that tell where they are."""
_OWN = "sqlite"
"""How the address of a registry begins that no other machine has."""
_CONNECTION: dict[str, Any] = {
    "connect_timeout": 10,
    "application_name": "nightshift lock",
    # Held for a night: a firewall must not take it for dead, nor we a dead server for alive.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
_OF_SERVER = {
    # The server too asks whether we are there: else a machine without power would keep its lock for
    # hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # No limit of a role may end a wait, or a night in which nothing is said.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
}
_SET = (
    "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS ours(name, value)"
    # What an older server does not know it does not do.
    " WHERE name IN (SELECT name FROM pg_settings)"
)

_NOTE = " -- "
"""Before who holds the lock: a comment of SQL."""
_HELD = """
SELECT query FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (classid::bigint << 32 | objid::bigint) = %s
"""
_SOON_SECONDS = 2.0


@contextmanager
def hold(
    environment: Environment,
    name: str,
    *,
    waiting: str = "",
    holder: str = "",
    most_seconds: float | None = None,
) -> Iterator[None]:
    """Hold the lock of that name for the time of the block, waiting until it is free.

    Args:
        environment: Whose home and whose registry of models.
        name: Which lock.
        waiting: What a person is told, once, when another process or machine holds it.
        holder: Who holds it from now on, for those that wait; empty: this process.
        most_seconds: For so long it waits, for a process and then for a machine; None: until it is
            free.

    Raises:
        AwaitsTurn: it was not free in that time.
        NightshiftError: the PostgreSQL does not answer, or refuses us.
    """
    shared = _shared(environment)
    holder = holder or locks.this_process()
    here = locks.hold(environment, name, waiting=waiting, holder=holder, most_seconds=most_seconds)
    everywhere = hold_at(
        environment, shared, name, waiting=waiting, holder=holder, most_seconds=most_seconds
    )
    with here, everywhere:
        yield


def why_no_turns(environment: Environment) -> str:
    """Why machines that share the registry of models take no turns; empty: they do, or none does.

    Args:
        environment: Which names the registry.
    """
    registry = environment.mlflow_uri
    shared = _address(environment, _shared(environment))
    if registry.startswith(_OWN) or shared.startswith(_SCHEME):
        return ""
    names = environment.settings()
    return (
        f"neither {names[_REGISTRY].variable} nor {names[_AIRFLOW].variable} is a PostgreSQL: "
        "other machines would not wait for the nights of this one"
    )


def _shared(environment: Environment) -> str:
    """The setting of the database in which machines find each other's locks, if it is one."""
    registry = environment.mlflow_uri
    return _REGISTRY if registry.startswith((_SCHEME, _OWN)) else _AIRFLOW


def _address(environment: Environment, database: str) -> str:
    return str(getattr(environment, database))


@contextmanager
def hold_at(
    environment: Environment,
    database: str,
    name: str,
    *,
    waiting: str = "",
    holder: str = "",
    most_seconds: float | None = None,
) -> Iterator[None]:
    """Hold the lock of that name in the database that is worked on, which machines may share.

    Where it is no PostgreSQL, no other machine works on it, and nothing is held.

    Args:
        environment: Whose settings they are.
        database: Name of the setting that holds its address.
        name: Which lock.
        waiting: What a person is told, once, when another machine holds it.
        holder: Who holds it from now on, for those that wait; empty: this process.
        most_seconds: For so long it waits; None: until it is free.

    Raises:
        AwaitsTurn: it was not free in that time.
        NightshiftError: the database does not answer, or refuses us.
    """
    address = _address(environment, database)
    if not address.startswith(_SCHEME):
        yield
        return

    import psycopg  # a tenth of a second, and only needed where machines share

    _, _, place = address.partition("://")
    # Messages name it: the address may have a password.
    variable = environment.settings()[database].variable
    try:
        connection = _connected(f"{_SCHEME}://{place}", variable)
    except psycopg.Error as error:
        # Its words may quote the address.
        raise _away(name, variable, type(error).__name__) from None
    with connection:
        try:
            connection.execute(_SET, [list(_OF_SERVER), list(_OF_SERVER.values())])
            if not _is_taken(connection, _key(name)):
                _wait(connection, name, waiting, most_seconds)
            _note(connection, holder or locks.this_process())
        except psycopg.Error as error:
            raise _away(name, variable, type(error).__name__) from None
        yield


def _connected(address: str, variable: str) -> psycopg.Connection[Any]:
    """A connection; whoever waits for one that is slow is soon told for what."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(address)
    host, port = given.get("host", "localhost"), given.get("port", 5432)
    waiting = f"Waiting for the PostgreSQL of {variable}, at {host}:{port}, to answer."
    late = Timer(_SOON_SECONDS, print, [waiting], {"file": sys.stderr, "flush": True})
    late.daemon = True
    late.start()
    try:
        return psycopg.connect(address, autocommit=True, **_CONNECTION)
    finally:
        late.cancel()
        # One that has begun to tell ends before anything else is told.
        late.join()


def _is_taken(connection: psycopg.Connection[Any], key: int) -> bool:
    """Whether it was free, and is ours now."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
    return row is not None and bool(row[0])


def _wait(
    connection: psycopg.Connection[Any], name: str, waiting: str, most_seconds: float | None
) -> None:
    from psycopg.errors import LockNotAvailable

    if waiting:
        print(f"{waiting}{_holder_of(connection, name)}", file=sys.stderr, flush=True)
    if most_seconds is not None:
        # 0 would be no limit.
        most = f"{max(1, round(most_seconds * 1000))}"
        connection.execute("SELECT set_config('lock_timeout', %s, false)", [most])
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", [_key(name)])
    except LockNotAvailable:
        assert most_seconds is not None, "nobody else sets a limit"
        by = _holder_of(connection, name)
        raise locks.awaits_turn(name, most_seconds, by) from None


def _note(connection: psycopg.Connection[Any], holder: str) -> None:
    """Have PostgreSQL tell others who holds the lock, for as long as this connection lives.

    It tells the last statement of each connection, whole, where a name of it would be cut off.
    """
    told = " ".join(holder.split())
    connection.execute(f"SELECT 1{_NOTE}{told}".encode())


def _holder_of(connection: psycopg.Connection[Any], name: str) -> str:
    """A sentence that names who holds the lock, after a space; empty: nobody can say."""
    row = connection.execute(_HELD, [_key(name)]).fetchone()
    # Of another user's connection there is no statement.
    _, _, holder = (row[0] or "" if row else "").partition(_NOTE)
    return locks.held_by(holder)


def _key(name: str) -> int:
    """The number that PostgreSQL knows the lock by: 64 bits with a sign."""
    digest = hashlib.sha256(f"nightshift {name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def _away(name: str, variable: str, why: str) -> NightshiftError:
    return NightshiftError(
        f"The lock '{name}' could not be had from PostgreSQL of {variable} ({why}): "
        "another machine may be at the same. Nothing was done; start the database, or look at its "
        "address, and run again."
    )
