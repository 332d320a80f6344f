"""A case of the harness that takes no time: the squares of some numbers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from bench.harness import Answer, Case, Peer, Round, Work

CASE = Case(
    name=__name__,
    what="by a product",
    peers=(
        Peer(name="power", what="by a power", goal=100.0),
        Peer(name="list_of", what="by list"),
    ),
    sizes=(10,),
    quick_size=5,
    repeats=3,
    same=lambda ours, theirs: ours == theirs,
)


def prepare(folder: Path, size: int) -> None:
    """The numbers."""
    (folder / "numbers").write_text(" ".join(map(str, range(size))))


def ours(folder: Path) -> Work:
    """Prints too, as libraries do."""
    print("ready")
    yield _work(folder, lambda number: number * number, "ours")


def power(folder: Path) -> Work:
    """The same."""
    yield _work(folder, lambda number: number**2, "power")


def list_of(folder: Path) -> Work:
    """The same."""
    yield _work(folder, lambda number: sum([number] * number), "list_of")


def wrong(folder: Path) -> Work:
    """Something else."""
    yield _work(folder, lambda number: number + 1, "wrong")


def lasting(folder: Path) -> Work:
    """The same, by what must be ended before it can begin again."""
    left = folder / "left"
    work = _work(folder, lambda number: number * number, "lasting")

    def begin() -> Answer:
        left.touch(exist_ok=False)
        return work()

    yield Round(do=begin, after=left.unlink)
    # At the end nothing is left.
    (folder.parent / "ended").write_text(str(not left.exists()))


def woken(folder: Path) -> Work:
    """The same, by what sleeps whenever it has done it."""
    sleeps = folder / "sleeps"
    sleeps.touch()
    work = _work(folder, lambda number: number * number, "woken")

    def do() -> Answer:
        # Fails where nobody has woken it.
        sleeps.touch(exist_ok=False)
        return work()

    yield Round(do=do, before=sleeps.unlink)


def forked(folder: Path) -> Work:
    """The same, beside a child that has the same memory as this process."""
    much = b"x" * 300_000_000
    child = os.fork()
    if not child:
        time.sleep(600)
    yield _work(folder, lambda number: number * number, "forked")
    assert much
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def failing(folder: Path) -> Work:
    """Nothing."""
    raise SystemExit(f"no numbers in {folder}")
    yield


def _work(
    folder: Path,
    square: Callable[[int], int],
    way: str,
) -> Callable[[], Answer]:
    def work() -> Answer:
        with (folder.parent / "order").open("a") as order:
            print(way, file=order)
        numbers = map(int, (folder / "numbers").read_text().split())
        table = pa.table({"square": [square(number) for number in numbers]})
        return lambda: table

    return work
