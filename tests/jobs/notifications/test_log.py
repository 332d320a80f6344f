"""The channel `log` writes a line where the run writes, and a JSON line in the home."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobs.notifications import log
from jobs.notifications.message import compose
from pipelines.environment import Environment
from tests.jobs.notifications.conftest import promoted

MESSAGE = compose(
    promoted("Model 4.\nBetter: 80 % of resamples."), datetime(2013, 1, 6, tzinfo=UTC)
)


def test_a_message_is_a_line_on_stderr_and_a_json_line_in_the_home(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    log.deliver(home, MESSAGE)
    log.deliver(home, MESSAGE)
    printed = capsys.readouterr()
    assert printed.out == "", "rows for programs go to stdout"
    assert (
        printed.err.splitlines()
        == ["Notification: toy 2013-01-05: a new model serves. Model 4."] * 2
    )
    lines = (home.logs / "notifications.log").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [MESSAGE, MESSAGE]


def test_a_home_that_cannot_be_written_still_has_the_line(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    home.home.joinpath("file").touch()
    closed = replace(home, home=home.home / "file")
    with pytest.raises(OSError, match="logs"):
        log.deliver(closed, MESSAGE)
    assert "a new model serves" in capsys.readouterr().err


def test_what_a_full_disk_has_cut_off_shares_no_line_with_what_follows(home: Environment) -> None:
    home.logs.mkdir()
    file = home.logs / "notifications.log"
    file.write_text('{"half')
    for _ in range(2):
        log.deliver(home, MESSAGE)
    half, *whole = file.read_text().splitlines()
    assert half == '{"half'
    assert [json.loads(line) for line in whole] == [MESSAGE, MESSAGE]


def test_a_file_that_is_full_is_begun_anew(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(json.dumps(MESSAGE)) + 1
    monkeypatch.setattr(log, "_MOST_BYTES", 2 * size, raising=False)
    for _ in range(7):
        log.deliver(home, MESSAGE)
    files = sorted(home.logs.glob("notifications.log*"))
    # A later one takes the place of the oldest. What `maintain` deletes when it is old.
    assert [file.name for file in files] == [
        "notifications.log",
        "notifications.log.1",
        "notifications.log.2",
    ]
    for file in files:
        for line in file.read_text().splitlines():
            assert json.loads(line) == MESSAGE
        assert file.stat().st_size < 2 * size + 1
