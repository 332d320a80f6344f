"""Programs read tables as SQL shows them, and only what they ask for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

import nightshift
from jobs.lake.commits import publish
from jobs.lake.publications import Origin
from jobs.lake.reading import Filter
from jobs.lake.sql import query
from nightshift import NightshiftError, UnknownColumn, UnknownTable, UsageError
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from tests.jobs.lake.test_as_left import end
from tests.jobs.lake.test_commits import run_at, staged

_FIRST = date(2013, 1, 1)
_SECOND = date(2013, 1, 2)
_LATER = date(2013, 1, 9)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Three flights on two days."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    environment = Environment.read()
    late = time(23, 30, tzinfo=UTC)
    at = [datetime.combine(day, late) for day in (_FIRST, _SECOND, _SECOND)]
    rows = pa.table(
        {
            "day": pa.array([_FIRST, _SECOND, _SECOND]),
            "carrier": ["UA", None, "B6'é"],
            "delay": pa.array([1, 2, 3], pa.int32()),
            "at": pa.array(at, pa.timestamp("us", "UTC")),
        }
    )
    write_deltalake(environment.table_path("flights.flights"), rows, partition_by=["day"])
    return environment


def _delays(*filters: Filter) -> list[int]:
    rows = nightshift.read("flights.flights", columns=["delay"], filters=filters)
    return sorted(rows["delay"].to_pylist())


def test_a_table_is_read_whole_with_its_types(lake: Environment) -> None:
    rows = nightshift.read("flights.flights")
    assert rows.schema == pa.schema(
        {
            "day": pa.date32(),
            "carrier": pa.string(),
            "delay": pa.int32(),
            "at": pa.timestamp("us", "UTC"),
        }
    )
    columns, told = query(lake, "FROM flights.flights ORDER BY delay")
    found = [tuple(row.values()) for row in rows.sort_by("delay").to_pylist()]
    assert found == told
    assert rows.column_names == columns


def test_columns_come_in_the_order_that_is_asked_for(lake: Environment) -> None:
    rows = nightshift.read("flights", columns=["delay", "day"])
    assert rows.column_names == ["delay", "day"]
    with pytest.raises(UsageError, match="names no column"):
        nightshift.read("flights.flights", columns=[])


def test_filters_that_are_given_one_by_one_hold_too(lake: Environment) -> None:
    filters = (one for one in [("delay", ">", 1), ("delay", "<", 3)])
    rows = nightshift.read("flights.flights", columns=iter(["delay"]), filters=filters)
    assert rows.to_pydict() == {"delay": [2]}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"table": 5}, "table is a text, not 5."),
        ({"table": b"flights"}, "table is a text, not b'flights'."),
        ({"columns": 5}, "columns is a list of names, not 5."),
        ({"columns": ["day", None]}, "the name of a column is a text, not None."),
        ({"filters": 5}, "filters is a list of (column, operator, value), not 5."),
        ({"filters": [(["day"], "=", 1)]}, "the column of a filter is a text, not ['day']."),
        ({"filters": [("delay", 5, 1)]}, "the operator of a filter is a text, not 5."),
        ({"run": 5}, "run is a text, not 5."),
        ({"to": None}, "to is a text, not None."),
    ],
)
def test_what_is_of_another_kind_is_refused_by_name(
    asked: dict[str, Any], told: str, lake: Environment
) -> None:
    with pytest.raises(UsageError) as refused:
        nightshift.read(**{"table": "flights.flights", **asked})
    assert str(refused.value) == told


@pytest.mark.parametrize(
    ("statement", "asked", "told"),
    [
        (5, {}, "statement is a text, not 5."),
        ("SELECT 1", {"run": 5}, "run is a text, not 5."),
        ("SELECT 1", {"to": 5}, "to is a text, not 5."),
    ],
)
def test_a_statement_of_another_kind_is_refused_by_name(
    statement: Any, asked: dict[str, Any], told: str, lake: Environment
) -> None:
    with pytest.raises(UsageError) as refused:
        nightshift.sql(statement, **asked)
    assert str(refused.value) == told


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([("day", "=", _FIRST)], [1]),
        ([("day", "==", "2013-01-01")], [1]),
        ([("day", ">", _FIRST), ("delay", "<", 3)], [2]),
        ([("delay", ">", 1.5)], [2, 3]),
        ([("delay", "<=", "2")], [1, 2]),
        ([("delay", "!=", 2)], [1, 3]),
        ([("carrier", "=", "B6'é")], [3]),
        ([("carrier", "!=", "UA")], [3]),
        ([("carrier", "=", None)], [2]),
        ([("carrier", "!=", None)], [1, 3]),
        ([("carrier", "in", ["UA", "AA"])], [1]),
        ([("carrier", "not in", {"UA"})], [3]),
        ([("carrier", "in", [])], []),
        ([("carrier", "not in", [])], [1, 2, 3]),
        ([("at", ">=", datetime(2013, 1, 2))], [2, 3]),  # noqa: DTZ001  UTC, as in SQL
        (
            [("at", "<", datetime(2013, 1, 2, tzinfo=UTC))],
            [1],
        ),
        ([("carrier", "=", "x' OR 1 = 1 --")], []),
    ],
)
def test_all_filters_hold_of_what_is_read(
    lake: Environment, filters: Collection[Filter], found: list[int]
) -> None:
    assert _delays(*filters) == found


@pytest.mark.parametrize(
    "column",
    [np.array, pd.Series, pl.Series, pa.array, pa.chunked_array],
)
def test_values_may_be_a_column(lake: Environment, column: Callable[[Any], Any]) -> None:
    values = [[3], [1]] if column is pa.chunked_array else [3, 1]
    assert _delays(("delay", "in", column(values))) == [1, 3]
    nothing = column(values)[:0]
    assert _delays(("delay", "not in", nothing)) == [1, 2, 3]


def test_no_filters_are_all_rows(lake: Environment) -> None:
    assert len(nightshift.read("flights.flights", filters=None)) == 3


@pytest.mark.parametrize(
    "filters",
    [
        [("delay", "<")],
        ("delay", "<", 1),
        ["day"],
        "day",
        [3],
    ],
)
def test_a_filter_is_a_column_an_operator_and_a_value(lake: Environment, filters: Any) -> None:
    with pytest.raises(UsageError, match=r"filters is a list of \(column, operator, value\)"):
        nightshift.read("flights.flights", filters=filters)


def test_columns_are_a_list(lake: Environment) -> None:
    with pytest.raises(UsageError, match=r"say columns=\['carrier'\]"):
        nightshift.read("flights.flights", columns="carrier")


def test_files_of_other_days_are_not_opened(lake: Environment) -> None:
    for file in Path(lake.table_path("flights.flights")).glob("day=2013-01-02/*"):
        file.unlink()
    assert _delays(("day", "=", _FIRST)) == [1]
    one_or_two = ("delay", "in", [1, 2])
    assert _delays(("day", "<=", "2013-01-01"), one_or_two) == [1]
    # Nor files whose bounds, which the table's log tells, hold no such value.
    assert _delays(("delay", "=", 1)) == [1]
    found = _delays(("at", "<", datetime(2013, 1, 2, tzinfo=UTC)))
    assert found == [1]
    unread = "A table's rows cannot be read: .*2013-01-02"
    with pytest.raises(NightshiftError, match=unread) as raised:
        _delays(("delay", ">=", 1))
    assert type(raised.value) is NightshiftError, "nothing is wrong with what was asked"


_FAR = 2_932_897
"""Days from 1970 to the year 10000."""
_FAR_MICROSECONDS = _FAR * 86_400_000_000
_LAST_MICROSECOND = 2**63 - 1
_LARGE = str(2**80)
_NAN, _INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "values", "one", "found"),
    [
        (
            pa.decimal128(34, 2),
            ["1.10", "-1e31"],
            ("<", 0),
            [1],
        ),
        (
            pa.decimal128(20, 2),
            ["-5.01", "999999999999999999.99"],
            (">", 7),
            [1],
        ),
        (
            pa.decimal128(38, 0),
            ["1", _LARGE],
            ("=", Decimal(_LARGE)),
            [1],
        ),
        (
            pa.decimal128(38, 20),
            ["1e-20", None],
            ("=", "0.00000000000000000001"),
            [0],
        ),
        (pa.float64(), [-_INFINITE, 2.0], ("=", 2.0), [1]),
        (pa.float64(), [_INFINITE, 2.0], (">", 3), [0]),
        (pa.float64(), [_NAN, 1.0], ("=", _NAN), [0]),
        (pa.date32(), [16_000, _FAR], ("<", "2100-01-01"), [0]),
        (pa.date32(), [16_000, -1_000_000], (">", "2000-01-01"), [0]),
        (
            pa.timestamp("us", "UTC"),
            [0, _FAR_MICROSECONDS],
            ("<", "2100-01-01"),
            [0],
        ),
        (
            pa.timestamp("us"),
            [0, _LAST_MICROSECOND],
            (">", "1960-01-01"),
            [0, 1],
        ),
    ],
)
def test_no_file_stays_closed_for_what_its_statistics_cannot_say(
    lake: Environment,
    kind: pa.DataType,
    values: list[Any],
    one: tuple[str, object],
    found: list[int],
) -> None:
    if pa.types.is_decimal(kind):
        values = [value and Decimal(value) for value in values]
    column = pa.array(values, kind)
    rows = pa.table({"n": [0, 1], "value": column})
    write_deltalake(lake.table_path("flights.odd"), rows)
    read = nightshift.read("flights.odd", columns=["n"], filters=[("value", *one)])
    assert sorted(read["n"].to_pylist()) == found


def test_columns_that_are_not_asked_for_are_not_read(lake: Environment) -> None:
    (file,) = Path(lake.table_path("flights.flights")).glob("day=2013-01-01/*")
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = map(group.column, range(3))
    texts = next(one for one in columns if one.path_in_schema == "carrier")
    content = bytearray(file.read_bytes())
    begin = texts.dictionary_page_offset
    content[begin : begin + texts.total_compressed_size] = bytes(texts.total_compressed_size)
    file.write_bytes(content)
    assert _delays(("day", "=", _FIRST)) == [1]
    with pytest.raises(NightshiftError, match="A table's rows cannot be read") as raised:
        nightshift.read("flights.flights", filters=[("day", "=", _FIRST)])
    assert type(raised.value) is NightshiftError, "nothing is wrong with what was asked"
    with pytest.raises(NightshiftError, match="A table's rows cannot be read"):
        nightshift.sql("FROM flights.flights")


def test_rows_come_as_pandas_or_polars(lake: Environment) -> None:
    arrow = nightshift.read("flights.flights")
    in_pandas = nightshift.read("flights.flights", to="pandas")
    assert isinstance(in_pandas, pd.DataFrame)
    assert list(in_pandas["delay"]) == arrow["delay"].to_pylist()
    in_polars = nightshift.read("flights.flights", to="polars")
    assert isinstance(in_polars, pl.DataFrame)
    assert in_polars.to_arrow().to_pylist() == arrow.to_pylist()
    with pytest.raises(UsageError, match="No form of rows named 'panda'. Did you mean 'pandas'?"):
        nightshift.read("flights.flights", to="panda")  # type: ignore[call-overload]


def test_where_polars_is_not_installed_the_other_forms_are_named(
    lake: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nightshift, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="polars is not installed here.*'arrow' or 'pandas'"):
        nightshift.read("flights.flights", to="polars")
    assert len(nightshift.read("flights.flights"))


def test_a_declared_table_without_rows_is_told_from_a_name_that_is_wrong(lake: Environment) -> None:
    with pytest.raises(UnknownTable, match=r"^ops\.alerts holds nothing yet"):
        nightshift.read("ops.alerts")
    for never in (
        "flights.flight_quarantine",
        "flights.flights_quarantine_history",
        "ops.alerts_history",
        "ops.alerts_quarantine",
    ):
        with pytest.raises(UnknownTable, match=f"No table named '{never}'"):
            nightshift.read(never)


def test_an_unknown_table_or_column_is_told_with_the_near_miss(lake: Environment) -> None:
    with pytest.raises(UnknownTable, match="Did you mean 'flights.flights'"):
        nightshift.read("flights.flight")
    with pytest.raises(UnknownColumn, match="'carier'. Did you mean 'carrier'"):
        nightshift.read("flights.flights", columns=["carier"])
    with pytest.raises(UnknownColumn, match="Did you mean 'delay'"):
        nightshift.read("flights.flights", filters=[("dela", "=", 1)])


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (("day", "=", "yesterday"), "yesterday"),
        (("day", "~", _FIRST), "No operator of a filter named '~'"),
        (("day", ">", None), "say '=' or '!='"),
        (("carrier", "in", "UA"), "needs a list of values, not 'UA'"),
        (("carrier", "not in", ["UA", None]), "Leave it out; the rows without a value are those"),
        (("carrier", "in", [None]), "carrier in has None in its list"),
        (("delay", "not in", pd.Series([3, None])), "has None in its list, or NaN"),
        (("day", "not in", pd.Series([_FIRST, None], dtype="datetime64[ns]")), "or NaN, NaT"),
        (("carrier", "not in", pd.array(["UA", None], dtype="string")), "or NaN, NaT or NA"),
        (("carrier", "=", object()), "is no value of a column"),
        (("delay", "<>", 1), "No operator of a filter named '<>': delay '!=' says it"),
        (("delay", "=", True), "True is no value of column 'delay', which is INTEGER"),
        (("delay", "=", np.True_), "np.True_ is no value of column 'delay', which is INTEGER"),
        (("delay", "in", [1, False]), "False is no value of column 'delay'"),
        (("delay", "<", _NAN), "delay < nan compares with what equals nothing"),
        (("day", "=", pd.NaT), "equals nothing"),
        (("carrier", "!=", pd.NA), "equals nothing"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(lake: Environment, one: Filter, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        _delays(one)
    assert "LINE" not in str(refused.value), "nobody has written a statement"


@pytest.mark.parametrize(
    ("column", "how", "value"),
    [
        ("delay", "=", "2.5"),
        ("delay", "<=", "1e-1"),
        ("delay", "in", ["2", "1.4"]),
        ("huge", "=", "9007199254740993.5"),
        ("money", "=", "1.005"),
        ("day", "=", "2013-01-01 23:59"),
        ("day", "<", "2013-01-02T12:00:00Z"),
    ],
)
def test_a_text_that_its_column_could_hold_only_rounded_is_refused(
    column: str, how: str, value: Any, lake: Environment
) -> None:
    rows = pa.table(
        {
            "day": [_FIRST],
            "delay": pa.array([2], pa.int64()),
            "huge": pa.array([2**53 + 2], pa.int64()),
            "money": pa.array([Decimal("1.01")], pa.decimal128(9, 2)),
        }
    )
    write_deltalake(lake.table_path("flights.money"), rows)
    wrong = value[-1] if isinstance(value, list) else value
    with pytest.raises(UsageError) as refused:
        nightshift.read("flights.money", filters=[(column, how, value)])
    assert str(refused.value).startswith(f"'{wrong}' is no value of column '{column}', which is ")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("delay", "2.0"),
        ("delay", " 20e-1 "),
        ("delay", "0x2"),
        ("money", "1.0100"),
        ("day", "2013-01-01 00:00:00"),
        ("day", "2013-01-01T00:00:00Z"),
    ],
)
def test_a_text_may_say_what_its_column_holds_in_any_way(
    column: str, value: str, lake: Environment
) -> None:
    rows = pa.table(
        {
            "day": [_FIRST],
            "delay": pa.array([2], pa.int64()),
            "money": pa.array([Decimal("1.01")], pa.decimal128(9, 2)),
        }
    )
    write_deltalake(lake.table_path("flights.money"), rows)
    assert len(nightshift.read("flights.money", filters=[(column, "=", value)])) == 1


def test_only_the_table_that_is_named_is_opened(lake: Environment) -> None:
    log = Path(lake.table_path("weather.flights")) / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("no log")
    assert _delays() == [1, 2, 3]
    with pytest.raises(UnknownTable, match=r"Known: flights\.flights, weather\.flights"):
        nightshift.read("flights")


def _ids(**moment: object) -> list[int]:
    rows = nightshift.read("toy.readings", **moment)  # type: ignore[call-overload]
    return sorted(rows["id"].to_pylist())


def test_a_table_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    run = replace(run_at(tmp_path, Days(_FIRST, _SECOND)), run_id="first")
    publish(run, "readings", staged(run, {_FIRST: [1], _SECOND: [2]}))
    end(run)
    again = run_at(tmp_path, Days.of(_FIRST))
    late = Origin(known={_FIRST: _LATER})
    publish(again, "readings", staged(again, {_FIRST: [9]}, origin=late))
    _, rows = query(run.environment, "SELECT min(published_at) FROM ops.publications")
    assert _ids() == [2, 9]
    assert _ids(run="first") == [1, 2]
    assert _ids(version=0) == [1, 2]
    assert _ids(as_of=rows[0][0]) == [1, 2]
    assert _ids(known_as_of=date(2013, 1, 8)) == [1, 2]
    assert _ids(known_as_of=str(_LATER)) == [2, 9]
    assert _ids(known_as_of=datetime.fromisoformat("2013-01-08")) == [1, 2]
    assert _ids(known_as_of=pd.Timestamp("2013-01-08")) == [1, 2]
    assert _ids(version=0, filters=[("landed_date", "=", _FIRST)]) == [1]
    history = nightshift.read("readings_history", columns=["id", "revision"])
    found = sorted(map(tuple, (row.values() for row in history.to_pylist())))
    assert found == [
        (1, 1),
        (2, 1),
        (9, 2),
    ]
    # As that run left it, though what it published has been replaced since.
    publish(again, "readings", staged(again, {_FIRST: [8]}))
    then = nightshift.read("readings_history", columns=["id", "known_date"], run="first")
    assert then.sort_by("id")["known_date"].to_pylist() == [_FIRST, _SECOND]
    with pytest.raises(UsageError, match="tells all versions already: filter by known_date"):
        nightshift.read("readings_history", version=0)
    with pytest.raises(UsageError, match="Say only one of run, version"):
        _ids(run="first", version=0)
    with pytest.raises(UsageError, match="version 7"):
        _ids(version=7)
    with pytest.raises(UsageError, match="needs a night such as"):
        _ids(known_as_of="' OR 1 = 1")
    with pytest.raises(UsageError, match="not '2013-01-08 06:00:00'"):
        _ids(known_as_of=datetime.fromisoformat("2013-01-08 06:00"))
    with pytest.raises(UsageError, match="No run named 'frist'. Did you mean 'first'?"):
        _ids(run="frist")


def test_a_statement_gives_rows_too(lake: Environment) -> None:
    rows = nightshift.sql(
        "SELECT day, sum(delay) AS n FROM flights.flights GROUP BY day ORDER BY 1"
    )
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        (_FIRST, 1),
        (_SECOND, 5),
    ]
    frame = nightshift.sql("SHOW TABLES", to="pandas")
    assert list(frame["name"]) == ["flights.flights"]
    for text in ("SELECT 2 AS n; SET threads = 1; RESET threads", "SHOW TABLES; SET threads = 1"):
        assert len(nightshift.sql(text)) == 1
    for text in ("SELECT 2 AS n; SET thread = 1", "SHOW TABLES; SET thread = 1"):
        with pytest.raises(
            UsageError, match="No statement changes thread here, but these settings: .* threads"
        ):
            nightshift.sql(text)
    with pytest.raises(UsageError, match="Did you mean flights.flights"):
        nightshift.sql("FROM flights.flight")
    with pytest.raises(UsageError, match="No statement gives rows"):
        nightshift.sql("SET threads = 1")
    with pytest.raises(UsageError):
        nightshift.sql(f"COPY (SELECT 1) TO '{lake.home / 'out.csv'}'")
    with pytest.raises(UsageError, match="late"):
        nightshift.sql(
            "SELECT CASE WHEN i = 1999999 THEN error('late') ELSE 'x' END FROM range(2000000) r(i)"
        )


def test_importing_it_starts_nothing_heavy() -> None:
    heavy = ("pyspark", "tensorflow", "keras", "mlflow", "airflow", "feast", "great_expectations")
    program = "import sys, nightshift; print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    command = [sys.executable, "-c", program, *heavy, "polars", "jobs.spark"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_airflow_takes_no_plugin_of_ours_for_it() -> None:
    # It puts each module of the folder into sys.modules by its bare name.
    assert not (ROOT / "plugins" / "nightshift.py").exists()
