"""The page of predictions shows what SQL over the lake gives."""

from __future__ import annotations

import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.lake import ops, sql
from jobs.pages.predictions import Asked, Predictions, predictions
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.flights import PIPELINE as FLIGHTS
from tests.jobs.pages import year
from tests.jobs.pages.test_nights import SECONDS, YEAR

NIGHTS = Days(date(2013, 2, 1), date(2013, 2, 3))
NEWEST = date(2013, 2, 4)
A_DAY = 250
"""Predictions."""


def write_predictions(environment: Environment, nights: Days, a_day: int) -> None:
    """The same number of predictions for the day after each night."""
    own = [name for name in (*FLIGHTS.entity, *FLIGHTS.carried) if name != FLIGHTS.event_date]
    days = [night + timedelta(days=1) for night in nights for _ in range(a_day)]
    numbers = list(range(len(days)))
    columns: dict[str, Any] = {name: [f"{name} {n}" for n in numbers] for name in own}
    columns["flight_date"] = days
    columns["carrier"] = ["UA" if n % 10 else "EV" for n in numbers]
    columns["late_probability"] = [(n * 37 % 100) / 100 for n in numbers]
    columns["model_version"] = ["1"] * len(numbers)
    place = environment.table_path("flights.predictions")
    write_deltalake(place, pa.table(columns), partition_by=["flight_date"])


@pytest.fixture
def lake(tmp_path: Path) -> Environment:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    ops.append(environment, "publications", list(year.publications(FLIGHTS, NIGHTS)))
    write_predictions(environment, NIGHTS, A_DAY)
    return environment


def shown(environment: Environment, **asked: Any) -> Predictions:
    return predictions(environment, FLIGHTS, Asked(**asked))


def ask(environment: Environment, statement: str) -> list[Any]:
    found: list[Any] = sql.query(environment, statement)[1]
    return found


def test_nothing_is_shown_before_the_first_model(tmp_path: Path) -> None:
    found = shown(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}))
    assert (found.day, found.rows, found.spread, found.coverage) == (None, (), (), ())


def test_the_newest_day_is_shown_highest_first(lake: Environment) -> None:
    found = shown(lake)
    assert (found.day, found.night, found.all_rows) == (NEWEST, NIGHTS.last, A_DAY)
    place = found.columns.index("late_probability")
    values = [row[place] for row in found.rows]
    of_day = f"FROM flights.predictions WHERE flight_date = '{NEWEST}'"
    by_sql = ask(lake, f"SELECT late_probability {of_day} ORDER BY 1 DESC LIMIT 200")
    assert values == [value for (value,) in by_sql]
    ((mean,),) = ask(lake, f"SELECT avg(late_probability) {of_day}")
    assert found.mean == pytest.approx(mean)
    ((low,),) = ask(lake, f"SELECT count(*) {of_day} AND late_probability < 0.0499")
    assert found.spread[0].rows == low
    assert sum(one.rows for one in found.spread) == A_DAY


def test_rows_are_searched_and_sorted(lake: Environment) -> None:
    found = shown(lake, day=date(2013, 2, 2), words="ev ORIGIN", sort="origin", is_ascending=True)
    where = "WHERE flight_date = '2013-02-02' AND carrier = 'EV'"
    by_sql = ask(lake, f"SELECT origin FROM flights.predictions {where} ORDER BY 1")
    place = found.columns.index("origin")
    assert [(row[place],) for row in found.rows] == by_sql
    assert (found.found, found.all_rows) == (len(by_sql), A_DAY)


def test_what_is_not_there_is_told(lake: Environment) -> None:
    with pytest.raises(UsageError, match="2012-01-01 has no predictions of 'flights'; the newest"):
        shown(lake, day=date(2012, 1, 1))
    with pytest.raises(UsageError, match="No column 'x'. Columns: carrier, "):
        shown(lake, sort="x")


def test_of_each_day_that_part_is_shown_that_measures_most(lake: Environment) -> None:
    def measured(rows: int, auc: float | None) -> dict[str, Any]:
        about = {"pipeline": "flights", "landed_date": NEWEST, "event_date": NEWEST}
        return {**about, "rows": rows, "auc": auc, "log_loss": auc}

    ops.append(lake, "live_quality", [measured(30, 0.3), measured(200, 0.7), measured(5, None)])
    found = shown(lake)
    assert [(one.name, one.by_day) for one in found.measures] == [
        ("auc", ((NEWEST, 0.7),)),
        ("log_loss", ((NEWEST, 0.7),)),
    ]
    newest = found.coverage[0]
    assert (newest.day, newest.to_score, newest.scored, newest.labelled) == (NEWEST, 900, 900, 235)


def test_calibration_is_what_sql_gives_of_the_newest_days_with_labels(lake: Environment) -> None:
    day = NIGHTS.first + timedelta(days=1)
    write_labels(lake, day)
    measured = {"pipeline": "flights", "landed_date": day, "event_date": day, "rows": A_DAY}
    ops.append(lake, "live_quality", [measured])
    found = shown(lake).calibration
    assert [one.rows for one in found] == [A_DAY // 10] * 10
    joined = f"flights.predictions JOIN flights.training USING ({', '.join(FLIGHTS.entity)})"
    of_all = f"SELECT avg(late_probability), avg(late) FROM {joined}"
    ((foretold, came),) = ask(lake, of_all)
    assert sum(one.foretold for one in found) / 10 == pytest.approx(foretold)
    assert sum(one.came for one in found) / 10 == pytest.approx(came)
    # Parts lie on one side of a half or the other.
    assert [one.came for one in found[:4]] == [0] * 4
    assert [one.came for one in found[-4:]] == [1] * 4


def write_labels(environment: Environment, day: date) -> None:
    """Of the flights of the day: late is who was foretold to be with more than a half."""
    names = ", ".join(FLIGHTS.entity)
    late = f"CAST(late_probability > 0.5 AS DOUBLE) AS {FLIGHTS.training.label}"
    statement = f"SELECT {names}, {late} FROM flights.predictions WHERE flight_date = '{day}'"
    columns, rows = sql.query(environment, statement)
    known = pa.table({name: [row[n] for row in rows] for n, name in enumerate(columns)})
    write_deltalake(environment.table_path("flights.training"), known)


def test_a_year_of_predictions_is_shown_within_a_second(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    for name, rows in (
        ("publications", year.publications(FLIGHTS, YEAR)),
        ("live_quality", year.live_quality(FLIGHTS, YEAR)),
    ):
        ops.append(environment, name, list(rows))
    write_predictions(environment, YEAR, 900)
    began = time.process_time()
    found = shown(environment)
    assert time.process_time() - began < SECONDS
    assert (len(found.days), found.all_rows) == (365, 900)
    assert len(found.measures[0].by_day) == 365
