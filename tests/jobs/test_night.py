"""A stage ends as an exit code and a row of ops.stage_runs, whatever happens inside it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from datetime import date
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from pyspark.errors import PySparkException

from jobs import night
from jobs.lake import ops
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import GateRefused, NightshiftError, UsageError
from pipelines.run import Run
from pipelines.stages import STAGES, select, stage

Function = Callable[[Run], dict[str, object]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    return Run(
        pipeline=pipeline("flights"),
        days=Days.of(date(2013, 1, 5)),
        environment=environment,
        run_id="r1",
    ).at(stage("ingest"))


def _raising(error: Exception) -> Function:
    def fail(run: Run) -> dict[str, object]:
        raise error

    return fail


def test_a_stage_that_is_done_is_recorded_with_its_metrics(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        night, "_function", lambda stage: lambda run: {"rows": 3, "tables": {"flights": 3}}
    )
    assert night.perform(run.to_json()) == 0
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    assert (row["run_id"], row["stage"], row["status"], row["first_day"]) == (
        "r1",
        "ingest",
        "done",
        date(2013, 1, 5),
    )
    assert row["metrics"] == '{"rows": 3, "tables": {"flights": 3}}'
    assert row["code_version"]


@pytest.mark.parametrize(
    ("error", "code", "status", "traceback"),
    [
        (
            GateRefused("flights.flights", ("arr_delay: 40 % null",), "report.html"),
            1,
            "refused",
            False,
        ),
        (UsageError("no such thing"), 2, "failed", False),
        (NightshiftError("Spark is away"), 3, "failed", False),
        (
            PySparkException("[NO_ACTIVE_SESSION] No active Spark session found."),
            3,
            "failed",
            False,
        ),
        (ZeroDivisionError("a bug"), 3, "failed", True),
    ],
)
def test_a_stage_that_fails_ends_with_its_code_and_is_recorded(
    error: Exception,
    code: int,
    status: str,
    traceback: bool,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(night, "_function", lambda stage: _raising(error))
    assert night.perform(run.to_json()) == code
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    told = capsys.readouterr().err
    assert row["status"] == status
    assert row["error"] in told
    assert ("Traceback" in told) is traceback


def test_a_night_stops_at_the_first_stage_that_does_not_succeed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def refuse_transform(run: Run) -> int:
        done.append(run.doing.name)
        return 1 if run.doing.name == "transform" else 0

    monkeypatch.setattr(night, "_perform_somewhere", refuse_transform)
    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    assert night.run_night(run, STAGES) == 1
    assert done == ["ingest", "check_raw", "transform"]


def test_the_plan_names_the_tables_that_each_stage_makes_or_judges(run: Run) -> None:
    steps = {
        step.stage.name: step.tables
        for step in night.plan(run, select(["predict", "check_predictions", "train"]))
    }
    assert steps == {
        "train": (),
        "predict": ("flights.predictions",),
        "check_predictions": ("flights.predictions",),
    }


def _hold(run: Run, held: Event, released: Event) -> None:
    with night.one_run_at_a_time(run):
        held.set()
        time.sleep(0.5)
        released.set()


def test_two_runs_of_a_pipeline_take_turns(run: Run) -> None:
    held, released = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.Process(target=_hold, args=(run, held, released))
    other.start()
    assert held.wait(10)
    with night.one_run_at_a_time(run):
        assert released.is_set()
    other.join()
