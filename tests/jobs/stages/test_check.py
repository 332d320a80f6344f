"""Nothing is published that was not judged good, and every verdict is recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations.lookup import suite_of
from expectations.suite import Suite, between, present
from jobs.commands.quality import quality
from jobs.commands.waive import revoke, waive
from jobs.lake import commits, ops, tables, waivers
from jobs.lake.locations import exists, path
from jobs.lake.publications import Input, Origin
from jobs.lake.staging import require
from jobs.stages import check as check_stage
from jobs.stages import reports
from jobs.stages.check import audit_and_publish, check
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.errors import GateRefused, NightshiftError, UsageError
from pipelines.run import Run
from pipelines.spec import Table
from tests.jobs.toy import TOY, run_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from tests.postgres import Postgres

BETWEEN = "expect_column_values_to_be_between"
DAY = date(2013, 1, 1)
DERIVED = (
    Table(name="sums", made_by="transform", reads=("readings",), key=("id",)),
    Table(name="copies", made_by="transform", reads=("readings",), key=("id",)),
)
PIPELINE = replace(TOY, derived=DERIVED)


def sums(days: Days) -> Suite:
    return Suite(
        days=days,
        key=("id",),
        has=("amount",),
        each_row=(between("amount", 0, 10),),
        each_day=(between("rows", 1, None),),
    )


def copies(days: Days) -> Suite:
    warns = present("amount", severity="warning")
    return Suite(
        days=days,
        key=("id",),
        has=("amount",),
        same_rows_as="sums",
        each_row=(warns,),
    )


def predictions(days: Days) -> Suite:
    return Suite(
        days=days.shifted(1),
        day="reading_date",
        key=("id",),
        has=("amount",),
    )


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The toy's suites, as `expectations/toy.py` would hold them."""
    from importlib.machinery import ModuleSpec

    module = ModuleType("expectations.toy")
    module.__spec__ = ModuleSpec("expectations.toy", None)
    module.sums = sums  # type: ignore[attr-defined]
    module.copies = copies  # type: ignore[attr-defined]
    module.predictions = predictions  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "expectations.toy", module)
    return module


@pytest.fixture
def run(environment: Environment) -> Run:
    return replace(run_of(environment, str(DAY), stage_name="check_clean"), pipeline=PIPELINE)


@pytest.fixture
def stage(spark: SparkSession, run: Run) -> Callable[..., None]:
    """Stages rows (id, amount) of the day in a table."""

    def put(name: str, *rows: tuple[int, float | None]) -> None:
        tables.stage_rows(run, name, _frame(spark, *rows))

    return put


def _frame(spark: SparkSession, *rows: tuple[int, float | None]) -> DataFrame:
    values = [(DAY, *row) for row in rows]
    return spark.createDataFrame(values, "landed_date date, id int, amount double")


def published(run: Run, name: str) -> list[tuple[object, ...]]:
    if not exists(run, name):
        return []
    rows = tables.read(run, name).collect()
    return sorted(tuple(row) for row in rows)


def test_a_night_that_was_left_out_refuses_none_beside_it(
    spark: SparkSession, run: Run, suites: ModuleType
) -> None:
    def strict(days: Days) -> Suite:
        return replace(copies(days), each_day=(between("rows", 2, None),))

    def of(*numbers: tuple[date, int]) -> DataFrame:
        values = [(day, number, 1.0) for day, number in numbers]
        return spark.createDataFrame(values, "landed_date date, id int, amount double")

    suites.copies = strict  # type: ignore[attr-defined]
    first, second, third = Days(DAY, DAY + timedelta(days=2))
    whole = replace(run, days=Days(first, third))
    everywhere = [(day, number) for day in whole.days for number in (1, 2)]
    tables.stage_rows(whole, "sums", of(*everywhere))
    audit_and_publish(whole, ["sums"])
    made = [one for one in everywhere if one[0] != second]
    # A row less of a day that was made refuses it as before.
    lacking = of(*made[1:])
    tables.stage_rows(whole, "copies", lacking, days=(first, third))
    with pytest.raises(GateRefused, match="toy.copies was refused"):
        audit_and_publish(whole, ["copies"])
    tables.stage_rows(whole, "copies", of(*made), days=(first, third))
    assert audit_and_publish(whole, ["copies"])["rows"] == 4
    there = tables.read(whole, "copies").select("landed_date").distinct().collect()
    assert sorted(day for (day,) in there) == [first, third]


def test_of_an_attempt_that_was_overtaken_no_table_is_published(
    run: Run, stage: Callable[..., None]
) -> None:
    stage("copies", (1, 3.0))
    newer = require(run, "copies")
    stage("sums", (1, 2.0))
    stage("copies", (1, 2.0))
    commits.publish(run, "copies", replace(newer, attempt=newer.attempt + 5))
    with pytest.raises(commits.Fenced, match="toy.copies for 2013-01-01 was published by a later"):
        check(run)
    assert published(run, "sums") == []


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("1 AS note", "'x' AS note", "column 'note' is integer in the table, and string in"),
        ("1 AS note", "1 AS Note", "column 'Note' differs only in case from 'note'"),
        ("1 AS note", "timestamp_ntz'2013-01-02' AS at", "moments without a zone"),
    ],
    ids=["type", "twin", "moment"],
)
def test_where_the_columns_of_one_table_are_refused_no_other_is_published(
    before: str, after: str, why: str, run: Run, spark: SparkSession
) -> None:
    def put(of: Run, column: str) -> None:
        values = [(of.days.first, 1, 2.0)]
        rows = spark.createDataFrame(values, "landed_date date, id int, amount double")
        tables.stage_rows(of, "sums", rows)
        tables.stage_rows(of, "copies", rows.selectExpr("*", column))

    put(run, before)
    check(run)
    later = replace(run, days=Days.of(DAY + timedelta(days=1)))
    put(later, after)
    with pytest.raises(NightshiftError, match=why):
        check(later)
    assert published(run, "sums") == [(DAY, 1, 2.0)]


def test_good_tables_are_published_with_their_metrics(run: Run, stage: Callable[..., None]) -> None:
    stage("sums", (1, 2.0), (2, 3.0))
    stage("copies", (1, None), (2, 3.0))
    metrics = check(run)
    assert published(run, "sums") == [(DAY, 1, 2.0), (DAY, 2, 3.0)]
    expected = {"tables": 2, "rows": 4, "changed": 2, "checks": 13, "warnings": 1}
    assert {name: metrics[name] for name in expected} == expected
    # Metrics are kept as JSON.
    copied = json.loads(json.dumps(metrics))["published"]["copies"]
    assert (copied["rows"], copied["version"], copied["changed"]) == (2, 0, True)
    [warning] = copied["warnings"]
    assert warning == (
        "amount has a value. Found: 1 of 2 rows. "
        "For example landed_date=2013-01-01, id=1, amount=None"
    )


def test_a_run_about_one_table_has_that_one_judged_and_no_other(
    run: Run, stage: Callable[..., None]
) -> None:
    stage("sums", (1, 2.0))
    with pytest.raises(NightshiftError, match="Nothing is staged of toy.copies"):
        check(run)
    metrics = check(replace(run, tables=("sums",)))
    assert list(metrics["published"]) == ["sums"]  # type: ignore[call-overload]
    assert published(run, "sums") == [(DAY, 1, 2.0)]
    assert published(run, "copies") == []


def test_one_failed_table_keeps_the_whole_stage_back(
    run: Run, stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    stage("sums", (1, 2.0), (2, 33.0))
    stage("copies", (1, 2.0), (2, 33.0))
    with pytest.raises(GateRefused) as refused:
        check(run)
    assert published(run, "sums") == []
    assert published(run, "copies") == []
    [failure] = refused.value.failures
    assert (failure.table, failure.expectation, failure.count) == ("toy.sums", BETWEEN, 1)
    assert str(failure) == (
        f"toy.sums amount ({BETWEEN}): amount is from 0 to 10. Found: 1 of 2 rows. "
        "For example landed_date=2013-01-01, id=2, amount=33.0"
    )
    assert str(refused.value).startswith("toy.sums was refused: 1 expectation(s) failed.")
    index = reports.folder(run) / run.run_id / "index.html"
    assert refused.value.report == str(index)
    page = index.read_text()
    shown = ("Refused", "toy.sums", "amount is from 0 to 10.", "33.0", "toy.copies")
    assert [text for text in shown if text not in page] == []
    assert "amount" in (index.parent / "sums" / "index.html").read_text()
    assert quality(PIPELINE, run.environment, run.days, "csv") == 1
    shown = capsys.readouterr()
    assert f",{DAY},check_clean,toy.sums,refused,2,0,6,1,0,,amount: 1 of 2 rows\n" in shown.out
    assert f"Report: {index}\n" in shown.err


def test_a_refused_day_leaves_the_published_one(run: Run, stage: Callable[..., None]) -> None:
    stage("sums", (1, 2.0))
    audit_and_publish(run, ["sums"])
    stage("sums", (1, 99.0))
    with pytest.raises(GateRefused):
        audit_and_publish(run, ["sums"])
    assert published(run, "sums") == [(DAY, 1, 2.0)]


def test_a_refused_table_tells_what_it_was_made_from(run: Run, spark: SparkSession) -> None:
    for name, digest in (("sums", "d1"), ("copies", "d2")):
        given = Input(name="toy.readings", first_day=DAY, last_day=DAY, digest=digest, version=1)
        origin = Origin(inputs={DAY: (given,)})
        tables.stage_rows(run, name, _frame(spark, (1, 33.0)), None, origin)
    with pytest.raises(GateRefused) as refused:
        check(run)
    assert refused.value.found_in == (f"toy.readings {DAY}..{DAY} d1",)


_COUNTS_FORKS = """
import ctypes
from tests.postgres import Postgres
forks = []
before_fork = ctypes.CFUNCTYPE(None)(lambda: forks.append(1))
getattr(ctypes.CDLL(None), "__register_atfork")(before_fork, None, None, None)
server = Postgres()
try:
    server.start()
finally:
    server.remove()
print(len(forks))
"""


@pytest.mark.usefixtures("postgres")
def test_a_postgresql_is_started_without_a_fork_which_a_live_channel_does_not_bear() -> None:
    command = [sys.executable, "-c", _COUNTS_FORKS]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


def test_a_rerun_changes_nothing(run: Run, stage: Callable[..., None]) -> None:
    stage("sums", (1, 2.0))
    first = audit_and_publish(run, ["sums"])
    stage("sums", (1, 2.0))
    second = audit_and_publish(run.at(run.doing), ["sums"])
    assert (first["changed"], second["changed"]) == (1, 0)


def test_postgresql_gets_what_is_published_and_keeps_nothing_back(
    run: Run,
    stage: Callable[..., None],
    postgres: Postgres,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sums, copies = DERIVED
    pipeline = replace(PIPELINE, derived=(replace(sums, warehouse=True), copies))
    own = replace(run.environment, warehouse_url=postgres.database("warehouse"))
    follows = replace(run, pipeline=pipeline, environment=own)
    postgres.stop()
    stage("sums", (1, 2.0), (2, None))
    stage("copies", (1, 2.0), (2, None))
    metrics = check(follows)
    assert metrics["changed"] == 2
    assert "Connection refused" in str(metrics["warehouse_failed"])
    assert "PostgreSQL is behind the lake" in capsys.readouterr().err
    assert published(run, "sums") == [(DAY, 1, 2.0), (DAY, 2, None)]
    postgres.start()
    metrics = check(follows)
    assert "warehouse_failed" not in metrics
    assert (metrics["warehouse_days"], metrics["warehouse_rows"]) == (1, 2)
    with psycopg.connect(str(own.warehouse_url)) as somebody:
        found = somebody.execute("SELECT landed_date, id, amount FROM toy.sums ORDER BY id")
        assert found.fetchall() == published(run, "sums")
        assert somebody.execute("SELECT to_regclass('toy.copies')").fetchone() == (None,)


def _stage_predictions(spark: SparkSession, run: Run, amount: float) -> None:
    """One for each day after a night of the run; as of the first night it never differs."""
    values = []
    for night in run.days:
        foretold = 1.0 if night == DAY else amount
        values.append((night + timedelta(days=1), 7, foretold))
    rows = spark.createDataFrame(values, "reading_date date, id int, amount double")
    tables.stage_rows(run, "predictions", rows)


def test_what_was_served_stays_and_the_run_says_which_days_differ(
    spark: SparkSession, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = Days(DAY, DAY + timedelta(days=1))
    served = replace(run, days=nights, run_id="served")
    _stage_predictions(spark, served, 2.0)
    audit_and_publish(served, ["predictions"])
    later = replace(
        run,
        days=Days(DAY, DAY + timedelta(days=2)),
        run_id="later",
    )
    _stage_predictions(spark, later, 3.0)
    capsys.readouterr()
    metrics = audit_and_publish(later, ["predictions"])
    foretold = [row[2] for row in published(run, "predictions")]
    assert foretold == [1.0, 2.0, 3.0]
    # Metrics are kept as JSON.
    told = json.loads(json.dumps(metrics))["published"]["predictions"]
    assert (told["rows"], told["changed"]) == (3, True)
    (kept,) = told["kept"]
    assert kept.pop("served_at")
    assert kept == {
        "day": "2013-01-03",
        "rows": 1,
        "served_by": "served",
        "rows_not_published": 1,
    }
    assert capsys.readouterr().out.splitlines() == [
        "toy.predictions: 1 day(s) differ from what was served and stay as they were served:",
        "  - 2013-01-03: 1 rows by served; 1 rows not published",
        "Run again with --rescore to publish them as a new revision.",
    ]


def test_what_was_served_gets_a_revision_when_a_person_says_so(
    spark: SparkSession, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = Days(DAY, DAY + timedelta(days=1))
    for amount in (2.0, 3.0):
        scoring = replace(run, days=nights, rescore=True)
        _stage_predictions(spark, scoring, amount)
        metrics = audit_and_publish(scoring, ["predictions"])
    assert metrics["changed"] == 1
    assert metrics["published"]["predictions"]["kept"] == []  # type: ignore[index]
    assert [row[2] for row in published(run, "predictions")] == [1.0, 3.0]
    assert metrics["published"]["predictions"]["replaced"] == ["2013-01-03"]  # type: ignore[index]
    told = "1 published day(s) have other rows now, 1 in place of 1: 2013-01-03"
    assert capsys.readouterr().out == f"toy.predictions: {told}\n"


def test_a_day_that_is_made_anew_is_told_with_the_rows_that_it_had_and_has(
    run: Run, stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(1, 2.0), (2, 3.0), (3, 4.0)]
    for count in (3, 1):
        stage("sums", *rows[:count])
        audit_and_publish(run, ["sums"])
    told = f"1 published day(s) have other rows now, 1 in place of 3: {DAY}"
    assert capsys.readouterr().out == f"toy.sums: {told}\n"


def test_a_file_that_is_altered_after_the_verdict_is_not_published(
    run: Run, stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("sums", (1, 2.0))
    audit_and_publish(run, ["sums"])
    stage("sums", (1, 3.0))
    (judged,) = require(run, "sums").files
    file = Path(path(run, "sums")) / judged.path
    record = check_stage._record

    def altered_then(*given: Any) -> Path:
        rows = pq.read_table(file, partitioning=None)
        # As many rows as were judged.
        pq.write_table(rows.set_column(1, "amount", pa.array([99.0])), file)
        return record(*given)

    monkeypatch.setattr(check_stage, "_record", altered_then)
    with pytest.raises(NightshiftError, match="Nothing was published: what was judged is not"):
        audit_and_publish(run, ["sums"])
    assert published(run, "sums") == [(DAY, 1, 2.0)]


def test_every_verdict_is_a_row(run: Run, stage: Callable[..., None]) -> None:
    stage("sums", (1, 2.0))
    audit_and_publish(run, ["sums"])
    results = ops.read(run.environment, "check_results")
    shown = results.select(["table_name", "column_name", "severity", "success", "observed"])
    assert [tuple(row.values()) for row in shown.to_pylist()] == [
        ("toy.sums", None, "critical", True, "1 rows"),
        ("toy.sums", "landed_date", "critical", True, "1 rows"),
        ("toy.sums", "rows_of_key", "critical", True, "1 rows"),
        ("toy.sums", "amount", "critical", True, "1 rows"),
        ("toy.sums", "day_of_the_run", "critical", True, "1"),
        ("toy.sums", "rows", "critical", True, "1"),
    ]
    rows = results.to_pylist()
    assert {row["run_id"] for row in rows} == {run.run_id}
    assert {row["stage"] for row in rows} == {"check_clean"}
    assert {row["first_day"] for row in rows} == {DAY}


def let_through(run: Run, why: str = "the meter was changed", day: date = DAY) -> str:
    """Waive the bounds of the amounts in sums; returns the waiver's id."""
    waive(
        PIPELINE,
        run.environment,
        "toy.sums",
        days=Days.of(day),
        expectation=BETWEEN,
        column="amount",
        by="ann",
        why=why,
        # It may be midnight before it is asked for.
        until=waivers.today() + timedelta(days=1),
    )
    return waivers.granted(run.environment, "toy")[0].waiver.waiver_id


def test_a_waiver_lets_a_refused_day_through_and_stays_on_record(
    run: Run,
    stage: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # It stays so, also at midnight.
    today = waivers.today()
    monkeypatch.setattr(waivers, "today", lambda: today)
    stage("sums", (1, 33.0))
    with pytest.raises(GateRefused) as refused:
        audit_and_publish(run, ["sums"])
    until = today + timedelta(days=7)
    [failure] = refused.value.failures
    way = failure.way_out
    assert way == (
        "nightshift waive toy sums --date 2013-01-01 --expectation "
        f"{BETWEEN} --column amount --until {until} --why '…'"
    )
    assert str(refused.value).endswith(f"run again:\n  {way}")
    waiver_id = let_through(run, why="<b>bold</b>")
    metrics = audit_and_publish(run, ["sums"])
    assert published(run, "sums") == [(DAY, 1, 33.0)]
    tomorrow = today + timedelta(days=1)
    told = f"waived by ann because <b>bold</b> until {tomorrow} ({waiver_id})"
    [warning] = metrics["published"]["sums"]["warnings"]  # type: ignore[index]
    assert told in warning
    results = ops.read(run.environment, "check_results").to_pylist()
    [found] = [row for row in results if told in row["observed"]]
    assert (found["severity"], found["success"]) == ("warning", False)
    [used] = json.loads(found["detail"])["waivers"]
    assert (used["waiver_id"], used["by"], used["why"]) == (waiver_id, "ann", "<b>bold</b>")
    # The run goes on after its refusal, and its red report stays.
    folder = reports.folder(run)
    assert "waived by" not in (folder / run.run_id / "index.html").read_text()
    page = (folder / f"{run.run_id}~2" / "index.html").read_text()
    assert "waived by ann because &lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    capsys.readouterr()
    quality(PIPELINE, run.environment, run.days, "csv")
    newest = capsys.readouterr().out.splitlines()[-1]
    assert "toy.sums,passed,1,0,6,0,1," in newest
    assert told in newest


def test_a_waiver_that_ran_out_refuses_again_and_what_it_let_through_stays(
    run: Run, stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_through(run)
    stage("sums", (1, 33.0))
    audit_and_publish(run, ["sums"])
    later = ops.now() + timedelta(days=2)
    monkeypatch.setattr(ops, "now", lambda: later)
    with pytest.raises(GateRefused):
        audit_and_publish(run, ["sums"])
    assert published(run, "sums") == [(DAY, 1, 33.0)]


def test_a_revoked_waiver_and_one_of_another_day_let_nothing_through(
    run: Run, stage: Callable[..., None]
) -> None:
    let_through(run, day=DAY + timedelta(days=1))
    waiver_id = let_through(run)
    assert revoke(PIPELINE, run.environment, waiver_id, "bob", "it was the wrong day") == 0
    stage("sums", (1, 33.0))
    with pytest.raises(GateRefused):
        audit_and_publish(run, ["sums"])
    rows = ops.read(run.environment, "waivers").to_pylist()
    ended = [row for row in rows if row["event"] == "revoked"]
    assert [(row["waiver_id"], row["created_by"], row["why"]) for row in ended] == [
        (waiver_id, "bob", "it was the wrong day")
    ]


@pytest.mark.parametrize("late", ["readings", "others"])
def test_a_late_drop_excuses_what_was_made_of_it_and_nothing_else(
    late: str, run: Run, spark: SparkSession
) -> None:
    others = replace(TOY.feeds[0], name="others", path="others/{date}.csv")
    window = replace(DERIVED[0], window_days=3)
    pipeline = replace(PIPELINE, feeds=(*TOY.feeds, others), derived=(window,))
    run = replace(run, pipeline=pipeline)
    for feed in ("readings", "others"):
        known = DAY + timedelta(days=2 if feed == late else 0)
        rows = _frame(spark, (1, 2.0))
        tables.stage_rows(run, feed, rows, [DAY], Origin(known={DAY: known}))
        tables.publish(run, feed)
    tables.stage_rows(run, "sums", _frame(spark, (1, 33.0)))
    if late == "readings":
        told = audit_and_publish(run, ["sums"])["published"]
        assert "because toy.readings of 2013-01-01 is known from 2013-01-03" in str(told)
        return
    # It reads no row of the others, however late they are.
    with pytest.raises(GateRefused, match="amount is from 0 to 10"):
        audit_and_publish(run, ["sums"])


@pytest.mark.parametrize("is_early", [True, False])
@pytest.mark.parametrize("is_waivable", [True, False])
def test_a_refusal_of_what_was_known_before_a_correction_says_how_to_get_to_the_correction(
    is_early: bool, is_waivable: bool, run: Run, spark: SparkSession
) -> None:
    known_by = DAY if is_early else None
    given = Input(name="toy.readings", first_day=DAY, last_day=DAY, digest="d", known_by=known_by)
    origin = Origin(inputs={DAY: (given,)})
    rows = [(1, 33.0)] if is_waivable else [(1, 2.0), (1, 3.0)]
    tables.stage_rows(run, "sums", _frame(spark, *rows), None, origin)
    with pytest.raises(GateRefused) as refused:
        audit_and_publish(run, ["sums"])
    said = (
        "toy.sums of 2013-01-01 is made as nights before a late correction saw it, and from the "
        "correction next: a good file mends the latter alone. To have nights before see the "
        "correction too: nightshift run toy --restate --from 2013-01-01 --to 2013-01-01"
    )
    assert (said in str(refused.value).splitlines()) == is_early
    # Not beside the word that it cannot be.
    assert ("through" in str(refused.value)) == is_waivable


def test_what_cannot_be_waived_offers_no_waiver(run: Run, stage: Callable[..., None]) -> None:
    stage("sums", (1, 2.0), (1, 3.0))
    with pytest.raises(GateRefused) as refused:
        audit_and_publish(run, ["sums"])
    assert {failure.way_out for failure in refused.value.failures} == {None}
    assert str(refused.value).endswith("and run again: this cannot be waived.")


def test_rows_lost_between_two_tables_block(run: Run, stage: Callable[..., None]) -> None:
    stage("sums", (1, 2.0), (2, 3.0))
    stage("copies", (1, 2.0))
    with pytest.raises(GateRefused, match="Every row of sums has its row here"):
        check(run)


def test_a_table_without_a_suite_is_an_error_that_says_where_to_write_it(
    run: Run, suites: ModuleType
) -> None:
    del suites.copies
    message = (
        r"toy\.copies has no suite\. "
        r"Write `def copies\(days: Days\) -> Suite` in expectations/toy\.py"
    )
    with pytest.raises(UsageError, match=message):
        check(run)


def _without_return(days: Days) -> None:
    sums(days)


def _bounded(least: Any, most: Any) -> Callable[[Days], Suite]:
    return lambda days: replace(sums(days), each_row=(between("amount", least, most),))


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (_without_return, "`sums` of expectations/toy.py gave None: it must return a Suite"),
        (_bounded(None, None), "`sums` of expectations/toy.py: .* lets everything through"),
        (_bounded("a", "b"), r"`sums` .*: between\('amount', 'a', 'b'\): a bound is a number"),
        (_bounded(0, "b"), "`sums` .*: a bound is a number"),
        (_bounded(1, 0), r"`sums` .*: between\('amount', 1, 0\): no value lies there"),
        (_bounded(float("nan"), None), "`sums` .*: a bound is a number"),
        (_bounded(0, Decimal("NaN")), "`sums` .*: a bound is a number"),
        (_bounded(0, DAY), "`sums` .*: these cannot be compared"),
        (_bounded(DAY, datetime(2013, 12, 31, tzinfo=UTC)), "`sums` .*: these cannot be compared"),
    ],
)
def test_a_mistake_in_a_suite_is_told_with_its_function(
    suites: ModuleType, suite: Callable[[Days], Suite], message: str
) -> None:
    suites.sums = suite  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=f"^{message}"):
        suite_of(PIPELINE, "sums")(Days.of(DAY))


@pytest.mark.parametrize(
    "more",
    [{"measures": {"mean": "avg(amuont)"}}, {"derived": {"doubled": "amuont * 2"}}],
    ids=lambda more: next(iter(more)),
)
def test_sql_of_a_suite_about_a_column_that_is_not_there_is_told_with_its_file(
    run: Run, stage: Callable[..., None], suites: ModuleType, more: dict[str, Any]
) -> None:
    suites.sums = lambda days: replace(sums(days), **more)
    stage("sums", (1, 1.0))
    stage("copies", (1, 1.0))
    message = "suite `sums` of expectations/toy.py cannot be judged as it says: .*`amuont`.*amount"
    with pytest.raises(UsageError, match=message):
        check(run)
    assert not exists(run, "sums")


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        ("avg(amount", r"\[PARSE_SYNTAX_ERROR\] Syntax error .*\.$"),
        ("sum(amount) / count_if(id > 9)", r"\[DIVIDE_BY_ZERO\] .* return NULL instead\.$"),
    ],
    ids=["syntax", "division"],
)
def test_sql_of_a_suite_that_cannot_be_asked_is_told_with_its_file(
    run: Run, stage: Callable[..., None], suites: ModuleType, mean: str, message: str
) -> None:
    suites.sums = lambda days: replace(sums(days), measures={"mean": mean})
    stage("sums", (1, 1.0))
    stage("copies", (1, 1.0))
    told = "suite `sums` of expectations/toy.py cannot be judged as it says: "
    with pytest.raises(UsageError, match=told + message):
        check(run)
    assert not exists(run, "sums")


def test_an_unchanged_reference_table_needs_no_verdict(run: Run, suites: ModuleType) -> None:
    suites.sensors = sums  # type: ignore[attr-defined]
    assert audit_and_publish(run, ["sensors"])["tables"] == 0


def test_days_that_nobody_judged_are_said_to_be_so(run: Run) -> None:
    with pytest.raises(UsageError, match="nightshift run toy --date 2013-01-01"):
        quality(PIPELINE, run.environment, run.days, "table")
