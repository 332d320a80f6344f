"""The real JDBC server: who gets in, what it answers, and that nothing but reading is possible.

One server for all of these tests: a Java takes half a minute to start.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pyarrow as pa
import pytest

from jobs import jdbc
from jobs.jdbc import server
from jobs.lake import sql
from jobs.lake.stored import stored_tables
from jobs.services import processes
from jobs.services.accounts import Account, accounts, write_passwords
from jobs.services.definitions import JDBC, services
from jobs.services.processes import LOOPBACK
from jobs.spark.server import CLASS_ARCHIVE, server_variables
from pipelines.environment import Environment
from tests.jobs.jdbc.client import (
    Connection,
    Driver,
    Refused,
    beeline,
    comparable,
    driver,
    log_files,
)
from tests.jobs.warehouse.lake import FIRST, PIPELINE, SUMS, Lake, predictions
from tests.jobs.warehouse.test_same_answers import DAYS, QUESTIONS, sums

_START_SECONDS = 300
_FOLLOW_SECONDS = 60
_STOP_SECONDS = 30
_END_SECONDS = 120
IN_SPARK = (
    (r"double precision", "double"),
    (r"timestamptz '", "timestamp '"),
    (r"extract\(dow FROM reading_date\)", "dayofweek(reading_date) - 1"),
    (r"reading_date - date '2013-01-01'", "datediff(reading_date, date '2013-01-01')"),
    (r"local AT TIME ZONE ('[^']*')", r"to_utc_timestamp(local, \1)"),
    (r"(predicted_at|moment) AT TIME ZONE ('[^']*')", r"from_utc_timestamp(\1, \2)"),
    (r"'\\N'", r"'\\\\N'"),
    (r"(GROUP BY 1 ORDER BY 1)$", r"\1 NULLS LAST"),
)
"""How Spark says what PostgreSQL and DuckDB say alike."""
SCRIPT = "(SELECT transform(n) USING 'touch {out}' AS (x string) FROM toy.sums)"
WRITES = (
    "INSERT INTO sums SELECT * FROM sums",
    "INSERT OVERWRITE DIRECTORY '{out}' USING csv SELECT * FROM sums",
    "INSERT OVERWRITE LOCAL DIRECTORY '{out}' SELECT * FROM sums",
    "UPDATE sums SET n = 1",
    "DELETE FROM sums",
    "MERGE INTO sums USING predictions p ON p.id = sums.n WHEN MATCHED THEN DELETE",
    "TRUNCATE TABLE sums",
    "DROP TABLE sums",
    "DROP SCHEMA toy CASCADE",
    "ALTER TABLE sums ADD COLUMNS (x int)",
    "COMMENT ON TABLE sums IS 'x'",
    "RESTORE TABLE sums TO VERSION AS OF 0",
    "OPTIMIZE sums",
    "VACUUM sums",
    "ANALYZE TABLE sums COMPUTE STATISTICS",
    "CONVERT TO DELTA parquet.`{lake}/toy/sums`",
    "LOAD DATA LOCAL INPATH '/etc/passwd' INTO TABLE sums",
    "CREATE TABLE made (a int) USING delta",
    "CREATE TABLE made USING delta LOCATION '{lake}/toy/sums'",
    "CREATE TABLE made USING csv LOCATION '/etc'",
    "CREATE TABLE made USING delta AS SELECT 1 AS a",
    "CREATE TABLE made SHALLOW CLONE sums",
    "CREATE TEMPORARY VIEW made USING text OPTIONS (path '/etc/passwd')",
    "CREATE VIEW made AS SELECT 1",
    "CREATE SCHEMA made",
    "CREATE FUNCTION made AS 'x.Y' USING JAR '{out}.jar'",
    "CREATE TEMPORARY FUNCTION made() RETURNS int RETURN 1",
    "DECLARE made int",
    "CACHE TABLE sums",
    "REFRESH TABLE sums",
    "EXECUTE IMMEDIATE 'DROP TABLE sums'",
)
READS = (
    "SELECT * FROM text.`/etc/passwd`",
    "SELECT * FROM csv.`/etc/passwd`",
    "SELECT * FROM parquet.`{lake}/toy/sums`",
    "SELECT * FROM delta.`{lake}/toy/sums`",
    "SELECT * FROM table_changes_by_path('{lake}/toy/sums', 0)",
    "SELECT * FROM identifier('text.`/etc/passwd`')",
    "EXECUTE IMMEDIATE 'SELECT * FROM text.`/etc/passwd`'",
    "DESCRIBE delta.`{lake}/toy/sums`",
    "DESCRIBE DETAIL '{lake}/toy/sums'",
    "DESCRIBE HISTORY '{lake}/toy/sums'",
    "DESCRIBE QUERY SELECT * FROM text.`/etc/passwd`",
    "SHOW COLUMNS IN delta.`{lake}/toy/sums`",
    "SHOW PARTITIONS delta.`{lake}/toy/predictions`",
    "SHOW TBLPROPERTIES delta.`{lake}/toy/sums`",
    "SELECT * FROM sums TIMESTAMP AS OF (SELECT max(now()) FROM text.`/etc/passwd`)",
    "SELECT * FROM STREAM sums",
)
CODE = (
    "SELECT reflect('java.lang.System', 'getenv', 'HOME')",
    "SELECT java_method('java.lang.System', 'getenv', 'HOME')",
    "SELECT try_reflect('java.lang.System', 'getenv', 'HOME')",
    "SELECT system.builtin.reflect('java.lang.System', 'getenv', 'HOME')",
    "SELECT identifier('reflect')('java.lang.System', 'getenv', 'HOME')",
    "SELECT * FROM VALUES (reflect('java.lang.System', 'getenv', 'HOME'))",
    "EXECUTE IMMEDIATE 'SELECT reflect(''java.lang.System'', ''getenv'', ''HOME'')'",
    "SELECT from_avro(unhex('00'), '\"int\"', map('avroSchemaUrl', '/etc/passwd'))",
    "SELECT schema_of_avro('\"int\"', map('avroSchemaUrl', '/etc/passwd'))",
    "SELECT to_avro(1, '\"int\"')",
    "SELECT from_protobuf(unhex('00'), 'A', '/etc/passwd')",
    "SELECT to_protobuf(struct(1 AS a), 'A', '/etc/passwd')",
    "SELECT * FROM python_worker_logs()",
    SCRIPT,
    "SELECT * FROM sums WHERE text IN " + SCRIPT,
    "SELECT * FROM sums TIMESTAMP AS OF " + SCRIPT,
    "WITH a AS " + SCRIPT + " SELECT * FROM a",
    "ADD JAR '{out}.jar'",
    "ADD FILE '/etc/passwd'",
    "LIST JARS",
    "SET spark.sql.runSQLOnFiles = true",
    "SET TIME ZONE 'Asia/Tokyo'",
    "RESET",
    "BEGIN LOOP SELECT 1; END LOOP; END",
    "SELECT 1; DROP TABLE sums",
    "!sh touch {out}",
    "dfs -ls /",
)
FETCHES = (
    "SELECT to_json(from_xml('<a>1</a>', 'b int', map('rowValidationXSDPath', '{url}')))",
    "SELECT from_xml('<a>1</a>', 'variant', map('ROWVALIDATIONXSDPATH', '{url}'))",
    "SELECT from_xml('<a>1</a>', 'b int', map(concat('rowValidation', 'XSDPath'), '{url}'))",
    "SELECT schema_of_xml('<a>1</a>', map('rowValidationXSDPath', '{url}'))",
    "SELECT * FROM VALUES (schema_of_xml('<a>1</a>', map('rowValidationXSDPath', '{url}')))",
    "SELECT system.builtin.from_xml(text, 'b int', map('rowValidationXSDPath', '{url}')) FROM sums",
    "SELECT identifier('schema_of_xml')('<a>1</a>', map('rowValidationXSDPath', '{url}'))",
)
"""Statements by which the server would ask an address for the schema of a row's XML."""
HOGS = {
    "an array": "SELECT count(*) FROM (SELECT explode(sequence(1, n + 400000000)) FROM sums)",
    "a sum": "SELECT " + "+".join(["1"] * 20_000),
    "brackets": "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "a text of each row": "SELECT length(repeat(text, 2000000000)) FROM sums",
    "all rows in one": (
        "SELECT size(collect_list(id)) FROM "
        "(SELECT /*+ REPARTITION(1) */ id FROM range(0, 300000000, 1, 1))"
    ),
    "a large row": "SELECT array_repeat(repeat(text, 1000000), 100000) FROM sums",
    "a long statement": "SELECT '" + "x" * 30_000_000 + "'",
    "a join": "SELECT /*+ BROADCAST(a) */ 1 FROM range(100000000) a JOIN range(9) USING (id)",
}
"""Statements that ask for more memory, or a deeper stack, than there is."""
DEAF_HOG = "SELECT size(collect_list(id || repeat('x', 200))) FROM range(0, 300000000, 1, 1)"
"""Spark's `range` does not look, in such a query, whether it was told to end.

Its many small values leave no room for any other; one that asks for much at once would fail by it.
"""
SPILLED = "SELECT id, row_number() OVER (ORDER BY id % 97, id) AS place FROM range(8000000)"
_QUICK_HOGS = ("an array", "a sum", "brackets")
REACHING = {
    *("from_avro", "schema_of_avro", "to_avro", "from_protobuf", "to_protobuf"),
    *("from_xml", "schema_of_xml", "java_method", "reflect", "try_reflect"),
}
"""Functions of Spark that reach more than the values that they are given."""
OF_ROWS = {
    *("collations", "python_worker_logs", "range", "sql_keywords"),
    *("variant_explode", "variant_explode_outer"),
}
"""Functions that stand in FROM: the guard judges the plan that is made of them."""
ALLOWED = (
    "SHOW SCHEMAS",
    "SHOW TABLES",
    "SHOW COLUMNS IN sums",
    "SHOW PARTITIONS predictions",
    "SHOW TBLPROPERTIES sums",
    "DESCRIBE EXTENDED sums",
    "EXPLAIN SELECT count(*) FROM sums",
    "SET spark.sql.session.timeZone",
    "SELECT * FROM sums VERSION AS OF 0",
    "FROM sums |> WHERE n < 3 |> SELECT n",
    "SELECT * FROM (SELECT is_it, n FROM sums) PIVOT (count(n) FOR is_it IN (true, false))",
    "SELECT s.n, m FROM sums s, LATERAL (SELECT s.n + 1 AS m)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 4) SELECT * FROM t",
    "SELECT explode(sequence(1, 3))",
    "SELECT is_it, count(*) FROM sums GROUP BY ROLLUP (is_it)",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A lake, its server, and those who may come in."""

    lake: Lake
    server: psutil.Process
    folder: Path
    """Where it was started."""
    accounts: dict[str, Account]

    @property
    def port(self) -> int:
        port = self.lake.environment.jdbc_port
        assert port is not None
        return port

    def processes(self) -> list[psutil.Process]:
        """The server and all that it started."""
        below = self.server.children(recursive=True)
        return [self.server, *filter(processes.is_alive, below)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("one's home")
    with _serving(home, tmp_path_factory.mktemp("folder")) as found:
        yield found


@contextmanager
def _serving(home: Path, folder: Path, **given: str) -> Iterator[Served]:
    """A lake with two tables, and its server, with the settings that are given."""
    variables = {
        "NIGHTSHIFT_HOME": str(home),
        "NIGHTSHIFT_USERS": "ann:viewer",
        "NIGHTSHIFT_WEBHOOK_URL": "https://hooks.example.org/the-secret",
        "NIGHTSHIFT_JDBC_PORT": str(processes.free_port()),
    }
    environment = Environment.read({**variables, **given})
    lake = Lake(environment, replace(PIPELINE, derived=(SUMS,)))
    lake.publish({day: predictions(day, str(day)) for day in DAYS})
    lake.publish({FIRST: sums().slice(0, 3)}, "sums")
    lake.publish({FIRST: sums()}, "sums")
    write_passwords(environment)
    everyone = {one.user: one for one in accounts(environment)}
    (service,) = (one for one in services(environment) if one.name == JDBC)
    # As where the nights have a cluster's Spark.
    elsewhere = {"SPARK_REMOTE": "sc://127.0.0.1:1", "SPARK_CONNECT_MODE_ENABLED": "1"}
    own = {
        **os.environ,
        **elsewhere,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://airflow:the-secret@host/airflow",
        **environment.variables(),
        "PYTHONPATH": str(Path.cwd()),
    }
    log_file = home / "jdbc.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            service.command, env=own, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    server = psutil.Process(process.pid)
    found = Served(lake=lake, server=server, folder=folder, accounts=everyone)
    try:
        _wait(lambda: processes.answers(found.port) or process.poll(), _START_SECONDS, log_file)
        assert process.poll() is None, log_file.read_text()[-3000:]
        yield found
    finally:
        all_of_it = [] if process.poll() is not None else found.processes()
        process.terminate()
        process.wait(_STOP_SECONDS)
        _, left = psutil.wait_procs(all_of_it, timeout=_STOP_SECONDS)
        for one in left:
            one.kill()
    assert left == [], "Java outlived the service"


@pytest.fixture(scope="module")
def clients(served: Served) -> Iterator[Driver]:
    with driver(served.port) as found:
        yield found


@pytest.fixture
def ann(served: Served, clients: Driver) -> Iterator[Connection]:
    """A connection of somebody who may only see."""
    with clients.connection("ann", served.accounts["ann"].password, "toy") as found:
        yield found


def test_it_shares_the_classes_that_set_up_wrote_down(served: Served) -> None:
    shared = str(CLASS_ARCHIVE)
    processes = served.processes()
    (java,) = [one for one in processes if Path(one.exe()).name == "java"]
    assert shared in {part.path for part in java.memory_maps()}


def test_it_runs_only_where_it_is_asked_for(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    assert JDBC not in [one.name for one in services(environment)]
    ports = {one.name: one.port for one in services(environment.with_jdbc())}
    assert ports[JDBC] == 10000
    assert replace(environment, jdbc_port=7777).with_jdbc().jdbc_port == 7777


def test_its_java_reads_names_of_files_in_utf_8_where_the_locale_is_the_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    monkeypatch.setattr(os, "environ", given)
    home = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / "ü")})
    server._leave_secrets(server_variables(home))
    assert given["LC_ALL"] == "C.UTF-8"


def test_it_keeps_no_secret_but_those_that_lead_to_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = {
        "PATH": os.environ["PATH"],
        processes.MARK: "/home",
        "AWS_SECRET_ACCESS_KEY": "of the store",
        "https_proxy": "http://ann:secret@proxy:3128",
    }
    of_others = {
        "NIGHTSHIFT_WEBHOOK_URL": "https://hooks.example.org/secret",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://airflow:secret@host/airflow",
        "AIRFLOW__CELERY__BROKER_URL": "redis://:secret@host:6379/0",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": '{"auth": {"api_key": "secret"}}',
        "PGPASSWORD": "secret",
        "AN_ADDRESS": "https://ann:secret@host/",
    }
    left = {**kept, **of_others}
    monkeypatch.setattr(os, "environ", left)
    server._leave_secrets({})
    assert left == kept


def test_beeline_gets_answers(served: Served) -> None:
    password_file = served.accounts["admin"].password_file
    asked = ("SELECT max(n), count(*) FROM sums", "SHOW TABLES")
    answer = beeline(served.port, "admin", password_file, *asked)
    assert "10,11" in answer
    assert {"toy,predictions,false", "toy,sums,false"} <= set(answer)


def test_nobody_gets_in_without_a_password_of_their_own(
    served: Served, clients: Driver, tmp_path: Path
) -> None:
    ann, admin = (served.accounts[name].password for name in ("ann", "admin"))
    logins = [
        ("ann", ""),
        ("ann", "x" + ann),
        ("ann", admin),
        ("bob", ann),
        ("", ""),
        ("", ann),
    ]
    for user, password in logins:
        with pytest.raises(Refused, match="Error validating the login"):
            clients.connection(user, password).__enter__()
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    with pytest.raises(Refused, match="Error validating the login"):
        beeline(served.port, "admin", wrong, "SELECT 1")
    with clients.connection("ann", ann) as connection:
        assert connection.ask("SELECT current_user()") == [("ann",)]


def test_it_listens_on_loopback_alone_and_tells_no_secret(served: Served) -> None:
    home = served.lake.environment.home
    secrets = [one.password for one in served.accounts.values()]
    listening = set()
    for process in served.processes():
        for one in process.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN:
                listening.add(one.laddr.ip)
        assert not any(secret in " ".join(process.cmdline()) for secret in secrets)
        if process.name() == "java":
            variables = str(process.environ())
            assert not any(secret in variables for secret in [*secrets, "the-secret"])
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert not any(secret in (home / "jdbc.log").read_text() for secret in secrets)


def test_it_leaves_nothing_where_it_is_started(served: Served, ann: Connection) -> None:
    ann.columns("toy", "sums")
    assert list(served.folder.iterdir()) == []
    assert list(served.lake.environment.home.rglob("metastore_db")) == []


def test_the_answers_are_those_of_duckdb(served: Served, ann: Connection) -> None:
    wrong = []
    for question in QUESTIONS:
        asked = question
        for pattern, words in IN_SPARK:
            asked = re.sub(pattern, words, asked)
        _, rows = sql.query(served.lake.environment, question)
        in_lake = list(map(comparable, rows))
        by_jdbc = list(map(comparable, ann.ask(asked)))
        if in_lake != by_jdbc:
            wrong.append(f"{asked}\n  lake {in_lake}\n  jdbc {by_jdbc}")
        assert in_lake, question
    assert wrong == [], "\n".join(wrong)


def test_a_short_statement_does_not_wait_for_a_long_one(
    served: Served, clients: Driver, ann: Connection
) -> None:
    password = served.accounts["admin"].password
    # 200 tasks, of which the server runs as many at once as there are cores: seconds, also on a
    # fast machine, beside the one that is slept away below.
    long = "SELECT max(sha2(repeat(id, 2000), 512)) FROM range(0, 200000, 1, 200)"
    with clients.connection("admin", password, "toy") as admin, ThreadPoolExecutor(1) as pool:
        ann.ask("SELECT count(*) FROM sums")
        begun = time.monotonic()
        running = pool.submit(admin.ask, long)
        time.sleep(1)
        ann.ask("SELECT count(*) FROM sums")
        waited = time.monotonic() - begun
        running.result()
        assert waited < (time.monotonic() - begun) / 2


@pytest.mark.soak
@pytest.mark.parametrize("hog", HOGS)
def test_a_statement_that_asks_for_too_much_ends_and_the_server_goes_on(
    served: Served, clients: Driver, hog: str
) -> None:
    if hog not in _QUICK_HOGS and not os.environ.get("SOAK"):
        pytest.skip("half a minute; `make soak` runs it")
    password = served.accounts["ann"].password
    with clients.connection("ann", password, "toy") as one, pytest.raises(Refused):
        one.ask(HOGS[hog])
    # Nobody starts it again here.
    with clients.connection("ann", password, "toy") as another:
        assert another.ask("SELECT count(*) FROM sums") == [(len(sums()),)]


@pytest.mark.soak
def test_where_memory_is_short_what_can_spill_is_answered_and_what_cannot_ends_with_the_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("home")
    with (
        _serving(home, tmp_path_factory.mktemp("folder"), NIGHTSHIFT_JDBC_MEMORY="512m") as served,
        driver(served.port) as clients,
    ):
        password = served.accounts["ann"].password
        with clients.connection("ann", password, "toy") as ann:
            # Needs three times the memory that there is for it.
            assert ann.ask(f"SELECT max(place) FROM ({SPILLED})") == [(8_000_000,)]
        with (
            clients.connection("ann", password, "toy") as ann,
            pytest.raises(Refused, match="memory of the JDBC server was full"),
        ):
            ann.ask(DEAF_HOG)
        # `nightshift up` starts it again.
        assert served.server.wait(_END_SECONDS) != 0
        assert "The memory stays full" in (home / "jdbc.log").read_text()


def test_tables_are_listed_with_their_columns(served: Served, ann: Connection) -> None:
    tables = stored_tables(served.lake.environment)
    stored = [tuple(name.split(".")) for name in tables]
    rows = [*ann.ask("SHOW TABLES IN toy"), *ann.ask("SHOW TABLES IN ops")]
    found = [row[:2] for row in rows]
    assert sorted(found) == sorted(stored)
    columns = ann.columns("toy", "sums")
    assert list(columns) == sums().column_names
    assert columns["money"] == "DECIMAL(9,2)"


def test_what_is_published_is_there_without_a_restart(served: Served, ann: Connection) -> None:
    day = DAYS[-1] + timedelta(days=1)
    served.lake.publish_predictions(day)
    asked = f"SELECT count(*) FROM predictions WHERE reading_date = '{day}'"
    assert ann.ask(asked) == [(4,)], "at once: the newest version is read"

    def lake_with(name: str) -> Lake:
        declared = replace(PIPELINE, derived=(replace(SUMS, name=name),))
        return Lake(served.lake.environment, declared)

    others, passing = lake_with("others"), lake_with("passing")
    others.publish({FIRST: sums()}, "others")
    passing.publish({FIRST: sums()}, "passing")
    log = served.lake.environment.home / "jdbc.log"

    def listed() -> set[str]:
        return {name for _, name, _ in ann.ask("SHOW TABLES IN toy")}

    _wait(lambda: {"others", "passing"} <= listed(), _FOLLOW_SECONDS, log)
    assert ann.ask("SELECT count(*) FROM others") == [(11,)]
    wider = sums().append_column(
        "added",
        pa.array(range(11), pa.int64()),
    )
    others.publish({FIRST: wider}, "others")
    assert ann.ask("SELECT sum(added) FROM others") == [(55,)]
    gone = Path(served.lake.environment.table_path("toy.passing"))
    gone.rename(served.folder.parent / "gone")
    _wait(lambda: "added" in ann.columns("toy", "others"), _FOLLOW_SECONDS, log)
    _wait(lambda: "passing" not in listed(), _FOLLOW_SECONDS, log)
    assert ann.ask("SELECT count(*) FROM others") == [(11,)]


def test_statements_that_only_read_are_answered(ann: Connection) -> None:
    for statement in ALLOWED:
        assert ann.ask(statement), statement


@pytest.mark.parametrize(
    "statements",
    [WRITES, READS, CODE],
    ids=["writes", "reads", "code"],
)
def test_nothing_can_be_written_run_or_read_beside_the_lake(
    served: Served, ann: Connection, tmp_path: Path, statements: tuple[str, ...]
) -> None:
    environment = served.lake.environment
    before = log_files(environment)
    passed = []
    refusals = []
    for statement in statements:
        asked = statement.format(lake=environment.lake, out=tmp_path / "out")
        try:
            passed.append((asked, ann.ask(asked)))
        except Refused as refusal:
            refusals.append(str(refusal))
    assert passed == []
    assert [one for one in refusals if "\tat " in one] == [], "pages of Java's calls"
    assert list(tmp_path.iterdir()) == []
    assert log_files(environment) == before
    assert ann.ask("SELECT count(*) FROM toy.sums") == [(11,)]


def test_no_statement_makes_the_server_ask_an_address(ann: Connection) -> None:
    asked = []

    class Schemas(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((LOOPBACK, 0), Schemas) as schemas:
        Thread(target=schemas.serve_forever, daemon=True).start()
        answers = []
        for statement in FETCHES:
            with suppress(Refused):
                url = f"http://{LOOPBACK}:{schemas.server_port}/a.xsd"
                answers.append(ann.ask(statement.format(url=url)))
        schemas.shutdown()
    assert asked == []
    assert answers == []


def test_each_function_of_spark_is_known_to_be_harmless_or_refused(ann: Connection) -> None:
    known = {name for (name,) in ann.ask("SHOW SYSTEM FUNCTIONS")}
    listed = Path(jdbc.__file__).with_name("functions.txt")
    harmless = set(listed.read_text().split())
    # Operators such as `<>`, which are listed and no functions.
    words = {name for name in known if name.replace("_", "").isalnum()}
    of_values = words - OF_ROWS - {"case"}
    assert of_values - harmless == REACHING, "look at what is new, and say which it is"


def test_a_refusal_says_what_and_why(ann: Connection) -> None:
    with pytest.raises(Refused, match=r"Not here: DropTable\. By JDBC the tables of the lake can"):
        ann.ask("DROP TABLE sums")


def test_what_a_client_sets_counts_for_nothing(served: Served, clients: Driver) -> None:
    password = served.accounts["ann"].password
    settings = "spark.sql.runSQLOnFiles=true;spark.sql.variable.substitute=true"
    for kind in (f";{settings}", f"?{settings}", f"#{settings}", "?system:user.dir=/etc"):
        with clients.connection("ann", password, "toy", kind) as connection:
            assert connection.ask("SET spark.sql.runSQLOnFiles")[0][1] == "false"
            home = "${env:HOME}${system:user.dir}"
            assert connection.ask(f"SELECT '{home}'") == [(home,)]
            with pytest.raises(Refused, match="TABLE_OR_VIEW_NOT_FOUND"):
                connection.ask("SELECT * FROM text.`/etc/passwd`")


def _wait(is_so: Callable[[], bool], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)
