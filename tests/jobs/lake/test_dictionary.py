"""Every column has a meaning, and every meaning a column."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from jobs.lake import dictionary, ops
from jobs.lake.contract import contract
from jobs.lake.dictionary import column_docs, table_doc
from jobs.lake.ops_docs import OPS_TABLES
from jobs.lake.ops_views import OPS_VIEWS
from jobs.lake.sql import query
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.features import Feature
from pipelines.spec import PREDICTIONS, SCORING, TRAINING, Pipeline

_PIPELINES = [catalog.pipeline(name) for name in catalog.names()]


@pytest.mark.parametrize("table", sorted(ops.SCHEMAS))
def test_each_column_of_the_platforms_tables_is_told(table: str) -> None:
    assert OPS_TABLES[table].doc
    assert set(column_docs(f"ops.{table}")) == set(ops.SCHEMAS[table].names)


@pytest.mark.parametrize("view", OPS_VIEWS)
def test_each_column_of_a_view_is_told_in_its_order(view: str, tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    for table in OPS_VIEWS[view].reads:
        ops.append(environment, table.partition(".")[2], [])
    columns, rows = query(environment, f"FROM {view}")
    assert (columns, rows) == (list(column_docs(view)), [])
    assert table_doc(view)


def test_no_table_is_told_that_nobody_writes() -> None:
    assert set(OPS_TABLES) == set(ops.SCHEMAS)


@pytest.mark.parametrize("pipeline", _PIPELINES, ids=lambda one: one.name)
def test_each_column_of_feeds_and_of_what_models_read_is_told(pipeline: Pipeline) -> None:
    for feed in pipeline.feeds:
        told = column_docs(f"{pipeline.name}.{feed.name}")
        assert not [name for name in feed.column_names if not told.get(name)], feed.name
    read = {*pipeline.entity, *pipeline.carried, *pipeline.training.features, "event_timestamp"}
    for table in (TRAINING, SCORING):
        told = column_docs(f"{pipeline.name}.{table}")
        assert not [name for name in read if not told.get(name)]
    label = column_docs(f"{pipeline.name}.{TRAINING}")[pipeline.training.label]
    assert "label" in label
    foretold = column_docs(f"{pipeline.name}.{PREDICTIONS}")
    assert pipeline.title in foretold[pipeline.prediction]


@pytest.mark.parametrize("pipeline", _PIPELINES, ids=lambda one: one.name)
def test_each_figure_over_a_window_is_told(pipeline: Pipeline) -> None:
    rolling = import_module(f"pipelines.{pipeline.name}").ROLLING
    told = column_docs(f"{pipeline.name}.rolling")
    for statistic, days in rolling.figures:
        text = told[f"{statistic.name}_{days}"]
        assert text.startswith(statistic.doc)
        assert f"{days} days" in text


@pytest.mark.parametrize("pipeline", _PIPELINES, ids=lambda one: one.name)
def test_each_table_is_told(pipeline: Pipeline) -> None:
    for table in pipeline.tables:
        assert table_doc(f"{pipeline.name}.{table.name}"), table.name


def test_histories_and_quarantines_are_told_by_their_tables() -> None:
    assert table_doc("flights.flights_history").startswith("Every version of each day. ")
    assert "known_date" in column_docs("flights.flights_history")
    assert "flights.weather" in table_doc("flights.weather_quarantine")
    assert set(column_docs("flights.weather_quarantine")) >= {"reason", "record", "source_line"}


def test_what_nobody_declares_is_told_as_nothing() -> None:
    assert (table_doc("elsewhere.table"), column_docs("elsewhere.table")) == ("", {})
    assert (table_doc("ops.nothing"), column_docs("ops.nothing")) == ("", {})
    assert table_doc("flights.nothing") == ""


def test_what_is_worked_out_of_a_column_is_not_told_as_that_column() -> None:
    raw = {"temp": "Degrees Fahrenheit.", "dewp": "Dew point, degrees Fahrenheit."}

    def told(**more: str) -> str:
        return dictionary._of_feature(Feature(name="one", **more), raw)

    assert told(column="temp") == "temp: Degrees Fahrenheit."
    assert told(made_by=" dewp ") == "dewp: Dew point, degrees Fahrenheit."
    assert told(made_by="temp - dewp") == "SQL: temp - dewp"
    assert told(made_by="count(temp)") == "SQL: count(temp)"
    assert told(column="temp", finish="round(value)") == "SQL: round(temp)"


def test_what_the_declaration_says_of_a_column_is_what_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grain, moment = "Wheat, rye or barley.", "Six in the morning of the day."
    weather = catalog.pipeline("weather")
    hours, hourly, *others = weather.derived
    scored = replace(
        hours,
        docs={**hours.docs, "grain": grain, "event_timestamp": moment},
        types={**hours.types, "grain": "string"},
    )
    other = replace(hourly, docs={**hourly.docs, "event_timestamp": "The hour."})
    pipeline = replace(weather, derived=(scored, other, *others), carried=("hour", "grain"))
    monkeypatch.setattr("pipelines.weather.PIPELINE", pipeline)
    for table in (TRAINING, SCORING, PREDICTIONS):
        told = column_docs(f"weather.{table}")
        assert (told["grain"], told["event_timestamp"]) == (grain, moment)
    meanings = {one.column: one.meaning for one in contract(pipeline)}
    assert meanings["grain"] == grain
    # Of the windows it is another one.
    assert column_docs("weather.rolling")["grain"].startswith("Whose past it is")


@pytest.mark.parametrize("pipeline", _PIPELINES, ids=lambda one: one.name)
def test_no_feature_is_told_by_its_sql_alone(pipeline: Pipeline) -> None:
    told = column_docs(f"{pipeline.name}.{SCORING}")
    assert not [name for name in pipeline.training.features if told[name].startswith("SQL: ")]


def test_tables_of_a_pipeline_that_somebody_is_writing_have_no_meaning_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalog, "names", lambda: ["flights", "unfinished"])
    assert (table_doc("unfinished.table"), column_docs("unfinished.table")) == ("", {})
    assert table_doc("flights.flights") != ""
