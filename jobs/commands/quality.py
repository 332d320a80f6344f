"""The command `nightshift quality`.

How the data of some days was judged, and where the report of it lies.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobs.lake import ops
from jobs.output import show
from pipelines.days import Days
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

_COLUMNS = (
    "judged at (UTC)",
    "run",
    "days",
    "stage",
    "table",
    "verdict",
    "rows",
    "checks",
    "failed",
    "warnings",
    "found",
)
_VERDICT = ("run_id", "first_day", "last_day", "stage", "checked_at", "table_name")
"""Columns of `ops.check_results` that the checks of one verdict share."""
_Key = tuple[Any, ...]
"""Values of the columns `_VERDICT`."""
_Check = Mapping[str, Any]
"""A row of `ops.check_results`."""


def quality(pipeline: Pipeline, environment: Environment, days: Days, form: str) -> int:
    """Print a row for each verdict on these days, newest run first, and say where the report is.

    Raises:
        UsageError: nothing has been judged for any of the days.
    """
    pipeline.require_days(days)
    checks = _checks(environment, pipeline.name, days)
    if not checks:
        options = f"--from {days.first} --to {days.last}"
        if len(days) == 1:
            options = f"--date {days.first}"
        raise UsageError(
            f"No data of '{pipeline.name}' has been judged for {days} yet. "
            f"Judge it: nightshift run {pipeline.name} {options}"
        )
    show(_COLUMNS, verdicts(pipeline, checks), form)
    for report in dict.fromkeys(check["report"] for check in checks):
        print(f"Report: {report}", file=sys.stderr)
    return 0


def verdicts(pipeline: Pipeline, checks: Iterable[_Check]) -> list[tuple[object, ...]]:
    """One row for each table that each run judged.

    The newest run first, its tables in the order of a night.
    """
    judged: dict[_Key, list[_Check]] = {}
    for check in checks:
        key = tuple(check[column] for column in _VERDICT)
        judged.setdefault(key, []).append(check)
    newest_of_run: dict[str, datetime] = {}
    for run_id, _, _, _, at, _ in judged:
        newest_of_run[run_id] = max(at, newest_of_run.get(run_id, at))
    names = [f"{pipeline.name}.{table.name}" for table in pipeline.tables]

    def newest_first(key: _Key) -> tuple[float, float, int]:
        run_id, _, _, _, at, table = key
        order = names.index(table) if table in names else len(names)
        return (-newest_of_run[run_id].timestamp(), -at.timestamp(), order)

    return [_row(key, judged[key]) for key in sorted(judged, key=newest_first)]


def _checks(
    environment: Environment,
    pipeline: str,
    days: Days,
) -> list[dict[str, Any]]:
    touching = [
        ("pipeline", "=", pipeline),
        ("first_day", "<=", days.last),
        ("last_day", ">=", days.first),
    ]
    checks = ops.read(environment, "check_results", touching).to_pylist()
    return sorted(checks, key=lambda check: check["checked_at"], reverse=True)


def _row(key: _Key, checks: Sequence[_Check]) -> tuple[object, ...]:
    run_id, first, last, stage, at, table = key
    unmet = [check for check in checks if not check["success"]]
    failed = [check for check in unmet if check["severity"] == "critical"]
    warned = [check for check in unmet if check["severity"] != "critical"]
    return (
        f"{at:%Y-%m-%d %H:%M:%S}",
        run_id,
        str(Days(first, last)),
        stage,
        table,
        "refused" if failed else "passed",
        json.loads(checks[0]["detail"])["rows"],
        len(checks),
        len(failed),
        len(warned),
        "; ".join(map(_finding, failed or warned)),
    )


def _finding(check: _Check) -> str:
    return f"{check['column_name'] or check['expectation']}: {check['observed']}"
