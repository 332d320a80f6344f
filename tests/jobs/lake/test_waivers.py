"""A waiver is in force by the day on which a run began."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from jobs.commands.waive import revoke
from jobs.lake import ops, waivers
from pipelines.days import Days
from pipelines.run import Run
from pipelines.waivers import Waiver
from tests.jobs.lake.test_commits import run_at
from tests.jobs.records import stage_row

LAST_DAY = date(2013, 1, 6)


BEGAN = datetime(2013, 1, 6, 23, 50, tzinfo=UTC)
"""On the last day of the waiver."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Whose pipeline has a waiver."""
    night = Days.of(date(2013, 1, 5))
    run = run_at(tmp_path, night)
    waiver = Waiver(
        waiver_id="w_1",
        days=night,
        expectation=None,
        column=None,
        by="ann",
        why="odd",
        until=LAST_DAY,
    )
    waivers.grant(run.environment, "toy", "toy.sums", waiver)
    return run


def test_a_waiver_that_ends_in_mid_run_is_in_force_to_the_end_of_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = BEGAN
    now = began
    monkeypatch.setattr(ops, "now", lambda: now)
    assert len(waivers.in_force(run)) == 1
    ops.append(run.environment, "stage_runs", [stage_row(run, "ingest", started_at=began)])
    now = began + timedelta(minutes=20)
    assert len(waivers.in_force(run)) == 1
    # Of another run that begins now, and of the same that is done again later.
    assert waivers.in_force(replace(run, run_id="other")) == []
    now = began + timedelta(days=2)
    assert waivers.in_force(run) == []


def test_a_waiver_that_ran_out_is_revoked_for_the_run_that_began_before(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began = stage_row(run, "ingest", started_at=BEGAN)
    ops.append(run.environment, "stage_runs", [began])
    monkeypatch.setattr(ops, "now", lambda: BEGAN + timedelta(minutes=20))
    assert waivers.in_force(run)[0].state(waivers.today()) == "ran out"
    assert revoke(run.pipeline, run.environment, "w_1", "bob", "it was the sensor") == 0
    assert capsys.readouterr().out.startswith("w_1 is revoked.")
    assert waivers.in_force(run) == []


def test_nights_that_somebody_gives_one_id_are_no_run_of_weeks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in range(10):
        started = BEGAN + timedelta(days=night)
        ops.append(run.environment, "stage_runs", [stage_row(run, "ingest", started_at=started)])
    monkeypatch.setattr(ops, "now", lambda: BEGAN + timedelta(days=9, hours=1))
    assert waivers.in_force(run) == []


@pytest.mark.parametrize(
    ("stages", "hours"),
    [
        # Its first attempt has found a file missing.
        ([(0, 0.1), (23.5, 0.1)], 24.2),
        ([(0, 39), (39, 40)], 80),
    ],
    ids=["waiting", "working"],
)
def test_a_run_of_more_than_a_day_is_one_run(
    stages: list[tuple[float, float]],
    hours: float,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for began, taken in stages:
        started = BEGAN + timedelta(hours=began)
        row = stage_row(run, "ingest", started_at=started, seconds=taken * 3600)
        ops.append(run.environment, "stage_runs", [row])
    now = BEGAN + timedelta(hours=hours)
    monkeypatch.setattr(ops, "now", lambda: now)
    assert len(waivers.in_force(run)) == 1
