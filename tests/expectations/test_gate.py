"""The gate's verdicts on rows made by hand, and the report that people read of them."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pytest
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.exceptions import InvalidExpectationConfigurationError
from great_expectations.expectations.expectation import Expectation
from pyspark.errors import PySparkException

from expectations import gate
from expectations.data_docs import data_docs
from expectations.gate import MAX_EXAMPLES, Check, Verdict, judge
from expectations.row_rules import quarantine_up_to
from expectations.suite import Suite, between, one_of, present
from jobs.spark import session
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FIRST = date(2013, 1, 1)
SECOND = date(2013, 1, 2)
SUITE = Suite(
    days=Days(FIRST, SECOND),
    key=("id",),
    has=("amount",),
    derived={"doubled": "amount * 2"},
    each_row=(present("amount"), between("doubled", 0, 20)),
    measures={"mean": "avg(amount)"},
    each_day=(
        between("rows", 1, 3),
        between("mean", 1, 5, severity="warning"),
    ),
)
Row = tuple[date | None, int | None, float | None]
"""Day, id, amount."""
GOOD: list[Row] = [
    (FIRST, 1, 2.0),
    (FIRST, 2, 4.0),
    (SECOND, 1, 3.0),
]


def rows(spark: SparkSession, *values: Row) -> DataFrame:
    return spark.createDataFrame(list(values), "landed_date date, id int, amount double")


def judge_things(frame: DataFrame) -> Verdict:
    return judge(frame, SUITE, "toy.things")


def failed(verdict: Verdict) -> dict[str | None, tuple[object, ...]]:
    """Column -> what was observed and the examples, of each check that failed."""
    return {
        check.column: (check.observed, check.examples)
        for check in verdict.checks
        if not check.success
    }


def columns(checks: Sequence[Check]) -> list[str | None]:
    return [check.column for check in checks]


def test_good_rows_pass(spark: SparkSession) -> None:
    verdict = judge_things(rows(spark, *GOOD))
    assert verdict.passed
    assert verdict.rows == 3
    assert failed(verdict) == {}
    assert [(check.column, check.observed) for check in verdict.checks] == [
        (None, "3 rows"),
        ("landed_date", "3 rows"),
        ("rows_of_key", "3 rows"),
        ("amount", "3 rows"),
        ("doubled", "3 rows"),
        ("day_of_the_run", "1 to 1 on 2 days"),
        ("rows", "1 to 2 on 2 days"),
        ("mean", "3 to 3 on 2 days"),
    ]


def test_a_failure_shows_which_rows_failed(spark: SparkSession) -> None:
    verdict = judge_things(rows(spark, *GOOD, (SECOND, 2, 11.0)))
    assert failed(verdict) == {
        "doubled": (
            "1 of 4 rows",
            ({"landed_date": "2013-01-02", "id": "2", "doubled": "22.0"},),
        ),
        "mean": (
            "3 to 7 on 2 days",
            ({"landed_date": "2013-01-02", "mean": "7.0"},),
        ),
    }
    assert columns(verdict.failures) == ["doubled"]
    assert columns(verdict.warnings) == ["mean"]
    assert str(verdict.failures[0]) == (
        "doubled is from 0 to 20. Found: 1 of 4 rows. "
        "For example landed_date=2013-01-02, id=2, doubled=22.0"
    )


def test_a_warning_does_not_block(spark: SparkSession) -> None:
    high = rows(spark, (FIRST, 1, 9.0), (SECOND, 1, 3.0))
    verdict = judge_things(high)
    assert verdict.passed
    assert columns(verdict.warnings) == ["mean"]


def test_two_rows_of_one_key_block(spark: SparkSession) -> None:
    verdict = judge_things(rows(spark, *GOOD, (FIRST, 2, 5.0)))
    observed, _ = failed(verdict)["rows_of_key"]
    assert observed == "2 of 4 rows"


def test_a_row_without_a_day_blocks(spark: SparkSession) -> None:
    verdict = judge_things(rows(spark, *GOOD, (None, 2, 5.0)))
    (failure,) = verdict.failures
    assert (failure.column, failure.observed) == ("landed_date", "1 of 4 rows")
    (told,) = [one for one in verdict.result.results if not one.success]
    assert told.result["unexpected_percent"] == 25


def test_good_rows_are_judged_by_two_questions(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = rows(spark, *GOOD)
    asked: list[list[str]] = []
    collect = type(frame).collect

    def counted(self: DataFrame) -> list[Any]:
        asked.append(self.columns)
        return collect(self)

    monkeypatch.setattr(type(frame), "collect", counted)
    assert judge_things(frame).passed
    of_days, of_rows = asked
    assert of_days[:2] == ["day", "rows"]
    assert len(of_rows) > 2


def test_a_day_of_another_run_blocks(spark: SparkSession) -> None:
    third = date(2013, 1, 3)
    verdict = judge_things(rows(spark, *GOOD, (third, 1, 3.0)))
    assert columns(verdict.failures) == ["day_of_the_run"]


def test_a_day_without_rows_is_judged(spark: SparkSession) -> None:
    verdict = judge_things(rows(spark, *GOOD[:2]))
    assert failed(verdict) == {
        "rows": ("0 to 2 on 2 days", ({"landed_date": "2013-01-02", "rows": "0.0"},))
    }


def test_no_rows_at_all_are_judged(spark: SparkSession) -> None:
    verdict = judge_things(rows(spark, *GOOD).limit(0))
    assert verdict.rows == 0
    assert columns(verdict.failures) == ["rows"]


def test_a_missing_column_blocks_by_name(spark: SparkSession) -> None:
    verdict = judge_things(rows(spark, *GOOD).drop("amount"))
    assert [(check.expectation, check.observed) for check in verdict.failures] == [
        ("expect_table_columns_to_match_set", "no column amount; nothing else was judged")
    ]


def test_an_expectation_that_cannot_be_judged_blocks(spark: SparkSession) -> None:
    misspelled = between("amuont", 0, 9)
    suite = replace(SUITE, each_row=(misspelled,))
    (failure,) = judge(rows(spark, *GOOD), suite, "toy.things").failures
    assert failure.column == "amuont"
    assert "amuont" in str(failure.error)


@pytest.mark.usefixtures("own_sessions")
def test_a_server_that_is_lost_is_a_fault_and_no_verdict(
    shared_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_it_first(*details: object) -> object:
        # As a server that ends in the middle of a verdict.
        own.client.close()
        return validate(*details)

    own = session.connect(shared_environment)
    validate = gate._validate
    monkeypatch.setattr(gate, "_validate", lose_it_first)
    with pytest.raises(PySparkException, match="NO_ACTIVE_SESSION"):
        judge_things(rows(own, *GOOD))


@pytest.mark.parametrize("is_back", [True, False])
def test_files_that_cannot_be_read_are_a_fault_and_no_verdict(
    is_back: bool, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, away = tmp_path / "rows", tmp_path / "away"
    rows(spark, *GOOD).coalesce(1).write.parquet(str(folder))
    (file,) = folder.glob("*.parquet")
    validate = gate._validate

    def lose_it_first(*details: object) -> object:
        # As a store that is away in the middle of a verdict.
        if not away.exists():
            file.rename(away)
            found = validate(*details)
            if is_back:
                shutil.copy(away, file)
            return found
        return validate(*details)

    monkeypatch.setattr(gate, "_validate", lose_it_first)
    frame = spark.read.parquet(str(folder))
    if is_back:
        assert judge_things(frame).failures == ()
    else:
        with pytest.raises(PySparkException, match="FAILED_READ_FILE"):
            judge_things(frame)


def test_an_expectation_that_great_expectations_drops_blocks(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(self: gx.ExpectationSuite, expectation: gxe.Expectation) -> gxe.Expectation:
        if getattr(expectation, "column", None) == "doubled":
            raise InvalidExpectationConfigurationError(
                "the suite logs this and goes on without the expectation"
            )
        return real(self, expectation)

    real = gx.ExpectationSuite._process_expectation
    monkeypatch.setattr(gx.ExpectationSuite, "_process_expectation", process)
    (failure,) = judge_things(rows(spark, *GOOD)).failures
    assert failure.column == "doubled"
    assert failure.error == "Great Expectations did not run it: it is not a valid expectation"


def test_examples_are_bounded(spark: SparkSession) -> None:
    negative: list[Row] = [(FIRST, 1, -1.0)] * (10 * MAX_EXAMPLES)
    verdict = judge_things(rows(spark, *negative))
    (doubled,) = [check for check in verdict.failures if check.column == "doubled"]
    assert len(doubled.examples) == MAX_EXAMPLES


def test_a_text_of_any_length_is_shown_by_its_beginning(spark: SparkSession) -> None:
    texts = "DATE '2013-01-01' AS landed_date, repeat('k', 1000000) AS id, repeat('x', 9000) AS a"
    one_row = spark.sql(f"SELECT {texts}")
    plain = one_of("a", ["q"])
    for rule in (plain, quarantine_up_to(0, plain)):
        suite = Suite(
            days=Days.of(FIRST),
            key=("id",),
            has=("a",),
            each_row=(rule,),
        )
        verdict = judge(one_row, suite, "toy.things")
        (check,) = verdict.failures
        shown = {"landed_date": "2013-01-01", "id": "k" * 200 + "…", "a": "x" * 200 + "…"}
        assert check.examples == (shown,)
        assert len(data_docs(verdict)) < 100_000


def test_the_pages_of_a_process_share_their_compiled_templates(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = judge_things(rows(spark, *GOOD))
    before = data_docs(verdict)
    monkeypatch.delattr("jinja2.Environment.compile")
    again = data_docs(verdict)
    # Each element has an id of its own.
    ids = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
    assert ids.sub("", again) == ids.sub("", before)


def test_rows_are_compared_with_those_of_another_table(spark: SparkSession) -> None:
    suite = Suite(
        days=SUITE.days,
        key=("id",),
        has=(),
        same_rows_as="things",
    )
    other = rows(spark, *GOOD[1:], (SECOND, 9, 1.0))
    verdict = judge(rows(spark, *GOOD), suite, "toy.copies", other)
    assert failed(verdict) == {
        "rows_lacking": (
            "0 to 1 on 2 days",
            ({"landed_date": "2013-01-02", "rows_lacking": "1.0"},),
        ),
        "rows_surplus": (
            "0 to 1 on 2 days",
            ({"landed_date": "2013-01-01", "rows_surplus": "1.0"},),
        ),
    }


@pytest.mark.parametrize(
    "key",
    [
        ("pump {id}", "select"),
        ("here", "There"),
        ("day", "key_0"),
        ("pla`ce", "price"),
    ],
)
def test_rows_are_compared_by_keys_that_sql_would_misread(
    spark: SparkSession, key: tuple[str, str]
) -> None:
    suite = Suite(
        days=SUITE.days,
        key=key,
        has=(),
        same_rows_as="things",
    )
    named = dict(zip(("id", "amount"), key, strict=True))
    good = rows(spark, *GOOD).withColumnsRenamed(named)
    assert judge(good, suite, "toy.copies", good).passed


def test_braces_of_a_measure_are_its_own(spark: SparkSession) -> None:
    suite = replace(
        SUITE,
        measures={"letters": "length('{staged}')"},
        each_day=(between("letters", 8, 8),),
    )
    assert judge(rows(spark, *GOOD), suite, "toy.things").passed


def test_a_share_of_the_run_is_no_expectation() -> None:
    share = gxe.ExpectColumnValuesToNotBeNull(column="id", mostly=0.9)
    with pytest.raises(UsageError, match=r"mostly=0\.9"):
        Suite(days=None, key=("id",), has=(), each_row=(share,))


@pytest.mark.parametrize(
    "expectation",
    [
        gxe.ExpectColumnMeanToBeBetween(column="amount", min_value=1),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeUnique(column="amount"),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["id", "amount"]),
    ],
    ids=lambda expectation: type(expectation).__name__,
)
def test_what_is_about_all_rows_of_a_run_is_no_expectation(expectation: Expectation) -> None:
    message = f"{type(expectation).__name__} is about all rows of a run together"
    with pytest.raises(UsageError, match=message):
        replace(SUITE, each_row=(expectation,))
    with pytest.raises(UsageError, match=message):
        replace(SUITE, each_day=(expectation,))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"key": "id"}, r"Suite: key must be a tuple of names, but is the text 'id'"),
        ({"has": ["amount"]}, r"Suite: has .* \['amount'\] is no tuple of texts"),
        ({"has": ("price.of",)}, r"column 'price.of' .* Name it otherwise where it is made\."),
        ({"each_row": present("amount")}, "Suite: each_row .* is no tuple of Expectation"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_a_suite_refuses_what_is_of_another_kind(odd: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SUITE, **odd)


@pytest.mark.parametrize(
    "name",
    [
        *("rows", "Rows", "rows_of_key", "day_of_the_run", "rows_lacking", "rows_surplus"),
        *("_broken", "_broken0", "landed_date"),
    ],
)
def test_a_measure_has_no_name_of_the_gates_own(name: str) -> None:
    message = f"A measure must not be named '{name}': .* such as 'own_{name.lstrip('_')}'"
    with pytest.raises(UsageError, match=message):
        replace(SUITE, measures={name: "max(amount)"})


@pytest.mark.parametrize("name", ["rows_of_key", "_broken_reason", "_broken_rule", "LANDED_DATE"])
def test_a_derived_column_has_no_name_of_the_gates_own(name: str) -> None:
    with pytest.raises(UsageError, match=f"A derived column must not be named '{name}'"):
        replace(SUITE, derived={name: "amount * 2"})


PAIR = gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="rows", column_B="mean")


def test_an_expectation_about_several_columns_is_named_by_all_of_them() -> None:
    suite = replace(SUITE, each_row=(PAIR,))
    assert PAIR in suite.waivable
    check, _ = gate._judged(PAIR, None, "")
    assert check.column == "rows, mean"
    columns = gxe.ExpectMulticolumnSumToEqual(column_list=["a", "b", "c"], sum_total=1)
    assert gate._judged(columns, None, "")[0].column == "a, b, c"


def test_two_columns_of_a_row_are_compared(spark: SparkSession) -> None:
    more = gxe.ExpectColumnPairValuesAToBeGreaterThanB(
        column_A="amount", column_B="id", description="There is more than its number."
    )
    suite = replace(SUITE, each_row=(more,))
    assert judge(rows(spark, *GOOD), suite, "toy.things").passed
    verdict = judge(rows(spark, *GOOD, (SECOND, 3, 2.5)), suite, "toy.things")
    assert str(verdict.failures[0]) == (
        "There is more than its number. Found: 1 of 4 rows. "
        "For example landed_date=2013-01-02, id=3, amount=2.5"
    )


class _Figures:
    """As Spark gives the figures of the days."""

    columns: Sequence[str] = ("day", "rows", "mean")

    def __init__(self, *rows: tuple[date, float, float | None]) -> None:
        self._rows = rows

    def collect(self) -> Sequence[tuple[date, float, float | None]]:
        return self._rows


def _checks_of_days(
    expectation: Expectation, *rows: tuple[date, float, float | None]
) -> list[tuple[bool, str]]:
    days, _ = gate._by_day(_Figures(*rows))  # type: ignore[arg-type]
    days["landed_date"] = days.index.map(str)
    judged = gate._judge_days(days, SUITE, [expectation])
    return [(check.success, check.observed) for check, _ in judged]


def test_measures_are_compared_with_each_other() -> None:
    good = (FIRST, 3.0, 2.0)
    assert _checks_of_days(PAIR, good) == [(True, "1 days")]
    assert _checks_of_days(PAIR, good, (SECOND, 3.0, 4.0)) == [(False, "2 days")]


def test_a_measure_that_is_no_number_lies_above_every_bound() -> None:
    nothing = (FIRST, 3.0, None)
    at_most_five = between("mean", 0, 5)
    assert _checks_of_days(at_most_five, nothing) == [(True, "no value")]
    assert _checks_of_days(at_most_five, (FIRST, 3.0, math.nan)) == [(False, "inf")]
    assert _checks_of_days(present("mean"), nothing) == [(False, "no value")]


def test_an_error_is_told_without_the_stack_of_java() -> None:
    message = "[INVALID_PARAMETER_VALUE.PATTERN] It is invalid: '('.\n\nJVM stacktrace:\norg.Some"
    told = {"raised_exception": True, "exception_message": message}
    result = ExpectationValidationResult(success=False, exception_info=told)
    check, _ = gate._judged(PAIR, result, "")
    assert check.error == "[INVALID_PARAMETER_VALUE.PATTERN] It is invalid: '('."
    assert str(check).endswith(f"It could not be judged, so mend the suite: {check.error}")


def test_helpers_say_what_must_hold() -> None:
    expectations = (
        present("a"),
        between("a", None, 3),
        between("a", 1000, None),
        one_of("a", ["x", "y"]),
        between("a", FIRST, SECOND),
        between("a", "2013-01-01", "2013-01-02"),  # type: ignore[arg-type]
    )
    assert [expectation.description for expectation in expectations] == [
        "a has a value.",
        "a is at most 3.",
        "a is at least 1,000.",
        "a is one of x, y.",
        "a is from 2013-01-01 to 2013-01-02.",
        "a is from 2013-01-01 to 2013-01-02.",
    ]


def test_helpers_refuse_what_would_hold_of_everything_or_of_letters() -> None:
    with pytest.raises(UsageError, match=r"between\('a', None, None\) lets everything through"):
        between("a", None, None)
    with pytest.raises(UsageError, match=r"its letters\. Of one value: \('EWR',\)"):
        one_of("a", "EWR")


@pytest.mark.parametrize(
    ("expectation", "bounds"),
    [
        (between("rows", 1, 3), (1, 3)),
        (between("rows", None, 2.5), (None, 2.5)),
        (present("amount"), (None, None)),
    ],
)
def test_a_check_tells_its_bounds(
    expectation: Expectation, bounds: tuple[float | None, float | None]
) -> None:
    check, _ = gate._judged(expectation, None, "")
    assert (check.least, check.most) == bounds
