"""What docs/how-to/extend.md adds is there and works, in a copy of our packages."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.spark import session
from pipelines.environment import ROOT, Environment
from tests.checkout import change_files, copy_packages, typed, write_files
from tests.documents import Command, commands
from tests.test_own_pipeline import TUTORIAL
from tools import PACKAGES

PAGE = ROOT / "docs" / "how-to" / "extend.md"
_TESTS = (
    "tests/jobs/training/families/test_init.py",
    "tests/jobs/training/test_replay.py::test_every_family_can_be_replayed_and_explained",
    "tests/jobs/notifications/test_channels.py",
    "tests/pipelines/test_environment.py",
    "tests/pipelines/test_feeds.py",
)
"""Those that take what is new as they take the others, without Spark."""
_STAGE = """
import sys
from datetime import date
from pathlib import Path
from jobs.stages.export import export
from pipelines.days import Days
from pipelines.stages import STAGES
from tests.jobs.training import small
environment = small.environment_at(Path(sys.argv[1]))
rows = small.scoring_rows(Days(date(2013, 1, 23), date(2013, 1, 24)), per_day=3)
small.publish(environment, rows, "predictions", "batch_date")
run = small.run_of(environment, "export", date(2013, 1, 24), date(2013, 1, 23))
print(run.doing.does)
print(export(run), export(run))
"""
_DECLARED = """
from jobs.lake.dictionary import column_docs
from pipelines.stages import STAGES
from pipelines.weather import PIPELINE
print("day_range" in PIPELINE.training.numeric)
print(*[column_docs(f"weather.{table}")["day_range"] for table in ("daily", "scoring")])
print(*[stage.name for stage in STAGES])
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of our packages and tests, with the tutorial's pipeline and all of the page."""
    folder = tmp_path_factory.mktemp("extended")
    copy_packages(folder, (*PACKAGES, "tests", "tools"))
    write_files(TUTORIAL, folder)
    write_files(PAGE, folder)
    change_files(PAGE, folder)
    return folder


@pytest.fixture
def syslog() -> Iterator[socket.socket]:
    """Somebody to whom lines are sent by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


def text_of(part: str) -> str:
    """A part of the page."""
    text = PAGE.read_text()
    begin = text.index(f"## {part}\n")
    end = text.find("\n## ", begin)
    return text[begin : end if end > 0 else None]


def shown(part: str) -> list[Command]:
    """Its commands."""
    return [one for one in commands(PAGE) if one.text in text_of(part)]


def play(checkout: Path) -> None:
    """Drop the files of the pumps, which now are of tab-separated values."""
    assert typed(checkout, ["python", "var/make_readings.py"]).returncode == 0
    for file in (checkout / "var/landing/pumps/readings").glob("*.csv"):
        rows = csv.reader(file.read_text().splitlines())
        lines = ["\t".join(row) + "\n" for row in rows]
        file.with_suffix(".tsv").write_text("".join(lines))
        file.unlink()


@pytest.mark.parametrize(
    ("kind", "part", "own"),
    [
        ("a source format", "A source format", 0),
        # Tests that the page names and does not show, such as one of its own.
        ("a notification channel", "A notification channel", 1),
        ("a model family", "A model family", 1),
        ("a stage", "A stage", 2),
    ],
)
def test_architecture_counts_the_files_of_each_kind(kind: str, part: str, own: int) -> None:
    named = set(re.findall(r"^```(?:python|diff)\n# (\S+)$", text_of(part), re.MULTILINE))
    tests = {name for name in named if name.startswith("tests/")}
    page = (ROOT / "docs" / "architecture.md").read_text()
    (row,) = re.findall(rf"^\| {kind}\b.*\|.*\| (\d+) \+ (\d+) tests?\b", page, re.MULTILINE)
    assert row == (str(len(named - tests)), str(len(tests) + own))


def test_tests_of_each_kind_take_what_is_new(checkout: Path) -> None:
    words = ["python", "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    ended = typed(checkout, [*words, *_TESTS])
    assert ended.returncode == 0, f"{ended.stdout[-5000:]}\n{ended.stderr}"
    assert len(re.findall(r"test_init.*step_model\S* PASSED", ended.stdout)) > 7


def test_rows_of_the_new_format_are_read_checked_and_published(
    checkout: Path, spark: SparkSession, shared_environment: Environment
) -> None:
    play(checkout)
    remote = session.address(shared_environment)
    night, query = shown("A source format")
    ended = typed(checkout, night.words, SPARK_REMOTE=remote)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    ended = typed(checkout, [*query.words, "--format", "json"])
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(ended.stdout)
    file = checkout / "var/landing/pumps/readings/2024-01-01.tsv"
    lines = file.read_text().splitlines()[1:6]
    dropped = [line.split("\t") for line in lines]
    assert [(row["pump"], row["heat"]) for row in rows] == [
        (pump, float(heat)) for pump, _, heat, _ in dropped
    ]
    assert [row["source_line"] for row in rows] == [2, 3, 4, 5, 6]
    assert rows[0]["source_file"].endswith("readings/2024-01-01.tsv")


def test_the_night_without_files_follows_the_last_of_the_tutorial() -> None:
    # Of a later one the nights before it lack files too: it is refused, and does not wait.
    played = " ".join(command.text for command in commands(TUTORIAL))
    days = re.findall(r"--date (\S+)", played)
    following = date.fromisoformat(max(days)) + timedelta(days=1)
    *_, night = shown("A notification channel")
    assert f"--date {following} " in night.text


def test_the_new_channel_is_told_of_a_night_whose_files_have_not_landed(
    checkout: Path, syslog: socket.socket, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{syslog.getsockname()[1]}"
    *_, night = shown("A notification channel")
    variables = {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_SYSLOG": address}
    ended = typed(checkout, night.words, **variables)
    assert ended.returncode == night.exit_code, f"{ended.stdout}\n{ended.stderr}"
    line = syslog.recv(9000).decode()
    # A warning of `local0`.
    assert line.startswith("<132>nightshift: pumps 2024-02-12: the night ended without a feed")
    refused = typed(checkout, night.words, **{**variables, "NIGHTSHIFT_SYSLOG": "nowhere"})
    assert refused.returncode == 2
    assert "NIGHTSHIFT_SYSLOG" in refused.stderr
    assert "a host and a port" in refused.stderr


def test_the_new_stage_writes_a_file_for_each_night(checkout: Path, tmp_path: Path) -> None:
    ended = typed(checkout, ["python", "-c", _STAGE, str(tmp_path)])
    assert ended.returncode == 0, ended.stderr
    does, counted = ended.stdout.splitlines()
    assert does == "Write the published predictions into a file, for who cannot ask SQL."
    assert counted == "{'exported': 6} {'exported': 6}"
    written = {file.name: file for file in (tmp_path / "exports" / "small").iterdir()}
    assert set(written) == {"2013-01-24.csv", "2013-01-25.csv"}
    header, *rows = written["2013-01-25.csv"].read_text().splitlines()
    assert '"batch"' in header
    assert len(rows) == 3


def test_a_feature_and_a_stage_follow_from_their_declarations(checkout: Path) -> None:
    ended = typed(checkout, ["python", "-c", _DECLARED])
    assert ended.returncode == 0, ended.stderr
    is_read, docs, stages = ended.stdout.splitlines()
    assert is_read == "True"
    assert docs.count("between the coldest and the warmest hour of the day") == 2
    assert stages.endswith("predict check_predictions export monitor")


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("SOAK"), reason="minutes; `make soak` runs it")
def test_the_pumps_run_with_all_of_it(checkout: Path) -> None:
    play(checkout)
    said = {}
    for one in (*shown("A model family"), *shown("A stage")):
        ended = typed(checkout, one.words)
        assert ended.returncode == 0, f"{one.text}\n{ended.stdout}\n{ended.stderr}"
        said[one.text] = ended.stdout
    (models,) = [text for command, text in said.items() if " models " in command]
    assert "step_model" in models
    assert (checkout / "var/exports/pumps/2024-02-11.csv").exists()
