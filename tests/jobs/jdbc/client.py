"""Clients of the JDBC server: the driver that BI tools load, called from Python, and beeline."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.spark.java import java_home
from pipelines.environment import Environment
from tests.jobs.warehouse.test_same_answers import plain_number

_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
_BEELINE_SECONDS = 120


class Refused(Exception):
    """What the server said."""


class Driver:
    """Hive's JDBC driver in a Java of its own."""

    def __init__(self, java: Any, port: int) -> None:
        self._java = java
        self._port = port

    @contextmanager
    def connection(
        self, user: str, password: str, database: str = "default", settings: str = ""
    ) -> Iterator[Connection]:
        """A connection; raises `Refused` when there is none."""
        from py4j.protocol import Py4JJavaError

        url = f"jdbc:hive2://127.0.0.1:{self._port}/{database}{settings}"
        try:
            opened = self._java.java.sql.DriverManager.getConnection(url, user, password)
        except Py4JJavaError as error:
            raise Refused(str(error.java_exception)) from None
        try:
            yield Connection(opened)
        finally:
            # The server may have ended.
            with suppress(Py4JJavaError):
                opened.close()


class Connection:
    """An open connection."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a statement; raises `Refused`."""
        from py4j.protocol import Py4JJavaError

        asked = self._opened.createStatement()
        try:
            has_rows = asked.execute(statement)
            return _rows(asked.getResultSet()) if has_rows else []
        except Py4JJavaError as error:
            raise Refused(str(error.java_exception)) from None
        finally:
            with suppress(Py4JJavaError):
                asked.close()

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Names and types of a table's columns, as a tool lists them."""
        told = self._opened.getMetaData().getColumns(None, schema, table, "%")
        return {row[3]: row[5] for row in _rows(told)}


@contextmanager
def driver(port: int) -> Iterator[Driver]:
    """The driver, for a server at that port."""
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    own_port, token = launch_gateway(
        classpath=_spark_jars(),
        javaopts=list(_QUICK),
        java_path=str(java_home() / "bin" / "java"),
        die_on_exit=True,
        enable_auth=True,
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=own_port, auth_token=token))
    try:
        gateway.jvm.java.lang.Class.forName("org.apache.hive.jdbc.HiveDriver")
        yield Driver(gateway.jvm, port)
    finally:
        gateway.shutdown()


def beeline(
    port: int,
    user: str,
    password_file: Path,
    *statements: str,
) -> list[str]:
    """The lines that beeline prints for statements, the first after its prompt."""
    asked = [word for one in statements for word in ("-e", one)]
    ran = subprocess.run(
        [
            str(java_home() / "bin" / "java"),
            *_QUICK,
            *("-cp", _spark_jars(), "org.apache.hive.beeline.BeeLine"),
            *("-u", f"jdbc:hive2://127.0.0.1:{port}/toy", "-n", user, "-w", str(password_file)),
            *("--outputformat=csv2", "--silent=true", *asked),
        ],
        capture_output=True,
        text=True,
        timeout=_BEELINE_SECONDS,
        check=False,
    )
    if "Error" in ran.stderr:
        raise Refused(ran.stderr)
    return ran.stdout.splitlines()


def log_files(environment: Environment) -> list[tuple[str, int]]:
    """Every file of the lake, with its size."""
    found = [one for one in Path(environment.lake).rglob("*") if one.is_file()]
    return sorted((str(one), one.stat().st_size) for one in found)


def _spark_jars() -> str:
    spec = find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "jars" / "*")


def _rows(result: Any) -> list[tuple[Any, ...]]:
    told = result.getMetaData()
    # JDBC counts columns from 1.
    columns = range(1, told.getColumnCount() + 1)
    kinds = {column: told.getColumnTypeName(column).lower() for column in columns}
    rows = []
    while result.next():
        values = [_value(result.getString(column), kinds[column]) for column in columns]
        rows.append(tuple(values))
    return rows


def _value(text: str | None, kind: str) -> Any:
    if text is None or kind == "string":
        return text
    if kind == "date":
        return date.fromisoformat(text)
    if kind.startswith("timestamp"):
        return datetime.fromisoformat(text)
    if kind == "boolean":
        return text == "true"
    return float(text) if kind in {"double", "float"} else Decimal(text)


def comparable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row as both say it: an instant by its time in UTC, and one kind of number."""
    return tuple(map(_plain, row))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    if isinstance(value, date | str | bool) or value is None:
        return value
    return plain_number(value)
