"""Nights on record, as runs would have written them: for what must be fast with a year of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from jobs.lake import ops
from jobs.lake.publications import Checksums
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.spec import PREDICTIONS, TRAINING, Pipeline, Table
from pipelines.stages import STAGES

YEAR = Days(date(2012, 12, 31), date(2013, 12, 30))
CHECKS = 235
"""Of a night of flights, nearly."""


def at(night: date) -> datetime:
    """When the night was run."""
    moment = datetime(night.year, night.month, night.day, 9, tzinfo=UTC)
    return moment + timedelta(days=1)


def run_id(night: date) -> str:
    """The id of its run, as Airflow gives it."""
    return f"scheduled__{at(night).isoformat()}"


def write(environment: Environment, pipeline: Pipeline, nights: Days) -> None:
    """Record the nights as published, run, judged, measured, and one model a night."""
    for name, rows in (
        ("publications", publications(pipeline, nights)),
        ("stage_runs", stage_runs(environment, pipeline, nights)),
        ("check_results", check_results(pipeline, nights)),
        ("live_quality", live_quality(pipeline, nights)),
        ("model_events", model_events(pipeline, nights)),
    ):
        ops.append(environment, name, list(rows))
    make_tables(environment, pipeline)


def make_tables(environment: Environment, pipeline: Pipeline) -> None:
    """Make the tables without a row, so that what is recorded of them counts."""
    for table in pipeline.tables:
        number = {TRAINING: pipeline.training.label, PREDICTIONS: pipeline.prediction}
        kinds: dict[str, pa.DataType] = {}
        for name in (table.partition, *table.key):
            kinds[name] = pa.date32() if name.endswith("_date") else pa.string()
        if table.name in number:
            kinds[number[table.name]] = pa.float64()
        rows = pa.schema(kinds).empty_table()
        place = environment.table_path(f"{pipeline.name}.{table.name}")
        write_deltalake(place, rows, partition_by=[table.partition], mode="ignore")


def write_predictions(
    environment: Environment, pipeline: Pipeline, nights: Days, a_day: int
) -> None:
    """The same number of predictions for the day after each night."""
    day = pipeline.event_date
    own = [name for name in (*pipeline.entity, *pipeline.carried) if name != day]
    days = [night + timedelta(days=1) for night in nights for _ in range(a_day)]
    numbers = list(range(len(days)))
    columns: dict[str, Any] = {name: [f"{name} {n}" for n in numbers] for name in own}
    columns[day] = days
    columns["carrier"] = ["UA" if n % 10 else "EV" for n in numbers]
    columns[pipeline.prediction] = [(n * 37 % 100) / 100 for n in numbers]
    columns["model_version"] = ["1"] * len(numbers)
    place = environment.table_path(f"{pipeline.name}.{PREDICTIONS}")
    how: dict[str, Any] = {"mode": "overwrite", "schema_mode": "overwrite"}
    write_deltalake(place, pa.table(columns), partition_by=[day], **how)


def publications(pipeline: Pipeline, nights: Days) -> Iterator[dict[str, Any]]:
    """Every table on every night."""
    checksums = {
        table.name: {table.day_of(night): f"{table.name}{night}" for night in nights}
        for table in pipeline.tables
    }
    raw = {feed.name: feed for feed in pipeline.feeds}
    for number, night in enumerate(nights):
        for table in pipeline.tables:
            if table.name in raw:
                if raw[table.name].is_reference and number:
                    continue
                file = raw[table.name].file(night)
                inputs = [_input(f"{pipeline.name}/{file}", Days.of(night), "digest")]
            else:
                inputs = list(_inputs(pipeline, table, night, checksums))
            yield {
                "pipeline": pipeline.name,
                "table_name": f"{pipeline.name}.{table.name}",
                "day": table.day_of(night),
                # That of the tables which `make_tables` makes.
                "version": 0,
                "attempt": number + 1,
                "run_id": run_id(night),
                "stage": table.made_by,
                "rows": 900,
                "checksum": checksums[table.name][table.day_of(night)],
                "definition": "definition",
                "inputs": inputs,
                "changed": True,
                "code_version": "code",
                "published_at": at(night),
                "known_day": night,
            }


def _inputs(
    pipeline: Pipeline, table: Table, night: date, checksums: dict[str, dict[date, str]]
) -> Iterator[dict[str, Any]]:
    daily = [feed.name for feed in pipeline.feeds if not feed.is_reference]
    days = Days(night - timedelta(days=table.window_days - 1), night)
    for name in table.reads or daily:
        if name not in {feed.name for feed in pipeline.feeds if feed.is_reference}:
            digest = Checksums(checksums[name]).digest(days)
            yield _input(f"{pipeline.name}.{name}", days, digest, known=night)


def _input(
    name: str,
    days: Days,
    digest: str,
    known: date | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "first_day": days.first,
        "last_day": days.last,
        "digest": digest,
        "version": 1,
        "known_from": known,
        "known_by": known,
    }


def stage_runs(
    environment: Environment, pipeline: Pipeline, nights: Days
) -> Iterator[dict[str, Any]]:
    """Every stage on every night."""
    for night in nights:
        report = environment.reports / pipeline.name / f"{night}..{night}" / run_id(night)
        metrics = json.dumps({"rows": 900, "report": str(report / "index.html")})
        for place, stage in enumerate(STAGES):
            yield {
                "run_id": run_id(night),
                "pipeline": pipeline.name,
                "stage": stage.name,
                "first_day": night,
                "last_day": night,
                "status": "done",
                "started_at": at(night) + timedelta(seconds=place),
                "seconds": 2.0,
                "metrics": metrics,
            }


def check_results(pipeline: Pipeline, nights: Days) -> Iterator[dict[str, Any]]:
    """The checks of every night; one in fifty warns."""
    for night in nights:
        for number in range(CHECKS):
            table = pipeline.tables[number % len(pipeline.tables)]
            says = f"measure_{number} is from 1 to 140."
            detail = json.dumps({"says": says, "rows": 900, "least": 1, "most": 140})
            success = (night.toordinal() * 7 + number) % 100 != 0
            yield {
                "run_id": run_id(night),
                "pipeline": pipeline.name,
                "table_name": f"{pipeline.name}.{table.name}",
                "first_day": night,
                "last_day": night,
                "stage": "check_raw",
                "expectation": "expect_column_max_to_be_between",
                "column_name": f"measure_{number}",
                "severity": "warning",
                "success": success,
                "observed": f"{number + night.day}",
                "detail": detail,
                "report": "",
                "checked_at": at(night),
            }


def live_quality(pipeline: Pipeline, nights: Days) -> Iterator[dict[str, Any]]:
    """A measure of every night."""
    for night in nights:
        yield {
            "run_id": run_id(night),
            "pipeline": pipeline.name,
            "landed_date": night,
            "event_date": night,
            "model_version": "1",
            "rows": 900,
            "auc": 0.7 + night.day / 1000,
            "log_loss": 0.5,
            "measured_at": at(night),
        }


def model_events(pipeline: Pipeline, nights: Days) -> Iterator[dict[str, Any]]:
    """A verdict of every night."""
    for number, night in enumerate(nights):
        yield {
            "run_id": run_id(night),
            "pipeline": pipeline.name,
            "as_of": night,
            "event": "kept" if number % 5 else "promoted",
            "model_version": str(number + 1),
            "metrics": json.dumps({"candidate": {"auc": 0.7}, "champion": {"auc": 0.7}}),
            "reason": "Better than the champion in 7.8% of resamples; 75% are needed.",
            "created_at": at(night),
            "who": "the gate",
        }
