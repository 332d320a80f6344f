"""A fact counts by its age at the moment of scoring, wherever that lies beside the night."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from pyspark.sql import DataFrame, SparkSession

from jobs.lake import amounts
from jobs.lake.knowledge import Knowledge
from jobs.stages import features
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.features import Feature, FeatureView
from pipelines.feeds import Column, Feed
from pipelines.run import Run
from pipelines.stages import stage
from tests.jobs.toy import TOY

NIGHT = date(2013, 3, 9)
_COLUMNS = (
    Column(name="id", type="int"),
    Column(name="at", type="timestamp"),
    Column(name="v", type="double"),
)
FACTS = Feed(
    name="facts",
    path="facts/{date}.csv",
    columns=_COLUMNS,
    key=("id",),
)
YOUNG = FeatureView(
    name="young",
    table="facts",
    keys={"id": "id"},
    event="at",
    max_age_hours=23,
    features=(Feature(name="v"),),
)
ANY = replace(
    YOUNG,
    name="any",
    max_age_hours=None,
    features=(Feature(name="w", column="v"),),
)
PIPELINE = replace(
    TOY,
    feeds=(*TOY.feeds, FACTS),
    views=(YOUNG, ANY),
    first_day=date(2013, 1, 1),
    training=replace(TOY.training, numeric=("v", "w")),
)


def _published(environment: Environment, facts: list[tuple[date, int, datetime]]) -> None:
    landed, ids, times = zip(*facts, strict=True)
    columns: dict[str, Any] = {
        "landed_date": pa.array(landed, pa.date32()),
        "id": pa.array(ids, pa.int32()),
        "at": pa.array(times, pa.timestamp("us", "UTC")),
        "v": pa.array([float(one) for one in ids]),
    }
    place = environment.table_path("toy.facts")
    write_deltalake(place, pa.table(columns), partition_by=["landed_date"])


def _asked(spark: SparkSession, questions: dict[int, datetime]) -> DataFrame:
    rows = [f"(DATE '{NIGHT}', {one}, TIMESTAMP '{at}')" for one, at in questions.items()]
    values = ", ".join(rows)
    return spark.sql(f"SELECT * FROM VALUES {values} AS (landed_date, id, event_timestamp)")


def _march(day: int, hour: int) -> datetime:
    return datetime(2013, 3, day, hour, tzinfo=UTC)


def test_a_fact_is_found_however_long_before_the_night_a_row_is_scored(
    spark: SparkSession, environment: Environment
) -> None:
    long_ago = date(2012, 12, 1)
    facts = [
        # Of a row that is scored at noon; it landed on the day before.
        (date(2013, 3, 7), 1, _march(8, 20)),
        # Of rows that landed days after the moment in which they are scored.
        (date(2013, 3, 6), 2, _march(6, 12)),
        (date(2013, 3, 3), 3, _march(3, 12)),
        # Too old for the one view; and it landed before the pipeline's first day.
        (long_ago, 4, datetime(2012, 12, 1, 7, tzinfo=UTC)),
    ]
    _published(environment, facts)
    moments = {
        1: _march(9, 12),
        2: _march(7, 5),
        3: _march(4, 5),
        4: _march(10, 5),
    }
    run = Run(pipeline=PIPELINE, days=Days.of(NIGHT), environment=environment)
    nothing_late = Knowledge(run, {"facts": []})
    joined = features._joined(
        run.at(stage("features")), _asked(spark, moments), Days.of(NIGHT), nothing_late
    )
    found = joined.orderBy("id").collect()
    assert [row["v"] for row in found] == [1.0, 2.0, 3.0, None]
    assert [row["w"] for row in found] == [1.0, 2.0, 3.0, 4.0]


def test_a_night_without_a_row_to_score_reads_no_fact(
    spark: SparkSession, environment: Environment
) -> None:
    days = Days.of(NIGHT).since(4)
    _published(environment, [(day, 1, _march(day.day, 12)) for day in days])
    run = Run(pipeline=PIPELINE, days=Days.of(NIGHT), environment=environment)
    nobody = _asked(spark, {1: _march(10, 5)}).where("false")
    amounts.start()
    nothing_late = Knowledge(run, {"facts": []})
    joined = features._joined(run.at(stage("features")), nobody, run.days, nothing_late)
    assert joined.collect() == []
    assert {"v", "w"} <= {*joined.columns}
    assert amounts.counted().rows_read == 0
