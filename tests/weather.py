"""A lake with some weeks of weather, loaded in one pass."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from jobs import night
from jobs.commands.land import land
from jobs.lake import sql
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.spec import PREDICTIONS as SERVED
from pipelines.spec import Pipeline
from pipelines.stages import STAGES, Stage

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
OF_THE_RUN = ("model_run_id", "run_id", "predicted_at", "scoring_version", "code_version")
"""Columns of predictions that tell how they were made, and not what was said."""
DATA = STAGES[:5]
"""The stages that make the tables of data."""
SCORED = tuple(one for one in STAGES if one.name not in ("train", "evaluate", "monitor"))
"""What a night does with the models that are there."""


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


def copied(environment: Environment, folder: Path) -> Environment:
    """A lake with the same tables, files and models, which are its own from here on."""
    own = copied_models(environment, folder)
    shutil.copytree(environment.lake, own.lake)
    shutil.copytree(environment.landing, own.landing)
    return own


def copied_models(environment: Environment, folder: Path) -> Environment:
    """A lake and a landing folder without anything, beside a copy of the register of models."""
    registry = folder / "mlflow.db"
    shutil.copy(environment.mlflow_uri.removeprefix("sqlite:///"), registry)
    return replace(
        environment,
        lake=str(folder / "lake"),
        landing=folder / "landing",
        mlflow_uri=f"sqlite:///{registry}",
    )


def make_true(run: Run, stages: tuple[Stage, ...]) -> None:
    """Make everything true up to the last of the run's days, in this process."""
    with performed_here():
        assert night.make_true(run, stages, notify=False) == 0


def rows_of(
    environment: Environment,
    pipeline: Pipeline,
    name: str,
    moment: date | None = None,
) -> list[tuple[object, ...]]:
    """Every row of a table: those in force, or those that the night of that day saw."""
    told = f" EXCLUDE ({', '.join(OF_THE_RUN)})" if name == SERVED else ""
    seen = f" KNOWN AS OF '{moment}'" if moment else ""
    _, rows = sql.query(
        environment, f"SELECT *{told} FROM {pipeline.name}.{name}{seen} ORDER BY ALL"
    )
    return rows
