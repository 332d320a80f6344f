"""What `nightshift run --result` tells a scheduler, whatever became of the run."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import outcome
from jobs.commands.plan import Plan
from jobs.commands.plan import write_result as write_plan
from jobs.commands.run import perform
from jobs.lake import ops
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, NotLanded, Refused
from pipelines.events import Event
from pipelines.run import Run
from pipelines.stages import stage

DAY = date(2013, 1, 5)
FAILURE = {"table": "flights.weather", "expectation": "e", "count": 9, "way_out": "nightshift …"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    return Run(
        pipeline=pipeline("flights"),
        days=Days.of(DAY),
        environment=environment,
        run_id="r",
    )


def recorded(
    run: Run,
    stage: str,
    *,
    minutes: int = 0,
    **more: Any,
) -> None:
    row = {
        "run_id": run.run_id,
        "pipeline": "flights",
        "stage": stage,
        "first_day": DAY,
        "last_day": DAY,
        "status": "done",
        "started_at": datetime.now(UTC) + timedelta(minutes=minutes),
        "seconds": 1.5,
        "metrics": json.dumps(more.pop("metrics", {})),
    }
    ops.append(run.environment, "stage_runs", [row | more])


def published(run: Run, day: date, **more: Any) -> None:
    row = {
        "run_id": run.run_id,
        "pipeline": "flights",
        "table_name": "flights.weather",
        "day": day,
        "version": 3,
        "rows": 72,
        "changed": True,
        "published_at": datetime.now(UTC),
    }
    ops.append(run.environment, "publications", [row | more])


def told(
    run: Run,
    tmp_path: Path,
    night: Callable[[], int],
    kept: Sequence[Days] = (),
) -> dict[str, Any]:
    file = tmp_path / "result.json"
    code = perform(run, night, "table", file, kept=kept)
    result: dict[str, Any] = json.loads(file.read_text())
    assert result["exit_code"] == code
    return result


def test_a_run_that_is_done_tells_its_stages_and_what_changed(run: Run, tmp_path: Path) -> None:
    # An earlier run of the same id, such as a task before it was cleared.
    recorded(run, "check_raw", minutes=-9, status="refused", error="no")

    def night() -> int:
        metrics = {"rows": 144, "report": "index.html", "published": {"weather": {}}}
        recorded(run, "check_raw", metrics=metrics)
        published(run, DAY, version=2, rows=70)
        published(run, DAY)
        published(run, DAY + timedelta(days=1))
        published(run, DAY, table_name="flights.planes", changed=False)
        return 0

    result = told(run, tmp_path, night)
    assert (result["outcome"], result["message"], result["report"]) == ("done", None, "index.html")
    (stage,) = result["stages"]
    assert stage == {
        "stage": "check_raw",
        "status": "done",
        "days": "2013-01-05",
        "seconds": 1.5,
        "figures": {"rows": 144, "report": "index.html"},
    }
    assert result["tables"] == {
        "flights.weather": {
            "rows": 144,
            "version": 3,
            "days": 2,
            "first_day": "2013-01-05",
            "last_day": "2013-01-06",
        }
    }


@pytest.mark.parametrize(
    ("name", "code", "to_tell"),
    [
        (None, 0, None),
        ("monitor", 1, None),
        ("train", 0, []),
        ("monitor", 0, ["drift_found"]),
    ],
)
def test_one_stage_that_succeeds_tells_what_it_has_for_people(
    name: str | None,
    code: int,
    to_tell: list[str] | None,
    run: Run,
    tmp_path: Path,
) -> None:
    def night() -> int:
        metrics = {"drift_began": ["feature x (wasserstein)"], "drift_ended": []}
        recorded(run, "monitor", metrics=metrics)
        return code

    one = run.at(stage(name)) if name else run
    assert told(one, tmp_path, night)["to_tell"] == to_tell


def test_what_cannot_be_looked_for_is_left_to_who_tells_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(run: Run) -> None:
        raise OSError("the store is away")

    monkeypatch.setitem(outcome.OF_RECORDS, Event.DRIFT_FOUND, away)
    assert told(run.at(stage("monitor")), tmp_path, lambda: 0)["to_tell"] is None


def test_what_an_attempt_before_has_published_is_told_by_the_one_that_ends(
    run: Run, tmp_path: Path
) -> None:
    published(run, DAY, published_at=datetime.now(UTC) - timedelta(minutes=9))

    def night() -> int:
        recorded(run, "check_raw")
        published(run, DAY, changed=False)
        return 0

    assert set(told(run, tmp_path, night)["tables"]) == {"flights.weather"}


def test_a_refusal_tells_table_expectation_count_way_out_and_report(
    run: Run, tmp_path: Path
) -> None:
    def night() -> int:
        metrics = {"report": "red.html", "failures": [FAILURE]}
        recorded(run, "check_raw", status="refused", error="weather was refused", metrics=metrics)
        return 1

    result = told(run, tmp_path, night)
    assert (result["outcome"], result["message"]) == ("refused", "weather was refused")
    assert (result["report"], result["failures"]) == ("red.html", [FAILURE])
    assert result["tables"] == {}


@pytest.mark.parametrize(
    "error",
    [Refused("a hole"), NotLanded("no file"), ValueError("a bug")],
)
def test_what_goes_wrong_between_stages_is_told_too(
    run: Run, tmp_path: Path, error: Exception
) -> None:
    def night() -> int:
        raise error

    file = tmp_path / "result.json"
    with pytest.raises(type(error)):
        perform(run, night, "table", file)
    result = json.loads(file.read_text())
    assert str(error) in result["message"]
    assert result["exit_code"] == getattr(error, "exit_code", 3)
    assert result["outcome"] == "failed"


FULL = Path("/dev/full")
"""A file for which there is never room."""


def test_a_result_for_which_there_is_no_room_leaves_the_exit_code_of_the_night(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def hole() -> int:
        raise Refused("a hole")

    assert perform(run, lambda: 1, "table", FULL) == 1
    with pytest.raises(Refused, match="a hole"):
        perform(run, hole, "table", FULL)
    warning = "Warning: no result in /dev/full: [Errno 28] No space left on device\n"
    assert capsys.readouterr().err == 2 * warning
    # All else is done: whoever asked for it lacks it.
    with pytest.raises(OSError, match="No space left on device"):
        perform(run, lambda: 0, "table", FULL)


def test_a_result_is_written_whole_or_not_at_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    file = tmp_path / "result.json"
    assert perform(run, lambda: 1, "table", file) == 1
    with pytest.raises(OSError, match="No space left on device"):
        write_plan(Plan(rows=[], has_work=False), file)
    assert not list(tmp_path.glob("*result*"))


def test_a_result_into_a_pipe_gets_there(run: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)) as reading:
        assert perform(run, lambda: 1, "table", pipe) == 1
        assert json.load(reading)["exit_code"] == 1


def test_a_lake_that_is_away_leaves_the_exit_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OSError("away")

    monkeypatch.setattr(ops, "read", away)
    result = told(run, tmp_path, lambda: 3)
    assert result["outcome"] == "failed"
    assert result["exit_code"] == 3
    assert result["stages"] == []


def test_days_whose_corrections_were_not_accepted_are_told(run: Run, tmp_path: Path) -> None:
    kept: list[Days] = []

    def night() -> int:
        recorded(run, "ingest", status="refused", error="a bad line")
        kept.append(Days.of(DAY))
        return 1

    result = told(run, tmp_path, night, kept)
    assert (result["kept"], result["message"]) == (["2013-01-05"], "a bad line")
    assert told(run, tmp_path, lambda: 0)["kept"] == []


@pytest.mark.parametrize("status", ["not landed", "refused", "failed"])
def test_what_ended_the_night_is_told_and_no_correction_before_it(
    status: str, run: Run, tmp_path: Path
) -> None:
    before = DAY - timedelta(days=3)

    def night() -> int:
        days = {"first_day": before, "last_day": before}
        recorded(run, "ingest", status="refused", error="a bad line", **days)
        recorded(run, "ingest", status=status, error="of tonight")
        return 4

    result = told(run, tmp_path, night)
    assert (result["outcome"], result["message"]) == (status, "of tonight")


def test_the_files_are_told_for_which_the_night_waits(run: Run, tmp_path: Path) -> None:
    def night() -> int:
        recorded(run, "ingest", status="not landed", metrics={"lacking": ["toy/a.csv"]})
        return NotLanded.exit_code

    assert told(run, tmp_path, night)["lacking"] == ["toy/a.csv"]
    assert told(run, tmp_path, lambda: 0)["lacking"] == []


def test_a_stage_that_failed_first_is_told_though_a_correction_was_bad(
    run: Run, tmp_path: Path
) -> None:
    def night() -> int:
        recorded(run, "ingest", status="refused", error="a bad line")
        recorded(run, "evaluate", status="refused", error="no better")
        recorded(run, "predict", status="failed", error="away")
        return 1

    assert told(run, tmp_path, night)["message"] == "no better"


def test_a_fault_between_stages_is_told_and_no_correction_before_it(
    run: Run, tmp_path: Path
) -> None:
    def night() -> int:
        recorded(run, "ingest", status="refused", error="a bad line")
        raise NightshiftError("Spark is away")

    file = tmp_path / "result.json"
    with pytest.raises(NightshiftError):
        perform(run, night, "table", file)
    result = json.loads(file.read_text())
    assert (result["outcome"], result["message"]) == ("failed", "Spark is away")
