"""Anyone can query the lake with SQL, and do nothing else with it."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import Future
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from jobs.lake import datasets, publications, sql, stored
from jobs.lake.commits import publish
from jobs.lake.publications import Publication
from jobs.lake.sql import Session, meant, near_misses, query, results, tables
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError
from pipelines.run import Run
from tests.jobs.lake.test_commits import run_at, staged

_FIRST = date(2013, 1, 1)
_SECOND = date(2013, 1, 2)


@pytest.fixture
def lake(tmp_path: Path) -> Environment:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    rows = pa.table(
        {
            "day": pa.array([_FIRST, _SECOND, _SECOND]),
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
    assert rows == [(_FIRST, 1, 1), (_SECOND, 2, 2)]


def test_only_tables_are_listed(lake: Environment) -> None:
    assert tables(lake) == ["flights.flights"]


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\u200b", "\u2060", "\u3000", "\ufeff"])
@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("SHOW·TABLES", [("flights.flights",)]),
        ("·SHOW TABLES·;", [("flights.flights",)]),
        ("SELECT table_name FROM·information_schema.tables", [("flights",)]),
        ("SELECT·count(*)·FROM·flights.flights·VERSION·AS·OF·0·f", [(3,)]),
        ("""SELECT·count(*), 'é·' AS "·"·FROM flights.flights --·""", [(3, "é·")]),
    ],
)
def test_whatever_blank_stands_between_words_tells_them_apart(
    lake: Environment, statement: str, rows: list[tuple[object, ...]], blank: str
) -> None:
    _, found = query(lake, statement.replace("·", blank))
    # In a text it is what is said.
    assert str(found) == str(rows).replace("·", ascii(blank).strip("'"))


def _break(lake: Environment, table: str) -> None:
    """Make it a table that nobody can open."""
    log = Path(lake.table_path(table)) / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("no log")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM flights.flights",
        "SELECT count(*) FROM Flights.FLIGHTS",
        'SELECT count(*) FROM "flights" . "flights"',
        "SELECT count(*) FROM memory.flights.flights",
        "SELECT count(*) FROM flights.flights AS a JOIN flights.flights USING (day, carrier)",
        "WITH predictions AS (FROM flights.flights) SELECT count(*) FROM predictions",
        "USE flights; SELECT count(*) FROM flights",
        "SET schema = 'flights'; SELECT count(*) FROM flights",
        "CREATE VIEW mine AS FROM flights.flights; SELECT count(*) FROM mine",
    ],
)
def test_only_the_tables_that_are_named_are_opened(lake: Environment, statement: str) -> None:
    _break(lake, "weather.predictions")
    assert query(lake, statement)[1] == [(3,)]
    with pytest.raises(Exception, match="Json error"):
        query(lake, "FROM weather.predictions")


@pytest.mark.parametrize(
    ("statement", "opened"),
    [
        ("SELECT flights.predictions.carrier FROM flights.predictions", ["flights.predictions"]),
        ('FROM "flights"."predictions"', ["flights.predictions"]),
        ("USE weather; FROM predictions", ["weather.predictions"]),
        ("FROM flights.flights_quarantine", ["flights.flights_quarantine"]),
        ("FROM flights.prediction", []),
        ("SELECT 1", []),
    ],
)
def test_a_table_is_meant_by_its_own_name_and_its_pipelines(
    statement: str, opened: list[str]
) -> None:
    known = ["flights.flights_quarantine", "flights.predictions", "weather.predictions"]
    assert meant(statement, known) == opened


@pytest.mark.parametrize(
    "statement",
    [
        "SHOW ALL TABLES",
        "PRAGMA show_tables",
        "FROM information_schema.columns",
        "SELECT * FROM duckdb_views()",
        "FROM pg_catalog.pg_tables",
        "FROM sqlite_master",
        "FROM query_table('flights.pre' || 'dictions')",
    ],
)
def test_all_tables_are_meant_where_they_are_listed(statement: str) -> None:
    known = ["flights.predictions", "weather.predictions"]
    assert meant(statement, known) == known


@pytest.mark.parametrize(
    "statement",
    ["SELECT 'show tables'", "SELECT 1 -- pragma, query(", "SELECT query FROM x", "SHOW TABLES"],
)
def test_no_table_is_meant_by_a_text_a_comment_or_a_column(statement: str) -> None:
    assert meant(statement, ["flights.predictions"]) == []


def test_a_table_that_cannot_be_opened_is_left_out_of_a_list(
    lake: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    _break(lake, "weather.predictions")
    listed = "SELECT table_name FROM information_schema.tables"
    assert query(lake, listed)[1] == [("flights",)]
    assert "weather.predictions is left out, for it cannot be opened: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "statement",
    [
        "PIVOT flights.flights ON carrier USING count(*) GROUP BY day ORDER BY day",
        "FROM (PIVOT flights.flights ON carrier USING count(*) GROUP BY day) ORDER BY day",
    ],
)
def test_a_pivot_gives_its_rows(lake: Environment, statement: str) -> None:
    rows = [(_FIRST, 0, 1), (_SECOND, 1, 1)]
    assert query(lake, statement) == (["day", "AA", "UA"], rows)
    with Session(lake) as session:
        found = session.batches(statement)
        assert found is not None
        assert [tuple(row.values()) for row in found.read_all().to_pylist()] == rows


def test_a_name_that_is_put_together_is_found(lake: Environment) -> None:
    assert query(lake, "SELECT count(*) FROM query('FROM flights.fli' || 'ghts')")[1] == [(3,)]


def test_a_folder_of_any_name_keeps_no_table_from_being_read(lake: Environment) -> None:
    odd = 'of"; DROP VIEW flights.flights; --'
    write_deltalake(lake.table_path(f"{odd}.rows"), pa.table({"n": [7]}))
    assert query(lake, "SELECT count(*) FROM flights.flights")[1] == [(3,)]
    assert [f"{odd}.rows"] in map(list, query(lake, "SHOW TABLES")[1])
    assert len(query(lake, "FROM information_schema.tables")[1]) == 2


@pytest.mark.parametrize("closed", ["lost+found", ".Trash-1000", "weather"])
def test_a_folder_that_is_closed_to_us_matters_where_a_pipeline_can_be_named_so(
    lake: Environment, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    (Path(lake.lake) / closed).mkdir()
    folders = stored._folders

    def listed(place: str) -> list[str]:
        if place.endswith(closed):
            raise PermissionError(errno.EACCES, f"Cannot list directory '{place}'")
        return folders(place)

    # To root, who may run the tests, no folder is closed.
    monkeypatch.setattr(stored, "_folders", listed)
    if closed == "weather":
        with pytest.raises(PermissionError):
            tables(lake)
    else:
        assert tables(lake) == ["flights.flights"]


def test_the_newest_version_is_read(lake: Environment) -> None:
    DeltaTable(lake.table_path("flights.flights")).delete("carrier = 'UA'")
    assert query(lake, "SELECT carrier FROM flights.flights")[1] == [("AA",)]


@pytest.mark.parametrize(
    "asked",
    [
        "SELECT count(*) FROM seen",
        "FROM counted",
        "FROM twice()",
        "SELECT number('x')",
        "EXECUTE asked",
        'FROM mine."my ""own"" one"',
        "USE flights; FROM short; USE main",
        "SELECT count(*) FROM query('FROM ' || 'flights' || '.flights')",
        "FROM put_together()",
    ],
)
def test_what_a_person_has_made_reads_the_tables_as_they_are(lake: Environment, asked: str) -> None:
    made = """
        CREATE SCHEMA mine;
        CREATE TEMP VIEW seen AS FROM flights.flights;
        CREATE VIEW counted AS SELECT count(*) FROM seen;
        CREATE MACRO twice() AS TABLE FROM counted;
        CREATE TEMP MACRO number(x) AS (SELECT count(*) FROM flights.flights);
        PREPARE asked AS SELECT count(*) FROM flights.flights;
        CREATE VIEW mine."my ""own"" one" AS FROM twice();
        USE flights; CREATE TEMP VIEW short AS SELECT count(*) FROM flights; USE main;
        CREATE MACRO put_together() AS TABLE
            SELECT count(*) FROM query_table('flights.' || 'flights');
    """

    def rows(session: Session) -> list[tuple[object, ...]]:
        return [row for result in session.results(asked) for row in result.rows]

    with Session(lake) as session:
        list(session.results(made))
        assert rows(session) == [(3,)]
        DeltaTable(lake.table_path("flights.flights")).delete("carrier = 'UA'")
        assert rows(session) == [(1,)]


@pytest.mark.parametrize("is_handed_over", [True, False])
def test_ctrl_c_while_a_statement_is_handed_over_ends_it(
    lake: Environment, monkeypatch: pytest.MonkeyPatch, is_handed_over: bool
) -> None:
    with Session(lake) as session:
        hand_over = session._worker.submit

        def interrupted(*asked: object) -> None:
            if is_handed_over:
                hand_over(*asked)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(session._worker, "submit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                list(session.results("SELECT sum(range) FROM range(1000000000000)"))
        (answer,) = session.results("SELECT 7")
        assert list(answer.rows) == [(7,)]


def test_a_broken_table_behind_what_a_person_has_made_stops_that_alone(
    lake: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    planes = pa.table({"n": [7]})
    write_deltalake(lake.table_path("flights.planes"), planes)
    with Session(lake) as session:
        list(session.results("CREATE TEMP VIEW seen AS FROM flights.planes"))
        log = Path(lake.table_path("flights.planes")) / "_delta_log"
        (log / "00000000000000000000.json").write_text("no log")
        (other,) = session.results("SELECT count(*) FROM flights.flights")
        assert list(other.rows) == [(3,)]
        assert not capsys.readouterr().err
        with pytest.raises(UsageError, match="planes does not exist"):
            list(session.results("FROM seen"))
        assert "flights.planes is left out, for it cannot be" in capsys.readouterr().err
        assert not list(session.results("DROP VIEW seen"))


def test_an_unknown_table_is_refused_with_the_known_ones(lake: Environment) -> None:
    with pytest.raises(UsageError, match=r"Tables of the lake: flights\.flights"):
        query(lake, "SELECT * FROM flights.flight")


def test_an_empty_home_says_that_nothing_has_run_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none yet"):
        query(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}), "SELECT * FROM flights.flights")


@pytest.mark.parametrize("column", ["revision", "Known_Date", "is_in_force"])
def test_a_table_with_a_column_of_a_history_has_none_and_says_so(
    lake: Environment, column: str
) -> None:
    rows = pa.table({"day": pa.array([_FIRST]), column: [7]})
    write_deltalake(lake.table_path("flights.odd"), rows, partition_by=["day"])
    assert query(lake, "FROM flights.odd")[1] == [(_FIRST, 7)]
    with pytest.raises(UsageError, match=f"has a column '{column}' of its own, and so no history"):
        query(lake, "FROM flights.odd_history")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {} SELECT * FROM {}",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "UPDATE {} SET delay = 1",
        "MERGE INTO {} USING (SELECT 1 AS delay) s USING (delay) WHEN MATCHED THEN DELETE",
        "ALTER TABLE {} ADD COLUMN more INT",
        "CREATE INDEX one ON {}(delay)",
        "DROP TABLE {}",
    ],
)
def test_who_would_write_into_a_table_is_told_that_it_is_read(
    lake: Environment, statement: str
) -> None:
    with pytest.raises(UsageError, match=r"Error: .*\nThe tables of the lake are read, and no .*"):
        query(lake, statement.replace("{}", "flights.flights"))
    # Of a person's own they change what they say.
    mine = "CREATE TEMP TABLE mine AS FROM flights.flights; "
    query(lake, mine + statement.replace("{}", "mine"))


def test_a_statement_cannot_write_or_read_files(lake: Environment) -> None:
    target = lake.home / "out.csv"
    with pytest.raises(UsageError):
        query(lake, f"COPY (SELECT 1) TO '{target}'")
    with pytest.raises(UsageError):
        query(lake, "SELECT * FROM read_text('/etc/hostname')")
    with pytest.raises(UsageError, match="No statement changes enable_external_access"):
        query(lake, "SET enable_external_access = true; FROM read_text('/etc/hostname')")
    assert not target.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "/**/SET memory_limit='200GB'",
        "-- c\nSET memory_limit='200GB'",
        "SET/**/memory_limit='200GB'",
        "SET GLOBAL max_memory = '200GB'",
        "RESET memory_limit",
        "/**/PRAGMA memory_limit='200GB'",
        "EXPLAIN ANALYZE SET memory_limit='200GB'",
    ],
)
def test_no_statement_takes_more_memory(lake: Environment, statement: str) -> None:
    with Session(lake) as session:
        (before,) = session.results("SELECT current_setting('memory_limit')")
        limit = list(before.rows)
        with pytest.raises(UsageError, match="NIGHTSHIFT_SQL_MEMORY; no statement changes it"):
            [list(result.rows) for result in session.results(statement)]
        (after,) = session.results("SELECT current_setting('memory_limit')")
        assert list(after.rows) == limit


@pytest.mark.parametrize(
    "statement",
    [
        "CALL enable_logging(storage_path='{place}')",
        "FROM enable_logging(storage_path='{place}')",
        "FROM query('FROM enable' || '_logging()')",
        "CALL enable_profiling(save_location='{place}')",
        "PRAGMA enable_profiling",
        "SET max_expression_depth TO 1000000",
        "SET lock_configuration = true",
        "SET lock_configuration = false",
        "SET allowed_configs = ['memory_limit']",
        "PRAGMA disable_optimizer",
    ],
)
def test_only_settings_that_can_harm_nobody_are_changed(lake: Environment, statement: str) -> None:
    place = lake.home / "elsewhere"
    with Session(lake) as session:
        with pytest.raises(UsageError, match=r"No statement changes \w+ here"):
            [list(result.rows) for result in session.results(statement.format(place=place))]
        (after,) = session.results("SET TimeZone = 'Asia/Tokyo'; RESET threads; SELECT 1")
        assert list(after.rows) == [(1,)]
    assert not place.exists()


@pytest.mark.parametrize(
    "number", ["100000", "'100000'", "ord('x') * 1000", "0", "100000*1", "-1+2", "1.0"]
)
@pytest.mark.parametrize(
    "how",
    [
        "SET threads = ",
        "SET/**/worker_threads TO ",
        "PRAGMA threads=",
        "EXPLAIN ANALYZE SET threads = ",
        "/**/explain/**/(ANALYZE, FORMAT json) PRAGMA threads = ",
    ],
)
def test_threads_are_no_more_than_cores(lake: Environment, how: str, number: str) -> None:
    with pytest.raises(UsageError, match="threads is a number from 1 to"):
        query(lake, f"{how}{number}; SELECT 1")


@pytest.mark.parametrize("how", ["SET threads = 1", "set GLOBAL worker_threads TO 1;"])
def test_one_thread_may_be_asked_for(lake: Environment, how: str) -> None:
    with Session(lake) as session:
        list(session.results(how))
        (found,) = session.results("SELECT current_setting('threads')")
        assert list(found.rows) == [(1,)]


_OF_LAKE = "The schemas of pipelines hold the tables of the lake"
_EXPLAINS = "EXPLAIN explains what reads"


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DROP SCHEMA flights CASCADE", _OF_LAKE),
        ("/**/DROP VIEW flights.flights", _OF_LAKE),
        ("USE flights; DROP VIEW flights", _OF_LAKE),
        ("ALTER VIEW flights.flights RENAME TO other", _OF_LAKE),
        ("CREATE OR REPLACE VIEW Flights.flights AS SELECT 1", _OF_LAKE),
        ("CREATE TABLE flights.mine AS SELECT 1 AS i", _OF_LAKE),
        ("CREATE TABLE flights.mine AS PIVOT flights.flights ON carrier", _OF_LAKE),
        ("EXPLAIN ANALYZE DROP VIEW flights.flights", _EXPLAINS),
        ("EXPLAIN (ANALYZE) CREATE OR REPLACE VIEW flights.flights AS SELECT 1 AS i", _EXPLAINS),
        ("USE flights; explain analyze ALTER VIEW flights RENAME TO other", _EXPLAINS),
        (
            "EXPLAIN ANALYZE CREATE TABLE flights.mine AS PIVOT flights.flights ON carrier",
            _EXPLAINS,
        ),
        ("EXPLAIN ANALYZE BEGIN", "there are no transactions"),
        ("ATTACH ':memory:' AS flights", "no database here but that of the session"),
        ("DETACH memory", "no database here but that of the session"),
        ("UPDATE EXTENSIONS", "No statement like this"),
    ],
)
def test_no_statement_takes_the_tables_from_those_after_it(
    lake: Environment, statement: str, says: str
) -> None:
    count = "SELECT count(*) FROM flights.flights"
    with Session(lake) as session:
        for _ in range(2):
            with pytest.raises(UsageError, match=says):
                [list(result.rows) for result in session.results(f"{count}; {statement}")]
            (after,) = session.results(count)
            assert list(after.rows) == [(3,)]


@pytest.mark.parametrize(
    "explained",
    [
        "SELECT count(*) FROM flights.flights",
        "(SELECT 1)",
        "((SELECT 1))",
        "FROM flights.flights VERSION AS OF 0",
        "PIVOT flights.flights ON carrier USING count(*)",
        "WITH one AS (SELECT 'EXPLAIN (') FROM one",
        "DESCRIBE flights.flights",
    ],
)
@pytest.mark.parametrize("how", ["EXPLAIN", "EXPLAIN ANALYZE", "EXPLAIN (FORMAT json)"])
def test_a_plan_is_told(lake: Environment, how: str, explained: str) -> None:
    columns, rows = query(lake, f"{how} {explained}")
    assert columns == ["explain_key", "explain_value"]
    assert len(rows) == 1


def test_a_person_has_tables_views_macros_and_schemas_of_their_own(lake: Environment) -> None:
    script = """
        CREATE TEMP TABLE mine AS FROM flights.flights;
        INSERT INTO mine SELECT day, 'B6', 9 FROM mine LIMIT 1;
        CREATE SCHEMA own;
        CREATE TABLE own.picked AS FROM mine WHERE delay = 9;
        CREATE MACRO doubled(x) AS 2 * x;
        CREATE VIEW few AS FROM own.picked;
        DROP TABLE mine;"""
    with Session(lake) as session:
        assert list(session.results(script)) == []
        (found,) = session.results(
            "SELECT doubled(few.delay) FROM few JOIN flights.flights USING (day)"
        )
        assert set(found.rows) == {(18,)}
        assert list(session.results("SET search_path = 'own,flights'")) == []
        for _ in range(2):
            (found,) = session.results("SELECT count(*) FROM picked, flights")
            assert list(found.rows) == [(3,)]


@pytest.mark.parametrize(
    "path", ["flights,weather", "temp,weather", "main,memory.flights,memory.weather"]
)
def test_tables_of_all_schemas_of_the_search_path_are_read_as_they_are(
    lake: Environment, path: str
) -> None:
    place = lake.table_path("weather.hourly")
    rows = pa.table({"hour": [1]})
    write_deltalake(place, rows)
    asked = "SELECT count(*) FROM hourly"
    with Session(lake) as session:
        assert list(session.results(f"SET search_path = '{path}'")) == []
        (found,) = session.results(asked)
        assert list(found.rows) == [(1,)]
        write_deltalake(place, rows, mode="append")
        (found,) = session.results(asked)
        assert list(found.rows) == [(2,)]


@pytest.mark.usefixtures("as_at_a_terminal")
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT i FROM range(100000000000) numbers(i) WHERE i = -1",
        "CREATE TEMP TABLE t AS SELECT sum(a.range) FROM range(10000000) a, range(10000000) b",
    ],
)
def test_ctrl_c_ends_a_statement_and_not_the_session(lake: Environment, statement: str) -> None:
    with Session(lake) as session:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            [list(result.rows) for result in session.results(statement)]
        timer.join()
        (after,) = session.results("SELECT count(*) FROM flights.flights")
        assert list(after.rows) == [(3,)]


@pytest.mark.usefixtures("as_at_a_terminal")
def test_a_second_ctrl_c_waits_for_the_first(
    lake: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = threading.Event()
    may_end = threading.Event()
    ended = threading.Event()
    left = [1, 2, 3]
    wait = sql.wait

    def waiting(given: list[Future[object]], seconds: float) -> object:
        # By ourselves: from outside two may come as one, or the last when the wait is over.
        assert begun.wait(60)
        if left:
            left.pop()
            signal.raise_signal(signal.SIGINT)
        may_end.set()
        return wait(given, seconds)

    def value() -> None:
        # As long as one value takes, of which DuckDB hears nothing.
        begun.set()
        assert may_end.wait(60)
        ended.set()

    monkeypatch.setattr(sql, "wait", waiting)
    with Session(lake) as session:
        try:
            with pytest.raises(KeyboardInterrupt):
                session.waited(value)
        finally:
            may_end.set()
        assert not left
        assert ended.is_set()
        assert session.schema == "main"
    assert capsys.readouterr().err.count("Still ending") == 1


def test_rows_that_a_statement_returns_are_given(lake: Environment) -> None:
    made = "CREATE TEMP TABLE mine AS SELECT 1 AS i; INSERT INTO mine VALUES (2);"
    with Session(lake) as session:
        assert list(session.results(made)) == []
        for statement, rows in (
            ("INSERT INTO mine VALUES (3), (4) returning i", [(3,), (4,)]),
            ("UPDATE mine SET i = 5 WHERE i = 4 RETURNING *", [(5,)]),
            ("DELETE FROM mine WHERE i > 2 RETURNING i + 1", [(4,), (6,)]),
        ):
            (found,) = session.results(statement)
            assert list(found.rows) == rows
        assert list(session.results("""DELETE FROM mine WHERE 'returning' = '"RETURNING"'""")) == []
        (found,) = session.results("SELECT sum(i) FROM mine")
        assert list(found.rows) == [(3,)]
    batches = Session(lake).batches(made + "INSERT INTO mine VALUES (7) RETURNING i")
    assert batches is not None
    assert batches.read_all().to_pylist() == [{"i": 7}]


def test_a_table_with_column_mapping_is_refused_rather_than_read_wrongly(lake: Environment) -> None:
    log = Path(lake.table_path("flights.flights")) / "_delta_log" / "00000000000000000000.json"
    log.write_text(
        log.read_text().replace(
            '"configuration":{}', '"configuration":{"delta.columnMapping.mode":"name"}'
        )
    )
    with pytest.raises(UsageError, match="column mapping"):
        query(lake, "SELECT * FROM flights.flights")


def test_a_table_with_deletion_vectors_is_refused_in_words(lake: Environment) -> None:
    rows = pa.table(
        {
            "day": [date(2013, 1, 1)],
            "n": [1],
        }
    )
    turned_on = {"delta.enableDeletionVectors": "true"}
    place = lake.table_path("flights.deleted")
    write_deltalake(place, rows, partition_by=["day"], configuration=turned_on)
    for name in ("flights.deleted", "flights.deleted_history"):
        with pytest.raises(UsageError, match="^flights.deleted uses .*deletionVectors.*Spark"):
            query(lake, f"SELECT * FROM {name}")


@pytest.mark.parametrize(
    "statement",
    [
        "SHOW TABLES",
        " show  tables ;\n",
        "-- c\nSHOW TABLES",
        "show /* x */ tables",
        "FROM (SHOW TABLES)",
        "WITH listed AS (show tables) FROM listed",
    ],
)
def test_show_tables_names_each_table_as_a_query_does(lake: Environment, statement: str) -> None:
    # It opens none.
    _break(lake, "weather.predictions")
    names = ["flights.flights", "weather.predictions", "weather.predictions_history"]
    assert query(lake, statement) == (["name"], [(name,) for name in names])


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT schema, name FROM (SHOW ALL TABLES)",
        "SELECT table_schema, table_name FROM information_schema.tables",
        "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal",
    ],
)
def test_nothing_but_the_tables_of_the_lake_is_listed(lake: Environment, statement: str) -> None:
    assert query(lake, statement)[1] == [("flights", "flights")]


@pytest.mark.parametrize("statement", ["DESCRIBE flights.flights", "SUMMARIZE flights.flights"])
def test_a_table_can_be_described(lake: Environment, statement: str) -> None:
    rows = query(lake, statement)[1]
    assert [row[:2] for row in rows] == [
        ("day", "DATE"),
        ("carrier", "VARCHAR"),
        ("delay", "BIGINT"),
    ]


def test_every_statement_gives_its_result(lake: Environment) -> None:
    script = """SET threads = 1;
        SELECT max(delay) AS most FROM flights.flights; -- a comment; with a semicolon
        SELECT ';' AS text;"""
    given = [(result.columns, list(result.rows)) for result in results(lake, script)]
    most = (["most"], [(2,)])
    text = (["text"], [(";",)])
    assert given == [most, text]


def test_more_results_than_can_be_taken_are_refused_before_any_runs(lake: Environment) -> None:
    with pytest.raises(UsageError, match="2 statements give rows, but csv"):
        next(results(lake, "SELECT 1; SELECT 2", most=1))
    assert query(lake, "SET threads = 1; SELECT 2 AS two") == (["two"], [(2,)])


@pytest.mark.parametrize("statement", ["", "  ", "-- nothing"])
def test_an_empty_statement_is_wrong_usage(lake: Environment, statement: str) -> None:
    with pytest.raises(UsageError, match="There is no SQL statement"):
        query(lake, statement)


@pytest.mark.parametrize(
    ("statement", "duckdb_says", "hint"),
    [
        (
            "SELECT * FROM flights.flight",
            "Catalog Error: Table with name flight does not exist!",
            "No table named 'flights.flight'. Did you mean flights.flights?",
        ),
        (
            'SELECT * FROM "flight".flights',
            "Catalog Error",
            "No table named '\"flight\".flights'. Did you mean flights.flights?",
        ),
        (
            "SELECT 1; SELECT * FROM flights",
            "Catalog Error",
            "No table named 'flights'. Did you mean flights.flights?",
        ),
        (
            "SELECT * FROM Fligths",
            "Catalog Error: Table with name Fligths does not exist!",
            "No table named 'Fligths'. Did you mean flights.flights?",
        ),
        (
            "SELECT * FROM flights.predictions",
            "Catalog Error",
            "flights.predictions holds nothing yet, and so is not there: What the champion of",
        ),
        (
            "SELECT * FROM ops.alerts",
            "Catalog Error",
            "ops.alerts holds nothing yet, and so is not there: What people were told",
        ),
        ("SELECT carier FROM flights.flights", 'Candidate bindings: "carrier"', "LINE 1"),
        ("SELEC 1", "Parser Error", "LINE 1: SELEC 1"),
    ],
)
def test_a_refusal_has_duckdbs_message_and_the_near_miss(
    lake: Environment, statement: str, duckdb_says: str, hint: str
) -> None:
    with pytest.raises(UsageError) as refused:
        [list(result.rows) for result in results(lake, statement)]
    assert duckdb_says in str(refused.value)
    assert hint in str(refused.value)


@pytest.mark.parametrize("name", ["flights.flight", "flights.observatons", "xyzzyt"])
def test_no_table_of_duckdbs_own_is_proposed(lake: Environment, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        [list(result.rows) for result in results(lake, f"SELECT * FROM {name}")]
    proposed = re.findall(r"Did you mean (.+)\?", str(refused.value))
    assert proposed == (["flights.flights"] if name == "flights.flight" else [])


def test_a_table_that_the_statements_have_made_is_proposed(lake: Environment) -> None:
    statements = "CREATE TEMP TABLE busiest AS SELECT 1; SELECT * FROM busyest"
    with pytest.raises(UsageError, match='Did you mean "busiest"'):
        [list(result.rows) for result in results(lake, statements)]


@pytest.mark.parametrize(
    ("statements", "place"),
    [
        ("SELECT 1;\n\nSELECT carier\nFROM flights.flights", "LINE 3: SELECT carier\n"),
        ("SELECT 1;\n-- é\nSELECT 2,\n  nothing(3);\nSELECT 4", "LINE 4:   nothing(3);\n"),
        ("SELECT 1; SELECT carier FROM flights.flights", "LINE 1:  SELECT carier FROM"),
        ("USE flights;\n\nFROM flight", "LINE 3: FROM flight\n"),
    ],
)
def test_a_fault_of_a_later_statement_is_told_at_its_line(
    lake: Environment, statements: str, place: str
) -> None:
    with pytest.raises(UsageError) as refused:
        [list(result.rows) for result in results(lake, statements)]
    assert place in str(refused.value)


@pytest.mark.parametrize(
    "statement", ["SELECT carier FROM flights", "FROM flights CROSS JOIN nothing"]
)
def test_a_table_of_the_pipeline_in_use_is_not_told_to_be_missing(
    lake: Environment, statement: str
) -> None:
    with Session(lake) as session:
        list(session.results("USE flights"))
        with pytest.raises(UsageError) as refused:
            list(session.results(statement))
    assert "No table named" not in str(refused.value)


@pytest.mark.parametrize(
    ("statement", "is_listed"),
    [
        ("FROM flights.nothing", True),
        ("USE nothing", True),
        ("SELECT nothing FROM flights.flights", False),
        ("SELECT nothing(1)", False),
        ("COPY (SELECT 1) TO '/tmp/out.csv'", False),
    ],
)
def test_tables_are_listed_where_one_is_missed_and_lines_are_short(
    lake: Environment, statement: str, is_listed: bool
) -> None:
    with pytest.raises(UsageError) as refused:
        query(lake, statement)
    assert ("Tables of the lake: flights.flights" in str(refused.value)) == is_listed
    ours = str(refused.value).splitlines()[1:]
    assert max(map(len, ours), default=0) <= 100


def test_a_table_misspelt_in_a_long_statement_is_told_at_once(
    lake: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def table_doc(name: str) -> str:
        asked.append(name)
        return ""

    monkeypatch.setattr(sql.dictionary, "table_doc", table_doc)
    listed = ", ".join(f"'w{number}'" for number in range(100))
    statement = f"SELECT day FROM flights.flight WHERE carrier IN ({listed})"
    with pytest.raises(UsageError, match=r"Did you mean flights\.flights\?"):
        query(lake, statement)
    # Each takes a look for pipelines on the disk.
    assert set(asked) == {"flights.flight"}


def test_words_that_are_no_tables_are_no_near_misses() -> None:
    known = ["flights.predictions", "weather.predictions"]
    missed = near_misses("SELECT a.carrier, predictions FROM flights.prediction AS a", known)
    assert missed == {
        "predictions": ["flights.predictions", "weather.predictions"],
        "flights.prediction": ["flights.predictions"],
    }


def test_of_wide_lists_few_are_in_memory_at_once(
    lake: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_BYTES_AT_ONCE", 1_000_000)
    tracemalloc.start()
    try:
        for found in results(lake, "SELECT {'a': [range(1000)]} FROM range(400)"):
            assert sum(1 for _ in found.rows) == 400
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5_000_000


def test_an_error_while_rows_are_read_is_a_refusal_too(lake: Environment) -> None:
    late = "SELECT CASE WHEN i = 1999999 THEN error('late') ELSE 'x' END FROM range(2000000) r(i)"
    with pytest.raises(UsageError, match="late"):
        query(lake, late)


def test_a_view_outlives_the_name_of_its_dataset(lake: Environment) -> None:
    joined = "SELECT count(*) FROM flights.flights AS a JOIN flights.flights AS b USING (day)"
    assert query(lake, joined)[1] == [(5,)]


def _revised(home: Path, days: int = 3) -> Run:
    """Predictions of some days, of which the second was scored three times, and once vanished."""
    span = Days(_FIRST, _FIRST + timedelta(days=days - 1))
    run = run_at(home, span)
    first = {day: [number] for number, day in enumerate(span)}
    publish(run, "predictions", staged(run, first, "predictions"))
    again = run_at(home, Days.of(_SECOND))
    for ids in (
        {_SECOND: [20, 21]},
        {},
        {_SECOND: [22]},
    ):
        publish(again, "predictions", staged(again, ids, "predictions"))
    return run


_HISTORY = "SELECT reading_date, id, revision, is_in_force FROM toy.predictions_history"


def test_the_history_of_predictions_tells_every_revision_of_every_day(tmp_path: Path) -> None:
    environment = _revised(tmp_path).environment
    assert query(environment, f"{_HISTORY} ORDER BY ALL")[1] == [
        (date(2013, 1, 1), 0, 1, True),
        (date(2013, 1, 2), 1, 1, False),
        (date(2013, 1, 2), 20, 2, False),
        (date(2013, 1, 2), 21, 2, False),
        # The third revision has no rows.
        (date(2013, 1, 2), 22, 4, True),
        (date(2013, 1, 3), 2, 1, True),
    ]
    of_then = query(environment, f"{_HISTORY} WHERE revision = 2 AND reading_date > '2013-01-01'")
    assert [row[1] for row in of_then[1]] == [20, 21]
    shown = query(environment, f"{_HISTORY} WHERE is_in_force ORDER BY ALL")[1]
    in_force = "SELECT reading_date, id FROM toy.predictions ORDER BY ALL"
    assert [row[:2] for row in shown] == query(environment, in_force)[1]


def test_the_history_is_listed_and_described_as_a_table_is(tmp_path: Path) -> None:
    environment = _revised(tmp_path).environment
    assert ("toy.predictions_history",) in query(environment, "SHOW TABLES")[1]
    described = query(environment, "DESCRIBE toy.predictions_history")[1]
    assert [row[:2] for row in described] == [
        ("id", "INTEGER"),
        ("reading_date", "DATE"),
        ("known_date", "DATE"),
        ("revision", "INTEGER"),
        ("is_in_force", "BOOLEAN"),
    ]


def test_a_revision_without_a_later_column_tells_null(tmp_path: Path) -> None:
    run = _revised(tmp_path)
    note = {"name": "note", "type": "string", "nullable": True, "metadata": {}}
    again = replace(run, days=Days.of(_SECOND))
    narrow = staged(again, {_SECOND: [30]}, "predictions")
    fields = [*narrow.schema["fields"], note]
    publish(again, "predictions", replace(narrow, schema={**narrow.schema, "fields": fields}))
    noted = "SELECT note, count(*) FROM toy.predictions_history GROUP BY note"
    assert query(run.environment, noted)[1] == [(None, 7)]


def test_a_publication_that_a_kill_left_unrecorded_is_a_revision_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _revised(tmp_path)
    again = replace(run, days=Days.of(_FIRST))
    with monkeypatch.context() as killed:
        killed.setattr(publications, "record", lambda *_: None)
        publish(again, "predictions", staged(again, {_FIRST: [9]}, "predictions"))
    first = query(run.environment, f"{_HISTORY} WHERE reading_date = '2013-01-01' ORDER BY ALL")
    assert first[1] == [
        (_FIRST, 0, 1, False),
        (_FIRST, 9, 2, True),
    ]


def test_what_is_published_while_the_history_is_opened_is_left_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _revised(tmp_path)
    again = replace(run, days=Days.of(_FIRST))
    statement = f"{_HISTORY} WHERE reading_date = '2013-01-01' ORDER BY ALL"
    found = publications.revisions

    def publish_first(environment: Environment, name: str) -> list[Publication]:
        monkeypatch.undo()
        publish(again, "predictions", staged(again, {_FIRST: [9]}, "predictions"))
        return found(environment, name)

    monkeypatch.setattr(publications, "revisions", publish_first)
    assert query(run.environment, statement)[1] == [(_FIRST, 0, 1, True)]
    assert query(run.environment, statement)[1] == [
        (_FIRST, 0, 1, False),
        (_FIRST, 9, 2, True),
    ]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("readings KNOWN AS OF '2013-01-01'", [(1,)]),
        ("readings_history", [(1, _FIRST, 1)]),
    ],
)
def test_what_is_published_while_a_table_is_opened_hides_nothing_that_it_holds(
    asked: str, told: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path, Days.of(_FIRST))
    publish(run, "readings", staged(run, {_FIRST: [1]}))
    found = publications.of_table

    def publish_first(environment: Environment, name: str) -> list[Publication]:
        monkeypatch.undo()
        publish(run, "readings", staged(run, {_FIRST: [9]}))
        return found(environment, name)

    monkeypatch.setattr(publications, "of_table", publish_first)
    columns = "id, known_date, revision" if "history" in asked else "id"
    assert query(run.environment, f"SELECT {columns} FROM toy.{asked}")[1] == told


def test_days_without_a_record_are_a_first_revision(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    rows = pa.table(
        {
            "reading_date": pa.array([_FIRST]),
            "id": pa.array([1], pa.int32()),
        }
    )
    write_deltalake(environment.table_path("toy.predictions"), rows, partition_by=["reading_date"])
    assert query(environment, _HISTORY)[1] == [(_FIRST, 1, 1, True)]


def test_only_versions_whose_rows_were_replaced_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _revised(tmp_path, days=9)
    opened = []

    class Counted(DeltaTable):
        def __init__(self, place: str, version: int | None = None) -> None:
            opened.append(version)
            super().__init__(place, version=version)

    monkeypatch.setattr(datasets, "DeltaTable", Counted)
    assert len(query(run.environment, _HISTORY)[1]) == 12
    # The newest, and those in which the three replaced revisions were in force.
    assert opened == [None, 0, 1, 2]


def test_no_bar_is_drawn_among_rows_where_python_looks_interactive(tmp_path: Path) -> None:
    asked = "SELECT current_setting('enable_progress_bar')"
    # As at a prompt or in a notebook, there is no file that Python runs.
    program = f"""
from jobs.lake import sql
from pipelines.environment import ROOT, Environment
print(sql.query(Environment.read(), "{asked}")[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NIGHTSHIFT_HOME": str(tmp_path)},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[(False,)]\n"
