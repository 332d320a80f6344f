"""Real rows of one night of every table, and ways to break them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from expectations import flights as suites
from expectations.gate import Verdict, judge
from jobs.transforms import flights as transforms
from pipelines.days import Days
from pipelines.flights import PIPELINE
from tests.expectations.faults import Fault, planted
from tests.reference import flights as reference

if TYPE_CHECKING:
    import pandas as pd
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
_SQL_TYPES = {"f": "double", "i": "long", "M": "timestamp"}
"""NumPy's kind of a column -> its type in SQL."""


def raw(spark: SparkSession, landing: Path, name: str, day: date) -> DataFrame:
    """The rows of a raw table that landed on the day, from landed files."""
    feed = PIPELINE.feed(name)
    schema = ", ".join(f"{column.name} {column.type}" for column in feed.columns)
    file = landing / PIPELINE.name / feed.path.format(date=day)
    reader = spark.read.schema(schema).options(header=True, nullValue="NA")
    rows = reader.csv(str(file))
    return rows.selectExpr("*", f"DATE'{day}' AS landed_date")


def derived(name: str, made: dict[str, DataFrame], day: date) -> DataFrame:
    """The rows that the pipeline's own transform makes of the tables before."""
    function: Callable[..., DataFrame] = getattr(transforms, name)
    inputs = {read: made[read] for read in PIPELINE.table(name).reads}
    return function(**inputs, days=Days.of(day))


def features(spark: SparkSession, name: str, day: date) -> DataFrame:
    """Training or scoring rows of the reference in plain pandas."""
    import pandas as pd

    make = reference.training if name == "training" else reference.scoring
    rows = make(day)
    dates = [pd.Timestamp(flight_date).date() for flight_date in rows["flight_date"]]
    # A flight is scored at the end of the day before.
    moments = [reference.scoring_moment(flight_date - timedelta(days=1)) for flight_date in dates]
    rows = rows.assign(landed_date=day, event_timestamp=moments, flight_date=dates)
    # As objects, because only they can hold None: Spark would take NaN for a value.
    values = rows.astype(object).where(rows.notna(), None)
    return spark.createDataFrame(values, schema=_schema_of(rows))


def predictions(scoring: DataFrame) -> DataFrame:
    """What a model with an opinion of its own would say of the scoring rows."""
    traced = (
        "'flights' AS model_name",
        "'7' AS model_version",
        "'abc' AS model_run_id",
        "'run' AS run_id",
        "TIMESTAMP'2013-03-06 05:00:00' AS predicted_at",
        "12L AS scoring_version",
        "'v1' AS code_version",
    )
    probability = "0.1 + hour / 50D AS late_probability"
    return scoring.selectExpr(*PIPELINE.entity, *PIPELINE.carried, probability, *traced)


def judged(
    name: str,
    frame: DataFrame,
    days: Days | None = None,
    same_rows: DataFrame | None = None,
) -> Verdict:
    """The gate's verdict on a table of flights, by its own suite.

    Beside itself unless another table is given.
    """
    suite = getattr(suites, name)(days or Days.of(NIGHT))
    beside = (same_rows or frame) if suite.same_rows_as else None
    return judge(frame, suite, f"flights.{name}", beside)


def broken(frame: DataFrame, name: str, faults: Sequence[Fault]) -> DataFrame:
    """The rows of a table of flights with one fault in one row each."""
    order = [_LAST.get(name, "1"), *PIPELINE.table(name).key]
    return planted(frame, faults, order)


def _schema_of(rows: pd.DataFrame) -> str:
    columns = [f"{name} {_sql_type(str(name), kind.kind)}" for name, kind in rows.dtypes.items()]
    return ", ".join(columns)


def _sql_type(name: str, kind: str) -> str:
    # pandas keeps dates as objects, as it does text.
    if name in ("flight_date", "landed_date"):
        return "date"
    return _SQL_TYPES.get(kind, "string")
