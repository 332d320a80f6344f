"""Real rows of one night of every table, and ways to break them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from expectations import flights as suites
from expectations.gate import Check, Verdict, judge
from jobs.transforms import flights as transforms
from pipelines.days import Days
from pipelines.flights import PIPELINE
from tests.reference import flights as reference

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

NIGHT = date(2013, 3, 5)
RAW = tuple(feed.name for feed in PIPELINE.feeds)
_LAST = {
    "flights": "arr_delay IS NULL, tailnum IS NULL",
    "schedule": "tailnum IS NULL",
    "training": "late IS NULL, plane_known = 0",
    "scoring": "plane_known = 0",
}
"""What rows that faults are not planted in have in common: little that could be broken."""


def raw(spark: SparkSession, landing: Path, name: str, day: date) -> DataFrame:
    """The rows of a raw table that landed on the day, from landed files."""
    feed = PIPELINE.feed(name)
    schema = ", ".join(f"{column.name} {column.type}" for column in feed.columns)
    place = landing / PIPELINE.name / feed.path.format(date=day)
    rows = spark.read.schema(schema).options(header=True, nullValue=feed.null_token).csv(str(place))
    return rows.selectExpr("*", f"DATE'{day}' AS landed_date")


def derived(name: str, made: dict[str, DataFrame], day: date) -> DataFrame:
    """The rows that the pipeline's own transform makes of the tables before."""
    table = PIPELINE.table(name)
    return getattr(transforms, name)(
        **{read: made[read] for read in table.reads}, days=Days.of(day)
    )  # type: ignore[no-any-return]


def features(spark: SparkSession, name: str, day: date) -> DataFrame:
    """Training or scoring rows of the reference in plain pandas."""
    import pandas as pd

    rows = reference.training(day) if name == "training" else reference.scoring(day)
    moments = [
        reference.scoring_moment((pd.Timestamp(one) - pd.Timedelta(days=1)).date())
        for one in rows["flight_date"]
    ]
    rows = rows.assign(
        landed_date=day,
        event_timestamp=moments,
        flight_date=[pd.Timestamp(one).date() for one in rows["flight_date"]],
    )
    return spark.createDataFrame(
        rows.astype(object).where(rows.notna(), None), schema=_schema_of(rows)
    )


def predictions(scoring: DataFrame) -> DataFrame:
    """What a model with an opinion of its own would say of the scoring rows."""
    made_by = (
        "'flights' AS model_name, '7' AS model_version, 'abc' AS model_run_id, 'run' AS run_id"
    )
    when = (
        "TIMESTAMP'2013-03-06 05:00:00' AS predicted_at, "
        "12L AS scoring_version, 'v1' AS code_version"
    )
    return scoring.selectExpr(
        *PIPELINE.entity,
        *PIPELINE.carried,
        "0.1 + hour / 50D AS late_probability",
        *f"{made_by}, {when}".split(", "),
    )


def verdict(
    name: str, frame: DataFrame, days: Days | None = None, same_rows: DataFrame | None = None
) -> Verdict:
    """The gate's verdict on a table of flights, by its own suite.

    Beside itself unless another table is given.
    """
    suite = getattr(suites, name)(days or Days.of(NIGHT))
    return judge(
        frame, suite, f"flights.{name}", (same_rows or frame) if suite.same_rows_as else None
    )


def broken(frame: DataFrame, name: str, faults: Sequence[tuple[str, str]]) -> DataFrame:
    """The rows with one fault (column, SQL value) in one row each."""
    order = ", ".join([_LAST.get(name, "1"), *PIPELINE.table(name).key])
    types = dict(frame.dtypes)
    planted: dict[str, list[str]] = {}
    for place, (column, value) in enumerate(faults, start=1):
        planted.setdefault(column, []).append(f"WHEN {place} THEN CAST({value} AS {types[column]})")
    numbered = frame.selectExpr("*", f"row_number() OVER (ORDER BY {order}) AS place")
    return numbered.selectExpr(
        *(
            f"CASE place {' '.join(planted[c])} ELSE {c} END AS {c}" if c in planted else c
            for c in frame.columns
        )
    )


def failed(found: Verdict) -> set[tuple[str, str | None, str]]:
    """The expectations that failed."""
    return {_which(check) for check in found.checks if not check.success}


def failed_columns(found: Verdict) -> set[str | None]:
    """Columns and measures of the failures that block."""
    return {check.column for check in found.failures}


def _which(check: Check) -> tuple[str, str | None, str]:
    return check.expectation, check.column, check.severity


def _schema_of(rows) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
    types = {"f": "double", "i": "long", "M": "timestamp"}
    dates = {"flight_date", "landed_date"}
    return ", ".join(
        f"{name} {'date' if name in dates else types.get(kind.kind, 'string')}"
        for name, kind in rows.dtypes.items()
    )
