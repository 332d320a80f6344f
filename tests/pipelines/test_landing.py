"""A run needs a file of each feed and day, and its marker; a stamp changes when the file does."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from pipelines.days import Days
from pipelines.landing import expected_files, stamp
from tests.jobs.toy import READINGS, SENSORS, TOY


def test_a_file_is_expected_for_each_day_and_one_of_a_reference_feed() -> None:
    late_feed = replace(READINGS, first_day=date(2013, 1, 2), marker="{date}.done")
    pipeline = replace(TOY, feeds=(late_feed, SENSORS))
    days = Days(date(2013, 1, 1), date(2013, 1, 3))
    found = [(file.day.day, *file.names) for file in expected_files(pipeline, days)]
    assert found == [
        (2, "toy/readings/2013-01-02.csv", "toy/2013-01-02.done"),
        (3, "toy/readings/2013-01-03.csv", "toy/2013-01-03.done"),
        (1, "toy/sensors.csv"),
    ]


def test_a_marker_of_its_own_announces_the_file_of_an_optional_feed(tmp_path: Path) -> None:
    optional = replace(READINGS, is_optional=True, marker="{date}.done")
    other = replace(READINGS, name="others", path="others/{date}.csv")
    days = Days.of(date(2013, 1, 1))
    (own,) = expected_files(replace(TOY, feeds=(optional,)), days)
    sharing = (optional, replace(other, marker=optional.marker))
    shared, _ = expected_files(replace(TOY, feeds=sharing), days)
    assert own.is_waived(tmp_path)
    assert shared.is_waived(tmp_path)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "2013-01-01.done").touch()
    assert not own.is_waived(tmp_path)
    # It tells that all files of the day are there, and this one is not among them.
    assert shared.is_waived(tmp_path)


def test_a_stamp_stays_while_the_file_is_read_and_changes_when_it_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    assert stamp(path) is None
    path.write_text("one")
    before = stamp(path)
    path.read_text()
    assert stamp(path) == before
    path.write_text("two")
    assert stamp(path) != before
    assert stamp(path / "below a file") is None
