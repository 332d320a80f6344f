"""Anyone can query the lake with SQL, and do nothing else with it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from jobs.lake.sql import query, tables
from pipelines.environment import Environment
from pipelines.errors import UsageError


@pytest.fixture
def lake(tmp_path: Path) -> Environment:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    rows = pa.table(
        {
            "day": pa.array([date(2013, 1, 1), date(2013, 1, 2), date(2013, 1, 2)]),
            "carrier": ["UA", "AA", "UA"],
            "delay": [1, 2, None],
        }
    )
    write_deltalake(environment.table_path("flights.flights"), rows, partition_by=["day"])
    (tmp_path / "lake" / "_staging" / "flights").mkdir(parents=True)
    return environment


def test_a_table_is_named_by_its_pipeline(lake: Environment) -> None:
    columns, rows = query(
        lake,
        "SELECT day, count(*) AS n, sum(delay) AS delay "
        "FROM flights.flights GROUP BY day ORDER BY day",
    )
    assert columns == ["day", "n", "delay"]
    assert rows == [(date(2013, 1, 1), 1, 1), (date(2013, 1, 2), 2, 2)]


def test_only_tables_are_listed(lake: Environment) -> None:
    assert tables(lake) == ["flights.flights"]


def test_the_newest_version_is_read(lake: Environment) -> None:
    DeltaTable(lake.table_path("flights.flights")).delete("carrier = 'UA'")
    assert query(lake, "SELECT carrier FROM flights.flights")[1] == [("AA",)]


def test_an_unknown_table_is_refused_with_the_known_ones(lake: Environment) -> None:
    with pytest.raises(UsageError, match=r"Tables of the lake: flights\.flights"):
        query(lake, "SELECT * FROM flights.flight")


def test_an_empty_home_says_that_nothing_has_run_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none yet"):
        query(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}), "SELECT * FROM flights.flights")


def test_a_statement_cannot_write_or_read_files(lake: Environment) -> None:
    target = lake.home / "out.csv"
    with pytest.raises(UsageError):
        query(lake, f"COPY (SELECT 1) TO '{target}'")
    with pytest.raises(UsageError):
        query(lake, "SELECT * FROM read_text('/etc/hostname')")
    assert not target.exists()


def test_a_table_with_column_mapping_is_refused_rather_than_read_wrongly(lake: Environment) -> None:
    log = Path(lake.table_path("flights.flights")) / "_delta_log" / "00000000000000000000.json"
    log.write_text(
        log.read_text().replace(
            '"configuration":{}', '"configuration":{"delta.columnMapping.mode":"name"}'
        )
    )
    with pytest.raises(UsageError, match="column mapping"):
        query(lake, "SELECT * FROM flights.flights")
