"""A pipeline of two small feeds, for tests of what every pipeline shares."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.feeds import Column, Feed
from pipelines.model import GroupMean, Training
from pipelines.run import Run
from pipelines.spec import Pipeline
from pipelines.stages import stage

READINGS = Feed(
    name="readings",
    path="readings/{date}.csv",
    columns=(
        Column(name="id", type="int", required=True),
        Column(name="taken", type="date"),
        Column(name="amount", type="double"),
        Column(name="note"),
    ),
    key=("id",),
    null_token="NA",
    max_quarantine_share=0.5,
)
SENSORS = Feed(
    name="sensors",
    path="sensors.csv",
    columns=(Column(name="id", type="int", required=True), Column(name="place", required=True)),
    key=("id",),
    null_token="NA",
    max_quarantine_share=0.5,
)
TOY = Pipeline(
    name="toy",
    title="Which of tomorrow's readings will be high?",
    owner="tests",
    timezone="America/New_York",
    schedule="30 4 * * *",
    first_day=date(2013, 1, 1),
    last_day=date(2013, 12, 31),
    feeds=(READINGS, SENSORS),
    derived=(),
    entity=("reading_date", "id"),
    event_date="reading_date",
    entity_table="readings",
    training=Training(
        task="binary_classification",
        label="high",
        numeric=("amount",),
        categorical=(),
        baselines=(GroupMean(columns=("id",)),),
    ),
)
HEADER = b"id,taken,amount,note\n"


def run_of(
    environment: Environment, first: str, last: str | None = None, stage_name: str = "ingest"
) -> Run:
    """A run of the toy pipeline."""
    days = Days(date.fromisoformat(first), date.fromisoformat(last or first))
    return Run(pipeline=TOY, days=days, environment=environment).at(stage(stage_name))


def drop(environment: Environment, name: str, content: bytes) -> Path:
    """Put a file into the toy's landing folder."""
    path = environment.landing / "toy" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def drop_readings(environment: Environment, day: str, *lines: str) -> Path:
    """Put a day's readings there, under their header."""
    return drop(
        environment, f"readings/{day}.csv", HEADER + "".join(f"{line}\n" for line in lines).encode()
    )


def drop_sensors(environment: Environment, *lines: str) -> Path:
    """Put the register of sensors there."""
    return drop(
        environment, "sensors.csv", ("id,place\n" + "".join(f"{line}\n" for line in lines)).encode()
    )
