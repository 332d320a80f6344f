"""The command `nightshift quality`.

How the data of some days was judged, and where the report of it lies.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jobs.lake import ops
from jobs.output import show
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.days import Days
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


def quality(pipeline: Pipeline, environment: Environment, days: Days, form: str) -> int:
    """Print a row for each verdict on these days, newest run first, and say where the report is.

    Raises:
        UsageError: nothing has been judged for any of the days.
    """
    pipeline.require_days(days)
    checks = _checks(environment, pipeline.name, days)
    if not checks:
        wanted = (
            f"--date {days.first}" if len(days) == 1 else f"--from {days.first} --to {days.last}"
        )
        raise UsageError(
            f"No data of '{pipeline.name}' has been judged for {days} yet. "
            f"Judge it: nightshift run {pipeline.name} {wanted}"
        )
    show(_COLUMNS, verdicts(pipeline, checks), form)
    for report in dict.fromkeys(check["report"] for check in checks):
        print(f"Report: {report}", file=sys.stderr)
    return 0


def verdicts(pipeline: Pipeline, checks: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """One row for each table that each run judged.

    The newest run first, its tables in the order of a night.
    """
    judged: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for check in checks:
        judged.setdefault(tuple(check[column] for column in _VERDICT), []).append(check)
    order = {f"{pipeline.name}.{table.name}": place for place, table in enumerate(pipeline.tables)}
    newest: dict[str, Any] = {}
    for run_id, _, _, _, at, _ in judged:
        newest[run_id] = max(at, newest.get(run_id, at))
    ordered = sorted(
        judged,
        key=lambda key: (
            -newest[key[0]].timestamp(),
            -key[4].timestamp(),
            order.get(key[5], len(order)),
        ),
    )
    return [_row(key, judged[key]) for key in ordered]


def _checks(environment: Environment, pipeline: str, days: Days) -> list[dict[str, Any]]:
    touching = [
        ("pipeline", "=", pipeline),
        ("first_day", "<=", days.last),
        ("last_day", ">=", days.first),
    ]
    found = ops.read(environment, "check_results", touching).to_pylist()
    return sorted(found, key=lambda check: check["checked_at"], reverse=True)


def _row(key: tuple[Any, ...], checks: list[Mapping[str, Any]]) -> tuple[object, ...]:
    run_id, first, last, stage, at, table = key
    failed = [check for check in checks if not check["success"] and check["severity"] == "critical"]
    warned = [check for check in checks if not check["success"] and check["severity"] != "critical"]
    found = "; ".join(
        f"{check['column_name'] or check['expectation']}: {check['observed']}"
        for check in failed or warned
    )
    rows = json.loads(checks[0]["detail"])["rows"]
    days = f"{first}" if first == last else f"{first}..{last}"
    verdict = "refused" if failed else "passed"
    return (
        f"{at:%Y-%m-%d %H:%M:%S}",
        run_id,
        days,
        stage,
        table,
        verdict,
        rows,
        len(checks),
        len(failed),
        len(warned),
        found,
    )
