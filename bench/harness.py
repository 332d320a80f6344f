"""Measures ours beside what a user would pick instead: the same work, in turns, in one run.

Each way to do the work has a process of its own (`bench/runner.py`), so that none pays for what
another has imported, and the peak of its memory is its own. First all answers are compared: a
figure of a way that says something else means nothing.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

from bench import cases
from jobs.services.usage import memory
from pipelines.cores import at_least_one

OURS = "ours"
Answer = Callable[[], pa.Table]
"""Reads what the work has left."""
Work = Iterator[Callable[[], Answer]]
"""Of a way of a `Case`: what is timed, once it is ready; a `Round` where something is around it."""
_LIBRARIES = (
    *("pyspark", "deltalake", "duckdb", "polars", "pyarrow", "pandas"),
    *("tensorflow", "keras", "horovod", "ai-edge-litert", "feast", "great-expectations"),
    "apache-airflow",
)


def _nothing() -> None:
    """Nothing is to be done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Work that needs more than to be done again and again; what is around it is not timed."""

    do: Callable[[], Answer]
    before: Callable[[], object] = _nothing
    """Such as waking what has gone to sleep: Spark's Python workers end when they had nothing to do
    for a minute, as while the others have their turn."""
    after: Callable[[], object] = _nothing
    """Such as ending what stays."""

    def __call__(self) -> Answer:
        """Do it."""
        return self.do()


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """What a user would pick instead, and how we want to stand beside it."""

    name: str
    """Of a function in the case's module; see `Case`."""
    what: str
    """In words."""
    goal: float | None = None
    """Our seconds divided by its seconds are to be at most so many; None: they are told."""
    times: Callable[[int], float] = lambda _: 1.0
    """By the size, how many times it would have to do what it does; its seconds are told as so many
    times those that were measured. Its `what` says so."""
    largest: int | None = None
    """Size above which it is not measured: it would take all day. None: none is."""
    in_quick: bool = True
    """Whether a quick look measures it too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A piece of work that can be done in several ways.

    Its module has a function `prepare(folder, size)`, which lays the input out, and one of the name
    of each way, `ours` among them: a generator that takes the folder, makes ready, and yields a
    function. That function is what is timed; it does the work, and returns another that reads the
    answer, a table, where somebody asks for it.
    """

    name: str
    what: str
    peers: tuple[Peer, ...]
    sizes: tuple[int, ...]
    """Rows of the input, or days where the case says so."""
    quick_size: int
    """Small enough to look whether a ratio has changed."""
    repeats: int = 5
    most_repeats: int | None = None
    """For which its input is enough; None: for any number."""
    goal_seconds: float | None = None
    """Ours is to take at most so many, whatever the others take."""
    same: Callable[[pa.Table, pa.Table], bool]
    """Whether an answer of a peer is ours."""

    def peers_at(self, size: int, *, is_quick: bool) -> tuple[Peer, ...]:
        """Those that are measured at that size."""
        return tuple(
            one
            for one in self.peers
            if (one.largest is None or size <= one.largest) and (one.in_quick or not is_quick)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One way at one size."""

    case: str
    size: int
    way: str
    what: str
    seconds: list[float]
    peak_megabytes: float
    """Of the process and all below it; 0: nobody looked."""
    goal: float | None = None
    ratio: float | None = None
    """Our median divided by this one; None: it is ours."""
    goal_seconds: float | None = None
    """Of ours."""

    @property
    def median(self) -> float:
        """Of the seconds."""
        return median(self.seconds)

    def to_json(self) -> dict[str, Any]:
        """All of it, and what follows from it."""
        is_met = None
        if self.goal is not None and self.ratio is not None:
            is_met = self.ratio <= self.goal
        elif self.goal_seconds is not None:
            is_met = self.median <= self.goal_seconds
        return asdict(self) | {"median": self.median, "is_met": is_met}


@dataclass(kw_only=True, slots=True)
class _Running:
    """The process of one way."""

    way: str
    process: subprocess.Popen[str]
    times: float
    """See `Peer.times`."""
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0

    def round(self) -> None:
        """Have it do the work once."""
        told = self._ask("go")
        self.seconds.append(self.times * told["seconds"])
        self.peak = max(self.peak, told["peak_megabytes"])

    def answer(self, file: Path) -> pa.Table:
        """Have it do the work once, and read what it says; nothing is timed."""
        self._ask(f"answer {file}")
        with pa.memory_map(str(file)) as source:
            return ipc.open_file(source).read_all()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # One that has ended already reads nothing.
        with suppress(BrokenPipeError):
            print(command, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.way} ended with exit code {self.process.wait()}.")
        told: dict[str, Any] = json.loads(line)
        return told


def measure(
    case: Case, size: int, repeats: int | None = None, *, is_quick: bool = False
) -> list[Measured]:
    """Measure the ways of a case at one size.

    Args:
        repeats: Instead of the case's own.
        is_quick: Leave out the peers that take long.

    Raises:
        SystemExit: a way fails, or says something else than ours.
    """
    with TemporaryDirectory() as path, ExitStack() as stack:
        folder = Path(path)
        cases.module(case.name).prepare(folder, size)
        _tell(f"{case.name}, {size:,}")
        peers = case.peers_at(size, is_quick=is_quick)
        ways = {OURS: 1.0, **{peer.name: peer.times(size) for peer in peers}}
        running = [
            stack.enter_context(_started(case, way, times, folder)) for way, times in ways.items()
        ]
        _require_the_same(case, running, folder)
        for _ in range(case.repeats if repeats is None else repeats):
            # In turns, so that what slows the machine down for a while slows all of them.
            for one in running:
                one.round()
                _tell(f"  {one.way} {one.seconds[-1]:.2f} s")
    return _measured(case, size, peers, running)


def machine() -> dict[str, object]:
    """What the figures were measured on, as much of it as is ours, and when."""
    return {
        "measured_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "processor": _processor(),
        "cores": at_least_one(),
        "memory_gib": round(memory() / 2**30, 1),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _measured(
    case: Case, size: int, peers: Sequence[Peer], running: Sequence[_Running]
) -> list[Measured]:
    own = median(running[0].seconds)
    found = []
    for one, peer in zip(running, (None, *peers), strict=True):
        found.append(
            Measured(
                case=case.name,
                size=size,
                way=one.way,
                what=peer.what if peer else case.what,
                seconds=one.seconds,
                peak_megabytes=round(one.peak, 1),
                goal=peer.goal if peer else None,
                ratio=own / median(one.seconds) if peer else None,
                goal_seconds=None if peer else case.goal_seconds,
            )
        )
    return found


def _require_the_same(case: Case, running: Sequence[_Running], folder: Path) -> None:
    """Compare the answers, by which every way has also done its work once before it is timed."""
    ours, *theirs = (one.answer(folder / f"{one.way}.arrow") for one in running)
    for one, answer in zip(running[1:], theirs, strict=True):
        if not case.same(ours, answer):
            raise SystemExit(f"{case.name}: {one.way} says something else than ours.")


@contextmanager
def _started(case: Case, way: str, times: float, folder: Path) -> Iterator[_Running]:
    command = [sys.executable, "-m", "bench.runner", case.name, way, str(folder)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for this process, which ends each way once, and its group with it.
        start_new_session=True,
    )
    try:
        yield _Running(way=way, process=process, times=times)
    except BaseException:
        # In the midst of its work, which may take minutes, it does not see the end of its input.
        process.terminate()
        raise
    finally:
        # At the end of its input it leaves by itself, and takes along what it has started.
        with suppress(BrokenPipeError):
            process.communicate()
        # One that was killed took nothing along.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
