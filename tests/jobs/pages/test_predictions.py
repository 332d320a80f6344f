"""The page of predictions shows what SQL over the lake gives."""

from __future__ import annotations

import math
import shutil
from datetime import date, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from bench import recorded_year
from bench.recorded_year import YEAR, write_predictions
from jobs.lake import ops, sql
from jobs.pages.predictions import Asked, Predictions, predictions
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.flights import PIPELINE as FLIGHTS

NIGHTS = Days(date(2013, 2, 1), date(2013, 2, 3))
NEWEST = date(2013, 2, 4)
A_DAY = 250
"""Predictions."""


@pytest.fixture
def lake(tmp_path: Path) -> Environment:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    ops.append(environment, "publications", list(recorded_year.publications(FLIGHTS, NIGHTS)))
    recorded_year.make_tables(environment, FLIGHTS)
    write_predictions(environment, FLIGHTS, NIGHTS, A_DAY)
    return environment


def shown(environment: Environment, **asked: Any) -> Predictions:
    return predictions(environment, FLIGHTS, Asked(**asked))


def ask(environment: Environment, statement: str) -> list[Any]:
    found: list[Any] = sql.query(environment, statement)[1]
    return found


def test_nothing_is_shown_before_the_first_model(tmp_path: Path) -> None:
    found = shown(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}))
    assert found.day is None
    assert found.rows == ()
    assert found.spread == ()
    assert found.coverage == ()


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
    found = shown(
        lake,
        day=date(2013, 2, 2),
        words="ev ORIGIN",
        sort="origin",
        is_ascending=True,
    )
    where = "WHERE flight_date = '2013-02-02' AND carrier = 'EV'"
    by_sql = ask(lake, f"SELECT origin FROM flights.predictions {where} ORDER BY 1")
    place = found.columns.index("origin")
    assert [(row[place],) for row in found.rows] == by_sql
    assert (found.found, found.all_rows) == (len(by_sql), A_DAY)


def test_what_is_no_number_comes_last_and_the_others_stay_in_order(lake: Environment) -> None:
    table = "flights.predictions"
    values = [0.2, math.nan, 0.9, None, 0.1, 0.7]
    others = (*FLIGHTS.entity, *FLIGHTS.carried)
    rows = pa.table(
        {
            **dict.fromkeys(others, ["x"] * len(values)),
            "flight_date": [NEWEST] * len(values),
            "late_probability": values,
            "model_version": ["1"] * len(values),
        }
    )
    how: dict[str, Any] = {"mode": "overwrite", "schema_mode": "overwrite"}
    write_deltalake(lake.table_path(table), rows, partition_by=["flight_date"], **how)
    for is_ascending, numbers in (
        (False, [0.9, 0.7, 0.2, 0.1]),
        (True, [0.1, 0.2, 0.7, 0.9]),
    ):
        found = shown(lake, is_ascending=is_ascending)
        place = found.columns.index("late_probability")
        assert [row[place] for row in found.rows][: len(numbers)] == numbers
        assert found.found == len(values)


def test_what_is_not_there_is_told(lake: Environment) -> None:
    with pytest.raises(UsageError, match="2012-01-01 has no predictions of 'flights'; the newest"):
        shown(lake, day=date(2012, 1, 1))
    with pytest.raises(UsageError, match="No column 'x'. Columns: carrier, "):
        shown(lake, sort="x")


def test_of_each_day_that_part_is_shown_that_measures_most(lake: Environment) -> None:
    def measured(rows: int, auc: float | None) -> dict[str, Any]:
        about = {"pipeline": "flights", "landed_date": NEWEST, "event_date": NEWEST}
        return {**about, "rows": rows, "auc": auc, "log_loss": auc}

    ops.append(
        lake,
        "live_quality",
        [measured(30, 0.3), measured(200, 0.7), measured(5, None)],
    )
    found = shown(lake)
    assert [(one.name, one.by_day) for one in found.measures] == [
        ("auc", ((NEWEST, 0.7),)),
        ("log_loss", ((NEWEST, 0.7),)),
    ]
    newest = found.coverage[0]
    assert newest.day == NEWEST
    assert newest.to_score == 900
    assert newest.scored == 900
    assert newest.labelled == 235


def test_how_they_spread_is_what_sql_gives(lake: Environment) -> None:
    day = date(2013, 2, 2)
    by_sql = ask(
        lake,
        "SELECT least(floor(late_probability / CAST(0.05 AS DOUBLE)), 19), count(*) "
        f"FROM flights.predictions WHERE flight_date = '{day}' GROUP BY 1 ORDER BY 1",
    )
    found = shown(lake, day=day).spread
    assert [(place, one.rows) for place, one in enumerate(found) if one.rows] == by_sql
    told = [one.low for one in found]
    assert told == pytest.approx([place / 20 for place in range(20)])


def test_coverage_and_measures_are_what_sql_gives(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    published = list(recorded_year.publications(FLIGHTS, NIGHTS))
    # A night is made again, with more to be scored than were.
    again = [row for row in published if row["table_name"] == "flights.scoring"][1]
    later = {"attempt": 99, "published_at": recorded_year.at(NIGHTS.last), "rows": 905}
    published.append({**again, **later})
    ops.append(environment, "publications", published)
    recorded_year.make_tables(environment, FLIGHTS)
    write_predictions(environment, FLIGHTS, NIGHTS, 900)
    days = [night + timedelta(days=1) for night in NIGHTS]
    # Labels of a day come on several nights: most at first, some later.
    measured = [
        {
            "pipeline": pipeline,
            "landed_date": day + timedelta(days=later),
            "event_date": day,
            "rows": rows,
            "auc": auc,
            "log_loss": 0.4 + number / 10,
        }
        for number, day in enumerate(days[:2])
        for pipeline in ("flights", "weather")
        for later, rows, auc in (
            (0, 700, 0.7 + number / 100),
            (1, 90, 0.1),
            (2, 3, None),
        )
    ]
    ops.append(environment, "live_quality", measured)
    found = shown(environment)
    by_sql = """
        WITH scoring AS (
            SELECT day, arg_max(rows, attempt) AS rows FROM ops.publications
            WHERE table_name = 'flights.scoring' GROUP BY day),
        scored AS (SELECT flight_date AS day, count(*) AS rows FROM flights.predictions GROUP BY 1),
        known AS (
            SELECT event_date AS day, sum(rows)::BIGINT AS rows FROM ops.live_quality
            WHERE pipeline = 'flights' GROUP BY 1)
        SELECT scored.day, scoring.rows, scored.rows, coalesce(known.rows, 0)
        FROM scored LEFT JOIN scoring ON scoring.day = {scoring_day}
        LEFT JOIN known ON known.day = scored.day
        ORDER BY 1 DESC"""
    # A row to be scored is filed under its night or its day, as is declared.
    is_by_night = FLIGHTS.table("scoring").day_of(NIGHTS.first) == NIGHTS.first
    scoring_day = "scored.day - 1" if is_by_night else "scored.day"
    names = attrgetter("day", "to_score", "scored", "labelled")
    told = [names(one) for one in found.coverage]
    assert told == ask(environment, by_sql.format(scoring_day=scoring_day))
    assert {one.to_score for one in found.coverage} == {900, 905}
    for measure in found.measures:
        best = (
            f"SELECT event_date, arg_max({measure.name}, rows) FROM ops.live_quality "
            "WHERE pipeline = 'flights' GROUP BY 1 ORDER BY 1"
        )
        assert list(measure.by_day) == ask(environment, best)
    assert len(found.measures[0].by_day) == 2


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
    named = [dict(zip(columns, row, strict=True)) for row in rows]
    known = pa.Table.from_pylist(named)
    place = environment.table_path("flights.training")
    shutil.rmtree(place, ignore_errors=True)
    write_deltalake(place, known)


def test_a_year_of_predictions_is_shown(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    for name, rows in (
        ("publications", recorded_year.publications(FLIGHTS, YEAR)),
        ("live_quality", recorded_year.live_quality(FLIGHTS, YEAR)),
    ):
        ops.append(environment, name, list(rows))
    recorded_year.make_tables(environment, FLIGHTS)
    write_predictions(environment, FLIGHTS, YEAR, 900)
    found = shown(environment)
    assert (len(found.days), found.all_rows) == (365, 900)
    assert len(found.measures[0].by_day) == 365
