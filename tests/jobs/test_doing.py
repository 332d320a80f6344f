"""The stage that a run is at is known when its process is killed."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from jobs import doing
from jobs.services.usage import Usage
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.stages import stage

NIGHT = date(2013, 1, 5)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of a home of its own, at a stage of days before its night."""
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    days = Days(NIGHT - timedelta(days=2), NIGHT - timedelta(days=1))
    run = Run(pipeline=pipeline("flights"), days=days, environment=environment, run_id="r1")
    return replace(run, as_of=NIGHT, named=NIGHT).at(stage("features"))


def _asked(run: Run) -> Run:
    """What the client knows of it."""
    return Run(
        pipeline=run.pipeline,
        days=Days.of(NIGHT),
        environment=run.environment,
        run_id=run.run_id,
        retrain=True,
    )


def test_the_last_stage_that_was_begun_is_found(run: Run) -> None:
    doing.note(run.at(stage("transform")))
    doing.note(run)
    at = doing.noted(_asked(run), LONG_AGO)
    assert at is not None
    assert at.run == replace(run, retrain=True)
    assert datetime.now(UTC) - at.began < timedelta(minutes=1)


def test_what_another_run_or_an_earlier_attempt_has_begun_is_not(run: Run) -> None:
    assert doing.noted(_asked(run), LONG_AGO) is None
    doing.note(run)
    assert doing.noted(replace(_asked(run), run_id="r2"), LONG_AGO) is None
    assert doing.noted(_asked(run), datetime.now(UTC)) is None


@pytest.mark.parametrize("left", ["", "{}", "[]", '{"run_id": "r1", "began": "soon"}'])
def test_a_broken_note_is_none(run: Run, left: str) -> None:
    doing.note(run)
    (file,) = run.environment.runtime.iterdir()
    file.write_text(left)
    assert doing.noted(_asked(run), LONG_AGO) is None


def test_a_note_that_cannot_be_kept_stops_no_stage(run: Run) -> None:
    run.environment.runtime.write_text("no folder")
    doing.note(run)
    assert doing.noted(_asked(run), LONG_AGO) is None


def test_a_stage_took_what_its_process_did_after_it_had_begun(run: Run) -> None:
    doing.note(run)
    at = doing.noted(_asked(run), LONG_AGO)
    assert at is not None
    used = sum(os.times()[:4])
    assert used - 1 < at.cpu_seconds <= used
    whole = Usage(
        seconds=500.0, cpu_seconds=at.cpu_seconds + 12.5, spark_cpu_seconds=7.0, peak_bytes=9
    )
    taken = at.taken(whole)
    assert taken.seconds < 60
    assert (taken.cpu_seconds, taken.peak_bytes) == (pytest.approx(12.5), 9)
    assert taken.spark_cpu_seconds is None
