"""Files are judged before Spark reads a byte: all that are missing or unfit are told at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from jobs.ingestion.contents import Contents, Unfit
from jobs.ingestion.csv import Csv
from jobs.ingestion.drops import find_drops, require_unchanged
from jobs.lake.publications import digest_of_file
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, NotLanded, Refused
from pipelines.feeds import Feed
from tests.jobs.toy import (
    HEADER,
    READINGS,
    SENSORS,
    drop,
    drop_readings,
    drop_sensors,
    run_of,
    run_of_feeds,
)


@pytest.fixture
def alone(tmp_path: Path) -> Environment:
    """A home without any server."""
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    drop_sensors(environment, "1,roof")
    return environment


def _refusal(
    environment: Environment,
    first: str = "2013-01-01",
    last: str | None = None,
    kind: type[NightshiftError] = Refused,
) -> str:
    with pytest.raises(kind) as refused:
        find_drops(run_of(environment, first, last))
    return str(refused.value)


def _written_before(path: Path, seconds: float) -> None:
    """Let the file be one that was last written so many seconds ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


@contextmanager
def _being_written(path: Path) -> Iterator[None]:
    """A source appends to the file again and again."""
    ended = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not ended.wait(0.02):
                file.write(b"1,,,\n")

    source = threading.Thread(target=write)
    source.start()
    try:
        yield
    finally:
        ended.set()
        source.join()


def test_every_day_of_the_range_has_its_file_and_a_reference_feed_one_under_the_first(
    alone: Environment,
) -> None:
    drop_readings(alone, "2013-01-01", "1,2013-01-01,0.5,a", "2,2013-01-01,0.5,b")
    drop_readings(alone, "2013-01-02")
    found = find_drops(run_of(alone, "2013-01-01", "2013-01-02"))
    assert [(d.source_file, d.day, d.records) for d in found["readings"]] == [
        ("toy/readings/2013-01-01.csv", date(2013, 1, 1), 2),
        ("toy/readings/2013-01-02.csv", date(2013, 1, 2), 0),
    ]
    assert [(d.source_file, d.day, d.records) for d in found["sensors"]] == [
        ("toy/sensors.csv", date(2013, 1, 1), 1)
    ]


def test_missing_files_have_not_landed_and_are_named_with_the_way_out(alone: Environment) -> None:
    drop_readings(alone, "2013-01-06")
    message = _refusal(alone, "2013-01-05", "2013-01-07", NotLanded)
    assert message.splitlines()[:3] == [
        "2 file(s) for 2013-01-05..2013-01-07 have not landed yet:",
        "  - toy/readings/2013-01-05.csv: the file is missing",
        "  - toy/readings/2013-01-07.csv: the file is missing",
    ]
    assert f"Files are looked for in {alone.landing}." in message
    assert message.endswith("or drop them yourself.")
    assert "header" not in message


def test_what_has_not_landed_is_named_for_who_waits_for_it(alone: Environment) -> None:
    marked = replace(READINGS, marker="{date}.done")
    run = run_of_feeds(alone, (marked, SENSORS), "2013-01-05", "2013-01-07")
    drop_readings(alone, "2013-01-06")
    for day in ("2013-01-05", "2013-01-06"):
        drop(alone, f"{day}.done", b"")
    with pytest.raises(NotLanded) as late:
        find_drops(run)
    needed = [
        [f"toy/readings/{day}.csv", f"toy/{day}.done"] for day in ("2013-01-05", "2013-01-07")
    ]
    assert list(late.value.files) == [*needed[0], *needed[1]]


def test_of_days_before_the_last_that_lack_files_the_others_can_be_made_without_them(
    alone: Environment,
) -> None:
    for day in ("2013-01-05", "2013-01-07"):
        drop_readings(alone, day)
    way_out = "If they never will: --allow-gap makes the other days without them."
    assert _refusal(alone, "2013-01-05", "2013-01-07", NotLanded).endswith(way_out)
    # The last night is what the run is about, and a register is of all nights.
    assert way_out not in _refusal(alone, "2013-01-05", "2013-01-06", NotLanded)
    (alone.landing / "toy/sensors.csv").unlink()
    assert way_out not in _refusal(alone, "2013-01-05", "2013-01-07", NotLanded)


def test_of_an_example_the_way_out_has_the_command_that_drops_its_files(alone: Environment) -> None:
    run = run_of(alone, "2013-01-05")
    with pytest.raises(NotLanded, match="nightshift land weather --from 2013-01-05 --to 2013-01-0"):
        find_drops(replace(run, pipeline=replace(run.pipeline, name="weather")))


def test_a_day_of_an_optional_feed_may_lack_its_file(alone: Environment) -> None:
    run = run_of(alone, "2013-01-05", "2013-01-06")
    drop_readings(alone, "2013-01-06")
    optional = replace(run.pipeline.feeds[0], is_optional=True)
    pipeline = replace(run.pipeline, feeds=(optional, *run.pipeline.feeds[1:]))
    found = find_drops(replace(run, pipeline=pipeline))
    assert [drop.day for drop in found["readings"]] == [date(2013, 1, 6)]


def test_a_file_of_an_optional_feed_that_was_read_before_has_to_be_there(
    alone: Environment,
) -> None:
    run = run_of(alone, "2013-01-05", "2013-01-06")
    drop_readings(alone, "2013-01-06")
    optional = replace(run.pipeline.feeds[0], is_optional=True)
    pipeline = replace(run.pipeline, feeds=(optional, *run.pipeline.feeds[1:]))
    run = replace(run, pipeline=pipeline)
    with pytest.raises(NotLanded, match=r"toy/readings/2013-01-05.csv: the file is missing"):
        find_drops(run, {("readings", date(2013, 1, 5))})


def test_a_file_of_an_optional_feed_is_waited_for_when_its_marker_is_there(
    alone: Environment,
) -> None:
    optional = replace(READINGS, is_optional=True, marker="{date}.done")
    run = run_of_feeds(alone, (optional, SENSORS), "2013-01-01")
    assert find_drops(run)["readings"] == []
    drop(alone, "2013-01-01.done", b"")
    with pytest.raises(NotLanded, match=r"toy/readings/2013-01-01.csv: the file is missing"):
        find_drops(run)


def test_a_file_without_its_marker_has_not_landed_whatever_it_holds(alone: Environment) -> None:
    feeds = (replace(READINGS, marker="{date}.done"), SENSORS)
    run = run_of_feeds(alone, feeds, "2013-01-01", "2013-01-02")
    drop(alone, "readings/2013-01-01.csv", b"half of a hea")
    with pytest.raises(NotLanded) as late:
        find_drops(run)
    assert str(late.value).splitlines()[1:3] == [
        "  - toy/readings/2013-01-01.csv: its marker toy/2013-01-01.done is missing",
        "  - toy/readings/2013-01-02.csv: the file is missing",
    ]
    for day in ("2013-01-01", "2013-01-02"):
        drop_readings(alone, day)
        drop(alone, f"{day}.done", b"")
    assert len(find_drops(run)["readings"]) == 2


@pytest.mark.parametrize("start", [HEADER, b"half of a hea"])
def test_a_file_that_grows_has_not_landed_whatever_it_holds(
    alone: Environment, start: bytes
) -> None:
    path = drop(alone, "readings/2013-01-01.csv", start)
    with _being_written(path):
        message = _refusal(alone, kind=NotLanded)
    assert "toy/readings/2013-01-01.csv: it is still being written" in message


@pytest.mark.parametrize("outcome", ["read", "damaged"])
def test_a_file_that_changes_while_it_is_inspected_has_not_landed(
    alone: Environment, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drop_readings(alone, "2013-01-01", "1,,,")
    inspect: Callable[[Csv, Path, Feed], Contents] = Csv.contents

    def write_meanwhile(csv: Csv, inspected: Path, feed: Feed) -> Contents:
        contents = inspect(csv, inspected, feed)
        if inspected == path:
            path.write_bytes(HEADER)
            if outcome == "damaged":
                raise Unfit("the gzip file is cut off")
        return contents

    monkeypatch.setattr(Csv, "contents", write_meanwhile)
    message = _refusal(alone, kind=NotLanded)
    assert "toy/readings/2013-01-01.csv: it was changed while it was read" in message


def test_a_file_that_was_written_a_while_ago_is_not_watched(
    alone: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    _written_before(alone.landing / "toy/sensors.csv", 60)
    _written_before(drop_readings(alone, "2013-01-01"), 11)
    find_drops(run_of(alone, "2013-01-01"))
    assert pauses == []
    # By a source whose clock is ahead: however long the machine pauses, it is young.
    _written_before(drop_readings(alone, "2013-01-02"), -60)
    find_drops(run_of(alone, "2013-01-01", "2013-01-02"))
    assert pauses == [0.2], "one pause, however many files are young"


def test_files_that_changed_since_they_were_inspected_are_all_named(alone: Environment) -> None:
    for day in ("2013-01-01", "2013-01-02"):
        drop_readings(alone, day, "1,,,")
    run = run_of(alone, "2013-01-01", "2013-01-02")
    found = find_drops(run)
    require_unchanged(run, found)
    drop_readings(alone, "2013-01-02", "2,,,")  # as many bytes as before
    (alone.landing / "toy/sensors.csv").unlink()
    with pytest.raises(NotLanded) as late:
        require_unchanged(run, found)
    assert str(late.value).splitlines()[1:3] == [
        "  - toy/readings/2013-01-02.csv: it was changed while it was read",
        "  - toy/sensors.csv: it was changed while it was read",
    ]


def test_all_unfit_files_are_told_at_once(alone: Environment) -> None:
    drop(alone, "readings/2013-01-01.csv", b"")
    drop(alone, "readings/2013-01-02.csv", b"id,taken,note\n")
    drop(alone, "sensors.csv", b"id,place,place\n")
    message = _refusal(alone, "2013-01-01", "2013-01-03")
    assert message.startswith("4 file(s) for 2013-01-01..2013-01-03 cannot be ingested:")
    assert "toy/readings/2013-01-01.csv: the file is empty" in message
    assert "toy/readings/2013-01-02.csv: column 'amount' is missing" in message
    assert "toy/readings/2013-01-03.csv: the file is missing" in message
    assert "toy/sensors.csv: column 'place' comes twice" in message


def test_a_year_of_missing_files_does_not_fill_the_screen(alone: Environment) -> None:
    message = _refusal(alone, "2013-01-01", "2013-12-31", NotLanded)
    assert len(message.splitlines()) < 20
    assert "… and 353 more" in message


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"id,taken,amount,note,extra\n", "column 'extra' is not declared"),
        (b"id,taken,amount,nte\n", "column 'note' is missing; column 'nte' is not declared"),
        (b"id,taken,amount,note,id\n", "column 'id' comes twice"),
        (b"\n1,2013-01-01,1,a\n", "the file is empty"),
        ("id,taken,amount,note\n".encode("utf-16"), "the header is not UTF-8 text"),
        (b"\x00\x01" * 40 + b"\n", "is not declared"),
        (b"id,taken\r1,2013-01-01\r", "no line of CSV: the lines end with a lone CR; have them"),
        (b"x" * 200_000 + b"\n", "no line of CSV: field larger than field limit"),
        # Of two lines, as some programs write a long name.
        (b'id,taken,amount,"note\nof it"\n', "no line of CSV: unexpected end of data"),
    ],
)
def test_a_header_that_differs_from_the_declaration_is_refused(
    alone: Environment, header: bytes, problem: str
) -> None:
    drop(alone, "readings/2013-01-01.csv", header)
    assert problem in _refusal(alone)


def test_a_folder_in_place_of_a_file_is_refused(alone: Environment) -> None:
    (alone.landing / "toy/readings/2013-01-01.csv").mkdir(parents=True)
    assert "toy/readings/2013-01-01.csv: the file cannot be read: Is a directory" in _refusal(alone)


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(alone: Environment) -> None:
    pipe = drop_readings(alone, "2013-01-01")
    pipe.unlink()
    os.mkfifo(pipe)
    assert "readings/2013-01-01.csv: the file cannot be read: it is no regular file" in _refusal(
        alone
    )
    with pytest.raises(OSError, match="no regular file"):
        digest_of_file(pipe)


def test_a_file_with_a_colon_in_its_name_is_refused_on_a_disk(alone: Environment) -> None:
    feed = replace(READINGS, path="a:b/{date}.csv")
    drop(alone, "a:b/2013-01-01.csv", HEADER)
    assert find_drops(run_of_feeds(alone, [feed, SENSORS], "2013-01-01"))["readings"]
    odd = replace(READINGS, path="readings/{date}T00:00.csv")
    drop(alone, "readings/2013-01-01T00:00.csv", HEADER)
    with pytest.raises(Refused, match=r"2013-01-01T00:00.csv: Spark reads no file from a disk"):
        find_drops(run_of_feeds(alone, [odd, SENSORS], "2013-01-01"))


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (HEADER, 0),
        (HEADER.rstrip(b"\n"), 0),
        (HEADER + b"1,,,\n2,,,", 2),
        (HEADER + b"1,,,\n\n2,,,\n\n\n", 3),
        (HEADER.replace(b"\n", b"\r\n") + b"1,,,\r\n\r\n", 1),
        (b"\xef\xbb\xbf" + HEADER + b"1,,,\n", 1),
        (b'note,"amount",taken,id\n,,,1\n', 1),
    ],
)
def test_byte_order_mark_crlf_column_order_and_blank_ends_are_no_obstacle(
    alone: Environment, content: bytes, records: int
) -> None:
    drop(alone, "readings/2013-01-01.csv", content)
    [found] = find_drops(run_of(alone, "2013-01-01"))["readings"]
    assert found.records == records
