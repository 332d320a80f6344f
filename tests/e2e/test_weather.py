"""The second pipeline from landed files to judged predictions, on a slice of winter."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from jobs.commands.land import land
from jobs.commands.quality import quality
from jobs.examples.weather import source
from jobs.lake import ops, sql
from jobs.night import perform
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.stages import STAGES

WEATHER = pipeline("weather")
LOADED = Days(date(2012, 12, 31), date(2013, 2, 20))
NIGHT = Days.of(date(2013, 2, 21))
TOMORROW = "2013-02-22"


def run_all_stages(environment: Environment, days: Days, run_id: str) -> list[int]:
    """The exit code of each stage."""
    run = Run(pipeline=WEATHER, days=days, environment=environment, run_id=run_id)
    return [perform(run.at(stage).to_json()) for stage in STAGES]


@pytest.fixture(scope="module")
def loaded(house: Environment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A lake with some weeks of weather in one pass, and one night after them."""
    folder: Path = tmp_path_factory.mktemp("weather")
    environment = replace(
        house,
        lake=str(folder / "lake"),
        landing=folder / "landing",
        mlflow_uri=f"sqlite:///{folder}/mlflow.db",
    )
    land(WEATHER, environment, Days(LOADED.first, NIGHT.last))
    assert set(run_all_stages(environment, LOADED, "load")) == {0}
    assert set(run_all_stages(environment, NIGHT, "night")) == {0}
    return environment


def rows_of(environment: Environment, statement: str) -> list[tuple[object, ...]]:
    _, rows = sql.query(environment, statement)
    return rows


def test_every_hour_of_tomorrow_is_foretold_once_at_each_airport(loaded: Environment) -> None:
    counted = rows_of(
        loaded,
        f"""SELECT station, count(*), count(DISTINCT forecast_at), count(DISTINCT hour)
            FROM weather.predictions WHERE forecast_date = '{TOMORROW}' GROUP BY 1 ORDER BY 1""",
    )
    assert counted == [(station, 24, 24, 24) for station in ("EWR", "JFK", "LGA")]


def test_the_model_that_serves_beats_climatology_and_persistence(loaded: Environment) -> None:
    events = ops.read(loaded, "model_events", [("pipeline", "=", "weather")]).to_pylist()
    assert events[0]["event"] == "promoted", events[0]["reason"]


def test_foretold_temperatures_are_near_those_that_came(loaded: Environment) -> None:
    observed = source()["observations"]
    came = observed[observed["drop_date"] == date.fromisoformat(TOMORROW)]
    truth = {(row.station, row.hour): float(row.temp) for row in came.itertuples()}
    foretold = rows_of(
        loaded,
        f"""SELECT station, CAST(hour AS VARCHAR), temperature FROM weather.predictions
            WHERE forecast_date = '{TOMORROW}'""",
    )
    errors = [
        float(str(value)) - truth[str(station), str(hour)] for station, hour, value in foretold
    ]
    assert len(errors) == 72
    assert sum(error**2 for error in errors) / len(errors) < 10**2


def test_every_prediction_is_traced_to_its_run_and_model(loaded: Environment) -> None:
    traced = rows_of(
        loaded,
        "SELECT DISTINCT run_id, model_name FROM weather.predictions ORDER BY 1",
    )
    assert traced == [("load", "weather"), ("night", "weather")]


def test_running_the_night_again_changes_no_published_row(loaded: Environment) -> None:
    before = {
        table.name: rows_of(loaded, f"SELECT * FROM weather.{table.name} ORDER BY ALL")
        for table in WEATHER.tables
    }
    assert set(run_all_stages(loaded, NIGHT, "again")) == {0}
    after = {
        table.name: rows_of(loaded, f"SELECT * FROM weather.{table.name} ORDER BY ALL")
        for table in WEATHER.tables
    }
    assert after == before


def test_quality_tells_the_verdict_on_every_table_of_the_night(
    loaded: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quality(WEATHER, loaded, NIGHT, "csv") == 0
    shown = capsys.readouterr().out
    judged = {f"weather.{table.name}" for table in WEATHER.tables} - {"weather.stations"}
    assert {name for name in judged if name in shown} == judged
