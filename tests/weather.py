"""A lake with some weeks of weather, loaded in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from jobs import night
from jobs.commands.land import land
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
    return [night.perform(run.at(stage).to_json()) for stage in STAGES]


@contextmanager
def performed_here() -> Iterator[None]:
    """Stages are performed in this process, on the server that is up."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jobs.services.stage_client.available", lambda environment: True)
        patched.setattr(
            night, "_perform_in_server_or_here", lambda run: night.perform(run.to_json())
        )
        yield


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
