from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import pytest

from jobs import outcome
from jobs.commands.profile import write_page
from jobs.commands.run import perform
from jobs.lake import ops
from jobs.services.sampler import COMPUTES, KINDS, PYTHON
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run

DAY = "2013-01-05"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(
        pipeline=pipeline("flights"),
        days=Days.of(date.fromisoformat(DAY)),
        environment=Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}),
        run_id="r1",
        profile=True,
    )


def leave(
    run: Run,
    stage: str,
    began: float,
    *places: tuple[str, str, float],
) -> None:
    run.profiles.mkdir(parents=True, exist_ok=True)
    seconds = sum(place[2] for place in places)
    told = {"stage": stage, "days": DAY, "began": began, "seconds": seconds, "places": places}
    (run.profiles / f"{stage}_{DAY}..{DAY}.json").write_text(json.dumps(told))


def test_the_page_tells_stages_in_their_order_what_they_did_and_what_was_between(
    run: Run,
) -> None:
    leave(run, "transform", 2.0, (COMPUTES, "jobs/lake/staging.py write", 3.0))
    of_ingest = ((PYTHON, "jobs/a.py <lambda>", 0.5), (COMPUTES, "jobs/a.py read", 1.5))
    leave(run, "ingest", 1.0, *of_ingest)
    file = write_page(run, 0.0, 7.0)
    assert file is not None
    html = file.read_text()
    assert "Where 7.0 seconds went" in html
    assert re.findall(r"<b>([^<]+)</b>", html) == ["the whole run", "ingest", "transform"]
    legend = re.findall(r"</i>([^<]+) ([\d.]+) s</span>", html)
    assert legend == [(COMPUTES, "4.5"), ("between the stages", "2.0"), (PYTHON, "0.5")]
    rows = re.findall(r"<tr><td[^>]*>([\d.]+)</td><td>([^<]+)</td><td>([^<]+)</td>", html)
    assert rows == [
        ("3.00", COMPUTES, "jobs/lake/staging.py write"),
        ("1.50", COMPUTES, "jobs/a.py read"),
        ("0.50", PYTHON, "jobs/a.py &lt;lambda&gt;"),
    ]


def test_days_of_one_stage_are_added_up_and_stages_of_an_earlier_run_are_left_out(
    run: Run,
) -> None:
    leave(run, "evaluate", 1.0, (PYTHON, "jobs/a.py read", 9.0))
    leave(run, "ingest", 3.0, (PYTHON, "jobs/a.py read", 1.0))
    (run.profiles / f"ingest_{DAY}..{DAY}.json").rename(run.profiles / "ingest of another day.json")
    leave(run, "ingest", 4.0, (PYTHON, "jobs/a.py read", 2.0))
    file = write_page(run, 2.0, 4.0)
    assert file is not None
    rows = re.findall(r"<tr><td[^>]*>([\d.]+)</td><td>[^<]+</td><td>([^<]+)</td>", file.read_text())
    assert rows == [("3.00", "jobs/a.py read")]


def test_a_page_that_cannot_be_written_changes_nothing_of_how_the_night_ends(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def done() -> int:
        leave(run, "ingest", time.time(), (PYTHON, "jobs/a.py read", 1.0))
        (run.profiles / "index.html").mkdir()
        return 0

    assert perform(run, done, "table") == 0
    assert "Warning: no page of where its time went" in capsys.readouterr().err


def record_killed(
    run: Run,
    stage: str,
    began: float,
    seconds: float,
) -> None:
    row = {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "stage": stage,
        "first_day": run.days.first,
        "last_day": run.days.last,
        "started_at": datetime.fromtimestamp(began, UTC),
        "seconds": seconds,
        "status": "failed",
        "error": outcome.NO_REASON,
    }
    ops.append(run.environment, "stage_runs", [row])


def bars(file: Path | None) -> list[tuple[str, list[str]]]:
    """Each stage, and what is told of the parts of its bar; the whole run first."""
    assert file is not None
    found = re.findall(r"<b>([^<]+)</b>(.*?)</div></div>", file.read_text())
    return [(name, re.findall(r'title="([^"]+)"', parts)) for name, parts in found]


def test_a_stage_that_was_killed_has_a_bar_of_its_seconds_which_are_not_between_the_stages(
    run: Run,
) -> None:
    leave(run, "ingest", 11.0, (PYTHON, "jobs/a.py read", 2.0))
    # When all of it was seen.
    record_killed(run, "ingest", 11.0, 2.0)
    record_killed(run, "train", 13.0, 90.0)
    # Neither of this run: one of its id that was before it, and another's.
    record_killed(run, "train", 1.0, 70.0)
    record_killed(replace(run, run_id="r2"), "train", 14.0, 7.0)
    python, killed = f"{PYTHON}: 2.00 s", "killed: what it did was not kept: 90.00 s"
    assert bars(write_page(run, 10.0, 95.0)) == [
        ("the whole run", [python, killed, "between the stages: 3.00 s"]),
        ("ingest", [python]),
        ("train", [killed]),
    ]


def test_a_stage_that_was_killed_when_it_made_the_same_days_anew_has_a_bar(run: Run) -> None:
    leave(run, "transform", 11.0, (PYTHON, "jobs/a.py read", 2.0))
    record_killed(run, "transform", 13.0, 90.0)
    _, first, again = bars(write_page(run, 10.0, 95.0))
    assert first == ("transform", [f"{PYTHON}: 2.00 s"])
    assert again == ("transform", ["killed: what it did was not kept: 90.00 s"])


def test_a_run_whose_only_stage_was_killed_has_a_page(run: Run) -> None:
    record_killed(run, "train", 13.0, 90.0)
    whole, train = bars(write_page(run, 10.0, 95.0))
    assert (whole[0], train[0]) == ("the whole run", "train")


def test_a_page_is_written_also_where_no_record_can_be_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OSError("the store is away")

    monkeypatch.setattr(ops, "read", away)
    leave(run, "ingest", 11.0, (PYTHON, "jobs/a.py read", 2.0))
    _, ingest = bars(write_page(run, 10.0, 3.0))
    assert ingest == ("ingest", [f"{PYTHON}: 2.00 s"])


def test_each_kind_has_a_colour(run: Run) -> None:
    leave(run, "ingest", 1.0, *((kind, "jobs/a.py read", 1.0) for kind in KINDS))
    file = write_page(run, 0.0, 9.0)
    assert file is not None
    colours = re.findall(r'title="[^"]+" style="[^"]*background:(#\w+)"', file.read_text())
    assert len(set(colours)) == len(KINDS) + 1


def test_a_run_is_told_where_its_page_is_also_when_it_was_refused(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> int:
        leave(run, "ingest", time.time(), (PYTHON, "jobs/a.py read", 1.0))
        return 1

    assert perform(run, refused, "table") == 1
    assert str(run.profiles / "index.html") in capsys.readouterr().out


def test_a_run_that_had_nothing_to_do_has_no_page(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert perform(run, partial(int, 0), "table") == 0
    assert "no stage had anything to do" in capsys.readouterr().out
    assert not run.profiles.exists()
