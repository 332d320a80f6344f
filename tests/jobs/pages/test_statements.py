"""A statement of the page reads the lake, and can do no harm."""

from __future__ import annotations

import json
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.lake import sql
from jobs.pages import statements
from jobs.pages.statements import described
from pipelines.environment import Environment
from pipelines.errors import UsageError


@pytest.fixture
def lake(tmp_path: Path) -> Environment:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    days = [date(2013, 1, 1)] * 5
    rows = pa.table(
        {
            "day": days,
            "carrier": list("ABCDE"),
            "big": [2**60] * 5,
        }
    )
    write_deltalake(environment.table_path("flights.flights"), rows)
    return environment


def answer(environment: Environment, statement: str, rows: int, **more: Any) -> SimpleNamespace:
    """The answer, out of its JSON."""
    told = statements.answer(environment, statement, rows, **more)
    return SimpleNamespace(**json.loads(told))


def test_rows_are_those_of_sql_up_to_the_limit(lake: Environment) -> None:
    statement = "SELECT carrier, day, 1.5 AS half FROM flights.flights ORDER BY carrier"
    found = answer(lake, statement, rows=3)
    columns, rows = sql.query(lake, statement)
    assert found.columns == columns
    told = [row[0] for row in found.rows]
    assert told == [row[0] for row in rows[:3]]
    assert found.rows[0][1:] == ["2013-01-01", "1.5"]
    assert found.is_cut
    assert not answer(lake, statement, rows=5).is_cut


def test_numbers_that_a_browser_would_round_are_texts(lake: Environment) -> None:
    found = answer(lake, "SELECT big FROM flights.flights LIMIT 1", rows=1)
    assert found.rows == [[str(2**60)]]
    inside = "SELECT [big, 1], {'big': big}, [{'big': [-big]}] FROM flights.flights LIMIT 1"
    big = str(2**60)
    assert answer(lake, inside, rows=1).rows == [
        [[big, 1], {"big": big}, [{"big": [f"-{big}"]}]],
    ]


def test_numbers_that_json_does_not_know_are_told_as_the_command_tells_them(
    lake: Environment,
) -> None:
    odd = "SELECT 'nan'::DOUBLE, 1 / 0.0, -1 / 0.0, [1.5, 'nan'::DOUBLE], NULL"
    (row,) = answer(lake, odd, rows=1).rows
    assert row == ["nan", "inf", "-inf", [1.5, "nan"], None]


def test_what_gives_no_rows_gives_none(lake: Environment) -> None:
    assert answer(lake, "SET threads = 1", rows=5).columns == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELECT * FROM flights.flight", "Did you mean flights.flights"),
        ("SELECT 1; SELECT 2", "2 statements give rows"),
        ("", "no SQL statement"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", "disabled"),
        ("SET enable_external_access = true", "No statement changes enable_external_access"),
        ("INSTALL httpfs", "disabled"),
    ],
)
def test_what_may_not_be_done_is_told(lake: Environment, statement: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        answer(lake, statement, rows=5)


def test_a_statement_that_does_not_end_is_ended(lake: Environment) -> None:
    began = time.monotonic()
    endless = (
        "SELECT count(*) FROM range(10000000) AS a, range(10000000) AS b WHERE a.range < b.range"
    )
    with pytest.raises(UsageError, match="took longer than 3 s"):
        answer(lake, endless, rows=5, seconds=3)
    assert time.monotonic() - began < 20


def test_memory_outside_of_the_limit_of_duckdb_has_one_too(lake: Environment) -> None:
    greedy = "SELECT repeat('x', 4000000000) || repeat('y', 3000000000)"
    with pytest.raises(UsageError, match="emory"):
        answer(lake, greedy, rows=5)


def test_a_long_text_is_cut(lake: Environment) -> None:
    ((text,),) = answer(lake, "SELECT repeat('x', 100000)", rows=1).rows
    assert len(str(text)) == 10_001


def test_an_answer_ends_where_it_would_be_too_large_for_the_server(lake: Environment) -> None:
    many = "SELECT repeat('x', 9999) || range FROM range({})"
    told = statements.answer(lake, many.format(15_000), rows=100_000)
    assert len(told) <= 16 * 1024**2 + 100
    found = json.loads(told)
    assert found["is_cut"]
    # What is there is whole.
    count = len(found["rows"])
    texts = [f"{'x' * 9999}{n}" for n in range(count)]
    cut = [text[:10_000] + "…" * (len(text) > 10_000) for text in texts]
    assert found["rows"] == [[text] for text in cut]
    assert count > 1600
    assert not answer(lake, many.format(1_000), rows=100_000).is_cut


def test_what_no_answer_can_hold_is_told(lake: Environment) -> None:
    wide = ", ".join([f"repeat('x', 9999) AS c{n}" for n in range(1700)])
    with pytest.raises(UsageError, match="One row is larger than the 16 MB"):
        answer(lake, f"SELECT {wide}", rows=5)
    with pytest.raises(UsageError) as told:
        answer(lake, "SELECT error(repeat('x', 1000000))", rows=5)
    assert len(str(told.value)) <= 10_000


def test_tables_are_told_with_the_meaning_of_their_columns(lake: Environment) -> None:
    (table,) = described(lake)
    assert table.name == "flights.flights"
    told = {column.name: (column.kind, column.doc) for column in table.columns}
    assert told["day"][0] == "date"
    assert told["carrier"] == ("string", "Two-letter code of the airline.")


def test_a_history_is_told_with_the_columns_that_it_has_more(lake: Environment) -> None:
    day = date(2013, 1, 1)
    rows = pa.table({"flight_date": [day], "late_probability": [0.5]})
    place = lake.table_path("flights.predictions")
    write_deltalake(place, rows, partition_by=["flight_date"])
    history = "flights.predictions_history"
    (told,) = [table for table in described(lake) if table.name == history]
    there, _ = sql.query(lake, f"FROM {history} LIMIT 0")
    assert [column.name for column in told.columns] == there
    kinds = [column.kind for column in told.columns]
    assert kinds[-3:] == ["date", "integer", "boolean"]
    assert all(column.doc for column in told.columns)


@pytest.mark.parametrize("left", [b"", b'{"add": {"pa'])
def test_a_table_that_cannot_be_opened_hides_no_other_and_is_told_as_what_it_is(
    left: bytes, lake: Environment
) -> None:
    broken = Path(lake.table_path("flights.weather"))
    write_deltalake(str(broken), pa.table({"number": [1]}))
    commit = broken / "_delta_log" / f"{0:020}.json"
    commit.write_bytes(left)
    tables = {table.name: table for table in described(lake)}
    assert tables["flights.flights"].columns
    assert tables["flights.weather"].columns == ()
    assert tables["flights.weather"].doc.startswith("Cannot be opened: Kernel error: ")
    with pytest.raises(UsageError) as told:
        answer(lake, "FROM flights.weather", rows=5)
    assert str(told.value).startswith(f"The log of a table is broken: {commit} is cut off")
    assert "memory" not in str(told.value)
    found = answer(lake, "FROM flights.flights", rows=5)
    assert (len(found.rows), found.notes) == (5, "")
    listed = answer(lake, "SHOW ALL TABLES", rows=5)
    assert len(listed.rows) == 1
    assert listed.notes.startswith("flights.weather is left out, for it cannot be opened: ")
