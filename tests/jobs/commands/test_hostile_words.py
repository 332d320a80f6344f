"""Whatever is said in the place of a name, a date or a number: it is refused, or taken as a text.

Each command gets each word in the place of each of its arguments: a sample in `make test`, all of
them in `make soak`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from random import Random

import pytest

from bench import recorded_year
from jobs.__main__ import main, parser
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.weather import PIPELINE as WEATHER
from tests.conftest import OF_INSTALLATIONS
from tests.jobs.training.small import models_at

WORDS = (
    "'; DROP TABLE weather.predictions; --",
    '" OR 1=1 --',
    "../../../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "%2e%2e%2fx",
    "$(touch canary)",
    "`touch canary`",
    "; touch canary",
    "{date}",
    "{0.__class__}",
    "%s%n%d",
    "a\x00b",
    "a\r\nStage 'ingest': done.",
    "\x1b]0;owned\x07\x1b[2J",
    "<img src=x onerror=alert(1)>",
    "A" * 100_000,
    "9" * 5_000,
    "99999999999999999999999",
    "-1",
    "NaN",
    "1e999",
    "0000-00-00",
    "9999999999-01-01",
    "\uff19\uff19\uff19\uff19-\uff10\uff11-\uff10\uff11",  # digits of another width
    "\u2603",
    "\udcff",  # a byte that is no text
    "",
    " ",
    "*",
    "~",
    "file:///etc/passwd",
    "s3://bucket/x",
)
OTHERWISE = {
    "pipeline": "weather",
    "--date": "2013-01-10",
    "--from": "2013-01-09",
    "--to": "2013-01-10",
    "table": "weather.predictions",
    "version": "1",
    "--why": "a reason",
    "--key": "station=JFK",
    "--run-id": "r",
    "--event": "stage_failed",
    "--stage": "ingest",
    "--model": "1",
    "--every": "7",
    # Without one, `sql` reads its input.
    "statement": "SELECT 1",
}
"""What the arguments that a command needs besides say."""
PASSED_ON = ("airflow",)
"""Whose words are another program's: as arguments, and through no shell."""
_A_SAMPLE = 3
"""Words an argument, by default."""


def _commands() -> dict[str, argparse.ArgumentParser]:
    """Those that are told something."""
    (commands,) = [
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    told = {name: one for name, one in commands.choices.items() if _arguments(one)}
    return {name: one for name, one in told.items() if name not in PASSED_ON}


def _arguments(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """Those that take a word, without those by which a person names a file of their own."""
    given = [action for action in command._actions if action.nargs != 0]
    return [one for one in given if one.type is not Path and "--file" not in one.option_strings]


def _line(
    name: str, command: argparse.ArgumentParser, asked: argparse.Action, word: str
) -> list[str]:
    """The command line that says the word in the place of the argument."""
    line, places = [name], []
    for one in command._actions:
        is_asked = one is asked
        if one.option_strings:
            flag = one.option_strings[-1]
            if is_asked or one.required:
                line.append(f"{flag}={word if is_asked else OTHERWISE[flag]}")
        elif is_asked or one.nargs not in ("?", "*") or one.dest == "statement":
            places.append(word if is_asked else OTHERWISE[one.dest])
    return [*line, "--", *places]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Some nights on record, no platform, and a folder beside them in which the commands run."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "home").mkdir()
    environment = models_at(folder / "home")
    nights = Days(date(2013, 1, 1), date(2013, 1, 20))
    recorded_year.write(environment, WEATHER, nights)
    (folder / "beside").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(OF_INSTALLATIONS):
                patch.delenv(name)
        patch.setenv("NIGHTSHIFT_HOME", str(environment.home))
        patch.chdir(folder / "beside")
        yield environment


@pytest.mark.soak
@pytest.mark.parametrize("name", _commands())
def test_a_hostile_word_is_told_and_does_nothing(
    name: str, home: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    command = _commands()[name]
    before = _files(home)
    for asked in _arguments(command):
        drawn = Random(f"{name} {asked.dest}").sample(WORDS, _A_SAMPLE)
        for word in WORDS if os.environ.get("SOAK") else drawn:
            line = _line(name, command, asked, word)
            try:
                code = main(line)
            except SystemExit as ended:
                code = ended.code
            said = "".join(capfd.readouterr())
            assert code in range(6), line
            assert "Traceback" not in said, line
            # A terminal would do as it is told.
            assert "\x1b" not in said and "\x00" not in said, line
            assert list(Path.cwd().iterdir()) == [], line
    # What a person says of a model, and what was asked, is on record; tables are what they were.
    assert _files(home) == before


def _files(home: Environment) -> set[Path]:
    """Those of the pipeline's tables."""
    return set((home.home / "lake" / "weather").rglob("*"))


def test_a_run_whose_name_is_no_text_is_none(
    home: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", "SELECT 1", "--run=a\udcff"]) == 2
    assert "No run named 'a" in capfd.readouterr().err
