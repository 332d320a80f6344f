"""One pass over some nights, its nights in order, and its nights in any order come to the same.

Row for row, by the real stages on real files; the register of stations too, as each night sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from jobs.commands.land import land
from jobs.lake import model_events, sql
from jobs.planning.survey import Survey
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.spec import PREDICTIONS
from pipelines.stages import Stage
from tests.conftest import SOAK
from tests.weather import DATA, SCORED, WEATHER, copied_models, make_true, rows_of

NIGHTS = Days(date(2013, 1, 1), date(2013, 1, 4))
FEW = Days(date(2013, 1, 1), date(2013, 1, 2))
IN_ORDER = list(NIGHTS)
BACKWARDS = list(reversed(list(FEW)))
SHUFFLED = [IN_ORDER[place] for place in (2, 0, 1, 3)]


def _lake(weather_lake: Environment, folder: Path) -> Environment:
    """An empty lake, whose files have all landed, and the model that serves its every night."""
    folder.mkdir()
    environment = copied_models(weather_lake, folder)
    land(WEATHER, environment, NIGHTS)
    (promoted, *_) = [
        one
        for one in model_events.events(weather_lake, WEATHER.name)
        if one["event"] == model_events.PROMOTED
    ]
    model_events.record(environment, [{**promoted, "as_of": NIGHTS.first}])
    return environment


def _run(environment: Environment, days: Days) -> Run:
    return Run(pipeline=WEATHER, days=days, environment=environment)


@pytest.mark.parametrize(
    ("days", "order", "stages"),
    [
        pytest.param(FEW, BACKWARDS, DATA, id="backwards", marks=SOAK),
        pytest.param(FEW, BACKWARDS, SCORED, id="backwards, scored", marks=SOAK),
        pytest.param(NIGHTS, IN_ORDER, SCORED, id="in order", marks=SOAK),
        pytest.param(NIGHTS, SHUFFLED, SCORED, id="shuffled", marks=SOAK),
    ],
)
def test_nights_in_any_order_come_to_what_one_pass_over_them_makes(
    days: Days,
    order: Sequence[date],
    stages: tuple[Stage, ...],
    weather_lake: Environment,
    tmp_path: Path,
) -> None:
    at_once = _lake(weather_lake, tmp_path / "at once")
    make_true(_run(at_once, days), stages)
    by_night = _lake(weather_lake, tmp_path / "by night")
    for night in order:
        make_true(_run(by_night, Days.of(night)), stages)
    # Until nothing is left to do.
    make_true(_run(by_night, Days.of(days.last)), stages)
    if stages == SCORED and order != sorted(order):
        # What was served before the nights behind it were there stays until a person rescores it.
        served = rows_of(by_night, WEATHER, PREDICTIONS)
        assert served != rows_of(at_once, WEATHER, PREDICTIONS)
        make_true(replace(_run(by_night, days), rescore=True), stages)
    require_alike(at_once, by_night, days, stages)


def require_alike(
    one: Environment,
    other: Environment,
    days: Days,
    stages: tuple[Stage, ...],
) -> None:
    """All is current, the same rows are in force, and each of these nights saw the same."""
    made = [table for table in WEATHER.tables if stages == SCORED or table.name != PREDICTIONS]
    for environment in (one, other):
        survey = Survey(_run(environment, days))
        for table in made:
            states = {found.state for found in survey.findings(table)}
            assert states == {"current"}, table.name
    for name in [table.name for table in made if table.name != "stations"]:
        rows = rows_of(one, WEATHER, name)
        assert rows, name
        assert rows == rows_of(other, WEATHER, name), name
        for night in days:
            seen = rows_of(one, WEATHER, name, night)
            assert seen == rows_of(other, WEATHER, name, night), (name, night)
    for night in days:
        register = _register(one, night)
        assert len(register) == 3
        assert register == _register(other, night), night


def _register(environment: Environment, night: date) -> list[tuple[object, ...]]:
    """The last snapshot that the night sees, on whatever day it was found: so orders differ."""
    name = f"{WEATHER.name}.stations KNOWN AS OF '{night}'"
    _, rows = sql.query(
        environment,
        f"""SELECT * EXCLUDE (landed_date) FROM {name}
            WHERE landed_date = (SELECT max(landed_date) FROM {name}) ORDER BY ALL""",
    )
    return rows
