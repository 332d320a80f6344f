"""What a page costs grows with the nights on record, and no faster.

Counted, because a clock tells of the machine: `bench.pages` tells seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest

from bench import recorded_year
from jobs.lake import sql
from jobs.pages.dictionary import dictionary_of
from jobs.pages.models import models
from jobs.pages.nights import nights
from jobs.pages.predictions import Asked, predictions
from jobs.pages.quality import quality
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.flights import PIPELINE as FLIGHTS
from tests.counted import homes_with, require_proportion, work_of

NOW = datetime(2014, 1, 1, 12, tzinfo=UTC)
PAGES: Mapping[str, Callable[[Environment], object]] = {
    "nights": lambda environment: nights(environment, FLIGHTS, NOW),
    "quality": lambda environment: quality(environment, FLIGHTS),
    "predictions": lambda environment: predictions(environment, FLIGHTS, Asked()),
    "models": lambda environment: models(environment, FLIGHTS, NOW),
    "dictionary": lambda environment: dictionary_of(environment, FLIGHTS),
}


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Environment]:
    """One for each length, with as many nights."""

    def record(environment: Environment, recorded: Days) -> None:
        recorded_year.write(environment, FLIGHTS, recorded)
        recorded_year.write_predictions(environment, FLIGHTS, recorded, 900)

    return homes_with(record, tmp_path_factory)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_reads_the_same_tables_and_works_in_proportion(
    page: str, homes: list[Environment]
) -> None:
    require_proportion(PAGES[page], homes)


def test_what_a_page_asks_for_is_counted(homes: list[Environment]) -> None:
    def ask() -> None:
        for _ in range(3):
            sql.query(homes[0], "SELECT count(*) FROM flights.predictions")

    once = work_of(lambda: sql.query(homes[0], "SELECT count(*) FROM flights.predictions"))
    thrice = work_of(ask)
    assert once.tables >= 1
    assert once.statements >= 1
    assert (thrice.tables, thrice.statements) == (3 * once.tables, 3 * once.statements)
    assert thrice.calls > 2 * once.calls
