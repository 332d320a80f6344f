"""The dictionary says what the declarations say, and what is on record of each table."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from bench import recorded_year
from bench.recorded_year import YEAR
from jobs.commands.tables import describe
from jobs.lake import ops
from jobs.pages.dictionary import Entry, dictionary_of
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.flights import PIPELINE as FLIGHTS
from pipelines.spec import Pipeline

_PIPELINES = [catalog.pipeline(name) for name in catalog.names()]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def _entry(environment: Environment, name: str, pipeline: Pipeline = FLIGHTS) -> Entry:
    found = dictionary_of(environment, pipeline)
    return next(one for one in (*found.entries, *found.platform) if one.name == name)


@pytest.mark.parametrize("pipeline", _PIPELINES, ids=lambda one: one.name)
def test_every_table_and_its_columns_are_told_before_the_first_night(
    environment: Environment, pipeline: Pipeline
) -> None:
    found = dictionary_of(environment, pipeline)
    assert [one.name for one in found.entries] == [
        f"{pipeline.name}.{table.name}" for table in pipeline.tables
    ]
    for one in (*found.entries, *found.platform):
        assert one.doc, one.name
        assert one.columns, one.name
        assert all(column.doc for column in one.columns), one.name
    assert not [one for one in found.entries if one.freshness or one.checked]


def test_a_table_of_the_model_has_what_is_declared_before_it_is_there(
    environment: Environment,
) -> None:
    predictions = [one.name for one in _entry(environment, "flights.predictions").columns]
    assert predictions[0] == "flight_date"
    assert {"carrier", "late_probability", "model_version", "run_id"} <= set(predictions)
    assert not {"temp", "w_temp", "late"} & set(predictions)
    training = [one.name for one in _entry(environment, "flights.training").columns]
    assert {"landed_date", "w_temp", "late"} <= set(training)
    assert len(training) == len(set(training))


def test_a_raw_table_is_made_of_files_of_declared_types(environment: Environment) -> None:
    weather = _entry(environment, "flights.weather")
    assert (weather.made_by, weather.reads) == ("ingest", ("flights/weather/{date}.csv",))
    kinds = {column.name: column.kind for column in weather.columns}
    assert (kinds["temp"], kinds["time_hour"]) == ("double", "timestamp")


def test_a_table_that_is_there_has_its_own_columns_as_describe_tells_them(
    environment: Environment,
) -> None:
    rows = pa.table(
        {
            "landed_date": pa.array([date(2013, 1, 1)]),
            "temp": [39.0],
            "added_by_the_source": ["x"],
        }
    )
    place = environment.table_path("flights.weather")
    write_deltalake(place, rows, partition_by=["landed_date"])
    ops.append(environment, "costs", [])
    for name in ("flights.weather", "ops.costs", "ops.cost_per_stage"):
        shown = [(one.name, one.doc) for one in _entry(environment, name).columns]
        assert shown == [(column, doc) for column, _, doc in describe(environment, name)]
    columns = _entry(environment, "flights.weather").columns
    assert {one.name: one.doc for one in columns} == {
        "landed_date": "The day of the drop that the row came with.",
        "temp": "Degrees Fahrenheit.",
        "added_by_the_source": "",
    }


def test_the_newest_day_tells_how_fresh_a_table_is(environment: Environment) -> None:
    nights = replace(YEAR, last=date(2013, 1, 5))
    recorded_year.write(environment, FLIGHTS, nights)
    found = _entry(environment, "flights.predictions").freshness
    assert found is not None
    # The newest night has scored the day after.
    assert found.day == date(2013, 1, 6)
    assert found.days == len(nights)
    assert found.rows == 900
    assert found.at == recorded_year.at(date(2013, 1, 5))


def test_what_was_judged_last_are_the_checks(environment: Environment) -> None:
    judged = {"pipeline": "flights", "table_name": "flights.weather", "success": True}
    first = datetime(2013, 1, 9, 1, tzinfo=UTC)
    second = datetime(2013, 1, 9, 2, tzinfo=UTC)
    rows = [
        {**judged, "checked_at": first, "detail": json.dumps({"says": "Gone."})},
        {**judged, "checked_at": second, "detail": json.dumps({"says": "temp has a value."})},
        {
            **judged,
            "checked_at": second,
            "success": False,
            "severity": "critical",
            "expectation": "expect_rows",
            "column_name": "rows",
            "detail": "{}",
        },
        {
            **judged,
            "checked_at": second,
            "success": False,
            "severity": "warning",
            "detail": json.dumps({"says": "No storm."}),
        },
        {**judged, "checked_at": first, "table_name": "flights.planes", "detail": None},
        {**judged, "checked_at": second, "pipeline": "weather", "table_name": "flights.planes"},
    ]
    ops.append(environment, "check_results", rows)
    checked = _entry(environment, "flights.weather").checked
    assert checked is not None
    assert checked.says == ("No storm.", "rows: expect_rows", "temp has a value.")
    assert (checked.failing, checked.warnings, checked.at) == (1, 1, second)
    of_planes = _entry(environment, "flights.planes").checked
    assert of_planes is not None and of_planes.at == first


@pytest.mark.parametrize("pipeline", _PIPELINES, ids=lambda one: one.name)
def test_the_lineage_leads_from_each_raw_table_to_the_predictions(
    environment: Environment, pipeline: Pipeline
) -> None:
    nodes = {node.name: node for node in dictionary_of(environment, pipeline).lineage}
    assert set(nodes) == {f"{pipeline.name}.{table.name}" for table in pipeline.tables}
    for feed in pipeline.feeds:
        assert nodes[f"{pipeline.name}.{feed.name}"].layer == 0
    for node in nodes.values():
        assert all(nodes[one].layer < node.layer for one in node.reads)
    for table in pipeline.derived:
        declared = {f"{pipeline.name}.{one}" for one in table.reads}
        assert set(nodes[f"{pipeline.name}.{table.name}"].reads) == declared
    scoring = f"{pipeline.name}.scoring"
    assert nodes[f"{pipeline.name}.predictions"].reads == (scoring,)
    looked_up = {f"{pipeline.name}.{view.table}" for view in pipeline.views}
    joined = looked_up | {f"{pipeline.name}.{pipeline.entity_table}"}
    assert set(nodes[scoring].reads) == joined
    outcomes = {f"{pipeline.name}.{name}" for name in pipeline.outcomes}
    assert set(nodes[f"{pipeline.name}.training"].reads) == joined | outcomes
