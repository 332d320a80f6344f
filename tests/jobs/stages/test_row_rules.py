"""Rows that break a row rule are quarantined, each once, and the others are what is published."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from expectations.row_rules import quarantine_up_to
from expectations.suite import Suite, between
from jobs import night
from jobs.lake import commits, ops, publications, retention, staging, tables
from jobs.lake.commits import Fenced, Published
from jobs.lake.locations import exists, path, version
from jobs.lake.publications import Input, Origin
from jobs.lake.staging import Staging
from jobs.planning.survey import Survey
from jobs.stages.check import audit_and_publish
from jobs.stages.ingest import ingest
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import DataRefused, GateRefused, NightshiftError, UsageError
from pipelines.run import Run
from pipelines.spec import Table
from pipelines.stages import stage
from tests.conftest import SOAK
from tests.jobs.toy import (
    READINGS,
    SENSORS,
    TOY,
    drop_readings,
    drop_sensors,
    run_of,
    run_of_feeds,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST, SECOND = "2013-01-01", "2013-01-02"
DAY = date(2013, 1, 1)
PUBLISH = commits.publish
RULE = "expect_column_values_to_be_between of amount"
REASON = "amount is from 0 to 10. Found: amount = 99.0"
RECORD = '{"id":3,"taken":null,"amount":99.0,"note":"odd"}'
SUMS = Table(
    name="sums",
    made_by="transform",
    reads=("readings",),
    key=("id",),
)


def readings(days: Days) -> Suite:
    return Suite(
        days=days,
        key=("id",),
        has=("amount",),
        each_row=(quarantine_up_to(0.34, between("amount", 0, 10)),),
        each_day=(between("rows", 1, None),),
    )


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The toy's suites, as `expectations/toy.py` would hold them."""
    module = ModuleType("expectations.toy")
    module.__spec__ = ModuleSpec("expectations.toy", None)
    module.readings = readings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "expectations.toy", module)
    return module


@pytest.fixture
def toy(spark: SparkSession, environment: Environment) -> Environment:
    """Two days of drops: on the first a line that is no row, and a row that breaks the rule."""
    drop_sensors(environment, "1,roof")
    drop_readings(environment, FIRST, "1,,0.5,a", "x,,,bad", "2,,1.5,b", "3,,99,odd")
    drop_readings(environment, SECOND, "1,,2.5,c")
    return environment


def _ingest(
    environment: Environment,
    first: str,
    last: str | None = None,
) -> dict[str, Any]:
    return dict(ingest(night._numbered(run_of(environment, first, last))))


def _check(
    environment: Environment,
    first: str,
    last: str | None = None,
) -> dict[str, Any]:
    run = run_of(environment, first, last, "check_raw")
    return dict(audit_and_publish(run, ["readings"]))


def _night(
    environment: Environment,
    first: str,
    last: str | None = None,
) -> dict[str, Any]:
    _ingest(environment, first, last)
    return _check(environment, first, last)


def _rows(environment: Environment, name: str) -> list[tuple[Any, ...]]:
    run = run_of(environment, FIRST)
    if not exists(run, name):
        return []
    rows = tables.read(run, name).orderBy("landed_date", "source_line")
    return [tuple(row) for row in rows.collect()]


def _ids(environment: Environment) -> list[tuple[str, int]]:
    rows = _rows(environment, "readings")
    return [(str(row[4]), row[0]) for row in rows]


def _reasons(environment: Environment) -> list[str]:
    return [row[3] for row in _rows(environment, "readings_quarantine")]


def _versions(environment: Environment) -> list[int]:
    run = run_of(environment, FIRST)
    return [version(run, name) for name in ("readings", "readings_quarantine")]


def test_rows_that_break_a_rule_are_quarantined_and_none_gets_lost(toy: Environment) -> None:
    ingested = _ingest(toy, FIRST)["feeds"]["readings"]
    metrics = _check(toy, FIRST)
    assert _ids(toy) == [(FIRST, 1), (FIRST, 2)]
    file = "toy/readings/2013-01-01.csv"
    assert _rows(toy, "readings_quarantine") == [
        (DAY, file, 3, "id: 'x' is not an int", "x,,,bad", None),
        (DAY, file, 5, REASON, RECORD, RULE),
    ]
    assert (metrics["rows"], metrics["rows_quarantined"], metrics["warnings"]) == (2, 1, 1)
    told = metrics["published"]["readings"]
    assert (told["rows"], told["quarantined"]) == (2, 1)
    in_files = told["rows"] + told["quarantined"] + ingested["quarantined"]
    assert in_files == ingested["in_files"] == 4
    results = ops.read(toy, "check_results").to_pylist()
    [found] = [row for row in results if row["column_name"] == "amount"]
    assert (found["severity"], found["success"]) == ("warning", False)
    assert found["observed"] == "1 of 3 rows, which are quarantined"
    [example] = json.loads(found["detail"])["examples"]
    assert example == {"landed_date": FIRST, "id": "3", "amount": "99.0"}


def test_a_quarantine_that_was_deleted_is_whole_again_when_its_day_is_judged(
    toy: Environment,
) -> None:
    _night(toy, FIRST, SECOND)
    run = run_of(toy, FIRST)
    refused = _rows(toy, "readings_quarantine")
    assert len(refused) == 2
    (published, _) = _versions(toy)
    shutil.rmtree(path(run, "readings_quarantine"))
    assert list(publications.lost(run, "readings_quarantine")) == [DAY, date(2013, 1, 2)]
    _ingest(toy, FIRST)
    # Killed now, the next night must still know that a row is lacking.
    assert publications.lost(run, "readings_quarantine")[DAY].rows == 2
    _check(toy, FIRST)
    assert _rows(toy, "readings_quarantine") == refused
    assert DAY not in publications.lost(run, "readings_quarantine")
    assert _versions(toy)[0] == published


def test_more_of_them_than_the_share_refuse_the_day(toy: Environment) -> None:
    drop_readings(toy, FIRST, "1,,0.5,a", "x,,,bad", "2,,-1,b", "3,,99,odd")
    with pytest.raises(GateRefused) as refused:
        _night(toy, FIRST)
    [failure] = refused.value.failures
    assert str(failure) == (
        f"toy.readings amount ({failure.expectation}): amount is from 0 to 10. "
        "Found: 2 of 3 rows of 2013-01-01 (66.67%), more than the 34.00% of a day that "
        "may be quarantined. For example "
        "landed_date=2013-01-01, id=2, amount=-1.0; landed_date=2013-01-01, id=3, amount=99.0"
    )
    assert "nightshift waive toy readings --date 2013-01-01" in str(refused.value)
    assert _ids(toy) == []
    assert _reasons(toy) == ["id: 'x' is not an int"]


def test_a_range_is_judged_by_the_share_of_each_day(toy: Environment) -> None:
    drop_readings(toy, FIRST, "1,,1,", "2,,2,", "3,,3,", "4,,4,", "5,,5,")
    drop_readings(toy, SECOND, "1,,1,", "2,,99,")
    with pytest.raises(GateRefused, match=r"1 of 2 rows of 2013-01-02 \(50\.00%\)"):
        _night(toy, FIRST, SECOND)


def test_one_pass_over_days_gives_what_their_nights_give(toy: Environment) -> None:
    drop_readings(toy, SECOND, "1,,2.5,c", "2,,2.5,c", "3,,-7,odd")
    for day in (FIRST, SECOND):
        _night(toy, day)
    bulk = replace(toy, lake=f"{toy.lake}_bulk")
    _night(bulk, FIRST, SECOND)
    for name in ("readings", "readings_quarantine"):
        assert _rows(bulk, name) == _rows(toy, name)
    assert len(_reasons(toy)) == 3


def test_a_night_again_changes_no_table(toy: Environment) -> None:
    _night(toy, FIRST)
    versions, rows = _versions(toy), _rows(toy, "readings_quarantine")
    _night(toy, FIRST)
    _check(toy, FIRST)
    assert _versions(toy) == versions
    assert _rows(toy, "readings_quarantine") == rows


def test_ingest_alone_leaves_what_the_rules_have_quarantined(toy: Environment) -> None:
    _night(toy, FIRST)
    # The file is another one, and nothing of it is published yet.
    drop_readings(toy, FIRST, "1,,0.5,a", "y,,,worse", "2,,1.5,b", "3,,99,odd")
    metrics = _ingest(toy, FIRST)["feeds"]["readings"]
    assert (metrics["staged"], metrics["quarantined"]) == (3, 1)
    assert _reasons(toy) == ["id: 'y' is not an int", REASON]
    _check(toy, FIRST)
    assert _reasons(toy) == ["id: 'y' is not an int", REASON]


@pytest.mark.parametrize(
    ("share", "is_told"),
    [
        (0.3, False),
        (0.2, True),
    ],
)
def test_what_rules_have_quarantined_is_no_bad_row_of_the_file(
    toy: Environment, share: float, is_told: bool
) -> None:
    # Of the four rows ingestion refuses one, and the rule moves another.
    _night(toy, FIRST)
    lowered = replace(TOY.feeds[0], max_quarantine_share=share)
    pipeline = replace(TOY, feeds=(lowered, *TOY.feeds[1:]))
    run = replace(run_of(toy, FIRST), pipeline=pipeline)
    (found,) = Survey(run).foreseen_by_record()[0]
    assert ("max_quarantine_share" in found.reason) == is_told
    # Of files that are lost nobody can tell the two apart.
    for file in Path(path(run, "readings_quarantine")).rglob("*.parquet"):
        file.unlink()
    (found,) = Survey(run).foreseen_by_record()[0]
    assert "max_quarantine_share" in found.reason


def test_a_mended_row_comes_back_and_leaves_the_quarantine(toy: Environment) -> None:
    _night(toy, FIRST)
    drop_readings(toy, FIRST, "1,,0.5,a", "x,,,bad", "2,,1.5,b", "3,,9,mended")
    _night(toy, FIRST)
    assert _ids(toy) == [(FIRST, 1), (FIRST, 2), (FIRST, 3)]
    assert _reasons(toy) == ["id: 'x' is not an int"]
    versions = _versions(toy)
    _night(toy, FIRST)
    assert _versions(toy) == versions


def _killed_before_readings(
    run: Run,
    name: str,
    staged: Staging,
    **options: Any,
) -> Published:
    if name == "readings":
        raise KeyboardInterrupt
    return PUBLISH(run, name, staged, **options)


def _check_until_killed(toy: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quarantine is published, and the table is not."""
    with monkeypatch.context() as killed:
        killed.setattr(commits, "publish", _killed_before_readings)
        with pytest.raises(KeyboardInterrupt):
            _check(toy, FIRST)


def test_a_kill_before_the_table_is_published_is_mended_by_the_next_run(
    toy: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ingest(toy, FIRST)
    _check_until_killed(toy, monkeypatch)
    assert _ids(toy) == []
    # Of a corrected file too, whose bad rows are others.
    drop_readings(toy, FIRST, "1,,0.5,a", "2,,1.5,b", "3,,77,odd")
    _night(toy, FIRST)
    assert _ids(toy) == [(FIRST, 1), (FIRST, 2)]
    assert _reasons(toy) == ["amount is from 0 to 10. Found: amount = 77.0"]


def test_nothing_is_staged_again_when_no_row_breaks_a_rule(
    toy: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> Staging:
        raise AssertionError("staged again")

    _ingest(toy, SECOND)
    monkeypatch.setattr(staging, "write", write)
    assert _check(toy, SECOND)["rows_quarantined"] == 0


def test_an_overtaken_attempt_quarantines_nothing(toy: Environment) -> None:
    late = run_of(toy, FIRST)
    # No line of it is quarantined by ingest, so that no later attempt writes the quarantine.
    drop_readings(toy, FIRST, "1,,0.5,a", "2,,1.5,b", "3,,99,odd")
    _ingest(toy, FIRST)
    overtaken = staging.require(late, "readings")
    drop_readings(toy, FIRST, "1,,0.5,a", "2,,1.5,b", "3,,9,mended")
    _ingest(toy, FIRST)
    # As the attempt of a run that began after the first had published.
    newest = replace(staging.require(late, "readings"), attempt=overtaken.attempt + 5)
    commits.publish(late, "readings", newest)
    staging.keep(late, "readings", overtaken)
    with pytest.raises(Fenced, match="published by a later run"):
        _check(toy, FIRST)
    assert _reasons(toy) == []


def test_rows_that_a_declaration_refused_leave_the_quarantine_once_it_is_taken_back(
    toy: Environment,
) -> None:
    def told(run: Run) -> list[tuple[str, str]]:
        """The state of the readings on the first day, with its reason."""
        found = Survey(run).findings(run.pipeline.table("readings"))
        return [(one.state, one.reason) for one in found if one.night == DAY]

    _night(toy, FIRST)
    before = _rows(toy, "readings_quarantine")
    *others, note = READINGS.columns
    of_numbers = replace(READINGS, columns=(*others, replace(note, type="int")))
    strict = run_of_feeds(toy, (of_numbers, SENSORS), FIRST)
    with pytest.raises(DataRefused, match="4 of 4 rows"):
        ingest(night._numbered(strict))
    assert len(_reasons(toy)) == 5
    # It would refuse the day in each night.
    assert told(strict) == [("current", "")]
    why = "toy.readings_quarantine is of another declaration"
    assert told(run_of(toy, FIRST)) == [("stale", why)]
    _night(toy, FIRST)
    assert _rows(toy, "readings_quarantine") == before
    assert told(run_of(toy, FIRST)) == [("current", "")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpublishable:
    """Rows with one that breaks the rule, in the place of a day without, that are refused."""

    more: str
    """A column more, as SQL, in the place of `7 AS more`."""
    why: str
    """The message."""
    inputs: tuple[Input, ...] = ()
    """What they say that they are made from."""


_REPLACED = Input(name="toy.readings", first_day=DAY, last_day=DAY, digest="others")


@pytest.mark.parametrize(
    "refused",
    [
        Unpublishable(
            more="'seven' AS more",
            why="column 'more' is integer in the table, and string in the rows",
        ),
        Unpublishable(
            more="7 AS More",
            why="column 'More' differs only in case from 'more'",
        ),
        Unpublishable(
            more="TIMESTAMP_NTZ '2013-01-01 12:00:00' AS seen",
            why="column 'seen' has moments without a zone",
        ),
        Unpublishable(
            more="7 AS more",
            why="made from rows of toy.readings for .* that have been replaced",
            inputs=(_REPLACED,),
        ),
    ],
    ids=["type", "twin", "zone", "inputs"],
)
@pytest.mark.parametrize("was_bad", [True, False])
def test_of_what_cannot_be_published_the_quarantine_stays_as_it_was(
    spark: SparkSession,
    environment: Environment,
    suites: ModuleType,
    refused: Unpublishable,
    *,
    was_bad: bool,
) -> None:
    def judge(day: str, third: float, more: str, *inputs: Input) -> None:
        judging = run_of(environment, day, stage_name="check_clean")
        run = replace(judging, pipeline=_with(SUMS))
        date_ = f"DATE '{day}'"
        amounts = f"VALUES (1, 2.0D), (2, 3.0D), (3, {third}D) AS of(id, amount)"
        made = spark.sql(f"SELECT {date_} AS landed_date, id, amount, {more} FROM {amounts}")
        origin = Origin(inputs={run.days.first: inputs})
        making = night._numbered(run.at(stage("transform")))
        tables.stage_rows(making, "sums", made, origin=origin)
        audit_and_publish(run, ["sums"])

    suites.sums = readings  # type: ignore[attr-defined]
    before, now = (-1.0, 4.0) if was_bad else (4.0, -1.0)
    judge(SECOND, -1.0, "7 AS more")
    judge(FIRST, before, "7 AS more")
    run = run_of(environment, FIRST)
    quarantined = tables.read(run, "sums_quarantine").collect()
    with pytest.raises(NightshiftError, match=refused.why):
        judge(FIRST, now, refused.more, *refused.inputs)
    assert tables.read(run, "sums_quarantine").collect() == quarantined
    assert len(quarantined) == 1 + was_bad


def _allow(suites: ModuleType, most: int) -> None:
    """Have the rule move out whatever is above that amount."""

    def otherwise(days: Days) -> Suite:
        rule = quarantine_up_to(0.9, between("amount", 0, most))
        return replace(readings(days), each_row=(rule,))

    suites.readings = otherwise  # type: ignore[attr-defined]


_JUDGED_OTHERWISE = (
    "for 2013-01-01: other rows of the same staging, which was judged otherwise, or of one that "
    r"was made at the same time, were published already, by .* make it anew: --stage ingest "
    "--stage check_raw$"
)


def test_a_staging_that_another_rule_judges_otherwise_is_to_be_made_anew(
    toy: Environment, suites: ModuleType
) -> None:
    _night(toy, FIRST)
    _allow(suites, 1)
    with pytest.raises(Fenced, match=f"^toy.readings {_JUDGED_OTHERWISE}"):
        _check(toy, FIRST)
    assert _ids(toy) == [(FIRST, 1), (FIRST, 2)]
    # As the message says.
    _night(toy, FIRST)
    assert _ids(toy) == [(FIRST, 1)]
    assert len(_reasons(toy)) == 3


def test_a_quarantine_that_was_written_by_another_rule_before_a_kill_is_to_be_made_anew(
    toy: Environment, suites: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ingest(toy, FIRST)
    _check_until_killed(toy, monkeypatch)
    _allow(suites, 100)
    with pytest.raises(Fenced, match=f"^toy.readings_quarantine {_JUDGED_OTHERWISE}"):
        _check(toy, FIRST)
    assert _ids(toy) == []
    _night(toy, FIRST)
    assert _ids(toy) == [(FIRST, 1), (FIRST, 2), (FIRST, 3)]
    assert _reasons(toy) == ["id: 'x' is not an int"]


def test_a_table_made_of_the_rest_is_compared_with_the_rest(
    toy: Environment, suites: ModuleType
) -> None:
    def sums(days: Days) -> Suite:
        return Suite(days=days, key=("id",), has=(), same_rows_as="readings")

    suites.sums = sums  # type: ignore[attr-defined]
    _night(toy, FIRST)
    run = replace(run_of(toy, FIRST, stage_name="check_clean"), pipeline=_with(SUMS))
    made = tables.read(run, "readings").select("landed_date", "id")
    tables.stage_rows(run, "sums", made)
    assert audit_and_publish(run, ["sums"])["rows"] == 2


def test_a_derived_table_has_a_quarantine_too(
    spark: SparkSession, environment: Environment, suites: ModuleType
) -> None:
    suites.sums = readings  # type: ignore[attr-defined]
    run = replace(run_of(environment, FIRST, stage_name="check_clean"), pipeline=_with(SUMS))
    at = datetime(2024, 4, 21, 14, 38, 51, 244287, tzinfo=UTC)
    values = [
        (DAY, 1, 2.0, at),
        (DAY, 2, 3.0, at),
        (DAY, 3, -1.0, at),
    ]
    schema = "landed_date date, id int, amount double, `seen.at` timestamp"
    rows = spark.createDataFrame(values, schema)
    tables.stage_rows(run, "sums", rows)
    assert audit_and_publish(run, ["sums"])["rows_quarantined"] == 1
    [row] = tables.read(run, "sums_quarantine").collect()
    assert row.asDict() == {
        "landed_date": DAY,
        "reason": "amount is from 0 to 10. Found: amount = -1.0",
        "record": '{"id":3,"amount":-1.0,"seen.at":"2024-04-21T14:38:51.244287Z"}',
        "rule": RULE,
    }
    assert "sums_quarantine" in retention.names(run)
    # The stage that makes the table again begins after what its last attempt has quarantined.
    making = run.at(stage("transform"))
    assert night._numbered(making).attempt == 3


@pytest.mark.parametrize(
    ("amount", "last"),
    [
        (-1.0, FIRST),
        (4.0, SECOND),
        pytest.param(-1.0, SECOND, marks=SOAK),
        pytest.param(4.0, FIRST, marks=SOAK),
    ],
)
def test_a_quarantine_of_a_derived_table_that_lost_a_data_file_is_made_anew(
    spark: SparkSession,
    environment: Environment,
    suites: ModuleType,
    amount: float,
    last: str,
) -> None:
    def make(amount: float) -> int:
        values = [(day, 1, amount) for day in run.days]
        values += [(day, 2, 2.0) for day in run.days]
        values += [(day, 3, 2.0) for day in run.days]
        rows = spark.createDataFrame(values, "landed_date date, id int, amount double")
        tables.stage_rows(night._numbered(run.at(stage("transform"))), "sums", rows)
        quarantined = audit_and_publish(run, ["sums"])["rows_quarantined"]
        assert isinstance(quarantined, int)
        return quarantined

    suites.sums = readings  # type: ignore[attr-defined]
    judging = run_of(environment, FIRST, last, "check_clean")
    run = replace(judging, pipeline=_with(SUMS))
    assert make(-1.0) == len(run.days)
    folder = Path(path(run, "sums_quarantine"))
    (lost,) = folder.rglob(f"landed_date={FIRST}/*.parquet")
    lost.unlink()
    expected = 0 if amount > 0 else len(run.days)
    assert make(amount) == expected
    found = tables.read(run, "sums_quarantine").collect()
    reasons = [f"amount is from 0 to 10. Found: amount = {amount}"] * expected
    assert [row["reason"] for row in found] == reasons


@pytest.mark.parametrize(
    ("name", "others", "why"),
    [
        ("sensors", (), "a reference file is one whole snapshot"),
        ("predictions", (), "whatever was scored is served"),
        ("sums", ("means",), "its stage makes means from all of its rows"),
    ],
)
def test_what_is_used_whole_must_not_have_a_rule(
    spark: SparkSession,
    environment: Environment,
    suites: ModuleType,
    name: str,
    others: tuple[str, ...],
    why: str,
) -> None:
    def plain(days: Days) -> Suite:
        return Suite(days=days, key=("id",), has=())

    means = Table(
        name="means",
        made_by="transform",
        reads=("sums",),
        key=("id",),
    )
    run = replace(run_of(environment, FIRST, stage_name="check_clean"), pipeline=_with(SUMS, means))
    setattr(suites, name, readings)
    table = run.pipeline.table(name)
    for other in others:
        setattr(suites, other, plain)
    for one in (name, *others):
        schema = f"{table.partition} date, id int, amount double"
        tables.stage_rows(run, one, spark.createDataFrame([], schema))
    with pytest.raises(UsageError, match=rf"toy\.{name} must not have a row rule: {why}"):
        audit_and_publish(run, [name, *others])


def _with(*derived: Table) -> Any:
    return replace(TOY, derived=derived)
