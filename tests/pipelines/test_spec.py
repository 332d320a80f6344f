"""Declarations refuse nonsense and say what would be right."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.feeds import Column, Feed
from pipelines.run import Run
from pipelines.spec import Table
from pipelines.stages import STAGES, select

FLIGHTS = catalog.pipeline("flights")


def test_an_unknown_pipeline_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match="Did you mean 'flights'"):
        catalog.pipeline("flihgts")


def test_a_feed_refuses_a_key_that_is_no_column() -> None:
    with pytest.raises(UsageError, match=r"key columns \['id'\]"):
        Feed(name="trips", path="trips/{date}.csv", columns=(Column(name="trip"),), key=("id",))


def test_a_column_refuses_an_unknown_type_and_lists_the_known() -> None:
    with pytest.raises(UsageError, match="no type 'number'.*double"):
        Column(name="fare", type="number")  # type: ignore[arg-type]


def test_a_pipeline_refuses_a_table_that_reads_what_nothing_makes() -> None:
    stray = Table(name="stray", made_by="transform", key=("id",), reads=("nowhere",))
    with pytest.raises(UsageError, match=r"reads \['nowhere'\]"):
        replace(FLIGHTS, derived=(*FLIGHTS.derived, stray))


def test_days_outside_the_feeds_are_refused_with_the_days_that_they_cover() -> None:
    with pytest.raises(UsageError, match="from 2012-12-31 to 2013-12-31"):
        FLIGHTS.require_days(Days.of(date(2014, 1, 1)))


def test_flights_declares_the_67_numeric_features_once_each() -> None:
    assert (
        len(FLIGHTS.training.numeric)
        == len(set(FLIGHTS.training.features)) - len(FLIGHTS.training.categorical)
        == 67
    )


def test_stages_are_selected_in_the_order_of_the_night() -> None:
    assert [s.name for s in select(["predict", "ingest"])] == ["ingest", "predict"]
    assert select([]) == STAGES


def test_an_unknown_stage_is_refused_with_the_near_miss() -> None:
    with pytest.raises(
        UsageError, match="Did you mean 'ingest'\\? Known: ingest, check_raw, transform, "
    ):
        select(["ingst"])


def test_a_run_survives_the_way_to_another_process() -> None:
    run = Run(
        pipeline=FLIGHTS,
        days=Days.of(date(2013, 1, 5)),
        environment=Environment.read({"SPARK_REMOTE": "sc://cluster:15002"}),
    ).at(STAGES[3])
    assert Run.from_json(run.to_json()) == run


@pytest.mark.parametrize("run_id", ["", "a b", "x; rm -rf /", "ü"])
def test_a_run_id_that_a_shell_or_a_file_system_could_misread_is_refused(run_id: str) -> None:
    with pytest.raises(UsageError, match="not a run id"):
        Run(
            pipeline=FLIGHTS,
            days=Days.of(date(2013, 1, 5)),
            environment=Environment.read({}),
            run_id=run_id,
        )
