"""`nightshift sql`, `tables` and `describe`: what people type, and what comes out."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from prompt_toolkit.application import create_app_session
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from jobs.__main__ import main
from jobs.commands import sql, sql_shell
from jobs.commands.sql_shell import Shell, TableCompleter, is_whole
from jobs.lake import sql as of_lake
from jobs.lake.commits import publish
from jobs.lake.sql import Session
from jobs.services import stage_client
from jobs.services.own_server import preloaded
from pipelines.days import Days
from pipelines.environment import Environment
from tests.jobs.lake.test_commits import run_at, staged

_DAY = date(2013, 1, 5)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    run = run_at(tmp_path, Days.of(_DAY))
    publish(run, "readings", staged(run, {_DAY: [1, 2, 3]}))
    return run.environment


@pytest.fixture(scope="module")
def home_of_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose stage server is up."""
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path_factory.mktemp("served"))})
    with preloaded(environment, ("pyarrow.dataset", "deltalake", "duckdb")) as served:
        assert stage_client.available(served)
        yield served.home
        assert stage_client.available(served), "the stage server died"


@pytest.fixture(params=["in this process", "in the stage server"])
def asked_lake(
    request: pytest.FixtureRequest, lake: Environment, monkeypatch: pytest.MonkeyPatch
) -> Environment:
    """The lake, asked without a stage server and with one."""
    if request.param == "in the stage server":
        home = request.getfixturevalue("home_of_server")
        monkeypatch.setenv("NIGHTSHIFT_HOME", str(home))
        monkeypatch.setenv("NIGHTSHIFT_LAKE", lake.lake)
        # Nobody answers in this process.
        monkeypatch.delattr(sql, "answer")
    return lake


def _typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_statements_come_from_standard_input_and_from_a_file(
    asked_lake: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    statement = "SELECT count(*) AS n FROM toy.readings;"
    (tmp_path / "count.sql").write_text(statement)
    outputs = []
    _typed(monkeypatch, statement)
    for words in ([], ["-f", "-"], ["-f", str(tmp_path / "count.sql")]):
        _typed(monkeypatch, statement)
        assert main(["sql", *words, "--format", "csv"]) == 0
        outputs.append(capfd.readouterr().out)
    assert outputs == ["n\n3\n"] * 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["SELECT 1", "-f", "x.sql"], "Say either a statement or --file, not both."),
        (["-f", "no/such.sql"], "no/such.sql cannot be read"),
        (["SELECT 1", "--format", "parquet"], "Parquet needs a file"),
        (
            ["SELECT 1", "--output", "/no/such/a.csv"],
            "/no/such/a.csv cannot be written: the folder /no/such is not there. Make it",
        ),
        (["SELECT 1", "--output", "/"], "/ is no file"),
        (["SELECT INTERVAL 1 DAY AS i", "--format", "parquet", "-o", "x"], "Cast it to VARCHAR"),
        (
            ["SELECT 1 AS a, union_value(u := 1) AS b", "--format", "parquet", "-o", "x"],
            "Parquet cannot hold column 'b': ",
        ),
        (
            [f"SELECT {2**127 - 1}::HUGEINT AS h", "--format", "parquet", "-o", "x"],
            f"Column 'h': {2**127 - 1} has more than the 38 digits of a decimal",
        ),
        (["SELECT 1 AS a, 2 AS a", "--format", "parquet", "-o", "x"], "Two columns are named 'a'"),
        (["BEGIN"], "there are no transactions"),
        (["SET memory_limit = '200GB'"], "NIGHTSHIFT_SQL_MEMORY; no statement changes it"),
        (["RESET GLOBAL max_memory"], "NIGHTSHIFT_SQL_MEMORY; no statement changes it"),
        (["PRAGMA memory_limit='200GB'"], "NIGHTSHIFT_SQL_MEMORY; no statement changes it"),
        (["SET threads = 1", "--format", "parquet", "-o", "x.parquet"], "nothing to write"),
    ],
)
def test_what_cannot_be_is_told(
    asked_lake: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["sql", *words]) == 2
    assert says in capfd.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_rows_go_into_a_file(asked_lake: Environment, tmp_path: Path, form: str) -> None:
    to = tmp_path / "rows"
    statement = "SELECT id FROM toy.readings ORDER BY id"
    assert main(["sql", statement, "--format", form, "-o", str(to)]) == 0
    text = to.read_text()
    if form == "csv":
        assert text == "id\n1\n2\n3\n"
    if form == "json":
        assert json.loads(text) == [
            {"id": 1},
            {"id": 2},
            {"id": 3},
        ]
    if form == "table":
        assert "| id |" in text


def test_parquet_keeps_the_types(asked_lake: Environment, tmp_path: Path) -> None:
    to = tmp_path / "rows.parquet"
    statement = "SET threads = 1; SELECT id, landed_date FROM toy.readings ORDER BY id"
    assert main(["sql", statement, "--format", "parquet", "-o", str(to)]) == 0
    table = pq.read_table(to)
    found = table.to_pylist()
    assert found == [{"id": one, "landed_date": _DAY} for one in (1, 2, 3)]
    statement = "SELECT id FROM toy.readings; SET threads = 1"
    assert main(["sql", statement, "--format", "parquet", "-o", str(to)]) == 0
    assert len(pq.read_table(to)) == 3
    assert main(["sql", "SHOW TABLES", "--format", "parquet", "-o", str(to)]) == 0
    assert "toy.readings" in pq.read_table(to)["name"].to_pylist()


def test_what_parquet_would_tell_wrongly_is_text_by_its_type(
    asked_lake: Environment, tmp_path: Path
) -> None:
    to = tmp_path / "rows.parquet"
    statement = f"""SELECT {2**128 - 1}::UHUGEINT AS large, 1::UHUGEINT AS "small",
        '0101'::BIT AS bits, 5::BIGNUM AS big, {10**38 - 1}::HUGEINT AS most, sum(1) AS n,
        NULL::HUGEINT AS nothing, [2::UHUGEINT] AS listed, {{'b': '01'::BIT}} AS held,
        '12:00:00+15:30'::TIMETZ AS zoned, {{'a': 1}}::VARIANT AS any"""
    assert main(["sql", statement, "--format", "parquet", "-o", str(to)]) == 0
    assert pq.read_table(to).to_pylist() == [
        {
            "large": str(2**128 - 1),
            "small": "1",
            "bits": "0101",
            "big": "5",
            "most": 10**38 - 1,
            "n": 1,
            "nothing": None,
            "listed": ["2"],
            "held": {"b": "01"},
            "zoned": "12:00:00+15:30",
            "any": "{'a': 1}",
        }
    ]


def test_wide_rows_are_written_a_few_at_a_time(
    lake: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "_BYTES_OF_GROUP", 1_000_000)
    monkeypatch.setattr(of_lake, "_BYTES_AT_ONCE", 1_000_000)
    statement = "SELECT i, repeat('x', 1000) AS text FROM range(9000) numbers(i)"
    to = tmp_path / "rows"
    assert main(["sql", statement, "--format", "parquet", "-o", str(to)]) == 0
    assert pq.ParquetFile(to).num_row_groups == 5
    assert pq.read_table(to)["i"].to_pylist() == list(range(9000))
    assert main(["sql", statement, "--format", "csv", "-o", str(to)]) == 0
    assert len(to.read_text().splitlines()) == 9001


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_statement_that_fails_halfway_leaves_the_file_as_it_was(
    asked_lake: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    to = tmp_path / "rows"
    to.write_text("before")
    late = "SELECT CASE WHEN i = 1999999 THEN error('late') ELSE 'x' END FROM range(2000000) r(i)"
    assert main(["sql", late, "--format", form, "--output", str(to)]) == 2
    told = capfd.readouterr().err
    assert "late" in told
    assert "cannot be written" not in told
    assert to.read_text() == "before"
    assert not list(tmp_path.glob(".rows*"))


@pytest.mark.parametrize("form", [None, "csv", "parquet"])
def test_a_file_of_a_table_that_is_gone_is_a_fault_and_no_wrong_usage(
    asked_lake: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str | None
) -> None:
    (named,) = DeltaTable(asked_lake.table_path("toy.readings")).file_uris()
    file = Path(named)
    file.unlink()
    to = ["--format", form, "--output", str(tmp_path / "rows")] if form else []
    assert main(["sql", "FROM toy.readings", *to]) == 3
    told = capfd.readouterr().err
    assert told.startswith("Fault: A table's rows cannot be read: ")
    assert file.name in told


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_lake_that_cannot_be_read_is_no_fault_of_the_file_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    lake = tmp_path / "lake"
    lake.write_text("no folder")
    monkeypatch.setenv("NIGHTSHIFT_LAKE", str(lake))
    to = tmp_path / "rows"
    to.write_text("before")
    assert main(["sql", "SELECT 1", "--format", form, "--output", str(to)]) == 3
    told = capfd.readouterr().err
    assert "cannot be written" not in told
    assert str(lake) in told
    assert to.read_text() == "before"


@pytest.mark.parametrize(
    "words",
    [["sql"], ["sql", "-f", "-"], ["sql", b"SELECT '\xe9'"]],
)
def test_what_is_no_utf_8_is_told(lake: Environment, words: list[str | bytes]) -> None:
    command = [sys.executable, "-m", "jobs", *words]
    for locale in ("C", "C.UTF-8"):
        variables = {**os.environ, "LC_ALL": locale}
        asked = subprocess.run(
            command, input=b"SELECT '\xe9'", capture_output=True, env=variables, check=False
        )
        assert asked.returncode == 2
        assert b"cannot be read" in asked.stderr
        assert b"Traceback" not in asked.stderr


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_pipe_is_written_to_and_stays_one(form: str, lake: Environment, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as reader:
        written = reader.submit(pipe.read_bytes)
        try:
            assert main(["sql", "SELECT 1 AS a", "--format", form, "-o", str(pipe)]) == 0
            assert stat.S_ISFIFO(pipe.stat().st_mode)
        finally:
            # Whoever still waits for a writer has one.
            os.close(os.open(pipe, os.O_RDWR))
    if form == "csv":
        assert written.result() == b"a\n1\n"
    else:
        rows = pq.read_table(pa.BufferReader(written.result()))
        assert rows.to_pydict() == {"a": [1]}


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_an_open_file_of_ones_own_is_written_to_with_a_stage_server_up_too(
    lake: Environment, home_of_server: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(home_of_server))
    monkeypatch.setenv("NIGHTSHIFT_LAKE", lake.lake)
    # As a shell gives it for `--output >(gzip > rows.gz)`.
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as written:
        try:
            place = f"{folder}/{writing}"
            assert main(["sql", "SELECT 1 AS a", "--format", "csv", "-o", place]) == 0
        finally:
            os.close(writing)
        assert written.read() == b"a\n1\n"


@pytest.mark.parametrize("flags", [os.O_APPEND, 0], ids=["appended to", "written on"])
@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_rows_follow_what_an_open_file_of_ones_own_has(
    lake: Environment, tmp_path: Path, folder: str, flags: int
) -> None:
    file = tmp_path / "all.csv"
    # As a shell gives it after `exec 5>>all.csv`.
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | flags)
    try:
        os.write(opened, b"before\n")
        asked = ["sql", "SELECT 1 AS a", "--format", "csv"]
        assert main([*asked, "-o", f"{folder}/{opened}"]) == 0
        os.write(opened, b"after\n")
    finally:
        os.close(opened)
    assert file.read_text() == "before\na\n1\nafter\n"
    assert list(tmp_path.glob(".*")) == []


def test_parquet_goes_into_an_open_file_of_ones_own(lake: Environment, tmp_path: Path) -> None:
    with (tmp_path / "rows").open("wb") as file:
        place = f"/dev/fd/{file.fileno()}"
        assert main(["sql", "SELECT 1 AS a", "--format", "parquet", "-o", place]) == 0
        assert os.fstat(file.fileno()).st_nlink == 1
    assert pq.read_table(file.name).to_pydict() == {"a": [1]}


def test_rows_follow_what_the_standard_output_has(asked_lake: Environment, tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    asked = ["sql", "SELECT 1 AS a", "--format", "csv", "-o", "/dev/stdout"]
    with file.open("wb", buffering=0) as opened:
        opened.write(b"before\n")
        command = [sys.executable, "-m", "jobs", *asked]
        assert subprocess.run(command, stdout=opened, check=False).returncode == 0
        opened.write(b"after\n")
    assert file.read_text() == "before\na\n1\nafter\n"


@pytest.mark.parametrize("name", ["999999", f"{10**30}", "five"])
def test_an_open_file_that_is_none_is_told(
    lake: Environment, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    place = f"/dev/fd/{name}"
    assert main(["sql", "SELECT 1 AS a", "--format", "csv", "-o", place]) == 2
    assert f"{place} cannot be written: " in capfd.readouterr().err


def test_an_open_file_that_is_only_read_is_told_and_kept(
    lake: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows"
    file.write_text("before")
    with file.open() as opened:
        place = f"/dev/fd/{opened.fileno()}"
        assert main(["sql", "SELECT 1 AS a", "--format", "csv", "-o", place]) == 2
        assert opened.read() == "before"
    assert f"{place} cannot be written: " in capfd.readouterr().err
    assert file.read_text() == "before"


@pytest.mark.parametrize("is_open", [True, False])
def test_of_an_open_file_that_was_interrupted_nobody_says_that_it_is_as_it_was(
    lake: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *,
    is_open: bool,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sql, "answer", interrupted)
    with (tmp_path / "rows").open("w") as file:
        place = f"/dev/fd/{file.fileno()}" if is_open else file.name
        assert main(["sql", "SELECT 1 AS a", "--format", "csv", "-o", place]) == 3
    told = capfd.readouterr().err
    assert ("rows are missing" in told) == is_open
    assert (f"{place} is as it was" in told) != is_open


def test_a_link_leads_to_the_file_that_is_written(lake: Environment, tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "rows.csv"
    file.parent.mkdir()
    link = tmp_path / "link"
    link.symlink_to(file)
    for _ in range(2):
        assert main(["sql", "SELECT 1 AS a", "--format", "csv", "-o", str(link)]) == 0
        assert link.is_symlink()
        assert file.read_text() == "a\n1\n"
    assert list(file.parent.iterdir()) == [file]


def test_ctrl_c_in_the_pager_is_the_pagers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "told"
    pager = tmp_path / "pager"
    # It sends Ctrl-C to the shell and to itself, as a terminal does, and goes on.
    pager.write_text(
        f"#!/bin/sh\ntrap 'echo caught >> {told}' INT\nkill -INT $PPID $$\ncat >> {told}\n"
    )
    pager.chmod(0o700)
    monkeypatch.setenv("PAGER", str(pager))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    before = signal.getsignal(signal.SIGINT)
    sql_shell._page("line\n" * 200)
    assert told.read_text() == "caught\n" + "line\n" * 200
    assert signal.getsignal(signal.SIGINT) == before


def test_who_reads_has_seen_enough(asked_lake: Environment) -> None:
    statement = "SELECT range FROM range(1000000)"
    command = [sys.executable, "-m", "jobs", "sql", statement, "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == b"range\n"
        asking.stdout.close()
        assert asking.stderr is not None
        assert asking.stderr.read() == b""
    assert asking.returncode == 0


def test_tables_tells_rows_days_and_meaning(
    lake: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tables", "--format", "json"]) == 0
    rows = {row["table"]: row for row in json.loads(capsys.readouterr().out)}
    readings = rows["toy.readings"]
    assert readings["rows"] == 3
    assert readings["first day"] == str(_DAY)
    assert readings["files"] == 1
    assert rows["ops.publications"]["what it holds"].startswith("Every publication of a day")
    assert main(["tables", "flights"]) == 0


@pytest.mark.parametrize("left", [b"", b"{"], ids=["emptied", "cut off"])
def test_a_table_that_cannot_be_opened_keeps_no_other_from_being_listed(
    left: bytes, lake: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(lake.table_path("toy.broken"))
    write_deltalake(str(broken), pa.table({"number": [1]}))
    commit = broken / "_delta_log" / f"{0:020}.json"
    commit.write_bytes(left)
    assert main(["tables", "--format", "json"]) == 0
    rows = {row["table"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["toy.readings"]["rows"] == 3
    assert rows["toy.broken"]["rows"] is None
    assert rows["toy.broken"]["what it holds"].startswith("Cannot be opened: Kernel error: ")
    assert "nightshift describe toy.broken" in rows["toy.broken"]["what it holds"]
    assert main(["describe", "toy.broken"]) == 3
    assert f"The log of a table is broken: {commit} is cut off" in capsys.readouterr().err


def test_describe_tells_each_column_with_its_pipeline_or_without(
    lake: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ops.publications", "publications", "PUBLICATIONS"):
        assert main(["describe", name, "--format", "json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert rows[0]["column"] == "pipeline"
        assert all(row["meaning"] for row in rows)
    assert main(["describe", "toy.readings_history", "--format", "csv"]) == 0
    assert "known_date,date," in capsys.readouterr().out
    for name in ("Mine", "my-table", "order"):
        write_deltalake(lake.table_path(f"toy.{name}"), pa.table({"number": [1]}))
        assert main(["describe", f"toy.{name}", "--format", "csv"]) == 0
        assert "number,bigint," in capsys.readouterr().out
        asked = f'SELECT toy."{name}".number FROM toy."{name}" VERSION AS OF 0'
        assert main(["sql", asked, "--format", "csv"]) == 0
        assert capsys.readouterr().out == "number\n1\n"
    assert main(["describe", "reading"]) == 2
    assert "No table named 'reading'" in capsys.readouterr().err


@pytest.fixture
def shell(lake: Environment) -> Shell:
    shown: list[str] = []
    session = Session(lake)
    shell = Shell(environment=lake, session=session, page=shown.append)
    shell.shown = shown  # type: ignore[attr-defined]
    return shell


def _shown(shell: Shell) -> str:
    text = "".join(shell.shown)  # type: ignore[attr-defined]
    shell.shown.clear()  # type: ignore[attr-defined]
    return text


def test_the_shell_runs_statements_and_keeps_what_they_set(shell: Shell) -> None:
    assert shell.obey("USE toy;")
    assert shell.obey("SELECT count(*) AS n FROM readings;")
    assert "3 |" in _shown(shell)
    assert shell.obey("\\format csv")
    assert shell.obey("SELECT 1 AS a; SELECT 2 AS b;")
    assert _shown(shell) == "a\n1\n(1 row)\nb\n2\n(1 row)\n"


def test_a_plan_is_drawn_on_lines_of_its_own(
    shell: Shell, asked_lake: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    statement = "EXPLAIN SELECT count(*) FROM toy.readings"
    assert main(["sql", statement]) == 0
    printed = capfd.readouterr().out
    assert "\\n" not in printed
    assert len(printed.splitlines()) > 3
    assert "explain_key" not in printed
    shell.obey(f"{statement};")
    assert _shown(shell) == printed
    # A program gets it as it is.
    assert main(["sql", statement, "--format", "json"]) == 0
    (told,) = json.loads(capfd.readouterr().out)
    assert told["explain_value"].splitlines() == printed.splitlines()


def test_the_shell_sees_what_is_published_meanwhile(shell: Shell) -> None:
    count = "SELECT count(*) FROM toy.readings;"
    shell.obey("\\format csv")
    shell.obey(count)
    run = run_at(shell.environment.home, Days.of(_DAY))
    publish(run, "readings", staged(run, {_DAY: [1, 2, 3, 4]}))
    shell.obey(count)
    assert _shown(shell) == "count_star()\n3\n(1 row)\ncount_star()\n4\n(1 row)\n"


def test_the_shell_goes_on_after_an_error(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("SELECT nonsense;", "\\nonsense", "\\format xml", "\\i", "\\i nowhere.sql"):
        assert shell.obey(line)
        assert capsys.readouterr().err
    shell.obey("SELECT 7 AS seven;")
    assert "7 |" in _shown(shell)


def test_what_an_error_of_the_shell_quotes_steers_no_terminal(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.obey("SELECT (chr(27) || '[31mred' || chr(13))::INT;")
    told = capsys.readouterr().err
    assert "string '\\x1b[31mred\\r' to INT32" in told
    assert "\x1b" not in told


def test_the_shell_goes_on_after_a_fault(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Session, "results", _broken)
        assert shell.obey("SELECT 1;")
    assert capsys.readouterr().err == "Fault: ZeroDivisionError: odd\n"
    shell.obey("SELECT 7 AS seven;")
    assert "7 |" in _shown(shell)


def test_a_shell_begins_in_a_home_that_is_not_there_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / "new")})
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("SHOW TABLES;\r\\q\r")
        assert sql_shell.run(environment, None) == 0
    assert "(0 rows)" in capsys.readouterr().out


def test_the_shell_describes_times_and_runs_files(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.obey("\\d")
    assert "toy.readings" in _shown(shell)
    shell.obey("\\d readings")
    assert "landed_date" in capsys.readouterr().out
    shell.obey("\\timing")
    (tmp_path / "two words.sql").write_text("SELECT 5 AS five")
    shell.obey(f"\\i '{tmp_path / 'two words.sql'}'")
    assert "5 |" in _shown(shell)
    assert " s\n" in capsys.readouterr().out
    shell.obey("\\?")
    assert "\\timing" in capsys.readouterr().out


def test_the_shell_describes_the_table_of_the_pipeline_in_use(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Path(shell.environment.lake)
    shutil.copytree(lake / "toy", lake / "other")
    shell.obey("\\d readings")
    assert "No table named 'readings'" in capsys.readouterr().err
    shell.obey("USE toy;")
    for name in ("Readings", 'toy."readings"'):
        shell.obey(f"\\d {name}")
        told = capsys.readouterr()
        assert (told.out.startswith("toy.readings"), told.err) == (True, "")


def test_the_prompt_is_there_whatever_the_session_says(
    lake: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_use(_: Session) -> str:
        raise duckdb.InvalidInputException("in use")

    monkeypatch.setattr(Session, "schema", property(in_use))
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("\\q\r")
        assert sql_shell.run(lake, None) == 0


def test_the_shell_reads_one_file(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.sql"
    file.write_text("SELECT 5 AS five")
    for said in ("", f" {file} {file}"):
        shell.obey(f"\\i{said}")
        assert "say one file" in capsys.readouterr().err


def test_the_shell_shows_so_many_rows_and_says_so(shell: Shell) -> None:
    shell.obey("\\format csv")
    shell.obey("FROM range(5000);")
    text = _shown(shell)
    assert "(the first 1000 rows; all of them:" in text
    assert "\n999\n" in text
    assert "\n1000\n" not in text


@pytest.mark.parametrize("line", ["\\q", "exit", "quit;", "EXIT"])
def test_the_shell_is_left_by(shell: Shell, line: str) -> None:
    assert not shell.obey(line)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT 1;\n", True),
        ("\\d", True),
        ("", True),
        ("help", True),
        ("SELECT ';", False),
        ("SELECT ';';", True),
        ("SELECT 1; -- c", True),
        ("SELECT 1; /* two\nlines */ ", True),
        ("SELECT 1 -- c;", False),
        ("SELECT $$ ;", False),
        # A byte that is not UTF-8: what is sent is told so, and the line is left.
        ("SELECT 'caf\udce9", True),
    ],
)
def test_a_statement_is_whole_with_its_semicolon(text: str, *, whole: bool) -> None:
    assert is_whole(text) == whole


def test_completion_knows_tables_columns_and_words(lake: Environment) -> None:
    completer = TableCompleter(lake)

    def offered(text: str) -> list[str]:
        found = completer.get_completions(Document(text, len(text)), None)
        return [one.text for one in found]

    assert offered("SELECT * FROM toy.re") == ["toy.readings"]
    assert offered("FROM toy.readings SELECT lan") == ["landed_date"]
    assert "GROUP BY" in offered("gro")
    assert offered("FROM toy.readings r SELECT r.lan") == ["r.landed_date"]
    assert offered("FROM toy.readings AS r WHERE r.lan") == ["r.landed_date"]
    assert offered("FROM toy.readings old WHERE old.lan") == ["old.landed_date"]
    assert offered("FROM toy.readings WHERE readings.lan") == ["readings.landed_date"]
    assert offered("FROM toy.readings WHERE toy.readings.lan") == ["toy.readings.landed_date"]
    # What was typed is not lost for a table that cannot be opened.
    broken = Path(lake.table_path("toy.broken"))
    write_deltalake(str(broken), pa.table({"number": [1]}))
    (broken / "_delta_log" / f"{0:020}.json").write_bytes(b"")
    assert offered("FROM toy.broken SELECT num") == []
    assert offered("FROM toy.bro") == ["toy.broken"]
    write_deltalake(lake.table_path("toy.my-table"), pa.table({"number": [1]}))
    assert offered("FROM toy.my") == ['toy."my-table"']
    assert offered('FROM toy."my-table" SELECT num') == ["number"]


def test_completion_goes_on_while_the_store_is_away(
    lake: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Environment) -> list[str]:
        raise OSError("When listing objects: Couldn't connect to server")

    monkeypatch.setattr(of_lake, "tables", away)
    completer = TableCompleter(lake)
    found = completer.get_completions(Document("gro", 3), None)
    assert [one.text for one in found] == ["GROUP BY"]


def test_completion_goes_on_after_a_byte_that_is_not_utf_8(lake: Environment) -> None:
    completer = TableCompleter(lake)
    text = "caf\udce9 gro"
    found = completer.get_completions(Document(text, len(text)), None)
    assert [one.text for one in found] == ["GROUP BY"]


def test_completion_knows_the_pipeline_in_use(lake: Environment) -> None:
    with Session(lake) as session:
        completer = TableCompleter(lake, session)
        assert list(session.results("USE toy")) == []

        def offered(text: str) -> list[str]:
            found = completer.get_completions(Document(text, len(text)), None)
            return [one.text for one in found]

        assert offered("FROM rea") == ["readings"]
        assert offered("FROM readings SELECT lan") == ["landed_date"]


def test_completion_writes_names_as_statements_must(lake: Environment) -> None:
    with Session(lake) as session:
        completer = TableCompleter(lake, session)
        asked = 'CREATE TEMP TABLE mine AS SELECT 1 AS "Wind Speed", 2 AS "order"'
        assert list(session.results(asked)) == []

        def offered(text: str) -> list[str]:
            found = completer.get_completions(Document(text, len(text)), None)
            return [one.text for one in found]

        assert offered("FROM mi") == ["mine"]
        assert offered("FROM mine SELECT wind") == ['"Wind Speed"']
        assert offered('FROM mine SELECT "ord') == ['"order"', "ORDER BY"]


def test_the_shell_tells_the_tables_that_a_person_has_made(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.obey("\\format csv")
    shell.obey("CREATE TEMP TABLE mine AS SELECT 1 AS a, 'x' AS b; CREATE SCHEMA own;")
    shell.obey("CREATE VIEW own.seen AS SELECT 2 AS c;")
    shell.obey("\\d")
    listed = _shown(shell).splitlines()
    assert [line for line in listed if "Yours" in line] == [
        'own.seen,,,,,,"Yours, until you leave the shell."',
        'mine,,,,,,"Yours, until you leave the shell."',
    ]
    shell.obey("\\d Mine")
    assert _shown(shell) == 'column,type,meaning\na,integer,""\nb,varchar,""\n(2 rows)\n'
    shell.obey("\\d own.seen")
    assert "c,integer," in _shown(shell)
    assert capsys.readouterr().err == ""


def test_the_time_of_a_statement_leaves_out_that_in_the_pager(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.page = lambda _: time.sleep(0.5)
    shell.obey("\\timing")
    begun = time.monotonic()
    shell.obey("SELECT 1;")
    took = time.monotonic() - begun
    (told,) = re.findall(r"(\S+) s\n", capsys.readouterr().out)
    assert float(told) < took - 0.49


def test_what_would_steer_a_terminal_is_shown_as_an_escape_in_csv_too(shell: Shell) -> None:
    shell.obey("\\format csv")
    shell.obey("SELECT chr(27) || '[31m' || chr(13) AS a, 'x' || chr(10) || chr(9) || 'y' AS b;")
    assert _shown(shell) == 'a,b\n\\x1b[31m\\r,"x\n\ty"\n(1 row)\n'


def test_a_person_types_into_the_shell(
    lake: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        # A statement of two lines, then a command, then the end.
        keys.send_text("SELECT sum(id) AS total\rFROM toy.readings;\r\\timing\r\\q\r")
        assert sql_shell.run(lake, None) == 0
    told = capsys.readouterr().out
    assert "6 |" in told
    assert "Timing is on." in told
    history = lake.home / "sql_history"
    assert "FROM toy.readings;" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def _refusing(number: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("refuses", ["a home", "the file"])
def test_the_shell_opens_on_a_disk_that_may_only_be_read(
    lake: Environment,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    refuses: str,
) -> None:
    # A home that is open to others cannot be closed there.
    lake.home.chmod(0o755 if refuses == "a home" else 0o700)
    monkeypatch.setattr(Path, "chmod", _refusing(errno.EROFS))
    monkeypatch.setattr(Path, "touch", _refusing(errno.EROFS))
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("SELECT sum(id) AS total FROM toy.readings;\r\\q\r")
        assert sql_shell.run(lake, None) == 0
    told = capsys.readouterr()
    assert "6 |" in told.out
    assert "Warning: statements are not kept for another shell: " in told.err
    assert "Traceback" not in told.err


def test_a_statement_for_which_a_disk_has_no_room_is_kept_as_long_as_the_shell(
    lake: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileHistory, "store_string", _refusing(errno.ENOSPC))
    history = sql_shell._history(lake)
    history.append_string("SELECT 1;")
    assert history.get_strings() == ["SELECT 1;"]


def test_a_byte_that_is_not_utf_8_is_told_and_the_shell_goes_on(
    lake: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_bytes(b"SELECT 'caf\xe9' FROM to\t;\rSELECT 7 AS seven;\r\\q\r")
        assert sql_shell.run(lake, None) == 0
    told = capsys.readouterr()
    assert "The statement is not UTF-8" in told.err
    assert "seven" in told.out


_HOSTILE = (
    "COPY (SELECT 1) TO '{place}'",
    "COPY (SELECT 1) TO '{place}' (FORMAT parquet)",
    "EXPORT DATABASE '{place}'",
    "ATTACH '{place}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "FROM '/etc/passwd'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_parquet('http://127.0.0.1/x')",
    "SET enable_external_access = true",
    "SET temp_directory = '{place}'",
    "SET log_query_path = '{place}'",
    "INSERT INTO toy.readings VALUES (1, NULL)",
    "DELETE FROM toy.readings",
    "DROP VIEW memory.main.nothing",
    "SELECT * FROM query_table('toy' || '.' || 'nothing')",
    "SELECT * FROM toy.readings VERSION AS OF '1; DROP TABLE x'",
    "CREATE TABLE t AS SELECT range AS i, uuid() AS u FROM range(1000000000)",
    "SELECT count(DISTINCT uuid()) FROM range(1000000000)",
)


@pytest.mark.parametrize("statement", _HOSTILE)
def test_what_would_write_read_elsewhere_or_take_all_memory_is_refused(
    asked_lake: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    statement: str,
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_SQL_MEMORY", "200MB")
    place = tmp_path / "elsewhere"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(["sql", statement.format(place=place)]) == 2
    assert capfd.readouterr().out == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_that_few_may_read_stays_so(
    asked_lake: Environment, tmp_path: Path, form: str
) -> None:
    file = tmp_path / "private"
    file.write_text("before")
    file.chmod(0o640)
    assert main(["sql", "SELECT 1 AS a", "--format", form, "-o", str(file)]) == 0
    assert file.read_bytes() != b"before"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.usefixtures("as_at_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_ended_leaves_no_half_file(
    lake: Environment, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    words = ["sql", "-o", str(folder / "long.csv"), "--format", "csv", "FROM range(1000000000000)"]
    program = [sys.executable, "-m", "jobs", *words]
    with subprocess.Popen(
        program,
        env={**os.environ, **lake.variables()},
        stderr=subprocess.PIPE,
    ) as asked:
        try:
            until = time.monotonic() + 60
            while not any(folder.iterdir()):
                assert time.monotonic() < until, "it writes nothing"
                time.sleep(0.05)
            asked.send_signal(number)
            assert asked.wait(60) == 3
            assert asked.stderr is not None
            told = asked.stderr.read().decode().strip()
            assert told == f"Interrupted: {folder / 'long.csv'} is as it was."
        finally:
            # What does not end writes without an end.
            asked.kill()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("form", "statement"),
    [
        ("csv", "SELECT length(repeat('x', 3000000000))"),
        ("table", "SELECT len(range(400000000))"),
        ("json", "SELECT repeat('x', 400000000)"),
    ],
)
def test_one_huge_value_is_refused_and_the_shell_goes_on(
    asked_lake: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    form: str,
    statement: str,
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setenv("NIGHTSHIFT_SQL_MEMORY", "200MB")
    assert main(["sql", "--format", form, statement]) == 2
    assert "NIGHTSHIFT_SQL_MEMORY: ask for less" in capfd.readouterr().err
    small = replace(asked_lake, sql_memory="200MB")
    with Session(small) as session:
        shell = sql_shell.Shell(environment=small, session=session, form=form)
        assert shell.obey(f"{statement};")
        assert shell.obey("SELECT 'alive';")
    told = capfd.readouterr()
    assert "NIGHTSHIFT_SQL_MEMORY: ask for less" in told.err
    assert "alive" in told.out
    assert resource.getrlimit(resource.RLIMIT_DATA) == limit


def _broken(*_: object) -> None:
    raise ZeroDivisionError("odd")
