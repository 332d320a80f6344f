"""Rows are conserved, days can be ingested again and in bulk, a mostly bad file stops the night.

The message then names the file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable, Field
from pyspark.sql import SparkSession

from jobs.commands.land import land
from jobs.ingestion import drops
from jobs.lake import knowledge, sql, tables
from jobs.lake.commits import publish
from jobs.lake.definition import digest
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import exists, path, version
from jobs.lake.publications import forget_made_anew, in_force
from jobs.stages import ingest as stage
from jobs.stages.ingest import ingest
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import DataRefused, NightshiftError, NotLanded, Refused
from pipelines.feeds import Column
from pipelines.run import Run
from pipelines.spec import SCORING
from tests.jobs.lake.test_commits import staged
from tests.jobs.toy import (
    TOY,
    Row,
    drop,
    drop_readings,
    drop_sensors,
    readings_in,
    run_of,
    run_of_feeds,
    write_rows,
)

MakeRun = Callable[..., Run]


@pytest.fixture
def toy(spark: SparkSession, environment: Environment) -> Environment:
    """The environment with three days of the toy's drops."""
    drop_sensors(environment, "1,roof", "2,cellar")
    drop_readings(environment, "2013-01-01", "1,2013-01-01,0.5,a", "x,,,bad", "2,,,b")
    drop_readings(environment, "2013-01-02", "1,2013-01-02,1.5,c")
    drop_readings(environment, "2013-01-03")
    return environment


def _night(
    environment: Environment,
    first: str,
    last: str | None = None,
    named: str | None = None,
) -> dict[str, Any]:
    """Ingest and publish, as a night does."""
    run = run_of(environment, first, last)
    if named:
        run = replace(run, named=date.fromisoformat(named))
    metrics = ingest(run)
    for feed in TOY.feeds:
        if metrics["feeds"][feed.name]["unchanged"] == 0:  # type: ignore[index]
            tables.publish(run, feed.name)
    return metrics


def _snapshots(environment: Environment) -> list[str]:
    """The days of the reference feed that have rows."""
    known = in_force(run_of(environment, "2013-01-03"), "sensors")
    return [str(day) for day, one in known.items() if one.rows]


def _rows(environment: Environment, name: str) -> list[tuple[Any, ...]]:
    rows = tables.read(run_of(environment, "2013-01-01"), name)
    return [tuple(row) for row in rows.orderBy("landed_date", "source_line").collect()]


def _versions(environment: Environment) -> list[int]:
    run = run_of(environment, "2013-01-01")
    return [
        version(run, name)
        for name in ("readings", "readings_quarantine", "sensors", "sensors_quarantine")
    ]


def test_every_line_is_staged_or_quarantined_and_both_are_told_by_feed(toy: Environment) -> None:
    metrics = _night(toy, "2013-01-01")
    assert metrics["feeds"] == {
        "readings": {"files": 1, "in_files": 3, "staged": 2, "quarantined": 1, "unchanged": 0},
        "sensors": {"files": 1, "in_files": 2, "staged": 2, "quarantined": 0, "unchanged": 0},
    }
    assert (metrics["rows_in_files"], metrics["rows_staged"], metrics["rows_quarantined"]) == (
        5,
        4,
        1,
    )
    day, file = date(2013, 1, 1), "toy/readings/2013-01-01.csv"
    assert _rows(toy, "readings") == [
        (1, day, 0.5, "a", day, file, 2),
        (2, None, None, "b", day, file, 4),
    ]
    assert _rows(toy, "readings_quarantine") == [(day, file, 3, "id: 'x' is not an int", "x,,,bad")]
    assert _rows(toy, "sensors_quarantine") == []


def test_a_night_again_changes_no_table_and_bulk_equals_nightly(toy: Environment) -> None:
    for day in ("2013-01-01", "2013-01-02", "2013-01-03"):
        _night(toy, day)
    versions = _versions(toy)
    assert _night(toy, "2013-01-02")["feeds"]["sensors"] == {
        "files": 1,
        "in_files": 2,
        "staged": 0,
        "quarantined": 0,
        "unchanged": 2,
    }
    assert _versions(toy) == versions
    bulk = replace(toy, lake=f"{toy.lake}_bulk")
    _night(bulk, "2013-01-01", "2013-01-03")
    for name in ("readings", "readings_quarantine", "sensors", "sensors_quarantine"):
        assert _rows(bulk, name) == _rows(toy, name)


def test_a_file_that_was_mended_empties_its_days_quarantine(toy: Environment) -> None:
    _night(toy, "2013-01-01")
    drop_readings(toy, "2013-01-01", "1,2013-01-01,0.5,a", "3,,,mended", "2,,,b")
    assert _night(toy, "2013-01-01")["rows_quarantined"] == 0
    assert [row[0] for row in _rows(toy, "readings")] == [1, 3, 2]
    assert _rows(toy, "readings_quarantine") == []


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_day_of_an_optional_file_that_is_gone_is_not_made_anew_without_it(
    toy: Environment, is_lost: bool
) -> None:
    _night(toy, "2013-01-01")
    optional = replace(TOY.feeds[0], is_optional=True)
    run = run_of_feeds(toy, (optional, *TOY.feeds[1:]), "2013-01-01", "2013-01-02")
    for day in run.days:
        (toy.landing / f"toy/readings/{day}.csv").unlink()
    if is_lost:
        shutil.rmtree(path(run, "readings"))
    # Of the second day there never was one.
    with pytest.raises(NotLanded, match=r"^1 file.*\n.*2013-01-01.csv: the file is missing"):
        ingest(run)


def test_what_comes_for_a_missed_day_is_known_since_all_of_its_files_are_there(
    toy: Environment,
) -> None:
    readings, sensors = TOY.feeds
    marked = replace(readings, marker="{date}.done")
    notes = replace(readings_in("json_lines"), is_optional=True)
    feeds = (marked, notes, sensors)

    def night(day: str, named: int) -> None:
        asked = date(2013, 1, named)
        run = replace(run_of_feeds(toy, feeds, day), as_of=asked, named=asked)
        ingest(run)
        for feed in feeds:
            if tables.is_staged(run, feed.name):
                tables.publish(run, feed.name)

    drop(toy, "2013-01-03.done", b"")
    night("2013-01-03", named=3)
    of_third = run_of_feeds(toy, feeds, "2013-01-03")
    publish(of_third, SCORING, staged(of_third, {of_third.night: [1]}, SCORING))
    # The readings of the second have been there, and nobody could read them.
    drop(toy, "2013-01-02.done", b"")
    night("2013-01-02", named=4)
    for feed in (marked, notes):
        known = in_force(run_of_feeds(toy, feeds, "2013-01-04"), feed.name)
        found = {str(day): str(one.known_day) for day, one in known.items()}
        # Of notes there are none, which was known no sooner.
        assert found == {"2013-01-02": "2013-01-04", "2013-01-03": "2013-01-03"}


def test_days_of_before_the_first_one_that_is_declared_by_now_keep_their_rows(
    toy: Environment,
) -> None:
    readings, sensors = TOY.feeds
    notes = readings_in("json_lines")
    rows: list[Row] = [
        ("1", "2013-01-01", "2.5", "x"),
        ("x", None, None, "bad"),
    ]
    for day in ("2013-01-01", "2013-01-02"):
        write_rows(toy, notes, day, rows)
        run = run_of_feeds(toy, (readings, sensors, notes), day)
        ingest(run)
        for feed in run.pipeline.feeds:
            if tables.is_staged(run, feed.name):
                tables.publish(run, feed.name)
    tables_of_notes = (notes.name, f"{notes.name}_quarantine")
    before = [tables.read(run, name).count() for name in tables_of_notes]
    later = replace(notes, first_day=date(2013, 1, 2))
    # What was found in other files of that day is a correction all the same.
    drop_readings(toy, "2013-01-01", "1,2013-01-01,9.5,a")
    for days in (["2013-01-01"], ["2013-01-01", "2013-01-02"]):
        again = run_of_feeds(toy, (readings, sensors, later), *days)
        told = ingest(again)
        assert told["feeds"][notes.name]["files"] == len(days) - 1  # type: ignore[index]
        tables.publish(again, readings.name)
        assert tables.is_staged(again, notes.name) == (len(days) > 1)
        if tables.is_staged(again, notes.name):
            tables.publish(again, notes.name)
        assert [tables.read(run, name).count() for name in tables_of_notes] == before
    assert [row[2] for row in _rows(toy, "readings")][:1] == [9.5]


def test_a_reference_file_makes_a_snapshot_only_when_it_changes(toy: Environment) -> None:
    _night(toy, "2013-01-01")
    _night(toy, "2013-01-02")
    first = date(2013, 1, 1)
    assert {day for _, _, day, *_ in _rows(toy, "sensors")} == {first}
    drop_sensors(toy, "2,attic", "1,roof")
    _night(toy, "2013-01-03")
    third = date(2013, 1, 3)
    assert [row[:3] for row in _rows(toy, "sensors")] == [
        (1, "roof", first),
        (2, "cellar", first),
        (2, "attic", third),
        (1, "roof", third),
    ]
    versions = _versions(toy)
    _night(toy, "2013-01-01")  # its file is gone: today's must not be taken for it
    _night(toy, "2013-01-03")
    assert _versions(toy) == versions


def test_a_reference_file_of_which_only_bad_rows_change_is_a_new_snapshot(toy: Environment) -> None:
    _night(toy, "2013-01-01")
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    assert _night(toy, "2013-01-02")["feeds"]["sensors"] == {
        "files": 1,
        "in_files": 3,
        "staged": 2,
        "quarantined": 1,
        "unchanged": 0,
    }
    assert _night(toy, "2013-01-03")["feeds"]["sensors"] == {
        "files": 1,
        "in_files": 3,
        "staged": 0,
        "quarantined": 1,
        "unchanged": 2,
    }
    assert [str(row[0]) for row in _rows(toy, "sensors_quarantine")] == ["2013-01-02"]


def test_what_a_refused_reference_file_left_in_quarantine_goes_when_it_is_taken_back(
    toy: Environment,
) -> None:
    _night(toy, "2013-01-01")
    drop_sensors(toy, ",roof", ",cellar")
    with pytest.raises(DataRefused, match="sensors.csv: 2 of 2 rows"):
        _night(toy, "2013-01-02")
    assert len(_rows(toy, "sensors_quarantine")) == 2
    drop_sensors(toy, "1,roof", "2,cellar")
    assert _night(toy, "2013-01-02")["feeds"]["sensors"]["unchanged"] == 2
    assert _rows(toy, "sensors_quarantine") == []


def test_a_reference_file_in_other_bytes_is_the_same_snapshot_from_these(toy: Environment) -> None:
    _night(toy, "2013-01-01")
    first = in_force(run_of(toy, "2013-01-01"), "sensors")[date(2013, 1, 1)]
    drop_sensors(toy, "2,cellar", "1,roof")
    assert _night(toy, "2013-01-02")["feeds"]["sensors"]["unchanged"] == 2
    known = in_force(run_of(toy, "2013-01-02"), "sensors")
    assert list(known) == [date(2013, 1, 1)]
    again = known[date(2013, 1, 1)]
    assert (again.version, again.changed) == (first.version, False)
    content = (toy.landing / "toy" / "sensors.csv").read_bytes()
    assert again.inputs[0].digest == hashlib.sha256(content).hexdigest()
    assert again.inputs[0].digest != first.inputs[0].digest


@pytest.mark.parametrize("night", ["2013-01-01", "2013-01-02"])
def test_a_snapshot_of_the_same_rows_is_of_the_declaration_that_read_it_last(
    toy: Environment, night: str
) -> None:
    _night(toy, "2013-01-01")
    readings, sensors = TOY.feeds
    stricter = replace(sensors, null_token="-")
    run = run_of_feeds(toy, (readings, stricter), night)
    first = date(2013, 1, 1)
    assert in_force(run, "sensors")[first].definition != digest(stricter)
    assert ingest(run)["feeds"]["sensors"]["unchanged"] == 2  # type: ignore[index]
    known = in_force(run, "sensors")[first]
    assert (known.definition, known.changed) == (digest(stricter), False)


@pytest.mark.parametrize("last", ["2013-01-01", "2013-01-02"])
def test_a_snapshot_that_lost_its_data_file_is_made_anew_by_its_own_day(
    toy: Environment, last: str
) -> None:
    _night(toy, "2013-01-01")
    _night(toy, "2013-01-02")
    rows = _rows(toy, "sensors")
    (file,) = Path(toy.table_path("toy.sensors")).rglob("*.parquet")
    file.unlink()
    with pytest.raises(NightshiftError, match="sensors has lost 1 .*2013-01-01.*--restate"):
        _night(toy, "2013-01-03")
    _night(toy, "2013-01-01", last)
    assert _rows(toy, "sensors") == rows
    assert _snapshots(toy) == ["2013-01-01"]
    assert _night(toy, "2013-01-03")["feeds"]["sensors"]["unchanged"] == 2


@pytest.mark.parametrize("has_rules", [False, True])
def test_so_is_what_was_refused_of_a_snapshot(toy: Environment, has_rules: bool) -> None:
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    _night(toy, "2013-01-01")
    if has_rules:
        # As where a row rule has once moved a row there.
        table = DeltaTable(toy.table_path("toy.sensors_quarantine"))
        table.alter.add_columns(Field(tables.RULE, "string"))
    rows = _rows(toy, "sensors_quarantine")
    (file,) = Path(toy.table_path("toy.sensors_quarantine")).rglob("*.parquet")
    file.unlink()
    with pytest.raises(NightshiftError, match="sensors_quarantine has lost 1 .*--restate"):
        _night(toy, "2013-01-02")
    _night(toy, "2013-01-01")
    assert _rows(toy, "sensors_quarantine") == rows
    assert _night(toy, "2013-01-02")["feeds"]["sensors"]["unchanged"] == 2


def test_what_was_refused_of_a_snapshot_comes_back_to_its_day_after_its_folder_is_gone(
    toy: Environment,
) -> None:
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    _night(toy, "2013-01-01")
    rows = _rows(toy, "sensors_quarantine")
    shutil.rmtree(toy.table_path("toy.sensors_quarantine"))
    _night(toy, "2013-01-02")
    assert _rows(toy, "sensors_quarantine") == rows
    assert _snapshots(toy) == ["2013-01-01"]
    # As the check does.
    forget_made_anew(run_of(toy, "2013-01-02"), "sensors_quarantine", [date(2013, 1, 1)])
    assert _night(toy, "2013-01-03")["feeds"]["sensors"]["unchanged"] == 2


def test_a_reference_file_without_rows_is_no_snapshot_in_the_place_of_one_that_is_lost(
    toy: Environment,
) -> None:
    _night(toy, "2013-01-01")
    shutil.rmtree(toy.table_path("toy.sensors"))
    drop_sensors(toy)
    told = r"sensors.csv has no rows, and the snapshot of 2013-01-01 has some"
    with pytest.raises(DataRefused, match=told):
        _night(toy, "2013-01-02")
    drop_sensors(toy, "1,roof")
    _night(toy, "2013-01-02")
    assert _snapshots(toy) == ["2013-01-01"]


def test_a_snapshot_that_is_lost_of_before_a_first_day_that_was_moved_had_rows_all_the_same(
    toy: Environment,
) -> None:
    _night(toy, "2013-01-01")
    shutil.rmtree(toy.table_path("toy.sensors"))
    moved = replace(TOY, first_day=date(2013, 1, 2))
    run = replace(run_of(toy, "2013-01-02"), pipeline=moved)
    drop_sensors(toy)
    with pytest.raises(DataRefused, match="and the snapshot of 2013-01-01 has some"):
        ingest(run)
    drop_sensors(toy, "1,roof")
    ingest(run)
    tables.publish(run, "sensors")
    assert _snapshots(toy) == ["2013-01-02"]


def test_a_snapshot_is_not_made_anew_of_another_file(toy: Environment) -> None:
    _night(toy, "2013-01-01")
    _night(toy, "2013-01-02")
    (file,) = Path(toy.table_path("toy.sensors")).rglob("*.parquet")
    file.unlink()
    drop_sensors(toy, "1,roof", "2,attic")
    told = _night(toy, "2013-01-01")["feeds"]["sensors"]
    assert (told["staged"], told["unchanged"]) == (0, 2)


def test_a_reference_file_that_lost_its_rows_is_refused(environment: Environment) -> None:
    drop_readings(environment, "2013-01-02", "1,2013-01-02,0.5,a")
    drop_sensors(environment)
    before = replace(run_of(environment, "2013-01-01"), attempt=1)
    publish(before, "sensors", staged(before, {before.night: [1]}, "sensors"))
    told = r"sensors.csv has no rows, and the snapshot of 2013-01-01 has some.*\nReport: "
    with pytest.raises(DataRefused, match=told):
        ingest(run_of(environment, "2013-01-02"))
    assert list(in_force(before, "sensors")) == [before.night]


def test_a_reference_file_is_read_again_when_its_marker_has_come_again(
    toy: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, sensors = TOY.feeds
    marked = replace(TOY, feeds=(readings, replace(sensors, marker="sensors.done")))
    run = replace(run_of(toy, "2013-01-01"), pipeline=marked)
    arrivals = {"sensors.csv": 3, "sensors.done": 2}

    def arrived(path: Path) -> datetime:
        return datetime.fromtimestamp(arrivals.get(path.name, 1), UTC)

    # The file system's clock cannot be set.
    monkeypatch.setattr(knowledge, "arrival", arrived)
    drop(toy, "sensors.done", b"")
    # Of a first delivery both only have to be there.
    assert ingest(run)["feeds"]["sensors"]["staged"] == 2  # type: ignore[index]
    tables.publish(run, "sensors")
    later = replace(run, days=Days.of(date(2013, 1, 2)))
    # Nor of what has not changed.
    assert ingest(later)["feeds"]["sensors"]["unchanged"] == 2  # type: ignore[index]
    drop_sensors(toy, "1,ro")
    left_alone = ingest(later)["feeds"]["sensors"]  # type: ignore[index]
    assert set(left_alone.values()) == {0}
    assert not tables.is_staged(later, "sensors")
    arrivals["sensors.done"] = 3
    assert ingest(later)["feeds"]["sensors"]["staged"] == 1  # type: ignore[index]


def test_a_column_that_was_declared_since_makes_a_snapshot_of_a_reference_file(
    toy: Environment,
) -> None:
    _night(toy, "2013-01-01")
    readings, sensors = TOY.feeds
    wide = replace(sensors, columns=(*sensors.columns, Column(name="floor")))
    wider = replace(TOY, feeds=(readings, wide))
    run = replace(run_of(toy, "2013-01-02"), pipeline=wider)
    header = ",".join(wide.column_names)
    drop(toy, "sensors.csv", f"{header}\n1,roof,4\n".encode())
    assert ingest(run)["feeds"]["sensors"]["staged"] == 1  # type: ignore[index]


def test_a_reference_file_is_unknown_to_nights_that_passed_before_there_was_one(
    toy: Environment,
) -> None:
    first, third = run_of(toy, "2013-01-01"), run_of(toy, "2013-01-03")
    past = replace(first, as_of=third.night, named=third.night)
    ingest(third)
    tables.publish(third, "sensors")
    # Nobody has made that night yet: it cannot be made without the file.
    assert ingest(past)["rows_unchanged"] == 0
    tables.publish(past, "readings")
    # A correction of it, which the night of the third finds.
    assert ingest(past)["rows_unchanged"] == 2
    # Who asks for that day by name has it see the file of today.
    assert ingest(first)["rows_unchanged"] == 0


def test_so_is_one_that_is_declared_before_a_night_that_finds_a_correction_too(
    toy: Environment,
) -> None:
    first = run_of(toy, "2013-01-01")
    ingest(first)
    tables.publish(first, "readings")
    finds = date(2013, 1, 3)
    assert ingest(replace(first, as_of=finds, named=finds))["rows_unchanged"] == 2
    assert ingest(first)["rows_unchanged"] == 0


def test_a_changed_reference_file_is_known_from_the_night_that_found_it(toy: Environment) -> None:
    _night(toy, "2013-01-01")
    drop_sensors(toy, "1,roof", "3,attic")
    # An old night is made again for a later one: that file was not there on it.
    third = date(2013, 1, 3)
    past = replace(run_of(toy, "2013-01-01"), as_of=third, named=third)
    assert ingest(past)["rows_unchanged"] == 2
    # Nights that were missed are caught up by the last of them.
    _night(toy, "2013-01-02", "2013-01-03", named="2013-01-03")
    assert _snapshots(toy) == ["2013-01-01", "2013-01-03"]


def test_a_reference_file_whose_table_is_gone_is_known_from_its_own_day_again(
    toy: Environment,
) -> None:
    drop_sensors(toy, "1,roof", "2,cellar", ",nowhere")
    names = ("sensors", "sensors_quarantine")
    _night(toy, "2013-01-01")
    before = [_rows(toy, name) for name in names]
    for name in names:
        shutil.rmtree(path(run_of(toy, "2013-01-01"), name))
    _night(toy, "2013-01-03")
    assert _snapshots(toy) == ["2013-01-01"]
    assert [_rows(toy, name) for name in names] == before


def test_a_snapshot_that_a_backup_does_not_have_is_known_from_its_day_again(
    toy: Environment,
) -> None:
    _night(toy, "2013-01-01")
    drop_sensors(toy, "3,attic")
    _night(toy, "2013-01-02")
    log = Path(path(run_of(toy, "2013-01-01"), "sensors")) / "_delta_log"
    max(log.glob("*.json")).unlink()
    assert _snapshots(toy) == ["2013-01-01"]
    # Also where the file says again what it said before.
    drop_sensors(toy, "1,roof", "2,cellar")
    assert _night(toy, "2013-01-03")["feeds"]["sensors"]["staged"] == 2
    assert _snapshots(toy) == ["2013-01-01", "2013-01-02"]
    assert _night(toy, "2013-01-03")["feeds"]["sensors"]["unchanged"] == 2


def test_a_range_finds_a_changed_reference_file_as_its_nights_in_order_do(toy: Environment) -> None:
    bulk = replace(toy, lake=f"{toy.lake}_bulk")
    for one in (toy, bulk):
        _night(one, "2013-01-01")
    drop_sensors(toy, "1,roof", "3,attic")
    for day in ("2013-01-02", "2013-01-03"):
        _night(toy, day)
    _night(bulk, "2013-01-02", "2013-01-03")
    assert _snapshots(toy) == _snapshots(bulk) == ["2013-01-01", "2013-01-02"]
    # Nights that have passed saw the file of their own time.
    drop_sensors(toy, "4,gate")
    for day in ("2013-01-01", "2013-01-02"):
        assert _night(toy, day)["feeds"]["sensors"]["unchanged"] == 1
    assert _night(bulk, "2013-01-01", "2013-01-02")["feeds"]["sensors"]["unchanged"] == 1
    _night(toy, "2013-01-03")
    _night(bulk, "2013-01-02", "2013-01-03")
    assert _snapshots(toy) == _snapshots(bulk) == ["2013-01-01", "2013-01-02", "2013-01-03"]


def test_what_was_refused_of_a_snapshot_stays_when_a_range_makes_a_later_one(
    toy: Environment,
) -> None:
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    _night(toy, "2013-01-01")
    drop_sensors(toy, "1,roof", "2,attic", "4,")
    for day in ("2013-01-02", "2013-01-03"):
        _night(toy, day)
    refused = _rows(toy, "sensors_quarantine")
    assert [str(row[0]) for row in refused] == ["2013-01-01", "2013-01-02"]
    drop_sensors(toy, "1,roof", "2,gate")
    _night(toy, "2013-01-01", "2013-01-03")
    assert _snapshots(toy) == ["2013-01-01", "2013-01-02", "2013-01-03"]
    assert _rows(toy, "sensors_quarantine") == refused


def test_so_it_does_when_a_range_finds_a_bad_file(toy: Environment) -> None:
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    for day in ("2013-01-01", "2013-01-02"):
        _night(toy, day)
    refused = _rows(toy, "sensors_quarantine")
    drop_sensors(toy, ",roof", ",cellar")
    with pytest.raises(DataRefused, match="All of them: nightshift sql") as error:
        _night(toy, "2013-01-01", "2013-01-02")
    found = _rows(toy, "sensors_quarantine")
    assert found[:1] == refused
    assert [str(row[0]) for row in found[1:]] == ["2013-01-02", "2013-01-02"]
    # What it says shows those of the file that was refused alone.
    (statement,) = re.findall('nightshift sql "(.*)"', str(error.value))
    _, shown = sql.query(toy, statement)
    assert shown == found[1:]


def test_a_bad_reference_file_does_not_refuse_days_that_saw_another(toy: Environment) -> None:
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    for day in ("2013-01-01", "2013-01-02"):
        _night(toy, day)
    refused = _rows(toy, "sensors_quarantine")
    drop_sensors(toy, "1,roof", "2,", "3,")
    drop_readings(toy, "2013-01-01", "1,2013-01-01,0.5,corrected")
    # As a correction of the day does, and whoever asks for it by name.
    told = _night(toy, "2013-01-01")
    assert told["feeds"]["readings"]["staged"] == 1
    assert _rows(toy, "sensors_quarantine") == refused
    # Nor are its rows told as quarantined.
    assert told["feeds"]["sensors"] == {
        "files": 1,
        "in_files": 3,
        "staged": 0,
        "quarantined": 0,
        "unchanged": 3,
    }
    assert "Quarantined rows" not in Path(told["report"]).read_text()
    drop_readings(toy, "2013-01-01", "x,,,bad")
    with pytest.raises(DataRefused, match=r"2013-01-01\.csv: 1 of 1 rows") as error:
        _night(toy, "2013-01-01")
    page = Path(error.value.report).read_text()
    figures = [f'<td class="number">{figure}</td>' for figure in (1, 3, 0, 3, 0)]
    assert f"<td>toy.sensors</td>{''.join(figures)}" in page
    assert "sensors.csv" not in page
    drop_readings(toy, "2013-01-01", "1,2013-01-01,0.5,corrected")
    with pytest.raises(DataRefused, match=r"sensors\.csv: 2 of 3 rows"):
        _night(toy, "2013-01-03")
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    assert _night(toy, "2013-01-03")["feeds"]["sensors"]["unchanged"] == 2
    assert _rows(toy, "sensors_quarantine") == refused


def test_a_file_that_is_refused_on_the_day_of_a_snapshot_leaves_what_that_has_in_quarantine(
    toy: Environment,
) -> None:
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    _night(toy, "2013-01-01")
    refused = _rows(toy, "sensors_quarantine")
    drop_sensors(toy, ",roof", ",cellar")
    with pytest.raises(DataRefused, match=r"sensors\.csv: 2 of 2 rows") as error:
        _night(toy, "2013-01-01")
    assert "nightshift sql" not in str(error.value)
    assert _rows(toy, "sensors_quarantine") == refused
    drop_sensors(toy, "1,roof", "2,cellar", "3,")
    assert _night(toy, "2013-01-02")["feeds"]["sensors"]["unchanged"] == 2


def test_a_mostly_bad_file_refuses_the_range_and_its_rows_can_be_queried(toy: Environment) -> None:
    drop_readings(toy, "2013-01-02", "1,2013-02-30,,", "2,,,good", "3,,much,")
    run = run_of(toy, "2013-01-01", "2013-01-03")
    with pytest.raises(Refused) as refused:
        ingest(run)
    message = str(refused.value)
    assert message.startswith(
        "toy.readings was refused: 1 file(s) of 'readings' have more bad rows "
    )
    assert (
        "toy/readings/2013-01-02.csv: 2 of 3 rows; "
        "the first, line 2: taken: '2013-02-30' is not a date" in message
    )
    assert (
        "FROM toy.readings_quarantine WHERE landed_date BETWEEN '2013-01-01' AND '2013-01-03'"
        in message
    )
    quarantined = _rows(toy, "readings_quarantine")
    of_the_file = [row for row in quarantined if row[0] == date(2013, 1, 2)]
    assert [row[2:4] for row in of_the_file] == [
        (2, "taken: '2013-02-30' is not a date"),
        (4, "amount: 'much' is not a double"),
    ]
    assert not tables.is_staged(run, "readings")
    # All of it is in the report too.
    assert isinstance(refused.value, DataRefused)
    (failure,) = refused.value.failures
    assert (failure.table, failure.expectation) == ("toy.readings", "max_quarantine_share")
    assert failure.count == 2
    bad = (toy.landing / "toy" / "readings" / "2013-01-02.csv").read_bytes()
    of_the_file = f"toy/readings/2013-01-02.csv {hashlib.sha256(bad).hexdigest()}"
    assert refused.value.found_in == (of_the_file,)
    assert refused.value.details()["found_in"] == [of_the_file]
    assert message.endswith(f"Report: {refused.value.report}")
    page = Path(refused.value.report).read_text()
    told = ("toy/readings/2013-01-02.csv", "&#x27;much&#x27; is not a double", "3,,much,")
    way_out = "Have the source drop good files, then run again."
    assert [text for text in ("Refused", *told, way_out) if text not in page] == []
    assert "<td>toy.readings</td>" in page
    # Of the file that was not refused no row is shown.
    assert "x,,,bad" not in page


def test_a_day_that_a_tighter_declaration_refuses_by_its_share_is_told_the_ways_out(
    toy: Environment,
) -> None:
    drop_readings(toy, "2013-01-02", "1,2013-01-02,1.5,", "2,2013-01-02,1.5,")
    _night(toy, "2013-01-01", "2013-01-02")
    readings = TOY.feeds[0]
    *others, note = readings.columns
    tighter = replace(readings, columns=(*others, replace(note, required=True)))
    feeds = (tighter, *TOY.feeds[1:])
    with pytest.raises(DataRefused) as refused:
        ingest(run_of_feeds(toy, feeds, "2013-01-02"))
    message = str(refused.value)
    assert "note: no value, but it is required" in message
    anew = "'readings' is declared anew since some of these days were accepted: where their rows "
    assert f"{anew}are right, take that back in pipelines/toy.py, or raise the share" in message
    without = "--from 2013-01-02 --to 2013-01-02 --stage transform"
    assert re.search(f"These days have their rows from before.* {without}", message)
    # So is one whose file was accepted when a greater share was allowed.
    strict = (replace(readings, max_quarantine_share=0.1), *TOY.feeds[1:])
    drop_readings(toy, "2013-01-01", "x,,,", "1,2013-01-01,1.5,", "2,2013-01-01,1.5,")
    _night(toy, "2013-01-01", "2013-01-01")
    with pytest.raises(DataRefused) as refused:
        ingest(run_of_feeds(toy, strict, "2013-01-01"))
    assert f"{anew}are right, take that back" in str(refused.value)
    # Also where the feed has moved its files since.
    (toy.landing / "toy" / "readings").rename(toy.landing / "toy" / "moved")
    moved = (replace(strict[0], path="moved/{date}.csv"), *TOY.feeds[1:])
    with pytest.raises(DataRefused) as refused:
        ingest(run_of_feeds(toy, moved, "2013-01-01"))
    assert f"{anew}are right, take that back" in str(refused.value)
    (toy.landing / "toy" / "moved").rename(toy.landing / "toy" / "readings")
    # A day that is worse by its file, or was never accepted, is not refused by its declaration.
    for day in ("2013-01-02", "2013-01-03"):
        drop_readings(toy, day, "x,,,", "y,,,", "1,,,a")
        with pytest.raises(DataRefused) as refused:
            ingest(run_of(toy, day))
        message = str(refused.value)
        assert "declared anew" not in message
        assert ("have their rows" in message) == (day == "2013-01-02")


def test_a_file_may_have_the_very_share_of_bad_rows_that_is_allowed(toy: Environment) -> None:
    # To a computer 0.29 times 100 is less than 29.
    feed = replace(TOY.feeds[0], max_quarantine_share=0.29)
    for count in (29, 30):
        bad = ["x,,,"] * count
        drop_readings(toy, "2013-01-01", *bad, *(f"{good},,," for good in range(count, 100)))
        run = run_of_feeds(toy, [feed], "2013-01-01")
        if count == 29:
            assert ingest(run)["rows_quarantined"] == 29
    with pytest.raises(DataRefused, match="more bad rows than the 29.0% that it allows"):
        ingest(run)


def test_a_small_share_of_bad_rows_that_is_allowed_is_told_as_it_is(toy: Environment) -> None:
    feed = replace(TOY.feeds[0], max_quarantine_share=0.0005)
    with pytest.raises(DataRefused, match=r"more bad rows than the 0\.05% that it allows") as told:
        ingest(run_of_feeds(toy, [feed], "2013-01-01"))
    assert told.value.failures[0].says.startswith("At most 0.05% of a file's rows are bad.")


def test_a_file_that_cannot_be_read_has_a_report_too(toy: Environment) -> None:
    drop(toy, "readings/2013-01-01.csv", b"id,when,amount,note\n")
    with pytest.raises(DataRefused, match="cannot be ingested") as refused:
        ingest(run_of(toy, "2013-01-01"))
    page = Path(refused.value.report).read_text()
    assert "readings/2013-01-01.csv" in page
    assert "declare it in pipelines/toy.py" in page
    (found_in,) = refused.value.found_in
    assert found_in.startswith("toy/readings/2013-01-01.csv ")


def test_a_night_that_is_ingested_has_a_report_with_its_files_and_quarantined_rows(
    toy: Environment,
) -> None:
    metrics = ingest(run_of(toy, "2013-01-01"))
    page = Path(str(metrics["report"])).read_text()
    assert "<title>Passed: toy 2013-01-01</title>" in page
    figures = [f'<td class="number">{figure}</td>' for figure in (1, 3, 2, 0, 1)]
    assert f"<td>toy.readings</td>{''.join(figures)}" in page
    told = ("toy/readings/2013-01-01.csv", "id: &#x27;x&#x27; is not an int", "x,,,bad")
    assert [text for text in told if text not in page] == []


@pytest.fixture
def growing_file(toy: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of 2013-01-02 gets a row, and a bad one, once it has been inspected."""
    find = drops.find_drops

    def find_then_grow(*about: Any) -> Any:
        found = find(*about)
        drop_readings(toy, "2013-01-02", "1,2013-01-02,1.5,c", "2,,,late", "x,,")
        return found

    monkeypatch.setattr(stage, "find_drops", find_then_grow)


@pytest.mark.usefixtures("growing_file")
def test_a_file_that_changes_while_it_is_read_has_not_landed_and_nothing_is_staged(
    toy: Environment,
) -> None:
    run = run_of(toy, "2013-01-02")
    with pytest.raises(
        NotLanded, match="toy/readings/2013-01-02.csv: it was changed while it was read"
    ):
        ingest(run)
    assert not any(tables.is_staged(run, feed.name) for feed in TOY.feeds)
    assert not exists(run, "readings_quarantine")


def test_a_file_that_is_removed_while_it_is_read_has_not_landed(
    toy: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = drops.find_drops

    def find_then_remove(*about: Any) -> Any:
        found = find(*about)
        found["readings"][0].path.unlink()
        return found

    monkeypatch.setattr(stage, "find_drops", find_then_remove)
    with pytest.raises(NotLanded, match="it was changed while it was read"):
        ingest(run_of(toy, "2013-01-02"))


@pytest.mark.usefixtures("growing_file")
def test_rows_that_were_not_counted_in_the_file_are_a_fault(
    toy: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "require_unchanged", lambda run, found: None)
    with pytest.raises(
        NightshiftError, match="'readings' have 1 records, but 2 rows were staged.*run again"
    ) as fault:
        ingest(run_of(toy, "2013-01-02"))
    assert fault.value.exit_code == 3


def test_damaged_files_of_every_format_are_named_at_once(toy: Environment) -> None:
    feeds = [readings_in(name) for name in ("csv", "csv_gzip", "json_lines", "parquet")]
    for feed in feeds:
        for day in ("2013-01-01", "2013-01-02", "2013-01-03"):
            write_rows(toy, feed, day, [("1", None, None, "a" * 500)])
    for file in ("2013-01-01.csv.gz", "2013-01-03.parquet"):
        path = toy.landing / "toy/readings" / file
        path.write_bytes(path.read_bytes()[:-15])
    drop(toy, "readings/2013-01-02.csv", b"id,note\n")
    (toy.landing / "toy/readings/2013-01-02.jsonl").unlink()
    run = run_of_feeds(toy, feeds, "2013-01-01", "2013-01-03")
    with pytest.raises(Refused) as refused:
        ingest(run)
    lines = str(refused.value).splitlines()
    assert lines[0] == "4 file(s) for 2013-01-01..2013-01-03 cannot be ingested:"
    assert lines[1:4] == [
        "  - toy/readings/2013-01-02.csv: column 'taken', 'amount' is missing",
        "  - toy/readings/2013-01-01.csv.gz: the gzip file is cut off",
        "  - toy/readings/2013-01-02.jsonl: the file is missing",
    ]
    assert lines[4].startswith("  - toy/readings/2013-01-03.parquet: the Parquet file is damaged: ")
    assert not any(tables.is_staged(run, feed.name) for feed in feeds)


def test_a_file_that_lacks_what_is_declared_since_holds_up_no_correction_of_another_feed(
    toy: Environment,
) -> None:
    csv, lines = readings_in("csv"), readings_in("json_lines")
    for feed in (csv, lines):
        write_rows(toy, feed, "2013-01-01", [("1", None, None, "a")])
    both = run_of_feeds(toy, [csv, lines], "2013-01-01")
    ingest(both)
    wider = replace(csv, columns=(*csv.columns, Column(name="added")))
    run = run_of_feeds(toy, [wider, lines], "2013-01-01")
    with pytest.raises(Refused, match="readings/2013-01-01.csv: column 'added' is missing"):
        ingest(run)
    told = ingest(replace(run, tables=(lines.name,)))
    assert told["tables"] == [lines.name]
    assert list(told["feeds"]) == [lines.name]  # type: ignore[call-overload]
    # What an attempt before has staged of the other is published by nobody.
    assert tables.is_staged(run, lines.name)
    assert not tables.is_staged(run, csv.name)


def test_a_day_with_rows_whose_file_lacks_what_is_declared_since_is_told_how_it_goes_on_without(
    toy: Environment,
) -> None:
    _night(toy, "2013-01-01", "2013-01-02")
    for day in ("2013-01-02", "2013-01-03"):
        drop(toy, f"readings/{day}.csv", b"id,taken,amount\n")
    without = (
        "from 2013-01-02 --to 2013-01-02 --stage transform --stage check_clean --stage features"
    )
    with pytest.raises(Refused, match=f"column 'note' is missing(.|\n)*have their rows.*{without}"):
        ingest(run_of(toy, "2013-01-02"))
    # Of a day without rows nothing follows.
    with pytest.raises(Refused) as refused:
        ingest(run_of(toy, "2013-01-02", "2013-01-03"))
    assert "have their rows" not in str(refused.value)
    # A night that finds such a file waits for a better one.
    with pytest.raises(Refused) as refused:
        ingest(replace(run_of(toy, "2013-01-02"), named=date(2013, 1, 4)))
    assert "have their rows" not in str(refused.value)


def test_what_a_killed_attempt_left_in_the_servers_cache_is_not_taken_for_the_file(
    toy: Environment,
) -> None:
    killed = run_of(toy, "2013-01-02")
    found = drops.find_drops(killed)["readings"]
    stage._load(killed, TOY.feeds[0], found, [], Knowledge(killed))
    drop_readings(toy, "2013-01-02", "2,2013-01-02,9.5,mended")
    _night(toy, "2013-01-02")
    [row] = _rows(toy, "readings")
    assert row[:4] == (2, date(2013, 1, 2), 9.5, "mended")


def test_a_real_night_is_staged_as_the_source_wrote_it(
    environment: Environment, make_run: MakeRun
) -> None:
    run = make_run("ingest", "2013-02-09")
    land(run.pipeline, environment, run.days)
    metrics = ingest(run)
    assert metrics["rows_quarantined"] == 0
    for feed in run.pipeline.feeds:
        source = pd.read_csv(
            environment.landing / "flights" / feed.path.format(date="2013-02-09"),
            keep_default_na=False,
            na_values=["NA"],
        )
        found: Any = tables.staged(run, feed.name).orderBy("source_line").toPandas()
        assert found["source_line"].tolist() == list(range(2, len(source) + 2))
        for column in feed.columns:
            expected = source[column.name]
            if column.type == "timestamp":
                expected = pd.to_datetime(expected, utc=True).dt.tz_localize(None)
            elif column.type == "date":
                expected = pd.to_datetime(expected).dt.date
            pd.testing.assert_series_equal(
                _without_kinds_of_null(found[column.name]),
                _without_kinds_of_null(expected),
                check_dtype=False,
            )


def test_na_is_a_code_in_every_column_of_codes_and_missing_elsewhere(
    environment: Environment, make_run: MakeRun
) -> None:
    run = make_run("ingest", "2013-02-09")
    land(run.pipeline, environment, run.days)
    for feed in run.pipeline.feeds:
        texts = [c.name for c in feed.columns if c.type == "string"]
        codes = [name for name in texts if name in feed.required]
        optional = [c.name for c in feed.columns if c.name not in feed.required]
        file = environment.landing / "flights" / feed.path.format(date="2013-02-09")
        source = pd.read_csv(file, dtype=str, keep_default_na=False)
        source.loc[0, codes + optional] = "NA"
        source.to_csv(file, index=False)
    assert ingest(run)["rows_quarantined"] == 0
    found = {}
    for feed in run.pipeline.feeds:
        second = tables.staged(run, feed.name).where("source_line = 2").first()
        found[feed.name] = second.asDict()
    flight = found["flights"]
    assert (flight["carrier"], flight["origin"], flight["dest"]) == ("NA", "NA", "NA")
    assert (flight["tailnum"], flight["dep_time"], flight["air_time"]) == (None, None, None)
    assert (found["schedule"]["carrier"], found["schedule"]["tailnum"]) == ("NA", None)
    assert (found["weather"]["origin"], found["weather"]["temp"]) == ("NA", None)
    assert (found["planes"]["tailnum"], found["planes"]["year"]) == ("NA", None)
    assert (found["airports"]["faa"], found["airports"]["tzone"]) == ("NA", None)


def _without_kinds_of_null(values: pd.Series) -> pd.Series:
    return values.astype(object).where(values.notna(), None)


def test_a_feed_without_a_drop_on_the_days_stages_an_empty_table(
    environment: Environment, make_run: MakeRun
) -> None:
    run = make_run("ingest", "2012-12-31")
    land(run.pipeline, environment, run.days)
    metrics: Any = ingest(run)
    assert {name: feed["staged"] for name, feed in metrics["feeds"].items()} == {
        "flights": 0,
        "schedule": 842,
        "weather": 0,
        "planes": 3322,
        "airports": 1458,
    }
    assert tables.staged(run, "flights").count() == 0
