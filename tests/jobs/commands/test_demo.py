"""The demonstration is the example's data; the command knows no pipeline."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs import examples
from jobs.commands import demo as command
from jobs.commands.demo import demo, demonstration, is_loaded, newest_report
from jobs.examples import Demo
from jobs.lake import ops
from jobs.services.airflow_api import Task
from pipelines import catalog, replay
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.run import Run
from pipelines.spec import Replay
from pipelines.stages import STAGES
from tests.jobs.toy import TOY

SHOWN = Demo(
    load=Days(date(2013, 1, 1), date(2013, 1, 2)),
    nights=Days(date(2013, 1, 3), date(2013, 1, 4)),
    queries=("SELECT '1E5' AS shown", "SELECT 2 AS two"),
)


class FakeAirflow:
    """Runs nothing, and remembers what it was asked for."""

    url = "http://airflow"
    user = "admin"
    password = "a password"

    def __init__(self) -> None:
        self.nights: list[tuple[str, Any]] = []

    def has_dag(self, dag: str) -> bool:
        return True

    def trigger(self, dag: str, params: dict[str, Any]) -> str:
        self.nights.append((dag, params))
        return f"run {len(self.nights)}"

    def page(self, dag: str, run_id: str) -> str:
        return f"{self.url}/{dag}/{run_id}"

    def wait(self, dag: str, run_id: str, timeout_seconds: float, tell: Any) -> float:
        tell(Task(name="ingest", state="success", try_number=1, seconds=1.5))
        return 61.0


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> FakeAirflow:
    """A toy demonstration whose platform is not there."""
    fake = FakeAirflow()
    done: dict[str, Any] = {"files_written": 3, "files_unchanged": 1}
    done |= {feed.name: 8 for feed in TOY.feeds}
    monkeypatch.setattr(command, "demonstrations", lambda: {"toy": SHOWN})
    monkeypatch.setattr(command, "own_airflow", lambda environment: fake)
    monkeypatch.setattr("jobs.services.up", lambda environment: 0)
    monkeypatch.setattr("jobs.services.down", lambda environment: print("down") or 0)
    monkeypatch.setattr("jobs.commands.land.land", lambda pipeline, environment, days: done)
    monkeypatch.setattr("jobs.night.run_night", lambda run, stages: 0)
    monkeypatch.setattr(
        "jobs.commands.models.models", lambda pipeline, environment: (("version",), [("7",)])
    )
    return fake


def checked(home: Environment, report: str, hour: int, pipeline: str = "toy") -> None:
    at = datetime(2013, 1, 4, hour, tzinfo=UTC)
    row = {"pipeline": pipeline, "report": report, "checked_at": at}
    ops.append(home, "check_results", [row])


def test_a_demonstration_runs_its_nights_and_shows_its_queries(
    home: Environment, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(home, "reports/of the night", 5)
    assert demo(TOY, home) == 0
    assert airflow.nights == [
        ("toy", {"date": "2013-01-03"}),
        ("toy", {"date": "2013-01-04"}),
    ]
    printed = capsys.readouterr().out
    for text in (
        "Land the source's files of 2013-01-01..2013-01-04",
        "nightshift run toy --from 2013-01-01 --to 2013-01-02",
        "ingest               1.5 s",
        "| 1E5   |",
        "| two |",
        "$ nightshift models toy",
        "Data-quality report: reports/of the night",
        f"password in {home.secrets / 'admin_password'}",
        "`make down` stops it",
    ):
        assert text in printed
    assert "flights" not in printed
    assert airflow.password not in printed


@pytest.mark.parametrize(
    ("written", "unchanged", "told"),
    [
        (3, 1, "3 files written, 1 there already; rows: readings 8, sensors 8"),
        # By the source's DAG, which Airflow runs as soon as it is up.
        (0, 4, "the source's 4 files are there already; rows: readings 8, sensors 8"),
    ],
)
def test_files_that_airflow_has_dropped_meanwhile_are_told_as_there(
    home: Environment,
    airflow: FakeAirflow,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    written: int,
    unchanged: int,
    told: str,
) -> None:
    checked(home, "reports/of the night", 5)
    landed = {"files_written": written, "files_unchanged": unchanged, "readings": 8, "sensors": 8}
    monkeypatch.setattr("jobs.commands.land.land", lambda *_: landed)
    assert demo(TOY, home) == 0
    assert f"{home.landing}: {told}" in capsys.readouterr().out


def test_a_platform_that_did_not_start_is_not_said_to_run(
    home: Environment,
    airflow: FakeAirflow,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(environment: Environment) -> int:
        raise NightshiftError("Port 8080 is taken.")

    monkeypatch.setattr("jobs.services.up", refuse)
    with pytest.raises(NightshiftError, match="is taken"):
        demo(TOY, home)
    assert "is running" not in capsys.readouterr().out


def test_the_demonstration_leaves_an_example_that_goes_on_after_its_last_night(
    home: Environment, airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(home, "reports/of the night", 5)
    played = replace(
        TOY,
        replay=Replay(first=date(2013, 1, 2), drops="0 4 * * *"),
    )
    assert demo(played, home) == 0
    calendar = replay.calendar(played, home)
    assert calendar.first == SHOWN.nights.last, "yesterday is the last night that was shown"
    printed = capsys.readouterr().out
    assert f"{calendar.first_today} stands for 2013-01-04, and so on" in printed
    assert demo(played, home) == 0
    assert replay.calendar(played, home) == calendar


@pytest.mark.parametrize("name", examples.names())
def test_a_home_without_the_demonstration_begins_where_its_load_ends(name: str) -> None:
    pipeline = catalog.pipeline(name)
    assert pipeline.replay
    shown = demonstration(pipeline)
    assert pipeline.replay.first == shown.load.last
    assert pipeline.first_day == shown.load.first


def test_the_password_is_shown_on_a_terminal_alone(
    home: Environment,
    airflow: FakeAirflow,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked(home, "reports/of the night", 5)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert demo(TOY, home) == 0
    assert "user admin  password a password\n" in capsys.readouterr().out


def test_a_load_that_is_refused_ends_the_demonstration(
    home: Environment,
    airflow: FakeAirflow,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("jobs.night.run_night", lambda run, stages: 1)
    monkeypatch.setenv("DEMO_KEEP", "0")
    assert demo(TOY, home) == 1
    assert airflow.nights == []
    assert capsys.readouterr().out.endswith("down\n")


def test_what_is_loaded_is_not_loaded_again(home: Environment) -> None:
    run = Run(pipeline=TOY, days=SHOWN.load, environment=home, run_id="demo")
    assert not is_loaded(run)
    done = [{"run_id": "demo", "stage": stage.name, "status": "done"} for stage in STAGES]
    ops.append(home, "stage_runs", done[:-1])
    assert not is_loaded(run)
    ops.append(home, "stage_runs", [{**done[-1], "status": "failed"}])
    assert not is_loaded(run)
    ops.append(home, "stage_runs", done[-1:])
    assert is_loaded(run)


def test_the_report_is_that_of_the_pipelines_last_check(home: Environment) -> None:
    checked(home, "first", 5)
    checked(home, "last", 7)
    checked(home, "between", 6)
    checked(home, "another pipeline's", 8, pipeline="other")
    assert newest_report(TOY, home) == "last"


def test_a_pipeline_without_a_demonstration_is_refused_with_those_that_have_one(
    home: Environment,
) -> None:
    with pytest.raises(UsageError, match="No demonstration is built in for 'taxi'.*: flights"):
        demo(replace(TOY, name="taxi"), home)
