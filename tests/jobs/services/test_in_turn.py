"""One child of the stage server does one piece of work after another, as if each had its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.output import OutputLost, require_written
from jobs.services import in_turn, stage_client
from jobs.services.stage_client import Ended
from jobs.services.usage import Meter
from pipelines.environment import Environment
from tests.jobs.services.test_stage_server import WORK, is_gone, serving, until

FUNCTION = f"{WORK}:give"
"""That is called; what its calls are done by while they are done in turn is another."""


@pytest.fixture
def server(home: Environment) -> Iterator[None]:
    """A stage server that is up."""
    with serving(home):
        yield


@pytest.fixture
def turns(home: Environment, server: None) -> Iterator[None]:
    """Calls are done in turn."""
    with in_turn.in_turn(FUNCTION, f"{WORK}:do_in_turn"):
        yield


def do(home: Environment, **argument: object) -> Ended:
    """Call the function."""
    return stage_client.called(home, FUNCTION, argument, {})


def children(capfd: pytest.CaptureFixture[str]) -> list[int]:
    """The processes that have done it so far; each could read nothing."""
    told = [line.split() for line in capfd.readouterr().out.splitlines()]
    of_children = [words for words in told if words[:1] == ["child"]]
    assert all(words[2] == "0" for words in of_children)
    return [int(words[1]) for words in of_children]


def test_all_is_done_by_one_child_which_ends_with_the_last(
    home: Environment, turns: None, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = [0, 3, 1, 0]
    done = [do(home, code=code) for code in asked]
    assert [one.code for one in done] == asked
    pids = children(capfd)
    assert len(pids) == 4
    assert len(set(pids)) == 1
    one = psutil.Process(pids[0])
    assert not is_gone(one)
    (own,) = stage_client.IN_TURN.values()
    assert isinstance(own, in_turn._Turns)
    own.end()
    assert until(lambda: is_gone(one))


def test_afterwards_each_call_has_a_child_of_its_own(
    home: Environment, server: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with in_turn.in_turn(FUNCTION, f"{WORK}:do_in_turn"):
        do(home, code=0)
    assert do(home, code=2) == Ended(code=2, said="")
    assert len(children(capfd)) == 1
    assert stage_client.IN_TURN == {}


def test_turns_within_turns_have_a_child_of_their_own(
    home: Environment, turns: None, capfd: pytest.CaptureFixture[str]
) -> None:
    do(home, code=0)
    with in_turn.in_turn(FUNCTION, f"{WORK}:do_in_turn"):
        do(home, code=0)
    do(home, code=0)
    before, within, after = children(capfd)
    assert before == after != within


def test_what_a_child_could_not_write_to_our_output_we_tell(
    home: Environment, turns: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert do(home, code=0).code == 0
        assert do(home, code=1).code == 1, "it goes on"
        with pytest.raises(OutputLost, match=r"could not be written: \[Errno 28\]"):
            require_written()


def test_one_that_is_killed_is_lost_with_what_it_did_and_another_does_the_next(
    home: Environment, turns: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert do(home, seconds=3).code == 0
    meter = Meter(home)
    lost = do(home, signal=signal.SIGKILL, seconds=0.2)
    # Of all that the child took only what is lost, and what a busy machine charges it with.
    assert 0.15 < meter.read().cpu_seconds < 2.8
    assert (lost.code, lost.is_lost) == (3, True)
    assert "SIGKILL" in lost.said
    assert do(home, code=1) == Ended(code=1, said="")
    first, second, third = children(capfd)
    assert first == second != third


def test_one_that_is_killed_while_it_waits_costs_nothing(
    home: Environment, turns: None, capfd: pytest.CaptureFixture[str]
) -> None:
    do(home, code=0)
    (pid,) = children(capfd)
    waiting = psutil.Process(pid)
    waiting.kill()
    assert until(lambda: is_gone(waiting))
    assert do(home, code=1) == Ended(code=1, said="")
    (other,) = children(capfd)
    assert other != pid


def test_work_that_ends_its_process_is_a_fault_and_is_done_once(
    home: Environment, turns: None, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert do(home, exits=0) == Ended(code=3, said="")
    assert do(home, code=0) == Ended(code=0, said="")
    assert len(set(children(capfd))) == 3


def test_an_exception_is_a_fault_and_another_child_does_the_next(
    home: Environment, turns: None, capfd: pytest.CaptureFixture[str]
) -> None:
    do(home, code=0)
    assert do(home, text="the reason") == Ended(code=3, said="")
    assert do(home, code=0) == Ended(code=0, said="")
    first, second, third = children(capfd)
    assert first == second != third


@pytest.mark.parametrize("how", ["written", "replaced", "deleted"])
def test_code_that_was_edited_is_in_force_at_the_next(
    how: str,
    home: Environment,
    turns: None,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    file = _written_long_ago(tmp_path / "of_a_test.py")
    assert do(home, module=str(file)).code == 0
    assert do(home).code == 0
    if how == "written":
        file.write_text("edited = True")
    elif how == "replaced":
        # As what is copied or unpacked with its time.
        _written_long_ago(tmp_path / "other.py").replace(file)
    else:
        file.unlink()
    assert do(home, code=1) == Ended(code=1, said="")
    assert do(home, code=0) == Ended(code=0, said="")
    first, second, third, fourth = children(capfd)
    assert first == second != third == fourth


def _written_long_ago(file: Path) -> Path:
    file.write_text("edited = False")
    an_hour_ago = time.time() - 3600
    os.utime(file, (an_hour_ago, an_hour_ago))
    # Else it is not sure that it was there before.
    time.sleep(1.1)
    return file


def test_a_server_of_older_code_does_each_by_itself(
    home: Environment, server: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with in_turn.in_turn(FUNCTION, "tests.of.newer:code"):
        for code in (1, 0):
            assert do(home, code=code) == Ended(code=code, said="")
    assert children(capfd) == []


def test_who_is_interrupted_waits_for_no_child(
    home: Environment,
    turns: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    do(home, code=0)
    (pid,) = children(capfd)
    busy = psutil.Process(pid)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(in_turn, "next_message", interrupt)
    # Far longer than a busy machine pauses.
    monkeypatch.setattr(in_turn, "_END_SECONDS", 60)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        do(home, seconds=120)
    (own,) = stage_client.IN_TURN.values()
    assert isinstance(own, in_turn._Turns)
    own.end()
    assert time.monotonic() - began < 30
    assert until(lambda: is_gone(busy))
