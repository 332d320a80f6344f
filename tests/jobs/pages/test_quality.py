"""The page of data quality counts as SQL over the record does."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import recorded_year
from bench.recorded_year import YEAR
from jobs.lake import ops, sql
from jobs.pages.quality import NIGHTS_SHOWN, ROWS_SHOWN, Key, Segment, Strip, quality, quarantine
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.flights import PIPELINE as FLIGHTS

FIRST, SECOND, THIRD = (date(2013, 1, day) for day in range(1, 4))
ROWS = Key(table="flights.flights", expectation="expect_between", column="rows")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


Row = dict[str, Any]


class Clock:
    """Each time that is asked for is a minute after the one before."""

    minute = 0

    def next(self) -> datetime:
        self.minute += 1
        return datetime(2013, 1, 9, 1, tzinfo=UTC) + timedelta(minutes=self.minute)


CLOCK = Clock()


def judge(environment: Environment, days: Days, observed: str, **more: Any) -> None:
    """Record what a check said of some nights, later than all before it."""
    ops.append(environment, "check_results", [judged(environment, days, observed, **more)])


def judged(environment: Environment, days: Days, observed: str, **more: Any) -> Row:
    """What is recorded of that."""
    detail = {"says": "rows is from 5 to 10.", "least": 5, "most": 10}
    return {
        "run_id": "run",
        "pipeline": "flights",
        "table_name": "flights.flights",
        "first_day": days.first,
        "last_day": days.last,
        "stage": "check_raw",
        "expectation": "expect_between",
        "column_name": "rows",
        "severity": "critical",
        "success": True,
        "observed": observed,
        "detail": json.dumps({**detail, "examples": more.pop("examples", [])}),
        "report": written(environment, "a"),
        "checked_at": CLOCK.next(),
        **more,
    }


@pytest.fixture(autouse=True)
def clock() -> None:
    CLOCK.minute = 0


def test_nothing_is_shown_where_nothing_was_judged(environment: Environment) -> None:
    found = quality(environment, FLIGHTS)
    assert (found.nights, found.tables, found.shown) == (None, (), None)


def test_of_a_night_the_last_verdict_counts(environment: Environment) -> None:
    judge(environment, Days(FIRST, THIRD), "3 to 8 on 3 days", success=False)
    judge(environment, Days.of(SECOND), "7")
    found = quality(environment, FLIGHTS)
    (table,) = found.tables
    (strip,) = table.checks
    states = [(str(one.days), one.state) for one in strip.segments]
    assert states == [
        ("2013-01-01", "failed"),
        ("2013-01-02", "passed"),
        ("2013-01-03", "failed"),
    ]
    assert table.together.segments == strip.segments
    (failure,) = found.failures
    assert (failure.days, failure.state) == (Days(FIRST, THIRD), "failed")
    assert failure.report == "flights/a/index.html"


def written(environment: Environment, name: str) -> str:
    """A report that is there."""
    report = environment.reports / "flights" / name / "index.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.touch()
    return str(report)


def read_files(environment: Environment, days: Days, status: str, **metrics: Any) -> None:
    """Record an attempt to read the files of some nights, later than all before it."""
    report = written(environment, "b")
    row = {
        "run_id": "run",
        "pipeline": "flights",
        "stage": "ingest",
        "first_day": days.first,
        "last_day": days.last,
        "status": status,
        "started_at": CLOCK.next(),
        "seconds": 1.0,
        "metrics": json.dumps({"report": report, **metrics}),
        "error": "the file has no header\nReport: …" if status == "refused" else None,
    }
    ops.append(environment, "stage_runs", [row])


def test_files_that_were_refused_as_they_were_read_are_told_until_others_are_taken(
    environment: Environment,
) -> None:
    few = {"table": "flights.weather", "says": "At most 2.0% of a file's rows are bad."}
    read_files(environment, Days(FIRST, THIRD), "refused", failures=[few])
    # Before anything was judged.
    (refused,) = quality(environment, FLIGHTS).refused_files
    assert (refused.days, refused.report) == (Days(FIRST, THIRD), "flights/b/index.html")
    assert refused.at == datetime(2013, 1, 9, 1, 1, tzinfo=UTC)
    assert refused.says == "flights.weather: At most 2.0% of a file's rows are bad."
    judge(environment, Days.of(FIRST), "7")
    read_files(environment, Days(FIRST, SECOND), "done")
    assert len(quality(environment, FLIGHTS).refused_files) == 1, "the third night is not read yet"
    read_files(environment, Days.of(THIRD), "refused")
    (refused,) = quality(environment, FLIGHTS).refused_files
    assert (refused.days, refused.says) == (Days.of(THIRD), "the file has no header")
    read_files(environment, Days.of(THIRD), "failed")
    assert len(quality(environment, FLIGHTS).refused_files) == 1, "it has taken none"
    read_files(environment, Days.of(THIRD), "done")
    assert quality(environment, FLIGHTS).refused_files == ()


def refuse_for_hole(environment: Environment, night: date) -> None:
    """Record that reading was refused before it began, later than all before it."""
    row = {
        "run_id": "run",
        "pipeline": "flights",
        "stage": "ingest",
        "first_day": night,
        "last_day": night,
        "status": "refused",
        "started_at": CLOCK.next(),
        "error": f"1 night(s) before {night} are not made, or not whole, and lack files:\n  - a",
    }
    ops.append(environment, "stage_runs", [row])


def test_files_that_lack_are_not_told_as_refused_and_hide_none_that_were(
    environment: Environment,
) -> None:
    refuse_for_hole(environment, SECOND)
    assert quality(environment, FLIGHTS).refused_files == ()
    read_files(environment, Days.of(SECOND), "refused")
    refuse_for_hole(environment, SECOND)
    (refused,) = quality(environment, FLIGHTS).refused_files
    assert (refused.days, refused.says) == (Days.of(SECOND), "the file has no header")


def test_a_failure_that_was_judged_again_and_holds_is_told_no_more(
    environment: Environment,
) -> None:
    judge(environment, Days.of(FIRST), "3", success=False)
    judge(environment, Days.of(FIRST), "7")
    found = quality(environment, FLIGHTS)
    assert (found.failures, found.failing) == ((), 0)


def test_two_checks_that_differ_in_their_bounds_hide_nothing(environment: Environment) -> None:
    judge(environment, Days.of(FIRST), "12", success=False, severity="warning")
    CLOCK.minute -= 1
    judge(environment, Days.of(FIRST), "12")
    found = quality(environment, FLIGHTS)
    (table,) = found.tables
    assert [one.state for one in table.together.segments] == ["warning"]
    assert found.failing == 1


def test_a_check_that_is_judged_no_more_is_shown_no_more(environment: Environment) -> None:
    judge(environment, Days.of(FIRST), "3", success=False, column_name="gone")
    judge(environment, Days.of(FIRST), "7")
    found = quality(environment, FLIGHTS)
    assert [one.key for one in found.tables[0].checks] == [ROWS]
    with pytest.raises(UsageError, match="none of its verdicts about the last 366 nights counts"):
        quality(environment, FLIGHTS, "flights.flights|expect_between|gone")


BAD = ("passed", "warning", "failed")
"""From not at all on."""
SEVERITY = {"passed": "critical", "warning": "warning", "failed": "critical"}
VERDICTS = st.lists(
    st.tuples(
        st.sampled_from(["flights.flights", "flights.weather"]),
        st.integers(0, 6),
        st.integers(0, 3),
        st.dictionaries(st.sampled_from("abc"), st.sampled_from(BAD), min_size=1),
    ),
    min_size=1,
    max_size=12,
)
"""Each of a table: its first night, how many more, and what of each check it found."""


@given(verdicts=VERDICTS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_night_is_shown_as_the_last_verdict_about_it(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory, verdicts: list[Any]
) -> None:
    lake = replace(environment, lake=str(tmp_path_factory.mktemp("lake")))
    expected: dict[tuple[str, date], dict[str, str]] = {}
    rows: list[Row] = []
    for table, first, more, found in verdicts:
        days = Days(FIRST + timedelta(days=first), FIRST + timedelta(days=first + more))
        rows += verdict(lake, table, days, found)
        expected |= {(table, night): found for night in days}
    ops.append(lake, "check_results", rows)
    found_of: dict[tuple[str, date], dict[str, str]] = defaultdict(dict)
    together: dict[tuple[str, date], str] = {}
    for shown in quality(lake, FLIGHTS).tables:
        together |= {(shown.table, night): state for night, state in states_of(shown.together)}
        for check in shown.checks:
            assert check.key
            for night, state in states_of(check):
                found_of[shown.table, night][check.key.column] = state
    assert found_of == expected
    assert together.keys() == expected.keys()
    for of, found in expected.items():
        assert together[of] == max(found.values(), key=BAD.index)


def verdict(
    environment: Environment, table: str, days: Days, found: Mapping[str, str]
) -> Iterator[Row]:
    """What is recorded of all checks of a table; of each, by column, what it found."""
    at = CLOCK.next()
    for column, state in found.items():
        how = {"success": state == "passed", "severity": SEVERITY[state]}
        of = {"table_name": table, "column_name": column, "checked_at": at}
        yield judged(environment, days, "7", **of, **how)


def states_of(strip: Strip) -> list[tuple[date, str]]:
    """Of each night that was judged."""
    shown = [one for one in strip.segments if one.state]
    return [(night, one.state) for one in shown for night in one.days]


def test_a_warning_is_no_failure_and_tells_examples(environment: Environment) -> None:
    example = {"carrier": "UA", "delay": "<img>"}
    judge(
        environment,
        Days.of(FIRST),
        "3",
        success=False,
        severity="warning",
        examples=[example],
    )
    (failure,) = quality(environment, FLIGHTS).failures
    assert (failure.state, failure.examples) == ("warning", ("carrier=UA, delay=<img>",))


def test_a_measure_is_shown_over_time_with_its_bounds(environment: Environment) -> None:
    judge(environment, Days(FIRST, SECOND), "6 to 8.5 on 2 days")
    judge(environment, Days.of(THIRD), "7")
    # Of the same verdict.
    CLOCK.minute -= 1
    judge(environment, Days.of(THIRD), "no value", column_name="other")
    found = quality(environment, FLIGHTS, ROWS.text)
    assert found.shown == ROWS
    shown = [(point.days, point.low, point.high) for point in found.trend]
    assert shown == [
        (Days(FIRST, SECOND), 6, 8.5),
        (Days.of(THIRD), 7, 7),
    ]
    told = {(point.least, point.most) for point in found.trend}
    assert told == {(5, 10)}
    other = quality(environment, FLIGHTS, "flights.flights|expect_between|other")
    assert other.trend == ()
    with pytest.raises(UsageError, match="No check 'x' was ever judged"):
        quality(environment, FLIGHTS, "x")


def test_a_measure_is_shown_as_the_last_verdicts_found_it(environment: Environment) -> None:
    fourth = date(2013, 1, 4)
    judge(environment, Days.of(SECOND), "3")
    judge(environment, Days(FIRST, fourth), "6 to 8.5 on 4 days")
    judge(environment, Days.of(FIRST), "7")
    judge(environment, Days.of(fourth), "9")
    found = [(point.days, point.low) for point in quality(environment, FLIGHTS).trend]
    # From left to right, as a line is drawn: each in the middle of its nights.
    assert found == [
        (Days.of(FIRST), 7),
        (Days(FIRST, fourth), 6),
        (Days.of(fourth), 9),
    ]


def test_refused_rows_are_shown_as_sql_gives_them(environment: Environment) -> None:
    name = "flights.weather_quarantine"
    rows = pa.table(
        {
            "landed_date": pa.array([FIRST, SECOND, SECOND]),
            "source_file": ["a.csv", "b.csv", "b.csv"],
            "source_line": [2, 3, 9],
            "reason": ["temp: 'x' is no double"] * 3,
            "record": ["<img src=x onerror=alert(1)>", "2", "3"],
        }
    )
    write_deltalake(environment.table_path(name), rows, partition_by=["landed_date"])
    found = quarantine(environment, FLIGHTS)
    assert found.name == name
    assert list(found.by_day) == [(SECOND, 2), (FIRST, 1)]
    newest_first = f"FROM {name} ORDER BY landed_date DESC, source_line"
    assert (
        list(found.rows)
        == sql.query(
            environment,
            f"SELECT landed_date, source_file, source_line, reason, record {newest_first}",
        )[1]
    )
    one_day = quarantine(environment, FLIGHTS, name, FIRST)
    assert [row[4] for row in one_day.rows] == ["<img src=x onerror=alert(1)>"]
    with pytest.raises(UsageError, match="There is no quarantine 'flights.flights'"):
        quarantine(environment, FLIGHTS, "flights.flights")


def test_a_quarantine_that_cannot_be_opened_hides_no_other(environment: Environment) -> None:
    broken, whole = "flights.planes_quarantine", "flights.weather_quarantine"
    row = {
        "source_file": ["a"],
        "source_line": [1],
        "reason": ["b"],
        "record": ["c"],
    }
    for name in (broken, whole):
        rows = pa.table({"landed_date": [FIRST], **row})
        write_deltalake(environment.table_path(name), rows)
    log = Path(environment.table_path(broken)) / "_delta_log"
    (log / f"{0:020}.json").write_bytes(b"")
    found = quarantine(environment, FLIGHTS)
    assert (found.name, found.all_rows) == (whole, 1)
    assert found.names == (broken, whole)
    # Who asks for it is told.
    with pytest.raises(DeltaError, match="No table metadata"):
        quarantine(environment, FLIGHTS, broken)


def test_how_many_rows_were_refused_is_told_and_how_to_see_the_rest(
    environment: Environment,
) -> None:
    name = "flights.weather_quarantine"
    count = 2 * ROWS_SHOWN + 50
    rows = pa.table(
        {
            "landed_date": [SECOND] * (ROWS_SHOWN + 50) + [FIRST] * ROWS_SHOWN,
            "source_file": ["a.csv"] * count,
            "source_line": list(range(count)),
            "reason": ["'x' is no double"] * count,
            "record": ["x"] * count,
        }
    )
    write_deltalake(environment.table_path(name), rows)
    for day, where in ((None, ""), (SECOND, f"WHERE landed_date = '{SECOND}'")):
        found = quarantine(environment, FLIGHTS, name, day)
        counted = f"SELECT count(*) FROM {name} {where}"
        assert [(found.all_rows,)] == sql.query(environment, counted)[1]
        shown = f"SELECT * FROM {name} {where} ORDER BY landed_date DESC, source_line"
        rest = sql.query(environment, found.rest)[1]
        assert [*found.rows, *rest] == sql.query(environment, shown)[1]
    by_day = f"SELECT landed_date, count(*) FROM {name} GROUP BY 1 ORDER BY 1 DESC"
    assert list(found.by_day) == sql.query(environment, by_day)[1]
    assert quarantine(environment, FLIGHTS, name, FIRST).rest == ""


def test_nights_of_more_than_a_year_ago_are_left_out(environment: Environment) -> None:
    newest = date(2014, 6, 1)
    since = newest - timedelta(days=NIGHTS_SHOWN - 1)
    before = since - timedelta(days=1)
    # Of this no night is shown, of the next two some are; and the last was judged again since.
    judge(environment, Days(FIRST, before), "1", success=False, column_name="other")
    judge(environment, Days(before, since), "2", success=False)
    judge(environment, Days(before, since), "2", success=False, table_name="flights.weather")
    judge(environment, Days.of(since), "6")
    judge(environment, Days.of(newest), "7")
    found = quality(environment, FLIGHTS)
    assert found.nights == Days(since, newest)
    assert found.failing == 1
    assert found.failures[0].key.table == "flights.weather"
    by_table = {one.table: one.together.segments for one in found.tables}
    assert [one.state for one in by_table["flights.flights"]] == ["passed", "", "passed"]
    assert by_table["flights.weather"][0] == Segment(days=Days.of(since), state="failed")
    told = {key.key.column for one in found.tables for key in one.checks if key.key}
    assert told == {"rows"}


def test_a_year_of_checks_is_shown_and_counted_right(
    environment: Environment,
) -> None:
    recorded_year.write(environment, FLIGHTS, YEAR)
    found = quality(environment, FLIGHTS)
    statement = "SELECT count(*) FROM ops.check_results WHERE NOT success"
    assert [(found.failing,)] == sql.query(environment, statement)[1]
    assert sum(len(table.checks) for table in found.tables) == recorded_year.CHECKS
    assert found.nights == YEAR
