"""What Spark says of names, types and SQL that people wrote is told as a mistake of theirs."""

from __future__ import annotations

import re

import pytest

from pipelines.errors import UsageError, explaining

_NAME = "[UNRESOLVED_COLUMN.WITH_SUGGESTION] No `amuont`."
_SYNTAX = "[PARSE_SYNTAX_ERROR] Syntax error at or near 'AS'."
_DIVISION = "[DIVIDE_BY_ZERO] Division by zero. Use `try_divide` to tolerate it."
_SETTING = 'If necessary set "spark.sql.ansi.enabled" to "false" to bypass this error.'
_CAST = "[CAST_INVALID_INPUT] The value 'a' cannot be cast because it is malformed."
_RAISED = "no such shop: 7"
_STACK = "\n\nJVM stacktrace:\norg.apache.spark.SomeException\n\tat org.apache.spark.Some.scala:1"


@pytest.mark.parametrize(
    ("spark_says", "told"),
    [
        (f"{_NAME} SQLSTATE: 42703; line 1 pos 4;\n'Project ['amuont]", _NAME),
        (f"\n{_SYNTAX} SQLSTATE: 42601 (line 1, pos 13)\n\n== SQL ==\navg(a AS `m`", _SYNTAX),
        (f"{_DIVISION} {_SETTING} SQLSTATE: 22012\n== SQL (line 1, position 6) ==", _DIVISION),
        (f"{_CAST} SQLSTATE: 22018", _CAST),
        (f"[USER_RAISED_EXCEPTION] {_RAISED} SQLSTATE: P0001", _RAISED),
    ],
    ids=["name", "syntax", "division", "cast", "raised"],
)
def test_what_people_wrote_is_told_without_the_place_in_a_query_of_ours(
    spark_says: str, told: str
) -> None:
    with pytest.raises(UsageError) as raised, explaining(RuntimeError, "The suite says"):
        raise RuntimeError(spark_says + _STACK)
    assert str(raised.value) == f"The suite says: {told}"


@pytest.mark.parametrize("says", ["[TABLE_OR_VIEW_NOT_FOUND] No `x`.", "", "it went away"])
def test_any_other_fault_stays_what_it_is(says: str) -> None:
    exactly = f"^{re.escape(says)}$"
    with pytest.raises(RuntimeError, match=exactly), explaining(RuntimeError, "The suite says"):
        raise RuntimeError(says)
