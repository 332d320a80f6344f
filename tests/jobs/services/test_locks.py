"""Processes take turns, whatever becomes of the one that holds the lock."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.services import locks
from pipelines.environment import ROOT, Environment
from pipelines.errors import AwaitsTurn

# Says when it has the lock, and holds it until its input ends.
HOLDER = """
import sys
from jobs.services import locks
from pipelines.environment import Environment
environment = Environment.read({"NIGHTSHIFT_HOME": sys.argv[1]})
with locks.hold(environment, "a lock", is_shared=sys.argv[2] == "shared", waiting="It is taken."):
    print("held", flush=True)
    sys.stdin.read()
"""
# Longer than a process that need not wait takes to say that it has the lock.
WAIT_SECONDS = 1.0
Start = Callable[..., "Holder"]


class Holder:
    """A process that takes the lock."""

    def __init__(self, home: Path, name: str, kind: str) -> None:
        self._output = home.parent / f"{name}.out"
        self._errors = home.parent / f"{name}.err"
        with self._output.open("w") as output, self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(home), kind],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                cwd=ROOT,
            )

    def has_it(self) -> bool:
        """Whether it has the lock, or has had it."""
        return self._output.read_text() == "held\n"

    def errors(self) -> str:
        """What it said beside that."""
        return self._errors.read_text()

    def release(self) -> None:
        """Have it release the lock and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(10) == 0


@pytest.fixture
def start(home: Environment) -> Iterator[Start]:
    """Starts processes that take the lock: `start("one")`, `start("two", "shared")`."""
    started: list[Holder] = []

    def build(name: str, kind: str = "alone") -> Holder:
        holder = Holder(home.home, name, kind)
        started.append(holder)
        return holder

    yield build
    for holder in started:
        holder.process.kill()
        holder.process.wait()


def until(holds: Callable[[], object]) -> bool:
    """Whether it holds within some seconds."""
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds())


def test_two_processes_exclude_each_other_and_the_second_says_once_that_it_waits(
    start: Start,
) -> None:
    first = start("first")
    assert until(first.has_it)
    second = start("second")
    assert until(second.errors)
    time.sleep(WAIT_SECONDS)
    assert not second.has_it()
    first.release()
    assert until(second.has_it)
    second.release()
    assert (first.errors(), second.errors()) == ("", "It is taken.\n")


def test_a_killed_holder_releases_it(start: Start) -> None:
    first = start("first")
    assert until(first.has_it)
    second = start("second")
    assert until(second.errors)
    first.process.kill()
    assert until(second.has_it)


def test_those_that_share_it_hold_it_together_and_one_that_does_not_waits_for_all(
    start: Start,
) -> None:
    one = start("one", "shared")
    other = start("other", "shared")
    assert until(one.has_it)
    assert until(other.has_it)
    alone = start("alone")
    assert until(alone.errors)
    one.release()
    time.sleep(WAIT_SECONDS)
    assert not alone.has_it()
    other.release()
    assert until(alone.has_it)


def test_locks_of_other_names_and_of_other_homes_are_free(
    start: Start, home: Environment, make_home: Callable[[str], Environment]
) -> None:
    assert until(start("first").has_it)
    with locks.hold(home, "another lock"), locks.hold(make_home("other"), "a lock"):
        pass


def test_an_error_in_the_block_releases_it(home: Environment) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locks.hold(home, "a lock"):
            raise ZeroDivisionError


def test_who_waits_no_longer_than_it_is_to_is_told_who_holds_it(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    with locks.hold(home, "a lock", holder="run b, which is longer"):
        pass
    told = r"The lock 'a lock' was not free within 0.2 s. The lock is held by run a\.$"
    with (
        locks.hold(home, "a lock", holder="run a"),
        pytest.raises(AwaitsTurn, match=told),
        locks.hold(home, "a lock", waiting="It is taken.", most_seconds=0.2),
    ):
        raise AssertionError("it is held twice")
    assert capsys.readouterr().err == "It is taken. The lock is held by run a.\n"


def test_its_folder_is_its_owners_alone(home: Environment) -> None:
    with locks.hold(home, "a lock"):
        for folder in (home.runtime, home.runtime / "locks"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
