"""The second pipeline from landed files to judged predictions, on a slice of winter."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from jobs.commands.quality import quality
from jobs.examples.weather import source
from jobs.lake import ops, sql
from pipelines.environment import Environment
from tests.weather import LOADED, NIGHT, TOMORROW, WEATHER, perform_all_stages


def rows_of(environment: Environment, statement: str) -> list[tuple[object, ...]]:
    _, rows = sql.query(environment, statement)
    return rows


def test_every_hour_of_tomorrow_is_foretold_once_at_each_airport(weather_lake: Environment) -> None:
    counted = rows_of(
        weather_lake,
        f"""SELECT station, count(*), count(DISTINCT forecast_at), count(DISTINCT hour)
            FROM weather.predictions WHERE forecast_date = '{TOMORROW}' GROUP BY 1 ORDER BY 1""",
    )
    assert counted == [(station, 24, 24, 24) for station in ("EWR", "JFK", "LGA")]


def test_the_model_that_serves_beats_climatology_and_persistence(weather_lake: Environment) -> None:
    first = min(
        ops.read(weather_lake, "model_events", [("pipeline", "=", "weather")]).to_pylist(),
        key=lambda event: event["created_at"],
    )
    assert first["event"] == "promoted", first["reason"]
    measured = json.loads(first["metrics"])
    errors = {name: one["rmse"] for name, one in measured["baselines"].items()}
    assert measured["candidate"]["rmse"] < min(errors["climatology"], errors["persistence"])


def test_foretold_temperatures_are_near_those_that_came(weather_lake: Environment) -> None:
    observed = source()["observations"]
    came = observed[observed["drop_date"] == TOMORROW]
    truth = {}
    for row in came.itertuples():
        truth[row.station, row.hour] = float(row.temp)
    rows = rows_of(
        weather_lake,
        f"""SELECT station, CAST(hour AS VARCHAR), temperature FROM weather.predictions
            WHERE forecast_date = '{TOMORROW}'""",
    )
    foretold = {}
    for station, hour, temperature in rows:
        foretold[station, hour] = float(str(temperature))
    errors = [foretold[place] - temperature for place, temperature in truth.items()]
    assert len(errors) > 60
    assert sum(error**2 for error in errors) / len(errors) < 10**2


def test_every_prediction_is_traced_to_its_run_and_model(weather_lake: Environment) -> None:
    traced = rows_of(
        weather_lake,
        "SELECT DISTINCT run_id, model_name FROM weather.predictions ORDER BY 1",
    )
    assert traced == [("load", "weather")]


def test_the_last_night_alone_changes_no_published_row(weather_lake: Environment) -> None:
    before = {
        table.name: rows_of(weather_lake, f"SELECT * FROM weather.{table.name} ORDER BY ALL")
        for table in WEATHER.tables
    }
    assert set(perform_all_stages(weather_lake, NIGHT, "again")) == {0}
    after = {
        table.name: rows_of(weather_lake, f"SELECT * FROM weather.{table.name} ORDER BY ALL")
        for table in WEATHER.tables
    }
    assert after == before


@pytest.mark.parametrize("name", ["transform", "features"])
def test_a_stage_in_a_process_of_its_own_opens_its_session_before_it_uses_spark(
    weather_lake: Environment, name: str
) -> None:
    # The first night has no outcomes, and a table made of a register alone: nothing is read before
    # Spark's functions are used.
    first = str(LOADED.first)
    command = [sys.executable, "-m", "jobs", "run", "weather", "--date", first, "--stage", name]
    variables = {**os.environ, **weather_lake.variables()}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_quality_tells_the_verdict_on_every_table_of_the_night(
    weather_lake: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quality(WEATHER, weather_lake, NIGHT, "csv") == 0
    shown = capsys.readouterr().out
    judged = {f"weather.{table.name}" for table in WEATHER.tables} - {"weather.stations"}
    assert {name for name in judged if name in shown} == judged
