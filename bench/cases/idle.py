"""A night with nothing to do: the same one again, beside one that has everything to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa

from bench import bare_night
from bench.alike import alike
from bench.harness import Answer, Case, Peer, Work
from bench.home import Home
from jobs.lake import reading
from pipelines.flights import PIPELINE

_BEFORE = PIPELINE.first_day
"""Has the schedule of the first day, and nothing else."""
_MOST_NIGHTS = 20
"""That can be measured; one more is compared first."""


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    """Whether the night has the same predictions, done once and done again."""
    return len(ours) > 0 and alike(ours, theirs, key=bare_night.KEY)


CASE = Case(
    name="idle",
    what="`nightshift run` of a night that is done, the platform up",
    peers=(Peer(name="night", what="the same command, a new night each time"),),
    # Days before it, of some 900 flights.
    sizes=(90,),
    quick_size=90,
    repeats=5,
    most_repeats=_MOST_NIGHTS,
    goal_seconds=2.0,
    same=_same,
)


def prepare(folder: Path, size: int) -> None:
    """The files of the days, and of the nights that are measured."""
    first = _BEFORE + timedelta(days=size + 1)
    for way, nights in (("ours", 0), ("night", _MOST_NIGHTS)):
        last = first + timedelta(days=nights)
        land = _home(folder, way)
        land("land", PIPELINE.name, "--from", str(_BEFORE), "--to", str(last))
    (folder / "first").write_text(str(first))


def ours(folder: Path) -> Work:
    """The first night, again and again."""
    with _up(folder, "ours") as (home, first):
        home("run", PIPELINE.name, "--date", str(first))

        def work() -> Answer:
            home("run", PIPELINE.name, "--date", str(first))
            return lambda: _predictions(home, first)

        yield work


def night(folder: Path) -> Work:
    """Night after night."""
    with _up(folder, "night") as (home, first):
        numbers = count()

        def work() -> Answer:
            day = first + timedelta(days=next(numbers))
            home("run", PIPELINE.name, "--date", str(day))
            return lambda: _predictions(home, first)

        yield work


def _home(folder: Path, way: str) -> Home:
    return Home(folder, f"home-{way}")


@contextmanager
def _up(folder: Path, way: str) -> Iterator[tuple[Home, date]]:
    """A platform that has the days before the first night, and that night."""
    home = _home(folder, way)
    first = date.fromisoformat((folder / "first").read_text())
    last = first - timedelta(days=1)
    with home.up():
        home("run", PIPELINE.name, "--from", str(_BEFORE), "--to", str(last))
        yield home, first


def _predictions(home: Home, first: date) -> pa.Table:
    """Of tomorrow's flights, as of the first night."""
    name = f"{PIPELINE.name}.predictions"
    columns = [*bare_night.KEY, PIPELINE.prediction]
    of_night = [(PIPELINE.event_date, "=", str(first + timedelta(days=1)))]
    return reading.read(home.environment, name, columns, of_night, reading.Moment())
