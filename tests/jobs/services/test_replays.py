"""A home begins each replay once, and then it never jumps."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from jobs.services import replays
from pipelines import catalog, replay
from pipelines.environment import Environment
from pipelines.flights import PIPELINE
from pipelines.weather import PIPELINE as WEATHER


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / "home")})


def test_the_first_start_begins_every_replay_and_a_later_one_moves_none(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    replays.begin_all(home)
    begun = [replay.calendar(one, home) for one in (PIPELINE, WEATHER)]
    assert [one.first for one in begun] == [
        date(2013, 3, 31),
        date(2013, 5, 21),
    ]
    printed = capsys.readouterr().out
    assert f"{begun[0].first_today} stands for 2013-03-31" in printed
    replays.begin_all(home)
    assert [replay.calendar(one, home) for one in (PIPELINE, WEATHER)] == begun
    assert capsys.readouterr().out == ""
    assert home.home.stat().st_mode & 0o777 == 0o700


def test_what_has_begun_with_another_day_goes_on_from_there(home: Environment) -> None:
    assert replays.begin(home, PIPELINE, first=date(2013, 4, 2))
    replays.begin_all(home)
    assert not replays.begin(home, PIPELINE, first=date(2013, 5, 5))
    assert replay.calendar(PIPELINE, home).first == date(2013, 4, 2)


def test_what_has_begun_in_the_home_of_an_earlier_version_goes_on(home: Environment) -> None:
    before = home.home / "replay" / "flights.json"
    before.parent.mkdir(parents=True)
    began = datetime(2026, 11, 1, 12, tzinfo=UTC)
    before.write_text(replay.beginning(PIPELINE, began).to_json())
    assert not replays.begin(home, PIPELINE)
    assert replay.calendar(PIPELINE, home).began == began


def test_of_machines_that_start_at_once_one_begins_the_replay(home: Environment) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: replays.begin(home, PIPELINE), range(8)))
    file = replay.file_of(PIPELINE, home)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert replay.calendar(PIPELINE, home).first == date(2013, 3, 31)


def test_a_pipeline_that_cannot_be_read_keeps_no_platform_from_starting(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog, "names", lambda: ["unfinished", "flights"])
    replays.begin_all(home)
    assert replay.file_of(PIPELINE, home).exists()
    assert "Warning: pipeline 'unfinished' cannot be read" in capsys.readouterr().err


def test_a_landing_folder_to_be_read_keeps_no_platform_from_starting(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # To root every folder is one to be written.
    monkeypatch.setattr(replays, "write_once", refuse)
    assert not replays.begin_all(home)
    told = capsys.readouterr()
    assert told.out == ""
    assert "Warning: the replay of 'flights' cannot begin: [Errno 13]" in told.err
    assert "Warning: the replay of 'weather' cannot begin: [Errno 13]" in told.err


def test_a_store_that_is_away_keeps_no_platform_from_starting(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-store")

    def be_away(path: Path, content: bytes) -> None:
        raise EndpointConnectionError(endpoint_url="http://me:of-the-store@store:9000/bucket")

    monkeypatch.setattr(replays, "write_once", be_away)
    assert not replays.begin_all(home)
    told = capsys.readouterr().err
    assert "Warning: the replay of 'flights' cannot begin: Could not connect" in told
    assert "of-the-store" not in told
