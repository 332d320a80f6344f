"""Every suite of weather passes on real rows, and every expectation of it fails on a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import functions as F

from expectations import weather as suites
from expectations.gate import Verdict, judge
from expectations.row_rules import share_of
from pipelines.environment import Environment
from tests.expectations.faults import Fault, failed, failed_columns, planted
from tests.weather import LOADED, NIGHT, TOMORROW, WEATHER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLES = tuple(table.name for table in WEATHER.tables)
_LATER = "event_timestamp + INTERVAL 1 HOUR"
_FEATURES = [
    ("event_timestamp", "NULL"),
    ("event_timestamp", _LATER),
    ("hour", "NULL"),
    ("station", "'XXX'"),
    ("same_hour_temp", "9999"),
]
FAULTS: dict[str, list[Fault]] = {
    "observations": [
        ("observed_date", "NULL"),
        ("hour", "NULL"),
        ("station", "'XXX'"),
        ("observed_date", "observed_date - 1"),
        ("hour", "24"),
        ("observed_at", "observed_at + INTERVAL 1 HOUR"),
        ("temp", "200"),
        ("dewp", "-99"),
        ("dewp", "temp + 1"),
        ("humid", "101"),
        ("wind_speed", "-1"),
        ("wind_speed", "1048.36"),
        ("precip", "6"),
        ("pressure", "100"),
        ("visib", "50"),
    ],
    "stations": [("station", "'jfk'"), ("lat", "91"), ("lon", "-181")],
    "hours": [
        ("hour", "NULL"),
        ("event_timestamp", "NULL"),
        ("hour_key", "NULL"),
        ("hr_key", "NULL"),
        ("station", "'XXX'"),
        ("forecast_date", "forecast_date - 1"),
        ("event_timestamp", _LATER),
        ("forecast_at", "forecast_at + INTERVAL 1 HOUR"),
        ("hour_key", "'EWR|99'"),
    ],
    "hourly": [
        ("available_at", "NULL"),
        ("hour_key", "NULL"),
        ("station", "'XXX'"),
        ("available_at", "available_at + INTERVAL 1 HOUR"),
        ("available_at", "observed_at"),
        ("temp", "9999"),
    ],
    "daily": [("event_timestamp", "NULL"), ("station", "'XXX'"), ("day_temp", "999")],
    "tiles": [
        ("grain", "NULL"),
        ("key", "NULL"),
        ("n", "NULL"),
        ("sum_temp", "NULL"),
        ("grain", "'zone'"),
        ("n", "3"),
        ("sum_temp", "999999"),
    ],
    "rolling": [
        ("grain", "NULL"),
        ("key", "NULL"),
        ("event_timestamp", "NULL"),
        ("event_timestamp", _LATER),
        ("n_7", "NULL"),
        ("n_28", "NULL"),
        ("n_7", "n_28 + 1"),
        ("temp_28", "9999"),
    ],
    "training": [*_FEATURES, ("temp", "200"), ("forecast_date", "forecast_date - 1")],
    "scoring": [*_FEATURES, ("forecast_date", "forecast_date - 1")],
    "predictions": [
        ("hour", "NULL"),
        ("temperature", "NULL"),
        ("model_version", "NULL"),
        ("model_run_id", "NULL"),
        ("run_id", "NULL"),
        ("predicted_at", "NULL"),
        ("scoring_version", "NULL"),
        ("temperature", "200"),
        ("temperature", "'NaN'"),
    ],
}
"""One fault in one row each."""
_NO_ROW_LEFT_TO_BREAK = {"daily": {"event_error"}}
"""Three rows a day hold three faults."""


@pytest.fixture(scope="module")
def real(weather_lake: Environment, spark: SparkSession) -> Iterator[dict[str, DataFrame]]:
    """The rows of one night of every table, kept in the server.

    Of the register they are those of the day it landed.
    """
    rows: dict[str, DataFrame] = {}
    for name in TABLES:
        table = WEATHER.table(name)
        day = LOADED.first if name == "stations" else NIGHT.first
        day = TOMORROW if name == "predictions" else day
        published = spark.read.format("delta").load(weather_lake.table_path(f"weather.{name}"))
        of_day = published.where(F.col(table.partition) == F.lit(day))
        rows[name] = of_day.persist()
    yield rows
    for frame in rows.values():
        frame.unpersist()


def verdict(name: str, frame: DataFrame, same_rows: DataFrame | None = None) -> Verdict:
    """The gate's verdict by the table's own suite, beside itself unless another is given."""
    days = LOADED if name == "stations" else NIGHT
    suite = getattr(suites, name)(days)
    beside = (same_rows or frame) if suite.same_rows_as else None
    return judge(frame, suite, f"weather.{name}", beside)


def test_real_rows_pass_as_published(real: dict[str, DataFrame]) -> None:
    # The gate has judged them in the stages too; here without the stages' own days.
    for name in ("hours", "training", "predictions"):
        found = verdict(name, real[name])
        assert found.passed, found.failures


@pytest.mark.usefixtures("one_explained")
@pytest.mark.parametrize("name", TABLES)
def test_every_expectation_about_rows_can_fail(real: dict[str, DataFrame], name: str) -> None:
    days = LOADED if name == "stations" else NIGHT
    declared = {
        # A row rule warns of what it quarantines.
        (one.expectation_type, one.column, "warning" if share_of(one) else one.severity.value)
        for one in getattr(suites, name)(days).each_row
    }
    untested = _NO_ROW_LEFT_TO_BREAK.get(name, set())
    faulty = planted(real[name], FAULTS[name], WEATHER.table(name).key)
    found = failed(verdict(name, faulty, same_rows=real[name]))
    assert {one for one in declared if one[1] not in untested} <= found


@pytest.mark.usefixtures("one_explained")
@pytest.mark.parametrize(
    ("name", "change", "caught_by"),
    [
        ("observations", lambda rows: rows.where("hour < 12"), {"rows"}),
        ("observations", lambda rows: rows.where("station <> 'JFK'"), {"stations"}),
        (
            "observations",
            lambda rows: rows.withColumns(
                {"temp": F.expr("(temp - 32) / 1.8"), "dewp": F.expr("(dewp - 32) / 1.8")}
            ),
            {"humidity_error"},
        ),
        ("observations", lambda rows: rows.withColumn("temp", F.expr("NULL")), {"known_share"}),
        ("stations", lambda rows: rows.where("station <> 'JFK'"), {"stations"}),
        ("hours", lambda rows: rows.where("hour < 12"), {"rows"}),
        ("hourly", lambda rows: rows.where("hour_key <> 'JFK|7'"), {"rows_lacking"}),
        ("rolling", lambda rows: rows.where("key LIKE 'JFK%'"), {"keys"}),
        ("tiles", lambda rows: rows.where("key LIKE 'JFK%'"), {"observations"}),
        ("scoring", lambda rows: rows.where("hour < 12"), {"rows", "rows_lacking"}),
        (
            "predictions",
            lambda rows: rows.withColumn("temperature", F.lit(30.0)),
            {"prediction_spread"},
        ),
        (
            "predictions",
            lambda rows: rows.withColumn("model_version", F.col("station")),
            {"models"},
        ),
    ],
)
def test_what_plausibly_breaks_is_refused(
    real: dict[str, DataFrame],
    name: str,
    change: Callable[[DataFrame], DataFrame],
    caught_by: set[str],
) -> None:
    found = verdict(name, change(real[name]), same_rows=real[name])
    assert caught_by <= failed_columns(found)
