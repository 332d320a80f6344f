"""What a night costs in the beginning and after many.

`python -m bench.many_nights --nights 300` runs as many nights of the small pipeline `weather`, one
after another by `nightshift run`. The last ten are in turns with the first ten of a young home,
whose platform it starts: a machine is not as fast in one hour as in another.

Needs a platform that is up, in a home in which `weather` has not run yet. The first nights of a
year find too few labels to train on; all are those from the fiftieth on. What was measured is kept
in the home: interrupted, the same command goes on where it stopped. The last ten of each go into
bench/results.json and the docs.

Nights are a day apart: after each one the files of the lake are made a day older, so that what
is kept for some days, as Delta's logs are, goes as it would.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlparse

from deltalake import DeltaTable

from bench import report
from bench.command import named, nightshift
from bench.harness import OURS, Measured
from bench.home import Home
from jobs.lake import publications
from jobs.lake.stored import stored_tables
from jobs.output import show
from jobs.services.definitions import services
from jobs.services.secrets import private_folder
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.spec import PREDICTIONS

WEATHER = pipeline("weather")
CASE = "many_nights"
"""What its results go by."""
YOUNG, _OLD = "young", "old"
"""The two homes."""
_HISTORY_DAYS = 49
"""Made in one pass before the first night: enough labels to train on."""
_SPARK = "spark"
"""The service that the homes share."""
_MEASURED = "many_nights.jsonl"
"""In the home: a line a night."""
_COMPARED = 10
"""Nights of each home."""
_DAY_SECONDS = 86_400
_GOAL = 1.05
"""How many times as long a late night may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One night, and what the lake held after it."""

    day: date
    seconds: float
    files: int
    """Of data and of logs."""
    megabytes: float
    live_files: int
    """That the newest version of some table names."""
    rows: int
    """In these."""


def main() -> int:
    """Run the nights, and print a row for each home."""
    parser = argparse.ArgumentParser(prog="bench.many_nights", description=__doc__)
    parser.add_argument("--nights", type=int, default=300)
    count = parser.parse_args().nights
    begin = WEATHER.first_day
    history = Days(begin, begin + timedelta(days=_HISTORY_DAYS))
    file = Environment.read().home / _MEASURED
    old = _read(file)
    # Ten in turns with the young home's, also where all others were measured before.
    count = max(count, len(old) + _COMPARED)
    nights = [history.last + timedelta(days=number) for number in range(1, count + 1)]

    def one_more() -> None:
        old.append(_night(os.environ, nights[len(old)]))
        with file.open("a") as lines:
            print(json.dumps(asdict(old[-1]), default=str), file=lines)

    nightshift("land", WEATHER.name, *named(Days(history.first, nights[-1])))
    if not old:
        nightshift("run", WEATHER.name, *named(history))
    while len(old) < count - _COMPARED:
        one_more()
    young: list[Night] = []
    # On the same disk.
    with TemporaryDirectory(dir=file.parent.parent) as folder:
        home = _beside_its_spark(Environment.read(), Path(folder))
        with home.up():
            early = Days(history.first, nights[_COMPARED - 1])
            nightshift("land", WEATHER.name, *named(early), variables=home.variables)
            nightshift("run", WEATHER.name, *named(history), variables=home.variables)
            while len(young) < _COMPARED:
                one_more()
                young.append(_night(home.variables, nights[len(young)]))
    homes = {YOUNG: young, _OLD: old[-_COMPARED:]}
    names = ("home", "from", "seconds", "files", "MB", "files in force", "rows in force")
    show(names, [_row(name, end) for name, end in homes.items()], "table")
    told = measured(len(old), homes)
    print(report.table(told))
    report.keep(told)
    return 0


def _beside_its_spark(old: Environment, folder: Path) -> Home:
    """A young home that asks the old one's Spark server as if it were its own."""
    home = Home(folder)
    others = [one.name for one in services(home.environment) if one.name != _SPARK]
    home.variables["NIGHTSHIFT_SERVICES"] = ",".join(others)
    home.variables["NIGHTSHIFT_SPARK_PORT"] = str(old.spark_port)
    private_folder(home.environment.home)
    shutil.copytree(old.secrets, home.environment.secrets)
    return home


def _read(file: Path) -> list[Night]:
    """The nights of former calls, in order."""
    if not file.exists():
        return []
    nights = []
    for line in file.read_text().splitlines():
        row = json.loads(line)
        row["day"] = date.fromisoformat(row["day"])
        nights.append(Night(**row))
    return nights


def _night(variables: Mapping[str, str], day: date) -> Night:
    started = time.monotonic()
    nightshift("run", WEATHER.name, "--date", str(day), variables=variables)
    seconds = time.monotonic() - started
    environment = Environment.read(variables)
    _require_published(environment, day)
    lake = Path(_local(environment))
    files = [path for path in lake.rglob("*") if path.is_file()]
    live = [DeltaTable(environment.table_path(name)) for name in stored_tables(environment)]
    actions = [table.get_add_actions(flatten=True) for table in live]
    night = Night(
        day=day,
        seconds=seconds,
        files=len(files),
        megabytes=sum(path.stat().st_size for path in files) / 1e6,
        live_files=sum(part.num_rows for part in actions),
        rows=sum(sum(part["num_records"].to_pylist()) for part in actions),
    )
    print(night, file=sys.stderr, flush=True)
    for path in files:
        _make_older(path)
    return night


def _require_published(environment: Environment, night: date) -> None:
    """A night whose data the gate refused ends as one whose candidate was, and did less.

    Raises:
        SystemExit: it has published no predictions.
    """
    name = f"{WEATHER.name}.{PREDICTIONS}"
    scored = Days.of(night).shifted(1)
    told = publications.of_table(environment, name, scored)
    if not any(one.day in scored for one in told):
        raise SystemExit(
            f"The night {night} has published no {name} of {scored}, so that its seconds are not "
            f"kept: `nightshift quality {WEATHER.name} --date {night}`, in its home "
            f"{environment.home}, tells what was refused."
        )


def _make_older(path: Path) -> None:
    found = path.stat()
    then = found.st_mtime - _DAY_SECONDS
    os.utime(path, (then, then))


def _local(environment: Environment) -> str:
    return urlparse(environment.lake).path


def measured(count: int, homes: Mapping[str, Sequence[Night]]) -> list[Measured]:
    """The nights of both homes, as results of a case."""
    seconds = {name: [night.seconds for night in nights] for name, nights in homes.items()}
    young, old = seconds[YOUNG], seconds[_OLD]
    ours = Measured(
        case=CASE,
        size=count,
        way=OURS,
        what=f"nights {count - _COMPARED + 1} to {count} of `weather`, in one home",
        seconds=old,
        peak_megabytes=0,
    )
    peer = replace(
        ours,
        way=YOUNG,
        what=f"nights 1 to {_COMPARED} of another home, in turns with them",
        seconds=young,
        goal=_GOAL,
        ratio=median(old) / median(young),
    )
    return [ours, peer]


def _row(name: str, nights: Sequence[Night]) -> tuple[object, ...]:
    last = nights[-1]
    return (
        name,
        str(nights[0].day),
        round(median(night.seconds for night in nights), 2),
        last.files,
        round(last.megabytes, 1),
        last.live_files,
        last.rows,
    )


if __name__ == "__main__":
    sys.exit(main())
