"""Nothing of a moment changes by what happened, or arrived, after it.

From files: whatever lands later says something else, of later days and of those before, and so do
the registers. What the night of the moment saw, learned and foretold is as if none of it had come.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from jobs.commands.land import land
from jobs.commands.waive import waive
from jobs.examples import files
from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.feeds import Feed
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, Pipeline
from pipelines.stages import Stage
from tests import empty_registry
from tests.conftest import SOAK
from tests.weather import (
    DATA,
    SCORED,
    TOMORROW,
    WEATHER,
    copied,
    make_true,
    rows_of,
)

FLIGHTS = catalog.pipeline("flights")
_ROWS_A_DAY = 40
"""Less than any file has of a day."""
_MIDLAND, _ELSEWHERE = "America/Chicago", "America/Denver"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A lake as it was before a night, and what that night saw when it was made in time."""

    before: Environment
    in_time: Environment
    pipeline: Pipeline
    night: date
    stages: tuple[Stage, ...]
    weeks: int
    """From a day to the one whose rows land under its name: of the same season, and as long."""
    seen: Mapping[str, list[tuple[object, ...]]]
    """By table every row that the night saw."""

    @property
    def later(self) -> Days:
        """Two nights after it."""
        return Days(self.night + timedelta(days=1), self.night + timedelta(days=2))

    def run(self, environment: Environment, days: Days) -> Run:
        """A run over the days, in one of the lakes."""
        return Run(pipeline=self.pipeline, days=days, environment=environment)

    def change_files(self, environment: Environment, days: Days) -> None:
        """Have every file of the days, and every register, say something else."""
        source = catalog.part("jobs.examples", self.pipeline, "its rows").source()
        folder = environment.landing / self.pipeline.name
        for feed in self.pipeline.feeds:
            rows = source[feed.name]
            if feed.is_reference:
                content = files.content(feed, _other_register(feed, rows))
                (folder / feed.file(None)).write_bytes(content)
                continue
            for day in self.pipeline.drop_days(feed, days) or ():
                path = folder / feed.file(day)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files.content(feed, _of_other_week(feed, rows, day, self.weeks)))

    def require_unchanged(self, environment: Environment) -> None:
        """As of the night every table is what it was, whatever is in force."""
        for name, rows in self.seen.items():
            assert rows_of(environment, self.pipeline, name, self.night) == rows, name


def _waive_other_flights(environment: Environment, days: Days) -> None:
    """Let days through on which others flew than were scheduled: another week's have landed."""
    waive(
        FLIGHTS,
        environment,
        "training",
        days=days,
        expectation="expect_column_values_to_be_between",
        column="own_flights_if_any",
        by="the tests",
        why="another week's flights",
        until=datetime.now(UTC).date() + timedelta(days=1),
    )


def _of_other_week(
    feed: Feed,
    rows: pd.DataFrame,
    day: date,
    weeks: int,
) -> pd.DataFrame:
    """Rows of weeks later, or before, as if they were of this day."""
    away = pd.Timedelta(weeks=weeks)
    other = rows[rows["drop_date"] == day + away]
    changed = {}
    for column in feed.columns:
        if column.type not in ("date", "timestamp"):
            continue
        shifted = pd.to_datetime(other[column.name]) - away
        pattern = "%Y-%m-%d" if column.type == "date" else "%Y-%m-%dT%H:%M:%SZ"
        changed[column.name] = shifted.dt.strftime(pattern)
    return other.assign(**changed)


def _other_register(feed: Feed, rows: pd.DataFrame) -> pd.DataFrame:
    """Every number one more, and many a place in another time zone."""
    changed = {}
    for column in feed.columns:
        if column.type in ("int", "double"):
            numbers = pd.to_numeric(rows[column.name], errors="coerce") + 1
            kind = "Int64" if column.type == "int" else "float"
            texts = numbers.astype(kind).astype("string").astype(object)
            changed[column.name] = texts.where(numbers.notna(), feed.null_token)
    if "tzone" in rows:
        changed["tzone"] = rows["tzone"].replace(_MIDLAND, _ELSEWHERE)
    return rows.assign(**changed)


@pytest.fixture(
    scope="module",
    params=["weather", pytest.param("flights", marks=SOAK)],
)
def moment(
    request: pytest.FixtureRequest,
    shared_environment: Environment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Moment:
    """A night that was made in time, and the lake without it."""
    folder = tmp_path_factory.mktemp("moment")
    if request.param == "weather":
        before = copied(request.getfixturevalue("weather_lake"), folder)
        pipeline, night, stages, weeks = WEATHER, TOMORROW, SCORED, -4
    else:
        loaded = Days(FLIGHTS.first_day, date(2013, 1, 3))
        before = replace(
            shared_environment,
            lake=str(folder / "lake"),
            landing=folder / "landing",
            mlflow_uri=empty_registry.put_in(folder),
        )
        land(FLIGHTS, before, loaded)
        pipeline, night, stages, weeks = FLIGHTS, date(2013, 1, 4), DATA, 3
        make_true(Run(pipeline=FLIGHTS, days=loaded, environment=before), DATA)
        _waive_other_flights(before, Days(loaded.first, night + timedelta(days=2)))
    land(pipeline, before, Days.of(night))
    made = before
    if pipeline is WEATHER:
        # Its data are made already, by the same stages.
        made = request.getfixturevalue("weather_with_features")
    in_time = copied(made, tmp_path_factory.mktemp("in time"))
    make_true(Run(pipeline=pipeline, days=Days.of(night), environment=in_time), stages)
    names = [one.name for one in pipeline.tables if stages == SCORED or one.name != PREDICTIONS]
    seen = {name: rows_of(in_time, pipeline, name, night) for name in names}
    # In the order of nights the last says all that is known, and what it made is in force.
    assert all(seen.values())
    assert seen == {name: rows_of(in_time, pipeline, name) for name in names}
    return Moment(
        before=before,
        in_time=in_time,
        pipeline=pipeline,
        night=night,
        stages=stages,
        weeks=weeks,
        seen=seen,
    )


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("SOAK"), reason="minutes; `make soak` runs it")
def test_what_happens_and_arrives_after_a_night_changes_nothing_of_it(
    moment: Moment, tmp_path: Path
) -> None:
    lake = copied(moment.in_time, tmp_path)
    corrected = Days.of(moment.night).since(2)
    moment.change_files(lake, Days(corrected.first, moment.later.last))
    make_true(moment.run(lake, moment.later), moment.stages)
    moment.require_unchanged(lake)
    _require_in_force(lake, moment, corrected)
    if PREDICTIONS in moment.seen:
        served = rows_of(lake, moment.pipeline, PREDICTIONS)
        assert set(moment.seen[PREDICTIONS]) < set(served)


def test_a_night_that_is_made_after_others_have_landed_is_as_if_it_had_been_made_in_time(
    moment: Moment, tmp_path: Path
) -> None:
    lake = copied(moment.before, tmp_path)
    corrected = Days.of(moment.night - timedelta(days=1)).since(1)
    moment.change_files(lake, corrected)
    moment.change_files(lake, moment.later)
    # In one pass with the nights after it, which find what was corrected.
    make_true(moment.run(lake, moment.later), moment.stages)
    moment.require_unchanged(lake)
    _require_in_force(lake, moment, corrected)


def _require_in_force(
    environment: Environment,
    moment: Moment,
    corrected: Days,
) -> None:
    """What came late was read, and is in force in the place of what the night saw."""
    for feed in moment.pipeline.feeds:
        seen = set(moment.seen[feed.name])
        now = set(rows_of(environment, moment.pipeline, feed.name))
        if feed.is_reference:
            assert now - seen
            continue
        days = moment.pipeline.drop_days(feed, corrected)
        assert days and len(seen - now) > _ROWS_A_DAY * len(days), feed.name
