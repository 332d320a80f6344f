"""What docs/how-to/postgresql.md says to run is enough, and what is promised is in PostgreSQL."""

from __future__ import annotations

import re
import socket
import struct
import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
import sqlalchemy

from jobs.lake.contract import contract
from jobs.warehouse import connection
from jobs.warehouse.connection import OWNER, READER
from pipelines import catalog
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError
from pipelines.spec import Deprecation, Pipeline
from tests.jobs.warehouse.lake import FIRST, Lake
from tests.postgres import Postgres

WEATHER = catalog.pipeline("weather")
DAY, NEXT = date(2013, 2, 1), date(2013, 2, 2)
MEANINGS = """
SELECT attname, col_description(attrelid, attnum), format_type(atttypid, atttypmod)
FROM pg_attribute WHERE attrelid = 'weather.predictions'::regclass AND attnum > 0 ORDER BY attnum
"""


def documented() -> list[str]:
    """The statements of the document, a block each."""
    text = (ROOT / "docs" / "how-to" / "postgresql.md").read_text()
    return re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_what_the_document_says_to_grant_is_enough(lake: Lake, postgres: Postgres) -> None:
    to_make, to_read, _ = documented()
    lake.do(to_make)
    lake.do(to_read)
    url = postgres.url("warehouse", "nightshift", "change%20me")
    loader = Lake(replace(lake.environment, warehouse_url=url))
    loader.publish_predictions(FIRST)
    caught = loader.catch_up()
    assert caught.written == (FIRST,)
    assert caught.faults == ()
    assert caught.notes == ()
    reads = postgres.url("warehouse", "analyst", "change%20me%20too")
    analyst = Lake(replace(lake.environment, warehouse_url=reads))
    analyst.require_same({FIRST: ""})
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('toy', 'nightshift')"
    assert lake.ask(owners) == [(OWNER,)]
    (limits,) = lake.ask(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = 'nightshift'"
    )
    assert limits == (False,)
    assert lake.ask("SELECT count(*) FROM pg_roles WHERE rolname = %s", READER) == [(1,)]


def test_a_bi_tool_finds_views_columns_and_meanings_as_a_reader(
    lake: Lake, postgres: Postgres
) -> None:
    to_make, to_read, _ = documented()
    lake.do(to_make)
    lake.do(to_read)
    lake.pipeline = WEATHER
    lake.publish({DAY: foretold(WEATHER, DAY)})
    assert lake.catch_up().faults == ()
    # As Superset, Metabase and others look: by SQLAlchemy, with the address of the document.
    address = postgres.url("warehouse", "analyst", "change%20me%20too")
    engine = sqlalchemy.create_engine(address)
    seen = sqlalchemy.inspect(engine)
    assert seen.get_view_names("weather") == ["predictions"]
    columns = {one["name"]: one for one in seen.get_columns("predictions", "weather")}
    assert isinstance(columns["forecast_date"]["type"], sqlalchemy.Date)
    assert isinstance(columns["predicted_at"]["type"], sqlalchemy.TIMESTAMP)
    assert isinstance(columns["temperature"]["type"], sqlalchemy.Float)
    assert str(columns["run_id"]["comment"]).startswith("The run that published the row")
    engine.dispose()


def foretold(pipeline: Pipeline, day: date) -> pa.Table:
    """One prediction of the pipeline."""
    moment = datetime(2013, 2, 1, 5, tzinfo=UTC)
    values = {
        "date": pa.array([day]),
        "timestamp": pa.array([moment], pa.timestamp("us", tz="UTC")),
        "string": pa.array(["LGA"]),
        "int": pa.array([5], pa.int32()),
        "long": pa.array([6]),
        "double": pa.array([7.5]),
    }
    made = [one for one in contract(pipeline) if not one.meaning.startswith("Nothing makes it")]
    return pa.table({one.column: values[one.type] for one in made})


def test_predictions_in_postgresql_are_those_of_the_contract(lake: Lake) -> None:
    lake.pipeline = WEATHER
    lake.publish({DAY: foretold(WEATHER, DAY)})
    assert lake.catch_up().faults == ()
    found = lake.ask(MEANINGS)
    assert [(name, doc) for name, doc, _ in found] == [
        (one.column, one.meaning) for one in contract(WEATHER)
    ]
    about = "SELECT obj_description('weather.predictions'::regclass)"
    assert lake.ask(about) == [("What the champion of the night foretold.",)]


def test_a_deprecated_column_is_told_and_stays_as_null_when_nothing_makes_it(lake: Lake) -> None:
    lake.pipeline = WEATHER
    lake.publish({DAY: foretold(WEATHER, DAY)})
    lake.catch_up()
    hour = Deprecation(
        column="hour",
        since=date(2026, 11, 26),
        until=date(2027, 6, 1),
        why="Use forecast_at.",
    )
    lake.pipeline = replace(WEATHER, deprecated=(hour,))
    lake.catch_up()
    told = {name: doc for name, doc, _ in lake.ask(MEANINGS)}
    assert told["hour"] == (
        "Deprecated since 2026-11-26, until 2027-06-01: Use forecast_at. Local hour."
    )
    gone = replace(WEATHER, carried=(), deprecated=(replace(hour, type="int"),))
    lake.pipeline = gone
    lake.publish({NEXT: foretold(gone, NEXT)})
    assert lake.catch_up().faults == ()
    hours = "SELECT forecast_date, hour FROM weather.predictions ORDER BY 1"
    assert lake.ask(hours) == [(DAY, 5), (NEXT, None)]
    # A database that comes later has the column too.
    lake.do("DROP SCHEMA weather CASCADE; DROP SCHEMA nightshift CASCADE")
    lake.catch_up()
    assert lake.ask(hours) == [(DAY, 5), (NEXT, None)]


def test_predictions_of_another_type_than_was_promised_are_not_published(lake: Lake) -> None:
    lake.pipeline = WEATHER
    rows = foretold(WEATHER, DAY)
    place = rows.column_names.index("hour")
    wrong = rows.set_column(place, "hour", pa.array(["five"]))
    lake.publish({DAY: wrong})
    (fault,) = lake.catch_up().faults
    assert "column 'hour' is string in the lake, and is promised as int" in fault


def test_a_decimal_is_published_once_it_is_promised(lake: Lake) -> None:
    lake.pipeline = WEATHER
    rows = foretold(WEATHER, DAY)
    place = rows.column_names.index("hour")
    half_past_five = pa.array([Decimal("5.50")], pa.decimal128(9, 2))
    lake.publish({DAY: rows.set_column(place, "hour", half_past_five)})
    (fault,) = lake.catch_up().faults
    assert "declare types={'hour': 'decimal(9,2)'} of the table that makes it" in fault
    hours, *others = WEATHER.derived
    typed = replace(hours, types={**hours.types, "hour": "decimal(9,2)"})
    lake.pipeline = replace(WEATHER, derived=(typed, *others))
    assert lake.catch_up().faults == ()
    assert lake.ask("SELECT hour FROM weather.predictions") == [(Decimal("5.50"),)]
    assert [kind for name, _, kind in lake.ask(MEANINGS) if name == "hour"] == ["numeric(9,2)"]


def variables(**given: str) -> dict[str, str]:
    return given


@pytest.mark.parametrize(
    ("host", "client", "mode"),
    [
        ("db.example.org", {}, "require"),
        ("127.0.0.1", {}, None),
        ("localhost", {}, None),
        ("%2Frun%2Fpostgresql", {}, None),
        ("localhost,db.example.org", {}, "require"),
        ("db.example.org/x?sslmode=disable", {}, "disable"),
        ("db.example.org/x?sslmode=prefer", {}, "prefer"),
        ("localhost/x?hostaddr=192.0.2.1", {}, "require"),
        ("db.example.org/x?hostaddr=127.0.0.1", {}, None),
        ("/x?host=db.example.org", {}, "require"),
        ("/x", {}, None),
        ("/x", variables(PGHOST="db.example.org"), "require"),
        ("localhost/x", variables(PGHOST="db.example.org"), None),
        ("localhost/x", variables(PGHOSTADDR="192.0.2.1"), "require"),
        # What the client's own variable says is in force.
        ("db.example.org/x", variables(PGSSLMODE="verify-full"), None),
        ("db.example.org/x?service=other&sslmode=verify-full", {}, "verify-full"),
    ],
)
def test_nothing_leaves_the_machine_in_the_clear(
    host: str, client: dict[str, str], mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in client.items():
        monkeypatch.setenv(name, value)
    given: dict[str, object] = {}

    def connect(**settings: object) -> None:
        given.update(settings)
        raise connection.psycopg.OperationalError

    monkeypatch.setattr("psycopg.connect", connect)
    environment = Environment.read({"NIGHTSHIFT_WAREHOUSE_URL": f"postgresql://u:p@{host}"})
    with pytest.raises(connection.WarehouseAway), connection.opened(environment):
        pass
    assert given.get("sslmode") == mode


def test_a_service_must_say_whether_it_is_encrypted() -> None:
    address = "postgresql://u:p@db.example.org/x?service=other"
    environment = Environment.read({"NIGHTSHIFT_WAREHOUSE_URL": address})
    refused = pytest.raises(UsageError, match="Add it: &sslmode=verify-full")
    with refused, connection.opened(environment):
        pass


LISTENING = 5
"""Seconds that the test waits for what it wants to see."""


@pytest.mark.parametrize(
    ("mode", "is_encrypted"), [("", True), ("verify-full", True), ("disable", False)]
)
def test_what_postgresqls_client_says_first_asks_for_encryption(
    mode: str, is_encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode:
        monkeypatch.setenv("PGSSLMODE", mode)
    # To other addresses than 127.0.0.1 it is not on this machine, for all that we look at.
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        address = f"postgresql://u:p@localhost:{port}/x?hostaddr=127.0.0.2"
        environment = Environment.read({"NIGHTSHIFT_WAREHOUSE_URL": address})
        said: list[bytes] = []
        answering = threading.Thread(target=answer_that_there_is_no_encryption, args=[server, said])
        answering.start()
        with pytest.raises(connection.WarehouseAway), connection.opened(environment):
            pass
        answering.join()
    assert (said == [SSL_REQUEST]) == is_encrypted


SSL_REQUEST = struct.pack("!II", 8, 80877103)


def answer_that_there_is_no_encryption(server: socket.socket, said: list[bytes]) -> None:
    """Take a connection as a server without encryption, and keep what the client says."""
    server.settimeout(LISTENING)
    peer, _ = server.accept()
    with peer:
        peer.settimeout(LISTENING)
        while words := peer.recv(1000):
            said.append(words)
            if words != SSL_REQUEST:
                return
            peer.send(b"N")
