"""Row rules and waivers in the gate: which rows go, what is judged of the rest, what is let by."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from itertools import product
from typing import TYPE_CHECKING, Any

import great_expectations.expectations as gxe
import numpy as np
import pytest
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.row_conditions import Column

from expectations import gate
from expectations.gate import Check, Verdict, judge
from expectations.lookup import refuse_odd_rules, suite_of
from expectations.row_rules import broken, quarantine_up_to
from expectations.suite import (
    ROWS_OF_KEY,
    Suite,
    absent,
    between,
    matches,
    one_of,
    present,
)
from pipelines import catalog
from pipelines.days import Days
from pipelines.errors import UsageError
from pipelines.waivers import Waiver

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FIRST = date(2013, 1, 1)
SECOND = date(2013, 1, 2)
BOTH = Days(FIRST, SECOND)
BETWEEN = "expect_column_values_to_be_between"
SUITE = Suite(
    days=BOTH,
    key=("id",),
    has=("amount",),
    derived={"doubled": "amount * 2"},
    each_row=(quarantine_up_to(0.5, between("doubled", 0, 20)), present("amount")),
    measures={"mean": "avg(amount)"},
    each_day=(between("rows", 2, None), between("mean", 0, 5)),
)
Row = tuple[date, int, float | None]
"""Day, id, amount."""
GOOD: list[Row] = [
    (FIRST, 1, 2.0),
    (FIRST, 2, 4.0),
    (SECOND, 1, 3.0),
    (SECOND, 2, 3.0),
]
"""Too few to lose one of a day."""


def rows(spark: SparkSession, *values: Row) -> DataFrame:
    return spark.createDataFrame(list(values), "landed_date date, id int, amount double")


def waiver(column: str, days: Days, expectation: str = BETWEEN) -> Waiver:
    return Waiver(
        waiver_id="w_1",
        days=days,
        expectation=expectation,
        column=column,
        by="ann",
        why="it is known",
        until=date(2030, 1, 1),
    )


def judge_things(frame: DataFrame, *waivers: Waiver, suite: Suite = SUITE) -> Verdict:
    return judge(frame, suite, "toy.things", waivers=waivers)


def check_of(verdict: Verdict, column: str) -> Check:
    [found] = [check for check in verdict.checks if check.column == column]
    return found


@pytest.mark.parametrize(
    "rule",
    [
        present("text"),
        absent("text", says="There is none."),
        between("number", 0, None),
        between("number", None, 1.5),
        between("number", -1, 1e300),
        between("day", date(2013, 1, 2), None),
        gxe.ExpectColumnValuesToBeBetween(
            column="number", min_value=0, max_value=1.5, strict_min=True, strict_max=True
        ),
        one_of("text", ["it's", "a\\b"]),
        one_of("number", [0, 1.5]),
        one_of("flag", [True]),
        matches("text", r"^it's$|\\"),
        matches("text", r"^[^{}]{1,3}$"),
    ],
    ids=str,
)
def test_a_rule_and_great_expectations_find_the_same_rows(
    spark: SparkSession, rule: Expectation
) -> None:
    values = [
        (FIRST, 1, 0.0, "it's", True, FIRST),
        (FIRST, 2, 1.5, "a\\b", False, SECOND),
        (FIRST, 3, float("nan"), "a\nb", None, None),
        (FIRST, 4, None, None, True, FIRST),
        (FIRST, 5, -3.0, "", True, SECOND),
    ]
    schema = "landed_date date, id int, number double, text string, flag boolean, day date"
    frame = spark.createDataFrame(values, schema)
    plain = Suite(
        days=Days.of(FIRST),
        key=("id",),
        has=(),
        each_row=(rule,),
    )
    found = judge_things(frame, suite=plain).checks[3]
    broken_rows = frame.where(broken(rule)).orderBy("id")
    ours = [str(row["id"]) for row in broken_rows.collect()]
    assert ours
    assert sorted(example["id"] for example in found.examples) == ours
    ruled = replace(plain, each_row=(quarantine_up_to(1, rule),))
    verdict = judge_things(frame, suite=ruled)
    assert (verdict.rows, verdict.quarantined) == (5 - len(ours), len(ours))
    assert verdict.passed


def test_the_rest_is_judged_as_if_the_broken_rows_had_never_been_there(
    spark: SparkSession,
) -> None:
    # It would be the second of its key, and its mean too high.
    twice = (FIRST, 2, 99.0)
    verdict = judge_things(rows(spark, *GOOD, twice))
    assert verdict.passed
    assert (verdict.rows, verdict.quarantined) == (4, 1)
    assert [check.column for check in verdict.warnings] == ["doubled"]
    lacking = judge_things(rows(spark, *GOOD[1:], (FIRST, 1, 99.0)))
    assert [check.column for check in lacking.failures] == ["rows"]


@pytest.mark.parametrize(
    "measure",
    ["avg(1 / CAST(amount AS DECIMAL(10, 2)))", "avg(CAST(left(text, 1) AS INT))"],
)
def test_a_row_of_which_no_measure_can_be_made_is_moved_out_first(
    spark: SparkSession, measure: str
) -> None:
    rules = (between("amount", 1, 20), matches("text", "^[0-9]"))
    suite = Suite(
        days=Days.of(FIRST),
        key=("id",),
        has=("amount", "text"),
        each_row=tuple(quarantine_up_to(0.5, rule) for rule in rules),
        measures={"odd": measure},
        each_day=(between("odd", 0, 9),),
    )
    schema = "landed_date date, id int, amount double, text string"
    good, bad = (FIRST, 1, 2.0, "7"), (FIRST, 2, 0.0, "x")
    verdict = judge_things(spark.createDataFrame([good, bad], schema), suite=suite)
    assert (verdict.rows, verdict.quarantined, verdict.passed) == (1, 1, True)
    # What no rule moves out is told as ever.
    without = replace(suite, each_row=(quarantine_up_to(0.5, between("id", 1, 9)),))
    with pytest.raises(Exception, match="DIVIDE_BY_ZERO|CAST_INVALID_INPUT"):
        judge_things(spark.createDataFrame([good, bad], schema), suite=without)


@pytest.mark.parametrize("more", [{"each_row": ()}, {"measures": {}}])
def test_what_no_rule_explains_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, spark: SparkSession, more: dict[str, Any]
) -> None:
    asked = []

    def lost(*_: object) -> None:
        asked.append(1)
        raise ConnectionError("away")

    monkeypatch.setattr(gate, "_measure", lost)
    with pytest.raises(ConnectionError):
        judge_things(rows(spark, *GOOD), suite=replace(SUITE, **more))
    assert asked == [1]


def test_a_rule_without_a_description_is_named_by_its_kind(spark: SparkSession) -> None:
    found = []

    def set_aside(good: DataFrame, bad: DataFrame) -> DataFrame:
        found.extend(row["_broken_reason"] for row in bad.collect())
        return good

    rule = gxe.ExpectColumnValuesToNotBeNull(column="amount")
    suite = Suite(
        days=Days.of(FIRST),
        key=("id",),
        has=("amount",),
        each_row=(quarantine_up_to(1, rule),),
    )
    judge(rows(spark, (FIRST, 1, None)), suite, "toy.things", set_aside=set_aside)
    assert found == ["expect_column_values_to_not_be_null Found: amount = null"]


def test_a_bound_of_numpy_is_a_number() -> None:
    values = [np.int64(0), np.float64(3.5)]
    rule = quarantine_up_to(0.1, one_of("x", values))
    assert broken(rule) == "coalesce(NOT (`x` IN (0, CAST('3.5' AS DOUBLE))), false)"


def test_a_day_beyond_what_python_knows_is_shown_as_text(spark: SparkSession) -> None:
    far = "date_add(DATE '9999-12-31', 1) AS until"
    frame = spark.sql(f"SELECT DATE '2013-01-01' AS landed_date, 1 AS id, {far}")
    rule = quarantine_up_to(1, between("until", FIRST, SECOND))
    plain = Suite(
        days=Days.of(FIRST),
        key=("id",),
        has=("until",),
        each_row=(rule,),
    )
    verdict = judge_things(frame, suite=plain)
    assert (verdict.quarantined, verdict.passed) == (1, True)
    (example,) = check_of(verdict, "until").examples
    assert example["until"] == "+10000-01-01"


def test_an_instant_beyond_what_python_knows_keeps_no_verdict_from_being_told(
    spark: SparkSession,
) -> None:
    end = "timestamp '9999-12-31 23:59:59-05:00'"
    frame = spark.sql(f"SELECT DATE '2013-01-01' AS landed_date, {end} AS until, 99.0D AS amount")
    rule = between("amount", 0, 20)
    plain = Suite(
        days=Days.of(FIRST),
        key=("until",),
        has=("amount",),
        each_row=(rule,),
    )
    (failed,) = judge_things(frame, suite=plain).failures
    assert (failed.observed, failed.error, failed.examples) == ("some of 1 rows", None, ())
    assert judge_things(frame, waiver("amount", BOTH), suite=plain).passed
    ruled = replace(plain, each_row=(quarantine_up_to(1, rule),))
    verdict = judge_things(frame, suite=ruled)
    assert (verdict.quarantined, verdict.passed) == (1, True)
    (example,) = check_of(verdict, "amount").examples
    assert example == {
        "landed_date": "2013-01-01",
        "until": "+10000-01-01 04:59:59",
        "amount": "99.0",
    }


def test_a_reason_shows_of_a_long_text_the_beginning(spark: SparkSession) -> None:
    reasons = []

    def set_aside(good: DataFrame, bad: DataFrame) -> DataFrame:
        reasons.extend(row["_broken_reason"] for row in bad.collect())
        return good

    long = "DATE '2013-01-01' AS landed_date, 1 AS id, repeat('x', 9000) AS text"
    rule = quarantine_up_to(1, one_of("text", ["q"]))
    suite = Suite(
        days=Days.of(FIRST),
        key=("id",),
        has=("text",),
        each_row=(rule,),
    )
    judge(spark.sql(f"SELECT {long}"), suite, "toy.things", set_aside=set_aside)
    assert reasons == [f"text is one of q. Found: text = {'x' * 200}"]


def test_rows_are_set_aside_once_with_their_reasons(spark: SparkSession) -> None:
    def set_aside(good: DataFrame, bad: DataFrame) -> DataFrame:
        asides.append(bad.collect())
        return good

    asides: list[list[object]] = []
    odd = rows(spark, *GOOD, (SECOND, 3, 10.5))
    judge(odd, SUITE, "toy.things", set_aside=set_aside)
    assert [[tuple(row) for row in one] for one in asides] == [  # type: ignore[call-overload]
        [
            (
                SECOND,
                3,
                10.5,
                "doubled is from 0 to 20. Found: doubled = 21.0",
                f"{BETWEEN} of doubled",
            )
        ]
    ]
    judge(rows(spark, *GOOD), SUITE, "toy.things", set_aside=set_aside)
    assert len(asides) == 1


def test_exactly_the_share_of_a_day_is_within_it(spark: SparkSession) -> None:
    half = [(SECOND, 3, 99.0), (SECOND, 4, 99.0)]
    assert judge_things(rows(spark, *GOOD, *half)).passed
    more = judge_things(rows(spark, *GOOD, *half, (SECOND, 5, 99.0)))
    failure = check_of(more, "doubled")
    assert failure.blocks
    assert failure.observed == (
        "3 of 5 rows of 2013-01-02 (60.00%), more than the 50.00% of a day that may be quarantined"
    )


@pytest.mark.parametrize(
    ("share", "expectation", "why"),
    [
        (1.1, between("a", 0, 1), "no share of a day's rows"),
        (-0.1, between("a", 0, 1), "no share of a day's rows"),
        ("1", between("a", 0, 1), "no share of a day's rows"),
        (0.1, between("a", 0, 1, severity="warning"), "is a warning"),
        (0.1, gxe.ExpectColumnValuesToBeUnique(column="a"), "does not say which rows break it"),
        (0.1, one_of("a", [1j]), "cannot compare with 1j"),
        (
            0.1,
            gxe.ExpectColumnValuesToNotBeNull(column="a", row_condition=Column("b") == 1),
            "has a row_condition, which no row rule heeds",
        ),
    ],
)
def test_what_cannot_quarantine_is_refused_when_it_is_declared(
    share: float, expectation: Expectation, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        quarantine_up_to(share, expectation)


def test_a_suite_refuses_rules_that_are_about_no_row_of_its_own() -> None:
    rule = quarantine_up_to(0.1, between("a", 0, 1))
    with pytest.raises(UsageError, match="an expectation of each_day cannot quarantine"):
        replace(SUITE, each_day=(rule,))
    with pytest.raises(UsageError, match="Give the rule to others"):
        replace(SUITE, same_rows_as="others")
    for column in (ROWS_OF_KEY, "landed_date"):
        with pytest.raises(UsageError, match=f"cannot be about '{column}'"):
            replace(SUITE, each_row=(quarantine_up_to(0.1, present(column)),))


@pytest.mark.parametrize("name", catalog.names())
def test_no_table_of_a_pipeline_has_a_rule_that_its_check_would_refuse(name: str) -> None:
    pipeline = catalog.pipeline(name)
    days = Days.of(pipeline.first_day)
    stages = {table.made_by for table in pipeline.tables}
    for maker in stages:
        made = [table.name for table in pipeline.tables if table.made_by == maker]
        suites = {table: suite_of(pipeline, table)(days) for table in made}
        refuse_odd_rules(pipeline, suites)


def test_a_waiver_of_every_day_makes_a_failure_a_warning(spark: SparkSession) -> None:
    high = rows(spark, *GOOD, (FIRST, 3, 9.9), (FIRST, 4, 9.9))
    assert [check.column for check in judge_things(high).failures] == ["mean"]
    verdict = judge_things(high, waiver("mean", BOTH))
    assert verdict.passed
    waived = check_of(verdict, "mean")
    assert waived.severity == "warning"
    assert not waived.success
    assert waived.observed.endswith("waived by ann because it is known until 2030-01-01 (w_1)")
    assert [one.waiver_id for one in waived.waivers] == ["w_1"]


def test_a_waiver_of_one_day_leaves_the_others_as_they_are(spark: SparkSession) -> None:
    first = [(FIRST, 3, None)]
    both = rows(spark, *GOOD, *first, (SECOND, 3, None))
    of_first = waiver("amount", Days.of(FIRST), "expect_column_values_to_not_be_null")
    verdict = judge_things(both, of_first)
    [failure] = verdict.failures
    assert failure.observed == "1 of 3 rows"
    assert [example["landed_date"] for example in failure.examples] == ["2013-01-02"]
    assert judge_things(rows(spark, *GOOD, *first), of_first).passed


def test_a_waiver_of_a_measure_holds_for_its_days_alone(spark: SparkSession) -> None:
    days_and_numbers = product((FIRST, SECOND), (3, 4, 5))
    high = [(day, number, 9.9) for day, number in days_and_numbers]
    verdict = judge_things(
        rows(spark, *GOOD, *high),
        waiver("mean", Days.of(SECOND)),
    )
    [failure] = verdict.failures
    assert [example["landed_date"] for example in failure.examples] == ["2013-01-01"]


def test_waivers_of_other_days_are_not_told_as_what_let_a_day_through(spark: SparkSession) -> None:
    high = [(FIRST, number, 9.9) for number in (1, 2, 3)]
    later = waiver("mean", Days.of(SECOND))
    of_others = replace(later, waiver_id="w_2", by="bob")
    verdict = judge_things(
        rows(spark, *high),
        waiver("mean", Days.of(FIRST)),
        of_others,
        suite=replace(SUITE, days=Days.of(FIRST)),
    )
    waived = check_of(verdict, "mean")
    assert [one.waiver_id for one in waived.waivers] == ["w_1"]
    assert "bob" not in waived.observed


def test_a_waived_rule_still_quarantines_the_rows(spark: SparkSession) -> None:
    many = [(FIRST, number, 99.0) for number in range(3, 9)]
    frame = rows(spark, *GOOD, *many)
    assert not judge_things(frame, waiver("doubled", Days.of(SECOND))).passed
    verdict = judge_things(frame, waiver("doubled", Days.of(FIRST)))
    assert verdict.passed
    assert (verdict.rows, verdict.quarantined) == (4, 6)
    assert "6 of 8 rows of 2013-01-01 (75.00%)" in check_of(verdict, "doubled").observed


def test_what_makes_a_table_one_cannot_be_waived(spark: SparkSession) -> None:
    twice = rows(spark, *GOOD, (FIRST, 2, 1.0))
    waivers = [waiver(ROWS_OF_KEY, BOTH, "expect_column_values_to_be_in_set")]
    waivers.append(waiver("amuont", BOTH))
    misspelled = replace(SUITE, each_row=(between("amuont", 0, 9),))
    verdict = judge_things(twice, *waivers, suite=misspelled)
    assert [check.column for check in verdict.failures] == [ROWS_OF_KEY, "amuont"]
    assert present("id") not in replace(SUITE, each_row=(present("id"),)).waivable
