"""The features of many days at once, as after a change of them or on a first day."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import polars as pl
import pyarrow as pa

from bench import bare_night, home
from bench.alike import alike
from bench.command import named
from bench.harness import Answer, Case, Peer, Round, Work
from bench.home import Home, words_of_stages
from jobs.lake import reading
from jobs.services.own_server import preloaded
from jobs.services.stage_server import PRELOAD
from jobs.spark.server import running_server
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.flights import PIPELINE

_FIRST = PIPELINE.first_day
"""Has the schedule of the next day, and nothing else."""
_LABEL = PIPELINE.training.label
_NIGHTS = 3
"""That are run one by one; a year of them would take half a day."""


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    """Whether the rows to learn from are the same, those without a label aside."""
    if not {*PIPELINE.training.features, _LABEL} <= {*theirs.column_names}:
        return False
    own = ours.filter(ours[_LABEL].is_valid())
    other = theirs.filter(theirs[_LABEL].is_valid())
    key = ["landed_date", *bare_night.KEY]
    return len(own) > 0 and alike(own, other, key)


CASE = Case(
    name="year",
    what="`nightshift run` from files to features, all days in one pass, Spark's server and the "
    "stage server up: judged and published",
    peers=(
        Peer(
            name="polars",
            what="polars in a script from start to end, all days in one pass: nothing is judged",
            goal=10.0,
        ),
        Peer(
            name="nights",
            what=f"ours, a night after the other: {_NIGHTS} nights after the others, and as much "
            "for each of the days, of which the rest was not run so",
            goal=0.05,
            times=lambda size: size / _NIGHTS,
        ),
    ),
    # Days; the flights of 2013 end after 365.
    sizes=(90, 365),
    quick_size=30,
    repeats=2,
    same=_same,
)


def prepare(folder: Path, size: int) -> None:
    """The files of the days."""
    days = Days(_FIRST, _FIRST + timedelta(days=size - 1))
    Home(folder)("land", PIPELINE.name, *named(days))
    (folder / "days").write_text(f"{days.first} {days.last}")


def ours(folder: Path) -> Work:
    """Each time into a lake that is new."""
    days = _days(folder)
    numbers = count()
    with _up(folder) as environment:

        def work() -> Answer:
            own = replace(environment, lake=str(folder / f"lake-{next(numbers)}"))
            _run(own, days)
            return lambda: _training(own)

        yield work


def polars(folder: Path) -> Work:
    """The script of the night, without its model."""
    days = _days(folder)
    landing = Home(folder).environment.landing / PIPELINE.name
    state = folder / "state"
    asked = [str(one) for one in (landing, state, days.first, days.last)]

    def work() -> Answer:
        program = [sys.executable, "-m", bare_night.__name__, *asked]
        subprocess.run(program, check=True, capture_output=True)
        return lambda: _training_of_script(state)

    yield work


def nights(folder: Path) -> Work:
    """The last ones, each time in a copy of the lake that has the days before them."""
    days = _days(folder)
    first = days.last - timedelta(days=_NIGHTS - 1)
    days_before = Days(days.first, first - timedelta(days=1))
    before, lake = folder / "before", folder / "nights"
    with _up(folder) as environment:
        own = replace(environment, lake=str(lake))
        _run(replace(environment, lake=str(before)), days_before)
        shutil.copytree(before, lake)

        def work() -> Answer:
            for night in Days(first, days.last):
                _run(own, Days.of(night))
            return lambda: _training(own)

        def begin_again() -> None:
            shutil.rmtree(lake)
            shutil.copytree(before, lake)

        yield Round(do=work, after=begin_again)


def _run(environment: Environment, days: Days) -> None:
    stages = words_of_stages("features")
    home.run(["run", PIPELINE.name, *named(days), *stages], environment)


@contextmanager
def _up(folder: Path) -> Iterator[Environment]:
    """What of the platform computes."""
    with (
        preloaded(Home(folder).environment, PRELOAD) as served,
        running_server(served, 0, lasting=True) as environment,
    ):
        yield environment


def _training(environment: Environment) -> pa.Table:
    return reading.read(environment, f"{PIPELINE.name}.training", None, [], reading.Moment())


def _training_of_script(state: Path) -> pa.Table:
    files = sorted((state / "training").glob("*.parquet"))
    of_days = [
        pl.read_parquet(file).with_columns(landed_date=date.fromisoformat(file.stem))
        for file in files
    ]
    return pl.concat(of_days).rename({"late": _LABEL}).to_arrow()


def _days(folder: Path) -> Days:
    first, last = map(date.fromisoformat, (folder / "days").read_text().split())
    return Days(first, last)
