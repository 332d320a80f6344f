"""Each built-in example fits its pipeline."""

from __future__ import annotations

from datetime import date

import pytest

from jobs import examples
from jobs.commands.demo import demonstrations
from jobs.examples import Demo
from pipelines import catalog
from pipelines.days import Days
from pipelines.errors import UsageError


def test_every_example_belongs_to_a_pipeline() -> None:
    assert "flights" in examples.names()
    assert set(examples.names()) <= set(catalog.names())


@pytest.mark.parametrize("name", examples.names())
def test_a_source_gives_each_feed_its_columns(name: str) -> None:
    pipeline = catalog.pipeline(name)
    source = catalog.part("jobs.examples", pipeline, "the rows that its source drops").source()
    for feed in pipeline.feeds:
        extra = set() if feed.is_reference else {"drop_date"}
        wanted = {column.name for column in feed.columns} | extra
        assert wanted <= set(source[feed.name].columns), feed.name


@pytest.mark.parametrize("name", demonstrations())
def test_a_demonstration_uses_days_that_the_pipeline_has(name: str) -> None:
    catalog.pipeline(name).require_days(demonstrations()[name].days)


def test_the_nights_of_a_demonstration_follow_what_is_loaded() -> None:
    january = Days(date(2013, 1, 1), date(2013, 1, 31))
    the_day_after = date(2013, 2, 1)
    a_day_too_late = date(2013, 2, 2)
    with pytest.raises(UsageError, match="nights must begin the day after 2013-01-01..2013-01-31"):
        Demo(load=january, nights=Days.of(a_day_too_late), queries=())
    demo = Demo(load=january, nights=Days.of(the_day_after), queries=())
    assert demo.days == Days(january.first, the_day_after)
