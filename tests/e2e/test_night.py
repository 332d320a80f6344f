"""One whole night on every real component.

Files land, Airflow runs the DAG, predictions can be queried.
"""

from __future__ import annotations

import csv
import json
from datetime import timedelta

import pandas as pd
import pytest
from deltalake import DeltaTable

from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.feeds import Feed
from pipelines.stages import STAGES
from tests.e2e.conftest import LOADED, NIGHT, House

pytestmark = pytest.mark.timeout(2400)  # the first test waits for the house and its load
FLIGHTS = pipeline("flights")
TOMORROW = NIGHT + timedelta(days=1)


def test_a_night_through_airflow_leaves_a_prediction_for_every_flight_of_tomorrow(
    loaded_house: House, first_night: str
) -> None:
    key = "flight_date, carrier, flight, origin"
    scheduled = loaded_house.sql(
        f"SELECT {key} FROM flights.schedule WHERE landed_date = '{NIGHT}' ORDER BY ALL"
    )
    predicted = loaded_house.sql(
        f"SELECT {key} FROM flights.predictions WHERE flight_date = '{TOMORROW}' ORDER BY ALL"
    )
    assert predicted == scheduled
    assert len(predicted) > 800


def test_the_predictions_are_probabilities_that_tell_their_model_and_run(
    loaded_house: House, first_night: str
) -> None:
    [row] = loaded_house.sql(
        f"""SELECT min(late_probability) > 0 AND max(late_probability) < 1 AS proper,
                   count(DISTINCT late_probability) > 100 AS told_apart,
                   count(DISTINCT model_version) AS models,
                   any_value(run_id) AS run_id, count(DISTINCT run_id) AS runs
            FROM flights.predictions WHERE flight_date = '{TOMORROW}'"""
    )
    assert row == {
        "proper": True,
        "told_apart": True,
        "models": 1,
        "run_id": first_night,
        "runs": 1,
    }


def test_every_stage_of_the_night_is_recorded_and_training_had_two_ranks(
    loaded_house: House, first_night: str
) -> None:
    rows = loaded_house.sql(
        "SELECT stage, status, first_day, last_day, metrics "
        f"FROM ops.stage_runs WHERE run_id = '{first_night}' ORDER BY started_at"
    )
    assert [(row["stage"], row["status"], row["first_day"], row["last_day"]) for row in rows] == [
        (stage.name, "done", str(NIGHT), str(NIGHT)) for stage in STAGES
    ]
    [metrics] = [json.loads(row["metrics"]) for row in rows if row["stage"] == "train"]
    assert metrics["ranks"] == 2


@pytest.mark.parametrize("feed", FLIGHTS.feeds, ids=lambda feed: feed.name)
def test_the_rows_of_the_files_are_those_published_and_those_quarantined(
    loaded_house: House, first_night: str, feed: Feed
) -> None:
    tables = {
        name: loaded_house.environment.table_path(f"flights.{name}")
        for name in (feed.name, f"{feed.name}_quarantine")
    }
    kept = [name for name, path in tables.items() if DeltaTable.is_deltatable(path)]
    counted = " UNION ALL ".join(
        f"SELECT source_file, source_line FROM flights.{name}" for name in kept
    )
    found = loaded_house.sql(
        "SELECT count(*) AS n, count(DISTINCT (source_file, source_line)) AS lines "
        f"FROM ({counted})"
    )
    landed = rows_in_files(loaded_house, feed)
    assert found == [{"n": landed, "lines": landed}]


def test_a_second_run_of_the_night_changes_no_published_row(
    loaded_house: House, first_night: str
) -> None:
    before = published(loaded_house)
    second = loaded_house.run_night(date=str(NIGHT))
    after = published(loaded_house)
    assert second != first_night
    assert {name: version for name, (version, _) in after.items()} == {
        name: version for name, (version, _) in before.items()
    }
    for name, (_, frame) in before.items():
        pd.testing.assert_frame_equal(after[name][1], frame, obj=name)


def rows_in_files(house: House, feed: Feed) -> int:
    """Data rows of everything that landed for the feed until NIGHT."""
    folder = house.environment.landing / "flights"
    days = FLIGHTS.drop_days(feed, Days(LOADED.first, NIGHT)) or ()
    paths = [feed.path] if feed.is_reference else [feed.path.format(date=day) for day in days]
    total = 0
    for path in paths:
        with (folder / path).open(newline="") as file:
            total += sum(1 for _ in csv.reader(file)) - 1
    return total


def published(house: House) -> dict[str, tuple[int, pd.DataFrame]]:
    """Version and content of each published table of the pipeline, rows in their own order."""
    found = {}
    for table in FLIGHTS.tables:
        delta = DeltaTable(house.environment.table_path(f"flights.{table.name}"))
        frame = delta.to_pandas()
        found[table.name] = (
            delta.version(),
            frame.sort_values([table.partition, *table.key]).reset_index(drop=True),
        )
    return found
