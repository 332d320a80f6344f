"""One whole night on every real component.

Files land, Airflow runs the DAG, predictions can be queried.
"""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path

import pandas as pd
import psycopg
import pytest
from deltalake import DeltaTable

from pipelines import replay
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.feeds import Feed
from pipelines.stages import STAGES
from tests.e2e.conftest import LOADED, NIGHT, Installation, last_due

pytestmark = pytest.mark.timeout(2400)  # the first test waits for the start and the load
FLIGHTS = pipeline("flights")
TOMORROW = NIGHT + timedelta(days=1)


def test_the_night_that_was_due_has_run_by_itself_and_loaded_all_before_it(
    installation: Installation,
) -> None:
    path = "/dags/flights/dagRuns?run_type=scheduled"
    run, *_ = installation.airflow.call("GET", path)["dag_runs"]
    assert run["state"] == "success"
    assert str(LOADED.last) in run["note"]
    [row] = installation.sql(
        "SELECT CAST(min(landed_date) AS VARCHAR) AS first, CAST(max(landed_date) AS VARCHAR) "
        "AS last, count(DISTINCT landed_date) AS days FROM flights.schedule"
    )
    assert row == {
        "first": str(LOADED.first),
        "last": str(LOADED.last),
        "days": len(LOADED),
    }
    [foretold] = installation.sql(
        f"SELECT count(*) AS n, any_value(run_id) AS run_id FROM flights.predictions "
        f"WHERE flight_date = '{NIGHT}'"
    )
    assert foretold["n"] > 800
    assert foretold["run_id"].startswith("scheduled")


def test_a_night_through_airflow_leaves_a_prediction_for_every_flight_of_tomorrow(
    installation: Installation, first_night: str
) -> None:
    key = "flight_date, carrier, flight, origin"
    scheduled = installation.sql(
        f"SELECT {key} FROM flights.schedule WHERE landed_date = '{NIGHT}' ORDER BY ALL"
    )
    predicted = installation.sql(
        f"SELECT {key} FROM flights.predictions WHERE flight_date = '{TOMORROW}' ORDER BY ALL"
    )
    assert predicted == scheduled
    assert len(predicted) > 800


def test_the_predictions_are_probabilities_that_tell_their_model_and_run(
    installation: Installation, first_night: str
) -> None:
    [row] = installation.sql(
        f"""SELECT min(late_probability) > 0 AND max(late_probability) < 1 AS proper,
                   count(DISTINCT late_probability) > 100 AS varied,
                   count(DISTINCT model_version) AS models,
                   any_value(run_id) AS run_id, count(DISTINCT run_id) AS runs
            FROM flights.predictions WHERE flight_date = '{TOMORROW}'"""
    )
    assert row == {
        "proper": True,
        "varied": True,
        "models": 1,
        "run_id": first_night,
        "runs": 1,
    }


def test_applications_find_the_same_predictions_in_postgresql(
    installation: Installation, first_night: str
) -> None:
    address = installation.environment.warehouse_url
    if address is None:
        pytest.skip("no PostgreSQL on this machine")
    asked = (
        "SELECT count(*) AS n, count(DISTINCT (carrier, flight, origin, sched_dep_time)) AS keys, "
        "CAST(round(sum(late_probability) * 100000) AS bigint) AS total FROM flights.predictions "
        f"WHERE flight_date = '{TOMORROW}'"
    )
    with psycopg.connect(address) as there:
        found = there.execute(asked).fetchone()
    assert found is not None
    (in_lake,) = installation.sql(asked)
    assert found == tuple(in_lake.values())


def test_every_stage_of_the_night_is_recorded_and_training_had_two_ranks(
    installation: Installation, first_night: str
) -> None:
    rows = installation.sql(
        "SELECT stage, status, first_day, last_day, metrics "
        f"FROM ops.stage_runs WHERE run_id = '{first_night}' ORDER BY started_at"
    )
    assert [row["stage"] for row in rows] == [stage.name for stage in STAGES]
    assert {row["status"] for row in rows} == {"done"}
    assert {row["first_day"] for row in rows} == {str(NIGHT)}
    assert {row["last_day"] for row in rows} == {str(NIGHT)}
    [trained] = [row for row in rows if row["stage"] == "train"]
    assert json.loads(trained["metrics"])["ranks"] == 2


@pytest.mark.parametrize("feed", FLIGHTS.feeds, ids=lambda feed: feed.name)
def test_the_rows_of_the_files_are_those_published_and_those_quarantined(
    installation: Installation, first_night: str, feed: Feed
) -> None:
    # A quarantine is made by its first row.
    quarantine = installation.environment.table_path(f"flights.{feed.name}_quarantine")
    names = [feed.name]
    if DeltaTable.is_deltatable(quarantine):
        names.append(f"{feed.name}_quarantine")
    kept = [f"SELECT source_file, source_line FROM flights.{name}" for name in names]
    counted = installation.sql(
        "SELECT count(*) AS n, count(DISTINCT (source_file, source_line)) AS lines "
        f"FROM ({' UNION ALL '.join(kept)})"
    )
    landed = rows_in_files(installation, feed)
    assert counted == [{"n": landed, "lines": landed}]


def test_a_second_run_of_the_night_changes_no_published_row(
    installation: Installation, first_night: str
) -> None:
    before = published(installation)
    second = installation.run_night(date=str(NIGHT))
    after = published(installation)
    assert second != first_night
    for name, (version, rows) in before.items():
        version_after, rows_after = after[name]
        assert (name, version_after) == (name, version)
        pd.testing.assert_frame_equal(rows_after, rows, obj=name)


def test_a_run_without_a_day_is_the_night_that_was_due_last_and_is_done_already(
    installation: Installation, first_night: str
) -> None:
    calendar = replay.calendar(FLIGHTS, installation.environment)
    run_id = installation.run_night()
    states = {task.name: task.state for task in installation.airflow.tasks("flights", run_id)}
    assert states.pop("plan") == "success"
    assert states == dict.fromkeys([*(stage.name for stage in STAGES), "outcome"], "skipped")
    day = calendar.day_of(calendar.day_before(last_due()))
    note = installation.airflow.run("flights", run_id)["note"]
    assert note == f"**{day}**: nothing to do, all is current."


def rows_in_files(installation: Installation, feed: Feed) -> int:
    """Data rows of everything that landed for the feed until NIGHT."""
    folder = installation.environment.landing / "flights"
    days = FLIGHTS.drop_days(feed, Days(LOADED.first, NIGHT)) or ()
    if feed.is_reference:
        return rows_in_file(folder / feed.path)
    paths = [folder / feed.path.format(date=day) for day in days]
    return sum(rows_in_file(path) for path in paths)


def rows_in_file(path: Path) -> int:
    with path.open(newline="") as file:
        lines = sum(1 for _ in csv.reader(file))
    # Without its header.
    return lines - 1


def published(installation: Installation) -> dict[str, tuple[int, pd.DataFrame]]:
    """Version and content of each published table of the pipeline, rows in their own order."""
    content = {}
    for table in FLIGHTS.tables:
        path = installation.environment.table_path(f"flights.{table.name}")
        delta = DeltaTable(path)
        rows = delta.to_pandas().sort_values([table.partition, *table.key])
        content[table.name] = (delta.version(), rows.reset_index(drop=True))
    return content
