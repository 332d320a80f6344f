"""Publishes days of tables as a stage would, without Spark, and asks PostgreSQL what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import Schema

from jobs.lake import commits
from jobs.lake.commits import Published
from jobs.lake.data_files import found_in
from jobs.lake.locations import partition, path
from jobs.lake.publications import Origin, next_attempt
from jobs.lake.staging import Staging
from jobs.warehouse.catching_up import Caught, catch_up, published_tables
from jobs.warehouse.connection import LIMITS, Limits
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, Pipeline, Table
from pipelines.stages import stage
from tests.jobs.toy import READINGS, SENSORS, TOY

FIRST = date(2013, 1, 5)
FEW_DAYS = [FIRST + timedelta(days=number) for number in range(3)]
QUICK = replace(LIMITS, connect=30, lock=1, statement=30, transaction=90)
"""Quick to find a lock that is held; with all else a machine may pause for seconds."""
PIPELINE = replace(TOY, feeds=(READINGS, SENSORS), carried=("note", "amount"))
"""The toy, whose predictions show a text and a number too."""
SUMS = Table(
    name="sums",
    made_by="transform",
    reads=("readings",),
    key=("n",),
    warehouse=True,
)
"""A derived table that PostgreSQL has too."""
_ROWS_OF_A_GROUP = 10_000
_INSTANT = datetime(2013, 1, 4, 23, 59, 59, 123456, tzinfo=UTC)


class Lake:
    """A lake, and the PostgreSQL that follows it."""

    def __init__(self, environment: Environment, pipeline: Pipeline = PIPELINE) -> None:
        self.environment = environment
        self.pipeline = pipeline
        self.run_id = "night"
        self.origin = Origin()

    def publish(self, rows: Mapping[date, pa.Table], name: str = PREDICTIONS) -> Published:
        """Publish rows for these days in the lake."""
        days = Days(min(rows), max(rows))
        run = Run(
            pipeline=self.pipeline,
            days=days,
            environment=self.environment,
            run_id=self.run_id,
        )
        run = run.at(stage("check_predictions"))
        return commits.publish(run, name, self._staged(run, name, rows))

    def publish_predictions(self, *days: date, salt: str = "") -> None:
        """Publish some predictions for each of the days; another salt gives other ones."""
        self.publish({day: predictions(day, salt) for day in days})

    def catch_up(self, limits: Limits = QUICK, **more: Any) -> Caught:
        """Have PostgreSQL catch up with the predictions."""
        (found,) = self.catch_up_all(limits, **more)
        return found

    def catch_up_all(self, limits: Limits = QUICK, **more: Any) -> list[Caught]:
        """Have PostgreSQL catch up with every table."""
        wanted = published_tables(self.pipeline)
        return catch_up(self.environment, self.pipeline, wanted, limits, **more)

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What PostgreSQL answers."""
        with self.connect() as connection:
            # Tests write their statements themselves.
            answer = connection.execute(statement, values or None)  # type: ignore[arg-type]
            return answer.fetchall()

    def do(self, statement: str) -> None:
        """Have PostgreSQL do something."""
        with self.connect() as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A session of somebody, who waits for no lock for ever."""
        url = str(self.environment.warehouse_url)
        return psycopg.connect(url, options="-c lock_timeout=20s")

    def require_same(self, salts: Mapping[date, str]) -> None:
        """Each of these days is in PostgreSQL once and whole, and no other day is."""
        found: dict[date, list[Any]] = {day: [] for day in salts}
        for row in self.ask("SELECT * FROM toy.predictions ORDER BY reading_date, id"):
            found[row[0]].append(comparable(row))
        for day, salt in salts.items():
            assert found[day] == rows_of(predictions(day, salt)), day

    def _staged(
        self,
        run: Run,
        name: str,
        rows: Mapping[date, pa.Table],
    ) -> Staging:
        folder = f"runs/{uuid4().hex}"
        column = partition(run, name)
        checksums = {}
        for day, own in rows.items():
            checksums[day] = str(hash(str(own.to_pylist())))
            where = Path(path(run, name)) / folder / f"{column}={day}"
            where.mkdir(parents=True)
            stored = own.drop_columns([column])
            pq.write_table(stored, where / "part-0.parquet", row_group_size=_ROWS_OF_A_GROUP)
        first = next(iter(rows.values()))
        schema = json.loads(Schema.from_arrow(first.schema).to_json())
        return Staging(
            folder=folder,
            attempt=next_attempt(run, [name]),
            schema=schema,
            days=tuple(sorted(rows)),
            files=tuple(found_in(path(run, name), folder)),
            checksums=checksums,
            origin=self.origin,
        )


def predictions(day: date, salt: str = "", rows: int = 4) -> pa.Table:
    """Predictions of the toy for a day; another salt gives other ones."""
    notes = [f"Zoë, “{salt}” \\. 'x' \"y\"\n\\.\nlast", "", None, "DROP TABLE toy._predictions; --"]
    amounts = [float("nan"), 0.1, None, float("-inf")]
    return pa.table(
        {
            "reading_date": pa.array([day] * rows, pa.date32()),
            "id": pa.array(range(rows), pa.int32()),
            "note": pa.array(
                [notes[number % 4] for number in range(rows)],
                pa.string(),
            ),
            "amount": pa.array(
                [amounts[number % 4] for number in range(rows)],
                pa.float64(),
            ),
            "prediction": pa.array(
                [(number + 1) / 3e5 for number in range(rows)],
                pa.float64(),
            ),
            "model_name": pa.array(["toy"] * rows, pa.string()),
            "model_version": pa.array([salt or "1"] * rows, pa.string()),
            "model_run_id": pa.array(["f00"] * rows, pa.string()),
            "run_id": pa.array(["night"] * rows, pa.string()),
            "predicted_at": pa.array([_INSTANT] * rows, pa.timestamp("us", tz="UTC")),
            "scoring_version": pa.array([2**40] * rows, pa.int64()),
            "code_version": pa.array([None] * rows, pa.string()),
        }
    )


def rows_of(table: pa.Table) -> list[tuple[object, ...]]:
    """The rows as they are compared."""
    return [comparable(row.values()) for row in table.to_pylist()]


def comparable(row: Iterable[object]) -> tuple[object, ...]:
    """The row with a text in the place of NaN, which equals nothing."""
    return tuple("NaN" if value != value else value for value in row)
