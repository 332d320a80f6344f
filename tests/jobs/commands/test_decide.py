"""What a person says about a model is recorded, stands, and takes no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jobs.__main__ import main, parser
from jobs.commands import decide
from jobs.commands.decide import Said
from jobs.lake import approvals, model_events
from jobs.services import child, stage_client
from jobs.training.registry import ModelVersion, Registry
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.flights import PIPELINE as FLIGHTS
from tests.jobs.commands.conftest import StageServer
from tests.jobs.training import small
from tests.jobs.training.test_registry import keep

FIRST = date(2013, 1, 21)
SAID = Said(who="alice", why="odd on Mondays")
Served = Callable[[], list[str | None]]

TIMED = """
import json, resource, sys
from jobs.__main__ import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = {"mlflow", "tensorflow", "keras", "pyspark", "sqlalchemy"} & set(sys.modules)
print(json.dumps([code, used.ru_utime + used.ru_stime, sorted(heavy)]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return small.environment_at(tmp_path)


@pytest.fixture
def served(environment: Environment) -> Served:
    """The version that serves each of the five nights from FIRST on."""

    def look() -> list[str | None]:
        known = model_events.turns(environment, "small")
        nights = [FIRST + timedelta(days=day) for day in range(5)]
        turns = [model_events.in_turn(known, night) for night in nights]
        return [turn and turn.version for turn in turns]

    return look


def happened(
    environment: Environment,
    version: int,
    day: int,
    event: str = "promoted",
    pipeline: str = "small",
) -> None:
    """A verdict of the gate on a model of that day after FIRST."""
    row = {
        "pipeline": pipeline,
        "as_of": FIRST + timedelta(days=day),
        "event": event,
        "model_version": str(version),
        "who": model_events.GATE,
    }
    model_events.record(environment, [row])


def keep_fit(registry: Registry, folder: Path, fingerprint: str) -> ModelVersion:
    """A version with the files by which it serves."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name in ("encoding.json", "linear.json"):
        (files / name).write_text(fingerprint)
    return keep(registry, folder, fingerprint)


def last_events(environment: Environment, number: int) -> list[dict[str, Any]]:
    return model_events.events(environment, "small")[-number:]


def test_a_rollback_returns_to_the_model_before_and_again_to_the_one_before_that(
    environment: Environment, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    for version, day in ((1, 0), (2, 1), (3, 3)):
        happened(environment, version, day)
    assert served() == ["1", "2", "2", "3", "3"]
    decide.rollback(environment, small.SMALL, None, SAID)
    told = capsys.readouterr().out
    assert "Version 2 of 'small' serves from now on, and version 3 no more." in told
    assert "alice: odd on Mondays" in told
    assert "The alias 'champion' in MLflow, by which nothing here decides, follows" in told
    assert served() == ["1", "2", "2", "2", "2"]
    decide.rollback(environment, small.SMALL, None, SAID)
    assert served() == ["1", "1", "1", "1", "1"]
    with pytest.raises(UsageError, match="No model of 'small' served before version 1"):
        decide.rollback(environment, small.SMALL, None, SAID)


def test_a_rollback_is_on_record_with_who_and_why_for_each_model(
    environment: Environment,
) -> None:
    for version, day in ((1, 0), (2, 1), (3, 3)):
        happened(environment, version, day)
    decide.rollback(environment, small.SMALL, "1", SAID)
    said = [
        (row["event"], row["model_version"], row["rival_version"], row["as_of"].day)
        for row in last_events(environment, 3)
    ]
    assert sorted(said) == [
        ("restored", "1", "3", 24),
        ("rolled_back", "2", "1", 22),
        ("rolled_back", "3", "1", 24),
    ]
    assert {row["who"] for row in last_events(environment, 3)} == {"alice"}
    assert {row["reason"] for row in last_events(environment, 3)} == {"odd on Mondays"}


def test_two_rollbacks_at_once_are_recorded_once(environment: Environment, served: Served) -> None:
    for version, day in ((1, 0), (2, 1), (3, 3)):
        happened(environment, version, day)
    refused: list[str] = []

    def roll_back() -> None:
        try:
            decide.rollback(environment, small.SMALL, None, SAID, expected="3")
        except UsageError as error:
            refused.append(str(error))

    people = [threading.Thread(target=roll_back) for _ in range(2)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert served()[-1] == "2"
    (why,) = refused
    assert why.startswith("Version 2 of 'small' serves by now, and no more version 3: nothing was")


def test_a_rollback_can_be_taken_back(environment: Environment, served: Served) -> None:
    for version, day in ((1, 0), (2, 1), (3, 3)):
        happened(environment, version, day)
    decide.rollback(environment, small.SMALL, "1", SAID)
    decide.rollback(environment, small.SMALL, "2", SAID)
    assert served() == ["1", "1", "1", "2", "2"]
    decide.rollback(environment, small.SMALL, "3", SAID)
    assert served() == ["1", "1", "1", "3", "3"]


def test_what_is_promoted_later_serves_and_what_an_old_night_promotes_serves_until_the_rollback(
    environment: Environment, served: Served
) -> None:
    for version, day in ((1, 0), (2, 3)):
        happened(environment, version, day)
    decide.rollback(environment, small.SMALL, None, SAID)
    happened(environment, 3, 1)
    assert served() == ["1", "3", "3", "1", "1"]
    happened(environment, 4, 4)
    assert served() == ["1", "3", "3", "1", "4"]
    decide.rollback(environment, small.SMALL, None, SAID)
    assert served() == ["1", "3", "3", "1", "1"]


def test_a_model_that_was_put_back_is_refreshed_when_a_person_says_so(
    environment: Environment, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_held() -> bool:
        return model_events.turns(environment, "small")[-1].is_held

    refreshed = replace(small.SMALL, promotion=replace(small.SMALL.promotion, refresh_days=7))
    for version, day in ((1, 0), (2, 1), (3, 3)):
        happened(environment, version, day)
    with pytest.raises(UsageError, match="Version 3 of 'small' serves, and newer fits .* already"):
        decide.rollback(environment, refreshed, "3", SAID, may_refresh=True)
    decide.rollback(environment, refreshed, None, SAID)
    assert is_held()
    assert (
        "Newer fits of its recipe do not take its place until days have shown them to be better, "
        "or it has served for 28 days. To have them do so as ever: nightshift rollback small --to "
        "2 --refresh --why TEXT" in capsys.readouterr().out
    )
    before = served()
    with pytest.raises(UsageError, match=r"2 of 'small' serves already\. .* --refresh lets newer"):
        decide.rollback(environment, small.SMALL, "2", SAID)
    with pytest.raises(UsageError, match="Version 2 of 'small' serves by now, and no more version"):
        decide.rollback(environment, small.SMALL, "2", SAID, "3", may_refresh=True)
    decide.rollback(environment, small.SMALL, "2", SAID, "2", may_refresh=True)
    assert not is_held()
    assert served() == before
    (row,) = last_events(environment, 1)
    assert (row["event"], row["model_version"], row["who"]) == ("released", "2", "alice")
    decide.rollback(environment, small.SMALL, "1", SAID)
    assert is_held()
    capsys.readouterr()
    decide.rollback(environment, refreshed, "3", SAID, may_refresh=True)
    assert served()[-1] == "3"
    assert not is_held()
    assert "Newer fits" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("2", "Version 2 of 'small' serves already"),
        ("3", r"Version 3 of 'small' was never let into service.*The last that were: 1, 2\."),
        ("9", "never let into service"),
    ],
)
def test_there_is_no_way_back_to_a_model_that_never_served(
    to: str, message: str, environment: Environment
) -> None:
    happened(environment, 1, 0)
    happened(environment, 2, 1)
    happened(environment, 3, 2, "kept")
    with pytest.raises(UsageError, match=message):
        decide.rollback(environment, small.SMALL, to, SAID)


def test_without_a_model_there_is_nothing_to_roll_back(environment: Environment) -> None:
    with pytest.raises(UsageError, match="No model of 'small' serves"):
        decide.rollback(environment, small.SMALL, None, SAID)


def test_a_person_lets_a_model_serve_that_awaits_it_once(
    environment: Environment, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    happened(environment, 1, 0)
    happened(environment, 2, 2, "awaiting")
    assert served() == ["1"] * 5
    decide.approve(environment, small.SMALL, "2", SAID)
    assert served() == ["1", "1", "2", "2", "2"]
    assert "Version 2 of 'small' serves from now on." in capsys.readouterr().out
    (row,) = last_events(environment, 1)
    assert (row["event"], row["who"], row["reason"]) == ("approved", "alice", "odd on Mondays")
    with pytest.raises(UsageError, match=r"awaits nobody: it is approved.*person: none\."):
        decide.reject(environment, small.SMALL, "2", SAID)


def test_an_approval_never_takes_the_place_of_a_later_nights_model(
    environment: Environment, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    happened(environment, 1, 1, "awaiting")
    happened(environment, 2, 3)
    decide.approve(environment, small.SMALL, "1", SAID)
    assert served() == [None, "1", "1", "2", "2"]
    assert "version 2, of a later one, serves on" in capsys.readouterr().out


def test_a_model_is_rejected_or_refused_by_name(environment: Environment, served: Served) -> None:
    happened(environment, 1, 0)
    happened(environment, 2, 1, "awaiting")
    happened(environment, 3, 2, "awaiting")
    decide.reject(environment, small.SMALL, "3", SAID)
    assert served() == ["1"] * 5
    for version in ("3", "1", "7"):
        with pytest.raises(UsageError, match=r"awaits nobody.*Awaiting a person: 2\."):
            decide.approve(environment, small.SMALL, version, SAID)


@pytest.mark.parametrize(
    ("who", "why"),
    [("", "odd"), ("alice", " \n"), ("a", "x" * 2001)],
)
def test_who_and_why_are_said_in_words(who: str, why: str) -> None:
    with pytest.raises(UsageError, match=r"--(by|why) is"):
        Said.by(who, why)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--why", "d\udce9rive"),
        ("--by", "Andr\udce9"),
    ],
)
def test_words_that_no_table_can_hold_are_refused(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    text: str,
) -> None:
    happened(environment, 1, 0, pipeline="flights")
    happened(environment, 2, 1, pipeline="flights")
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(environment.home))
    # As a shell hands over bytes of Latin-1.
    words = ["--why=odd", f"{option}={text}"]
    assert main(["rollback", "flights", *words]) == 2
    assert f"Usage: {option} is not UTF-8: '" in capsys.readouterr().err
    known = model_events.turns(environment, "flights")
    assert [turn.version for turn in known] == ["1", "2"]


def test_without_a_name_it_is_the_user_of_the_system_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "somebody else")
    owner = Path(f"/proc/{os.getpid()}").owner()
    assert Said.by(None, "odd").who == owner


def test_the_commands_say_nothing_that_steers_a_terminal(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(environment.home))
    happened(environment, 1, 0, pipeline="flights")
    happened(environment, 2, 1, pipeline="flights")
    happened(environment, 3, 2, "awaiting", pipeline="flights")
    who, why = "\x1b[2Jeve", "odd\r\u202e"
    assert main(["rollback", "flights", "--to", "1", "--why", why, "--by", who]) == 0
    assert main(["approve", "flights", "3", "--reject", f"--why={why}", f"--by={who}"]) == 0
    assert main(["approve", "flights", "3", f"--why={why}", f"--by={who}"]) == 2
    printed = capsys.readouterr()
    assert r"\x1b[2Jeve: odd\r\u202e" in printed.out
    for line in (printed.out + printed.err).split("\n"):
        assert line.isprintable()
    said = model_events.events(environment, "flights")[-1]
    assert (said["event"], said["who"], said["reason"]) == ("rejected", who, "odd\r\u202e")


def test_a_rollback_takes_under_two_seconds_and_imports_nothing_heavy(
    environment: Environment,
) -> None:
    for version in range(1, 5):
        happened(environment, version, version - 1, pipeline="flights")
    arguments = ["rollback", "flights", "--why", "odd"]

    def seconds() -> float:
        ended = subprocess.run(
            [sys.executable, "-c", TIMED, *arguments],
            env={**os.environ, **environment.variables()},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        code, taken, heavy = json.loads(ended.stdout.splitlines()[-1])
        assert (code, heavy) == (0, [])
        return float(taken)

    # Of the processor, as others may use the machine; and of three the best. A machine that shares
    # its processors may charge one with what another took.
    assert any(seconds() < 2 for _ in range(3))


def test_there_is_no_way_to_a_version_that_was_deleted_in_mlflow_where_the_platform_is_up(
    ranked: Environment, tmp_path: Path
) -> None:
    # A copy of its tables, which take long to make.
    small.models_at(tmp_path)
    registry = Registry(ranked, "flights")
    for number, event in (
        (1, "promoted"),
        (2, "promoted"),
        (3, "promoted"),
        (4, "awaiting"),
    ):
        keep_fit(registry, tmp_path, str(number))
        happened(ranked, number, number, event, "flights")
    for version in ("2", "4"):
        registry._client.delete_model_version("flights", version)
    before = model_events.events(ranked, "flights")
    way_out = (
        r"Nothing was recorded\. Others that may come back \(1\): nightshift rollback flights --to"
    )
    with pytest.raises(
        UsageError, match=f"Version 2 of 'flights' was deleted in MLflow.*{way_out}"
    ):
        decide.rollback(ranked, FLIGHTS, None, SAID)
    with pytest.raises(UsageError, match=r"Version 4 .* was deleted") as told:
        decide.approve(ranked, FLIGHTS, "4", SAID)
    _, _, typed = str(told.value).partition("nightshift ")
    assert parser().parse_args(typed.split()).reject
    assert model_events.events(ranked, "flights") == before
    decide.rollback(ranked, FLIGHTS, "1", SAID)
    assert registry.champion() == "1"
    decide.reject(ranked, FLIGHTS, "4", SAID)
    cards = ranked.cards("flights")
    assert "version 1: serves since" in (cards / "1" / "card.md").read_text()
    assert "version 3: rolled back" in (cards / "3" / "card.md").read_text()


class Asked:
    """A child of the stage server that is asked for a version; its answer is set."""

    code: int | None = 0
    told = ""
    message = ""
    began: ClassVar[list[str]] = []

    def __init__(self, environment: Environment, *asked: Any) -> None:
        function, argument, _, output = asked
        assert function in child.ALLOWED
        assert is_free(environment), "others would wait for MLflow"
        self.began.append(argument["version"])
        output.write(self.told)

    def wait(self, timeout: float) -> int | None:
        assert timeout <= 20
        return self.code

    def kill(self) -> None:
        pass


def is_free(environment: Environment) -> bool:
    """Whether nobody holds the lock under which is decided."""
    got = threading.Event()

    def take() -> None:
        with approvals.one_at_a_time(environment, small.SMALL):
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(10)


@pytest.fixture
def asked(stage_server: StageServer, monkeypatch: pytest.MonkeyPatch) -> type[Asked]:
    """In the place of the stage server's child."""
    monkeypatch.setattr(stage_client, "Forked", Asked)
    monkeypatch.setattr(Asked, "began", [])
    stage_server.codes = [0, 0]
    return Asked


def test_mlflow_is_asked_before_anybody_waits_for_it(
    environment: Environment, served: Served, asked: type[Asked], stage_server: StageServer
) -> None:
    for version, day in ((1, 0), (2, 1)):
        happened(environment, version, day)
    happened(environment, 3, 3, "awaiting")
    decide.rollback(environment, small.SMALL, None, SAID)
    decide.approve(environment, small.SMALL, "3", SAID)
    assert asked.began == ["1", "3"]
    assert served() == ["1", "1", "1", "3", "3"]
    assert len(stage_server.asked) == 2, "the alias follows"


@pytest.mark.parametrize(
    ("code", "told", "warns"),
    [
        (3, "INFO\nMLflow at http://ml is away", "Warning: MLflow at http://ml is away.\n"),
        (None, "", "Warning: MLflow has not answered within 20 s.\n"),
    ],
)
def test_a_rollback_needs_no_mlflow(
    environment: Environment,
    served: Served,
    asked: type[Asked],
    stage_server: StageServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int | None,
    told: str,
    warns: str,
) -> None:
    for version, day in ((1, 0), (2, 1)):
        happened(environment, version, day)
    monkeypatch.setattr(asked, "code", code)
    monkeypatch.setattr(asked, "told", told)
    decide.rollback(environment, small.SMALL, None, SAID)
    assert served()[-1] == "1"
    said = capsys.readouterr()
    assert said.err == warns
    assert "MLflow was not asked whether it still has version 1 and the files" in said.out
    assert stage_server.asked == [], "it would wait once more"


def test_there_is_no_way_back_to_a_version_whose_files_are_gone(
    environment: Environment,
    asked: type[Asked],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version, day in ((1, 0), (2, 1), (3, 2)):
        happened(environment, version, day)
    monkeypatch.setattr(asked, "code", 1)
    monkeypatch.setattr(asked, "told", "cannot serve: linear.json cannot be read")
    before = model_events.events(environment, "small")
    with pytest.raises(
        UsageError,
        match=r"Version 2 of 'small' cannot serve: linear.json cannot be read\. Nothing was "
        r"recorded\. Others that may come back \(1\): nightshift rollback small",
    ):
        decide.rollback(environment, small.SMALL, None, SAID)
    assert model_events.events(environment, "small") == before


def test_where_mlflow_is_not_asked_that_is_said_and_a_rollback_goes_on_from_a_deleted_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.models_at(tmp_path)
    registry = Registry(environment, "small")
    for number in (1, 2, 3):
        keep(registry, tmp_path, str(number))
        happened(environment, number, number)
    registry._client.delete_model_version("small", "2")
    decide.rollback(environment, small.SMALL, None, SAID)
    assert "MLflow was not asked whether it still has version 2" in capsys.readouterr().out
    with pytest.raises(NightshiftError, match="Version 2 of model 'small' serves and is not in"):
        small.serving_model(environment, registry, FIRST + timedelta(days=9))
    decide.rollback(environment, small.SMALL, None, SAID)
    serves = small.serving_model(environment, registry, FIRST + timedelta(days=9))
    assert serves == registry.version("1")
    message = r"none to go back to\. Others that may come back \(2, 3\): nightshift rollback small"
    with pytest.raises(UsageError, match=message):
        decide.rollback(environment, small.SMALL, None, SAID)


def test_the_alias_follows_at_once_where_the_platform_is_up(
    ranked: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(ranked, "flights")
    for number in (1, 2):
        model = keep_fit(registry, tmp_path, str(number))
        registry.set_champion(model.version)
        happened(ranked, number, number, pipeline="flights")
    decide.rollback(ranked, FLIGHTS, None, SAID)
    assert registry.champion() == "1"
    assert "follows with the next" not in capsys.readouterr().out
