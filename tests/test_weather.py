"""The second pipeline from landed files to judged predictions, on a slice of winter."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from jobs import night
from jobs.commands.land import land
from jobs.commands.quality import quality
from jobs.examples.weather import source
from jobs.lake import ops, sql
from jobs.lake.contract import contract
from jobs.planning.survey import Survey
from jobs.warehouse.catching_up import after_publication
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import Refused
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, SCORING, TRAINING
from pipelines.stages import STAGES
from tests import weather
from tests.postgres import Postgres
from tests.weather import LOADED, NIGHT, TOMORROW, WEATHER, perform_all_stages, performed_here


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


def test_postgresql_has_the_predictions_as_the_lake_has_them_and_as_was_promised(
    weather_lake: Environment, postgres: Postgres
) -> None:
    follows = replace(weather_lake, warehouse_url=postgres.database("warehouse"))
    told = after_publication(follows, WEATHER, [PREDICTIONS])
    assert "warehouse_failed" not in told
    statement = "SELECT * FROM weather.predictions ORDER BY forecast_date, station, forecast_at"
    with psycopg.connect(str(follows.warehouse_url)) as analyst:
        cursor = analyst.execute(statement)
        assert cursor.description
        columns = [column.name for column in cursor.description]
        rows = cursor.fetchall()
    assert rows == rows_of(weather_lake, statement)
    assert len(rows) == told["warehouse_rows"]
    promised = {one.column: one for one in contract(WEATHER)}
    assert columns == list(promised)
    for place, column in enumerate(columns):
        assert promised[column].nullable or all(row[place] is not None for row in rows)


def test_every_scoring_row_is_traced_to_the_bytes_of_the_files_behind_it(
    weather_lake: Environment,
) -> None:
    found = rows_of(
        weather_lake,
        f"""WITH RECURSIVE
            made AS (SELECT table_name, day, unnest(inputs) AS source FROM ops.publications),
            behind(name, first_day, last_day, digest) AS (
              SELECT source.name, source.first_day, source.last_day, source.digest FROM made
              WHERE table_name = 'weather.scoring' AND day = '{NIGHT.last}'
              UNION
              SELECT made.source.name, made.source.first_day, made.source.last_day,
                     made.source.digest
              FROM behind JOIN made ON made.table_name = behind.name
                AND made.day BETWEEN behind.first_day AND behind.last_day)
            SELECT name, digest FROM behind WHERE name LIKE '%/%' ORDER BY name""",
    )
    files = dict(found)
    assert "weather/stations.csv" in files
    newest = max(name for name in files if str(NIGHT.last) in str(name))
    assert files[newest]
    for name, digest in found:
        content = (weather_lake.landing / str(name)).read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()


def test_a_lake_in_which_all_is_done_has_nothing_left_to_do(weather_lake: Environment) -> None:
    run = Run(pipeline=WEATHER, days=NIGHT, environment=weather_lake)
    survey = Survey(run)
    for table in WEATHER.tables:
        found = survey.findings(table)
        assert {one.state for one in found} == {"current"}, table.name


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("SOAK"), reason="minutes; `make soak` runs it")
def test_a_file_that_comes_late_is_read_and_changes_no_night_that_has_passed(
    weather_lake: Environment, tmp_path: Path
) -> None:
    copied = weather.copied(weather_lake, tmp_path)
    later = Days(TOMORROW, TOMORROW + timedelta(days=3))
    land(WEATHER, copied, later)
    in_order = replace(copied, lake=str(tmp_path / "in order"))
    shutil.copytree(copied.lake, in_order.lake)
    for day in later:
        _data_stages(in_order, Days.of(day))
    missing = copied.landing / "weather" / WEATHER.feeds[0].file(later.first)
    kept = missing.rename(tmp_path / "kept")
    with_gap = later.last - timedelta(days=1)
    _data_stages(copied, Days.of(with_gap), allow_gap=True)
    tables = [
        *WEATHER.feeds,
        *WEATHER.derived,
        *map(WEATHER.table, (TRAINING, SCORING)),
    ]
    passed = [WEATHER.table(one.name) for one in tables]
    of_the_moment = [one for one in passed if one.is_of_the_moment]
    until = f"landed_date BETWEEN '{later.first + timedelta(days=1)}' AND '{with_gap}'"
    before = {one.name: _rows(copied, one.name, until) for one in of_the_moment}
    # Copied: a file that is moved keeps the time of its first landing.
    shutil.copy(kept, missing)
    _data_stages(copied, Days.of(later.last))
    for one in of_the_moment:
        assert _rows(copied, one.name, until) == before[one.name], one.name
    about_their_day = [one.name for one in passed if one not in of_the_moment]
    for name in set(about_their_day) - {TRAINING}:
        assert _rows(copied, name) == _rows(in_order, name), name
    known = f"landed_date = '{later.first}'"
    found = rows_of(copied, f"SELECT DISTINCT known_date FROM weather.hourly_history WHERE {known}")
    assert found == [(later.last,)]


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("SOAK"), reason="minutes; `make soak` runs it")
def test_a_skipped_night_is_made_by_the_next_and_both_are_learned_from_whole(
    weather_lake: Environment, tmp_path: Path
) -> None:
    copied = weather.copied(weather_lake, tmp_path)
    both = Days(TOMORROW, TOMORROW + timedelta(days=1))
    land(WEATHER, copied, both)
    in_order = replace(copied, lake=str(tmp_path / "in order"))
    shutil.copytree(copied.lake, in_order.lake)
    for day in both:
        _data_stages(in_order, Days.of(day))
    _data_stages(copied, Days.of(both.last))
    for table in (*WEATHER.derived, WEATHER.table(TRAINING), WEATHER.table(SCORING)):
        assert _rows(copied, table.name) == _rows(in_order, table.name), table.name
    of_both = f"landed_date BETWEEN '{both.first}' AND '{both.last}'"
    by_day = f"SELECT landed_date, count(*) FROM weather.{TRAINING} WHERE {of_both} GROUP BY 1"
    drops = copied.landing / "weather"
    files = [drops / WEATHER.feeds[0].file(day) for day in both]
    # Each outcome is learned from: none lacks the features of the evening before.
    whole = [len(file.read_bytes().splitlines()) for file in files]
    assert sorted(rows_of(copied, by_day)) == list(zip(both, whole, strict=True))


def _rows(
    environment: Environment, table: str, condition: str = "true"
) -> list[tuple[object, ...]]:
    return rows_of(environment, f"SELECT * FROM weather.{table} WHERE {condition} ORDER BY ALL")


def _data_stages(environment: Environment, days: Days, *, allow_gap: bool = False) -> None:
    """Make the tables of data true up to the last of the days, in this process."""
    run = Run(pipeline=WEATHER, days=days, environment=environment)
    with performed_here():
        assert night.make_true(run, STAGES[:5], allow_gap=allow_gap, notify=False) == 0


def test_a_night_without_a_good_training_is_scored_by_the_champion_and_ends_red(
    weather_lake: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copied = replace(weather_lake, lake=str(tmp_path / "lake"))
    shutil.copytree(weather_lake.lake, copied.lake)
    days = Days.of(TOMORROW)
    land(WEATHER, copied, days)
    patient = replace(WEATHER.training, min_rows=1_000_000)
    monkeypatch.setattr("pipelines.weather.PIPELINE", replace(WEATHER, training=patient))
    run = Run(pipeline=WEATHER, days=days, environment=copied, run_id="poor")
    with performed_here():
        assert night.make_true(run, STAGES) == Refused.exit_code
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("Stage train did not succeed")
    of_night = rows_of(copied, "SELECT stage, status FROM ops.stage_runs WHERE run_id = 'poor'")
    assert dict(of_night) == {stage.name: "done" for stage in STAGES if not stage.may_fail} | {
        "train": "refused"
    }
    day_after = TOMORROW + timedelta(days=1)
    statement = f"""SELECT model_version, count(*) FROM weather.predictions
                    WHERE forecast_date = '{day_after}' GROUP BY 1"""
    assert rows_of(copied, statement) == [("1", 3 * 24)]
    lines = (copied.logs / "notifications.log").read_text().splitlines()
    alarms = map(json.loads, lines)
    (told,) = [one for one in alarms if one["run_id"] == "poor"]
    assert (told["event"], told["stage"]) == ("stage_refused", "train")
    assert "and needs 1000000" in told["message"]


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
