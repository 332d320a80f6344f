"""Files are judged before Spark reads a byte: all that are missing or unfit are told at once."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from jobs.ingestion.drops import find_drops
from pipelines.environment import Environment
from pipelines.errors import Refused
from tests.jobs.toy import HEADER, drop, drop_readings, drop_sensors, run_of


@pytest.fixture
def alone(tmp_path: Path) -> Environment:
    """A home without any server."""
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    drop_sensors(environment, "1,roof")
    return environment


def _refusal(environment: Environment, first: str = "2013-01-01", last: str | None = None) -> str:
    with pytest.raises(Refused) as refused:
        find_drops(run_of(environment, first, last))
    return str(refused.value)


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


def test_a_missing_file_is_named_with_the_way_out(alone: Environment) -> None:
    message = _refusal(alone, "2013-01-05")
    assert "toy/readings/2013-01-05.csv: the file is missing" in message
    assert "nightshift land toy --from 2013-01-05 --to 2013-01-05" in message
    assert str(alone.landing) in message


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
    message = _refusal(alone, "2013-01-01", "2013-12-31")
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
