"""Commands that a child of the stage server does, as if they were done here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import __main__ as command
from jobs import outcome
from jobs.__main__ import main
from jobs.commands import forwarding, in_server
from jobs.commands.plan import Plan
from jobs.commands.who import user
from jobs.lake import ops
from jobs.output import outlive_readers
from jobs.services import child, stage_client
from jobs.services.own_server import preloaded
from jobs.services.stage_client import Ended
from pipelines import forwarding as forwarded
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.stages import stage

DAY = "2013-01-05"
LOST = Ended(code=3, said="The process was killed by SIGKILL.")
FAILED = Ended(code=3, said="")
DIED = Ended(code=forwarding.LOST, said="")
_OF_UP = {"AWS_ACCESS_KEY_ID": "up", "AWS_SECRET_ACCESS_KEY": "up", "AWS_SESSION_TOKEN": "up"}
"""By which a store knows the stage server."""
_TERMINAL_OF_UP = {"COLUMNS": "200", "LINES": "50", "NO_COLOR": "1", "TERM": "xterm"}
"""Of the shell in which it was started."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Whose settings this process has."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    return Environment.read()


@pytest.fixture
def server(home: Environment) -> Iterator[Environment]:
    """A stage server in a home of its own, which this process takes for its own."""
    with preloaded(home, ("json",)) as own, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHIFT_HOME", str(own.home))
        patch.setenv("NIGHTSHIFT_LAKE", home.lake)
        patch.setenv("NIGHTSHIFT_LANDING", str(home.landing))
        yield own


@pytest.fixture
def here_is_nothing_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command would do in this process fails."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("done in the client")

    for name in ("jobs.commands.plan.plan", "jobs.night.make_true", "jobs.night.run_night"):
        monkeypatch.setattr(name, fail)


def test_a_plan_is_what_it_is_without_a_server(
    home: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", "flights", "--date", DAY, "--format", "json"]
    assert main(arguments) == 0
    here = json.loads(capfd.readouterr().out)
    with preloaded(home, ("json",)) as own, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHIFT_HOME", str(own.home))
        patch.setenv("NIGHTSHIFT_LAKE", home.lake)
        patch.setenv("NIGHTSHIFT_LANDING", str(home.landing))
        # Nothing of it is done here.
        patch.setattr("jobs.commands.plan.plan", None)
        assert main(arguments) == 0
    assert json.loads(capfd.readouterr().out) == here
    assert any(row["state"] == "hole" or row["state"] == "missing" for row in here)


def test_a_stage_ends_as_it_would_here(
    server: Environment, here_is_nothing_done: None, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "flights", "--date", DAY, "--stage", "ingest", "--run-id", "r1"]
    # Its files have not landed, which it tells by its own exit code.
    assert main(arguments) == 4
    printed = capfd.readouterr().err
    assert f"flights {DAY}  run r1" in printed
    assert "Not landed" in printed or "not landed" in printed
    (row,) = ops.read(server, "stage_runs").to_pylist()
    assert (row["run_id"], row["stage"], row["status"]) == ("r1", "ingest", "not landed")
    assert row["first_day"] == date.fromisoformat(DAY)


def test_what_is_asked_wrongly_is_told_as_here(
    server: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "flights", "--date", "2014-02-01"]) == 2
    assert "from 2012-12-31 to 2013-12-31" in capfd.readouterr().err


def test_a_night_of_many_stages_is_led_from_here(
    server: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    led: list[bool] = []

    def make_true(*_: Any, in_place: bool, **__: Any) -> int:
        led.append(in_place)
        return 0

    monkeypatch.setattr("jobs.night.make_true", make_true)
    assert main(["run", "flights", "--date", DAY]) == 0
    assert led == [False]


@pytest.mark.parametrize("ended", [LOST, DIED], ids=["killed", "asked to end"])
def test_a_child_that_is_lost_is_a_failure_of_its_stage(
    ended: Ended,
    home: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(stage_client, "available", lambda *_: True)
    monkeypatch.setattr(stage_client, "called", lambda *_: ended)
    result = tmp_path / "result.json"
    arguments = ["run", "flights", "--date", DAY, "--stage", "train", "--run-id", "r1"]
    assert main([*arguments, "--format", "json", "--result", str(result)]) == 3
    (row,) = ops.read(home, "stage_runs").to_pylist()
    assert (row["run_id"], row["stage"], row["status"]) == ("r1", "train", "failed")
    assert "its process was killed" in row["error"]
    printed = capfd.readouterr()
    assert ended.said in printed.err
    (shown,) = json.loads(printed.out)
    assert (shown["stage"], shown["status"]) == ("train", "failed")
    told = json.loads(result.read_text())
    assert (told["outcome"], told["exit_code"]) == ("failed", 3)
    assert told["message"] == row["error"]
    assert "flights" in (home.logs / "notifications.log").read_text()


def test_of_a_stage_whose_child_is_lost_there_is_no_page_of_where_its_time_went(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage_client, "available", lambda *_: True)
    monkeypatch.setattr(stage_client, "called", lambda *_: LOST)
    assert main(["run", "flights", "--date", DAY, "--stage", "train", "--profile"]) == 3
    assert "profile  " not in capfd.readouterr().out
    assert not (home.home / "profiles").exists()


def test_a_client_that_is_no_command_has_the_loss_told_by_one(
    server: Environment, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    began = datetime.now(UTC) - timedelta(minutes=5)
    taken = {"cpu_seconds": 12.5, "peak_bytes": 1_000_000}
    result = tmp_path / "result.json"
    arguments = ["run", "flights", "--date", DAY, "--stage", "train", "--run-id", "r1"]
    arguments += ["--no-notify", "--as-needed", f"--result={result}"]
    lost = json.dumps({"since": began.isoformat(), "taken": taken})
    # A server is up, and is not asked to do it again.
    assert main([*arguments, f"--lost={lost}"]) == 3
    (row,) = ops.read(server, "stage_runs").to_pylist()
    assert (row["run_id"], row["stage"], row["status"]) == ("r1", "train", "failed")
    assert row["started_at"] == began
    assert row["seconds"] == pytest.approx(300, abs=60)
    (cost,) = ops.read(server, "costs").to_pylist()
    assert (cost["cpu_seconds"], cost["peak_bytes"]) == (12.5, 1_000_000)
    assert json.loads(result.read_text())["message"] == row["error"] == outcome.NO_REASON
    assert not (server.logs / "notifications.log").exists()
    # Of what has recorded its end itself nothing else is recorded.
    assert main([*arguments, f"--lost={lost}"]) == 3
    assert len(ops.read(server, "stage_runs")) == 1
    capfd.readouterr()
    for wrong in ("{}", "[1]", "since", '{"since": "today", "taken": {}}'):
        assert main([*arguments, f"--lost={wrong}"]) == 2
        assert "does not tell since when" in capfd.readouterr().err
    assert main(["run", "flights", "--date", DAY, f"--lost={lost}"]) == 2
    assert "one stage" in capfd.readouterr().err


def test_a_stage_that_was_done_before_its_child_was_lost_stays_done(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(environment: Environment, function: str, argument: Any, environ: Any) -> Ended:
        row = {
            **ops.of_stage(run, datetime.now(UTC), "done"),
            **dict.fromkeys(("metrics", "error", "code_version")),
            "seconds": 1.0,
        }
        ops.append(environment, "stage_runs", [row])
        return LOST

    days = Days.of(date.fromisoformat(DAY))
    run = Run(pipeline=pipeline("flights"), days=days, environment=home, run_id="r1")
    run = run.at(stage("train"))
    monkeypatch.setattr(stage_client, "available", lambda *_: True)
    monkeypatch.setattr(stage_client, "called", called)
    assert main(["run", "flights", "--date", DAY, "--stage", "train", "--run-id", "r1"]) == 3
    (row,) = ops.read(home, "stage_runs").to_pylist()
    assert row["status"] == "done"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "flights", "--date", DAY, "--stage", "ingest", "--run-id=-odd"],
        ["run", "--run-id=-odd", "--date", DAY, "--stage", "ingest", "--", "flights"],
    ],
)
def test_words_mean_in_the_child_what_they_mean_here(
    words: list[str], home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def called(environment: Environment, function: str, argument: Any, environ: Any) -> Ended:
        sent.append(command.parser().parse_args(argument["words"]))
        return Ended(code=0, said="")

    monkeypatch.setattr(stage_client, "available", lambda *_: True)
    monkeypatch.setattr(stage_client, "called", called)
    assert main(words) == 0
    (arguments,) = sent
    assert (arguments.pipeline, arguments.run_id) == ("flights", "-odd")


@pytest.mark.parametrize("what", ["plan", "notify"])
def test_what_needs_no_server_is_done_here_when_its_child_is_lost(
    what: str, home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(stage_client, "available", lambda *_: True)
    monkeypatch.setattr(stage_client, "called", lambda *_: LOST)
    nothing = Plan(rows=(), has_work=False)
    monkeypatch.setattr(
        "jobs.commands.plan.plan",
        lambda *_, **__: done.append("plan") or nothing,
    )
    monkeypatch.setattr("jobs.commands.notify.notify", lambda *_, **__: done.append("notify") or 0)
    of_event = ["--run-id", "r1", "--event", "night_done"] if what == "notify" else []
    assert main([what, "flights", "--date", DAY, *of_event]) == 0
    assert done == [what]


@pytest.mark.parametrize("ended", [LOST, FAILED], ids=["killed", "failed"])
@pytest.mark.parametrize(
    ("words", "who"),
    [
        (["rollback", "flights", "--why", "w"], user()),
        (["rollback", "--why=w", "--by", "ann", "--", "flights"], "ann"),
        (["approve", "flights", "3", "--why", "w"], user()),
    ],
)
def test_what_a_person_says_of_a_model_is_said_once_and_by_them(
    words: list[str],
    who: str,
    ended: Ended,
    home: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said: list[Any] = []

    def lost(environment: Environment, function: str, argument: Any, environ: Any) -> Ended:
        said.append(command.parser().parse_args(argument["words"]))
        return ended

    monkeypatch.setattr(stage_client, "available", lambda *_: True)
    monkeypatch.setattr(stage_client, "called", lost)
    for name in ("rollback", "approve"):
        # It may be on record already: nobody says it a second time.
        monkeypatch.setattr(f"jobs.commands.decide.{name}", None)
    assert main(words) == 3
    (arguments,) = said
    assert (arguments.pipeline, arguments.why, arguments.by) == ("flights", "w", who)
    told = capsys.readouterr().err
    assert told.endswith(
        "How it ended is not known: it may be on record already. Look before you say it again: "
        "nightshift models flights\n"
    )


def test_a_child_that_is_asked_to_end_or_comes_apart_says_so(
    home: Environment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class PanicError(BaseException):
        """As a library in Rust raises it."""

    argument = {"words": ["plan", "flights", "--date", DAY], "environment": home.variables()}
    for error in (SystemExit(3), PanicError("index out of bounds")):
        monkeypatch.setattr(command, "_plan", _raising(error))
        assert command.in_child(argument) == forwarding.LOST
    assert "index out of bounds" in capfd.readouterr().err
    monkeypatch.setattr(command, "_plan", _raising(BrokenPipeError()))
    assert command.in_child(argument) == 0


def test_a_child_has_the_credentials_of_its_client_but_for_a_stage(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, dict[str, str]] = {}

    def called(
        _: Environment,
        function: str,
        argument: Any,
        environ: dict[str, str],
    ) -> Ended:
        given[argument["words"][0]] = environ
        return Ended(code=0, said="")

    monkeypatch.setattr(stage_client, "available", lambda *_: True)
    monkeypatch.setattr(stage_client, "called", called)
    monkeypatch.setenv("AWS_PROFILE", "of this shell")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("SOME_PASSWORD", "s3cret")
    main(["plan", "flights", "--date", DAY])
    main(["run", "flights", "--date", DAY, "--stage", "ingest"])
    assert given["plan"]["AWS_PROFILE"] == "of this shell"
    # As the stages of a whole night, and Spark, have it.
    assert "AWS_PROFILE" not in given["run"]
    for environ in given.values():
        assert environ["https_proxy"] == "http://proxy:3128"
        assert "SOME_PASSWORD" not in environ


@pytest.mark.parametrize(
    ("client", "known"),
    [
        ({"AWS_PROFILE": "own"}, {"AWS_PROFILE": "own"}),
        (
            {"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own"},
            {"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own"},
        ),
        ({}, _OF_UP),
        # Settings, such as the region, beside which the server's login counts.
        ({"AWS_CONFIG_FILE": "/etc/aws"}, _OF_UP),
    ],
    ids=["a profile", "keys", "none", "settings"],
)
def test_a_child_takes_no_part_of_its_login_from_the_server(
    client: dict[str, str],
    known: dict[str, str],
    home: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, str] = {}

    def plan(*_: object) -> int:
        seen.update(os.environ)
        return 0

    monkeypatch.setattr(command, "_plan", plan)
    words = ["plan", "flights", "--date", DAY]
    of_up = {**_OF_UP, **_TERMINAL_OF_UP}
    for name, value in {**of_up, **forwarded.variables(client, words)}.items():
        monkeypatch.setenv(name, value)
    assert command.in_child(forwarded.argument(home, words, client)) == 0
    login = {*_OF_UP, "AWS_PROFILE"} & seen.keys()
    assert {name: seen[name] for name in login} == known
    assert not _TERMINAL_OF_UP.keys() & seen.keys()


@pytest.mark.parametrize(
    "words",
    [
        ["sql", "SELECT 1"],
        ["explain", "flights", "--date", DAY],
        ["rescore", "flights", "--date", DAY],
    ],
    ids=["sql", "explain", "rescore"],
)
def test_what_has_a_function_of_its_own_has_the_login_and_the_terminal_of_its_client_too(
    words: list[str], home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Any, dict[str, str]]] = []

    def call(
        _: Environment,
        function: str,
        argument: Any,
        environ: dict[str, str],
    ) -> int:
        sent.append((argument, environ))
        return 0

    monkeypatch.setattr(stage_client, "available", lambda *_: True)
    monkeypatch.setattr(stage_client, "call", call)
    client = {
        "AWS_PROFILE": "of this shell",
        "AWS_ENDPOINT_URL": "http://store.example:9000",
        "https_proxy": "http://proxy:3128",
        "COLUMNS": "60",
        "NO_COLOR": "1",
    }
    for name in (*_OF_UP, *_TERMINAL_OF_UP):
        monkeypatch.delenv(name, raising=False)
    for name, value in client.items():
        monkeypatch.setenv(name, value)
    assert main(words) == 0
    ((argument, environ),) = sent
    assert environ.items() >= client.items()
    for name in (*_OF_UP, "LINES"):
        monkeypatch.setenv(name, "up")
    seen: list[str] = []
    assert in_server.ended(argument, lambda _: seen.extend(os.environ)) == 0
    assert not {*_OF_UP, "LINES"} & {*seen}
    assert client.keys() <= {*seen}


def test_a_child_tells_that_what_it_prints_has_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def work(_: Environment) -> None:
        outlive_readers()
        print("a row", flush=True)
        done.append("the rest")

    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        argument = forwarded.argument(Environment.read(os.environ), ["config"], os.environ)
        assert in_server.ended(argument, work) == 3
    assert done == ["the rest"]
    assert "Standard output could not be written: [Errno 28]" in capsys.readouterr().err


def test_a_proxy_that_is_told_in_capital_letters_counts_where_the_server_has_another() -> None:
    client = {
        "HTTPS_PROXY": "http://ours:3128",
        "NO_PROXY": "chat.example",
        "http_proxy": "http://plain:3128",
        "HTTP_PROXY": "http://not-read:3128",
    }
    # As `nightshift up` has made the server's.
    server = {"no_proxy": "127.0.0.1,localhost", "https_proxy": "http://theirs:3128"}
    in_child = {**server, **forwarded.variables(client, ["notify"])}
    assert in_child["no_proxy"] == "127.0.0.1,localhost,chat.example"
    assert in_child["https_proxy"] == "http://ours:3128"
    assert in_child["http_proxy"] == "http://plain:3128"


def test_a_child_does_no_other_command(
    home: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    argument = {"words": ["down"], "environment": home.variables()}
    assert command.in_child(argument) == 2
    told = capfd.readouterr().err
    assert "does not do 'down'" in told
    assert "`nightshift down`, then `nightshift up`" in told


def _raising(error: BaseException) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise error

    return fail


def test_a_server_of_older_code_takes_none_and_it_is_done_here(
    server: Environment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forwarding, "FUNCTION", "jobs.older:in_child")
    done: list[str] = []
    monkeypatch.setattr(
        "jobs.night.make_true",
        lambda run, *_, **__: done.append(run.run_id) or 0,
    )
    arguments = ["run", "flights", "--date", DAY, "--stage", "train", "--as-needed"]
    assert main([*arguments, "--run-id", "r1"]) == 0
    assert done == ["r1"]
    assert "does not run" not in capfd.readouterr().err


def test_a_child_has_the_settings_of_its_client_and_not_those_of_the_server(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Environment] = []

    def plan(_: object, environment: Environment) -> int:
        seen.append(environment)
        return 0

    monkeypatch.setattr(command, "_plan", plan)
    # As of the server, which was started with another.
    monkeypatch.setenv("NIGHTSHIFT_RANKS", "7")
    argument = {"words": ["plan", "flights", "--date", DAY], "environment": home.variables()}
    assert command.in_child(argument) == 0
    assert [one.ranks for one in seen] == [home.ranks]
    assert home.ranks != 7


def test_the_server_allows_it() -> None:
    assert forwarding.FUNCTION in child.ALLOWED
