"""What a night looks up does not grow with the nights before it, or in proportion to the plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import pytest

from bench import recorded_year
from bench.recorded_year import YEAR
from jobs.lake import model_events
from jobs.planning.survey import Survey
from jobs.training import serving
from jobs.training.registry import Registry
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.weather import PIPELINE as WEATHER
from tests.counted import LENGTHS, homes_with, require_proportion, work_of
from tests.jobs.training.small import models_at
from tests.jobs.training.test_registry import keep


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Environment]:
    """One for each length, with as many nights on record."""

    def record(environment: Environment, nights: Days) -> None:
        recorded_year.write(environment, WEATHER, nights)

    return homes_with(record, tmp_path_factory)


def test_a_plan_opens_the_same_tables_and_works_in_proportion(homes: list[Environment]) -> None:
    def plan(environment: Environment) -> list[object]:
        run = Run(pipeline=WEATHER, days=Days.of(YEAR.last), environment=environment)
        return list(Survey(run).foreseen_by_record())

    require_proportion(plan, homes)


def test_a_feed_that_is_declared_later_costs_one_look_for_each_night_before_it(
    homes: list[Environment],
) -> None:
    feed = WEATHER.feed("observations")
    late = replace(feed, name="late", path="late/{date}.jsonl", first_day=YEAR.last)
    pipeline = replace(WEATHER, feeds=(*WEATHER.feeds, late))

    def plan(environment: Environment) -> list[object]:
        run = Run(pipeline=pipeline, days=Days.of(YEAR.last), environment=environment)
        return list(Survey(run).foreseen_by_record())

    few, more, most = [work_of(partial(plan, environment)).looks for environment in homes]
    assert more - few <= LENGTHS[1] - LENGTHS[0]
    assert most - more <= LENGTHS[2] - LENGTHS[1]


def test_an_optional_feed_that_is_declared_later_is_looked_for_once_a_night(
    homes: list[Environment],
) -> None:
    feed = WEATHER.feed("observations")
    late = replace(
        feed,
        name="late",
        path="late/{date}.jsonl",
        is_optional=True,
    )
    pipeline = replace(WEATHER, feeds=(*WEATHER.feeds, late))
    night = Days.of(YEAR.last)
    survey = Survey(Run(pipeline=pipeline, days=night, environment=homes[0]))
    nights = list(survey.nights)

    def ask() -> list[bool]:
        return list(map(survey.has_landed, nights))

    ask()
    assert work_of(ask).looks == 0


def test_which_model_serves_is_found_without_looking_at_those_before(tmp_path: Path) -> None:
    registry = Registry(models_at(tmp_path), "small")

    def look_up(night: date) -> None:
        champion = registry.champion()
        assert champion is not None
        registry.version(champion)
        assert registry.candidate(night) is not None
        assert registry.trained(str(night)) is not None
        assert registry.champion_left_at() == [champion]

    asked = []
    nights = [YEAR.first + timedelta(days=number) for number in range(12)]
    for number, night in enumerate(nights, start=1):
        keep(registry, tmp_path, str(night), as_of=night)
        registry.set_champion(str(number))
        look_up(night)
        asked.append(work_of(partial(look_up, night)))
    # The first look-ups import. A version that is read is hundreds of calls.
    more_versions = len(nights) - 3
    assert asked[-1].calls - asked[2].calls <= 40 * more_versions


def test_the_alias_follows_without_a_look_at_all_versions(tmp_path: Path) -> None:
    environment = models_at(tmp_path)
    registry = Registry(environment, "small")
    asked = []
    nights = [YEAR.first + timedelta(days=number) for number in range(12)]
    for number, night in enumerate(nights, start=1):
        keep(registry, tmp_path, str(night), as_of=night)
        promoted = {
            "pipeline": "small",
            "model_version": str(number),
            "as_of": night,
            "event": model_events.PROMOTED,
        }
        model_events.record(environment, [promoted])
        asked.append(work_of(partial(serving.follow, environment, registry)))
        assert registry.champion() == str(number)
    # An event that is read takes some of a hundred calls; a version that is listed 260 more.
    more_versions = len(nights) - 3
    assert asked[-1].calls - asked[2].calls <= 200 * more_versions
