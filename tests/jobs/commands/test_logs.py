"""The services' logs are listed, printed and followed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.commands.logs import logs
from pipelines.environment import Environment
from pipelines.errors import UsageError


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    environment.logs.mkdir()
    (environment.logs / "spark.log").write_bytes(b"one\ntwo\nthr\xffe\nfour\n")
    (environment.logs / "warm-up.log").write_text("")
    return environment


def asked(environment: Environment, service: str | None, lines: int = 50) -> int:
    return logs(environment, service, follow=False, lines=lines, form="csv")


def test_the_logs_that_are_there_are_listed(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(home, None) == 0
    printed = capsys.readouterr()
    header, *rows = printed.out.splitlines()
    assert header == "service,bytes,written at (UTC)"
    assert [row.rpartition(",")[0] for row in rows] == ["spark,19", "warm-up,0"]
    assert str(home.logs) in printed.err


def test_a_home_without_logs_lists_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}), None) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("lines", "printed"),
    [
        (2, "thr\ufffde\nfour\n"),
        (0, ""),
        (9, "one\ntwo\nthr\ufffde\nfour\n"),
        (10**30, "one\ntwo\nthr\ufffde\nfour\n"),
    ],
)
def test_the_end_of_a_log_is_printed(
    lines: int, printed: str, home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(home, "spark", lines) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("service", ["sprk", "../logs/spark"])
def test_an_unknown_service_is_refused_with_the_near_miss(service: str, home: Environment) -> None:
    with pytest.raises(UsageError, match=f"No service named '{service}'.*Known: .*spark.*warm-up"):
        asked(home, service)


def test_a_service_that_never_ran_has_no_log_yet(home: Environment) -> None:
    with pytest.raises(UsageError, match="'scheduler' has not written a log yet: .*nightshift up"):
        asked(home, "scheduler")


def test_following_nothing_is_wrong_usage(home: Environment) -> None:
    with pytest.raises(UsageError, match="nightshift logs spark --follow"):
        logs(home, None, follow=True, lines=1, form="csv")


_FOLLOW = """
import signal
from jobs.__main__ import main
# Where the tests run in the background, Ctrl-C is ignored from birth.
signal.signal(signal.SIGINT, signal.default_int_handler)
raise SystemExit(main(["logs", "spark", "--follow", "--lines", "1"]))
"""


@pytest.fixture
def following(home: Environment) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _FOLLOW]
    variables = {**os.environ, "NIGHTSHIFT_HOME": str(home.home)}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.timeout(60)
def test_a_log_is_followed_also_when_it_is_begun_anew(
    home: Environment, following: subprocess.Popen[str]
) -> None:
    log = home.logs / "spark.log"
    assert following.stdout is not None
    assert following.stdout.readline() == "four\n"
    with log.open("a") as file:
        file.write("five\n")
    assert following.stdout.readline() == "five\n"
    log.rename(log.with_suffix(".log.1"))
    time.sleep(0.5)  # long enough to be looked at while no log is there
    longer = "begun anew " * 50 + "\n"
    log.write_text(longer)
    assert following.stdout.readline() == longer
    log.write_text("emptied\n")
    assert following.stdout.readline() == "emptied\n"
    following.send_signal(2)
    assert following.wait(timeout=20) == 0
