"""A run for programs prints rows on stdout, and what the stages say on stderr."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.commands.run import perform
from jobs.lake import ops
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import Refused
from pipelines.run import Run
from pipelines.stages import stage

STAGES = (stage("ingest"), stage("check_raw"))
HEADER = "run_id,stage,status,seconds,metrics,error"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(
        pipeline=pipeline("flights"),
        days=Days.of(date(2013, 1, 5)),
        environment=Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}),
        run_id="r1",
    )


def record(run: Run, name: str, **more: Any) -> None:
    row = {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "stage": name,
        "started_at": datetime.now(UTC),
        **more,
    }
    ops.append(run.environment, "stage_runs", [row])


def refused_night(run: Run) -> int:
    """A night of two stages, of which the second is refused."""
    print("ingest 1.5 s")
    os.write(1, b"said by a library\n")
    first, second = STAGES
    metrics = {
        "rows": 3,
        "share": float("nan"),
        "tables": {"flights": 3},
    }
    done = json.dumps(metrics)
    record(run, first.name, status="done", seconds=1.5, metrics=done)
    record(run, second.name, status="refused", seconds=0.5, error="40 % null")
    record(run, "other run", run_id="r2", status="done")
    record(run, "other pipeline", pipeline="weather", status="done")
    return 1


@pytest.fixture(autouse=True)
def night_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = datetime.now(UTC) - timedelta(seconds=5)
    record(run, "earlier run of this id", status="done", started_at=earlier)


def test_json_is_one_row_a_stage_also_of_a_refused_run(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert perform(run, partial(refused_night, run), "json") == 1
    printed = capfd.readouterr()
    assert json.loads(printed.out) == [
        {
            "run_id": "r1",
            "stage": "ingest",
            "status": "done",
            "seconds": 1.5,
            "metrics": {"rows": 3, "share": None, "tables": {"flights": 3}},
            "error": None,
        },
        {
            "run_id": "r1",
            "stage": "check_raw",
            "status": "refused",
            "seconds": 0.5,
            "metrics": None,
            "error": "40 % null",
        },
    ]
    assert sorted(printed.err.splitlines()) == ["ingest 1.5 s", "said by a library"]


def test_a_run_that_an_error_ends_prints_the_rows_that_it_has(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    def night() -> int:
        print("said by a stage")
        record(run, "ingest", status="refused", seconds=0.5, error="a hole")
        raise Refused("a hole")

    with pytest.raises(Refused, match="a hole"):
        perform(run, night, "json")
    printed = capfd.readouterr()
    (row,) = json.loads(printed.out)
    assert (row["stage"], row["status"], row["error"]) == ("ingest", "refused", "a hole")
    assert printed.err == "said by a stage\n"


@pytest.mark.parametrize(
    ("form", "none"),
    [
        ("json", "[]\n"),
        ("csv", f"{HEADER}\n"),
    ],
)
def test_of_a_record_that_cannot_be_read_there_are_no_rows(
    run: Run,
    form: str,
    none: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object) -> None:
        raise OSError("the store is away")

    def night() -> int:
        raise Refused("a hole")

    monkeypatch.setattr(ops, "read", away)
    with pytest.raises(Refused, match="a hole"):
        perform(run, night, form)
    assert capfd.readouterr().out == none


def test_csv_is_one_row_a_stage(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert perform(run, partial(refused_night, run), "csv") == 1
    header, first, second = csv.reader(io.StringIO(capfd.readouterr().out))
    assert header == ["run_id", "stage", "status", "seconds", "metrics", "error"]
    assert json.loads(first[4])["tables"] == {"flights": 3}
    assert second == ["r1", "check_raw", "refused", "0.5", "", "40 % null"]


def test_for_people_each_stage_speaks_when_it_is_done(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert perform(run, partial(refused_night, run), "table") == 1
    assert sorted(capfd.readouterr().out.splitlines()) == ["ingest 1.5 s", "said by a library"]
