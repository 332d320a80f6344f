"""A pipeline's source files are dropped whole, once, and from its example alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from jobs import examples
from jobs.commands.land import land
from jobs.lake.knowledge import is_reference_announced
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from tests.jobs.toy import TOY

FIRST = date(2013, 1, 1)
SECOND = date(2013, 1, 2)
THIRD = date(2013, 1, 3)
READINGS = pd.DataFrame(
    {
        "id": ["1", "2", "3"],
        "taken": ["2013-01-01", "2013-01-01", "2013-01-03"],
        "amount": ["0.10", "1E5", "00501"],
        "note": ["a, b", "", "x"],
        "not in the feed": ["", "", ""],
        "drop_date": [FIRST, SECOND, THIRD],
    }
)
SENSORS = pd.DataFrame({"id": ["7"], "place": ["roof"]})


def source() -> Mapping[str, pd.DataFrame]:
    return {"readings": READINGS, "sensors": SENSORS, "others": READINGS}


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


@pytest.fixture
def toy_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy pipeline has an example built in."""
    module = ModuleType("jobs.examples.toy")
    module.source = source  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(examples, "names", lambda: ["flights", "toy"])


def landed(home: Environment) -> dict[str, str]:
    folder = home.landing / "toy"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


@pytest.mark.usefixtures("toy_example")
def test_each_day_and_each_reference_feed_gets_its_file(home: Environment) -> None:
    done = land(TOY, home, Days(FIRST, SECOND))
    assert landed(home) == {
        "readings/2013-01-01.csv": 'id,taken,amount,note\n1,2013-01-01,0.10,"a, b"\n',
        "readings/2013-01-02.csv": "id,taken,amount,note\n2,2013-01-01,1E5,\n",
        "sensors.csv": "id,place\n7,roof\n",
    }
    assert done == {"files_written": 3, "files_unchanged": 0, "readings": 2, "sensors": 1}


@pytest.mark.usefixtures("toy_example")
def test_a_day_without_rows_gets_a_file_that_says_so(home: Environment) -> None:
    land(TOY, home, Days.of(date(2013, 1, 9)))
    assert landed(home)["readings/2013-01-09.csv"] == "id,taken,amount,note\n"


@pytest.mark.usefixtures("toy_example")
def test_landing_again_leaves_every_file_alone(home: Environment) -> None:
    land(TOY, home, Days(FIRST, SECOND))
    files = [path for path in home.landing.rglob("*") if path.is_file()]
    times = [path.stat().st_mtime_ns for path in files]
    again = land(TOY, home, Days(FIRST, SECOND))
    assert (again["files_written"], again["files_unchanged"]) == (0, 3)
    assert times == [path.stat().st_mtime_ns for path in files]


@pytest.mark.usefixtures("toy_example")
def test_a_damaged_file_is_written_anew(home: Environment) -> None:
    land(TOY, home, Days.of(FIRST))
    whole = landed(home)
    (home.landing / "toy" / "readings" / "2013-01-01.csv").write_text("id,tak")
    assert land(TOY, home, Days.of(FIRST))["files_written"] == 1
    assert landed(home) == whole


@pytest.mark.usefixtures("toy_example")
def test_an_interrupted_write_leaves_no_half_file(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        land(TOY, home, Days.of(FIRST))
    assert landed(home) == {}


def test_a_pipeline_without_an_example_is_refused_with_where_to_drop_its_files(
    home: Environment,
) -> None:
    with pytest.raises(UsageError) as refused:
        land(TOY, home, Days.of(FIRST))
    assert str(refused.value) == (
        "No source is built in for 'toy': "
        f"drop its files into {home.landing / 'toy'} yourself. "
        f"Built in: {', '.join(examples.names())}."
    )
    assert "flights" in str(refused.value)


@pytest.mark.usefixtures("toy_example")
def test_what_is_there_stays_and_only_what_is_missing_is_dropped(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(TOY, home, Days.of(SECOND))
    changed = home.landing / "toy" / "readings" / "2013-01-02.csv"
    changed.write_text("somebody's own\n")
    done = land(TOY, home, Days(FIRST, THIRD), only_missing=True)
    assert done == {"files_written": 2, "files_unchanged": 2, "readings": 2, "sensors": 0}
    assert landed(home)["readings/2013-01-02.csv"] == "somebody's own\n"
    assert {"readings/2013-01-01.csv", "readings/2013-01-03.csv"} <= set(landed(home))
    # Nothing is missing: the source's rows are not even read.
    monkeypatch.delattr(sys.modules["jobs.examples.toy"], "source")
    assert land(TOY, home, Days(FIRST, THIRD), only_missing=True)["files_written"] == 0


@pytest.mark.usefixtures("toy_example")
def test_a_file_that_is_withheld_comes_later_with_the_marker_that_it_shares(
    home: Environment,
) -> None:
    readings, sensors = TOY.feeds
    shared = "{date}.done"
    others = replace(readings, name="others", path="others/{date}.csv", marker=shared)
    pipeline = replace(TOY, feeds=(replace(readings, marker=shared), sensors, others))
    days = Days(FIRST, SECOND)
    land(pipeline, home, days, withheld=["readings"])
    files = {"readings/2013-01-01.csv", "2013-01-01.done", "sensors.csv"}
    files |= {"others/2013-01-01.csv", "others/2013-01-02.csv"}
    assert set(landed(home)) == files
    land(pipeline, home, days, only_missing=True)
    assert set(landed(home)) == {*files, "readings/2013-01-02.csv", "2013-01-02.done"}


@pytest.mark.usefixtures("toy_example")
def test_only_a_feed_of_the_pipeline_can_be_withheld(home: Environment) -> None:
    with pytest.raises(UsageError, match="No feed of 'toy' named 'reading'. Did you mean"):
        land(TOY, home, Days.of(FIRST), withheld=["reading"])


@pytest.mark.usefixtures("toy_example")
def test_the_marker_of_a_file_that_changes_is_dropped_again(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, sensors = TOY.feeds
    marked = replace(sensors, marker="sensors.done")
    pipeline = replace(TOY, feeds=(readings, marked))
    land(pipeline, home, Days.of(FIRST))
    marker = home.landing / "toy/sensors.done"
    before = marker.stat().st_ctime_ns
    # By the second in which they came it is told which is older.
    time.sleep(1.1)
    land(pipeline, home, Days.of(FIRST))
    assert marker.stat().st_ctime_ns == before
    other = {**source(), "sensors": SENSORS.assign(place="cellar")}
    monkeypatch.setattr(sys.modules["jobs.examples.toy"], "source", lambda: other)
    land(pipeline, home, Days.of(FIRST), only_missing=True)
    assert marker.stat().st_ctime_ns == before
    land(pipeline, home, Days.of(FIRST))
    assert is_reference_announced(home.landing / "toy", marked)


@pytest.mark.usefixtures("toy_example")
def test_the_markers_of_a_feed_are_dropped_after_its_files(home: Environment) -> None:
    readings, sensors = TOY.feeds
    marked = (replace(readings, marker="{date}.done"), replace(sensors, marker="whole/_SUCCESS"))
    land(replace(TOY, feeds=marked), home, Days(FIRST, SECOND))
    markers = {"2013-01-01.done", "2013-01-02.done", "whole/_SUCCESS"}
    assert markers < set(landed(home))
    folder = home.landing / "toy"
    files = [folder / name for name in landed(home).keys() - markers]
    last = max(path.stat().st_mtime_ns for path in files)
    assert min((folder / name).stat().st_mtime_ns for name in markers) >= last
