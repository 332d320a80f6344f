"""A lake with some weeks of weather, loaded in one pass."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from jobs.commands.land import land
from jobs.night import perform
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.stages import STAGES

WEATHER = pipeline("weather")
LOADED = Days(date(2012, 12, 31), date(2013, 2, 21))
NIGHT = Days.of(LOADED.last)
TOMORROW = date(2013, 2, 22)
CONTENT = """
    SELECT table_name, day, rows, checksum FROM ops.publications
    WHERE changed AND table_name NOT LIKE '%predictions' ORDER BY ALL"""
PREDICTIONS = """
    SELECT * EXCLUDE (model_run_id, run_id, predicted_at) FROM weather.predictions ORDER BY ALL"""
"""What two lakes of the same nights have in common, by SQL."""


def perform_all_stages(environment: Environment, days: Days, run_id: str) -> list[int]:
    """The exit code of each stage."""
    run = Run(pipeline=WEATHER, days=days, environment=environment, run_id=run_id)
    return [perform(run.at(stage).to_json()) for stage in STAGES]


def lake(shared: Environment, folder: Path) -> Environment:
    """The environment of the lake; its server is the shared one."""
    environment = replace(
        shared,
        lake=str(folder / "lake"),
        landing=folder / "landing",
        mlflow_uri=f"sqlite:///{folder}/mlflow.db",
    )
    land(WEATHER, environment, LOADED)
    assert set(perform_all_stages(environment, LOADED, "load")) == {0}
    return environment
