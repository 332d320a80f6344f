from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from jobs.services import sampler
from jobs.services.sampler import PYTHON, RANKS, doing, sampling
from jobs.training.families.neural_network.executors import _Tasks
from jobs.training.families.neural_network.numbered import NumberedRank
from jobs.training.families.neural_network.wanted import Line
from pipelines.environment import ROOT

SECONDS = 0.3


def busy(seconds: float = SECONDS) -> None:
    """Counts, in code that passes for that of a stage."""
    # By its own time: while a machine pauses, nobody looks either.
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


@pytest.fixture(autouse=True)
def tests_are_code_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    own = f"{ROOT}/tests/"
    monkeypatch.setattr(sampler, "_OWN", {**sampler._OWN, own: "tests"})
    monkeypatch.setattr(sampler, "_BY_PATH", (*sampler._BY_PATH, (own, PYTHON)))
    sampler._kind.cache_clear()


def seen(file: Path, work: Callable[[], object]) -> dict[str, Any]:
    with sampling(file, {"stage": "ingest", "days": "2013-01-05"}):
        work()
    told: dict[str, Any] = json.loads(file.read_text())
    return told


def by_function(told: dict[str, Any]) -> dict[tuple[str, str], float]:
    found = {}
    for kind, place, seconds in told["places"]:
        found[kind, place.split()[-1]] = seconds
    return found


def test_the_seconds_of_a_function_are_told_with_its_name(tmp_path: Path) -> None:
    told = seen(tmp_path / "of" / "a run.json", busy)
    assert (told["stage"], told["days"]) == ("ingest", "2013-01-05")
    assert told["seconds"] >= SECONDS
    found = by_function(told)
    assert found[PYTHON, "busy"] > SECONDS / 2
    # All of it, and no more: nothing else was done.
    assert sum(found.values()) <= told["seconds"] + 0.05


def test_threads_at_once_share_the_seconds_and_who_waits_for_them_has_none(
    tmp_path: Path,
) -> None:
    def at_once() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(busy, [SECONDS] * 2))

    told = seen(tmp_path / "run.json", at_once)
    found = by_function(told)
    assert SECONDS / 2 < found[PYTHON, "busy"] <= told["seconds"]
    assert (PYTHON, "at_once") not in found or found[PYTHON, "at_once"] < SECONDS / 4


def test_waiting_for_another_process_is_told_as_such(tmp_path: Path) -> None:
    def other() -> None:
        program = f"import time; time.sleep({SECONDS})"
        subprocess.run([sys.executable, "-c", program], check=True)

    found = by_function(seen(tmp_path / "run.json", other))
    assert found[RANKS, "other"] > SECONDS / 2


def test_what_was_seen_is_kept_when_the_work_fails(tmp_path: Path) -> None:
    def fail() -> None:
        busy()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        seen(tmp_path / "run.json", fail)
    assert json.loads((tmp_path / "run.json").read_text())["places"]


def test_a_thread_that_waits_for_work_does_nothing() -> None:
    with ThreadPoolExecutor(1) as pool:
        idle = pool.submit(threading.get_ident).result()
        time.sleep(0.05)
        assert doing(sys._current_frames()[idle]) is None


class _Patient:
    """Ranks that end when a test says so."""

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def code(self, number: int) -> int | None:
        return 0 if self.may_end.is_set() else None

    def last_words(self, number: int) -> str:
        return ""

    def end(self) -> None:
        pass


def _frame_of(thread: threading.Thread) -> FrameType:
    assert thread.is_alive()
    assert thread.ident is not None
    return sys._current_frames()[thread.ident]


def _looked_at(is_so: Callable[[], bool]) -> bool:
    """Whether it is so, once a thread has come that far."""
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


def test_who_waits_for_a_rank_in_a_pod_or_on_an_executor_waits_for_another_process() -> None:
    ranks = _Patient()

    def trained() -> None:
        NumberedRank(ranks, 0).wait()

    thread = threading.Thread(target=trained)
    thread.start()
    place = f"{Path(__file__).relative_to(ROOT)} trained"
    try:
        assert _looked_at(lambda: doing(_frame_of(thread)) == (RANKS, place))
    finally:
        ranks.may_end.set()
        thread.join()


def _is_within(frame: FrameType, file: str) -> bool:
    return any(one.f_code.co_filename.endswith(file) for one in sampler._outwards(frame))


def test_who_holds_the_lines_of_ranks_does_nothing() -> None:
    before = {*threading.enumerate()}
    line = Line("127.0.0.1", 1)
    (holding,) = {*threading.enumerate()} - before
    try:
        # It is there, and does nothing.
        assert _looked_at(lambda: _is_within(_frame_of(holding), "wanted.py"))
        assert doing(_frame_of(holding)) is None
    finally:
        line.close()
        holding.join()


def test_who_waits_until_executors_are_free_of_ranks_waits_for_other_processes() -> None:
    tasks = object.__new__(_Tasks)
    tasks._session = None
    may_end = threading.Event()
    tasks._thread = threading.Thread(target=may_end.wait)
    tasks._thread.start()

    def ended() -> None:
        tasks.await_gone()

    waiting = threading.Thread(target=ended)
    waiting.start()
    place = f"{Path(__file__).relative_to(ROOT)} ended"
    try:
        assert _looked_at(lambda: doing(_frame_of(waiting)) == (RANKS, place))
    finally:
        may_end.set()
        waiting.join()


def test_what_cannot_be_kept_is_warned_about_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in the way").write_text("a file")
    with sampling(tmp_path / "in the way" / "run.json", {}):
        busy(0.05)
    assert "Warning: where its time went is not kept" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError), sampling(tmp_path / "in the way" / "run.json", {}):
        raise ZeroDivisionError
