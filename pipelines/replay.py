"""An example that lives: its recorded days are replayed, one for each day of today's calendar.

A platform begins the replay once. From then on each local day stands for one recorded day, whatever
runs, stops or is started again: both are counted in days from the same anchor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.spec import Pipeline

_ONE_DAY = timedelta(days=1)


class NothingDue(UsageError):
    """No recorded day is due: the replay has not begun, or its record has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calendar:
    """Which recorded day each day of today's calendar stands for."""

    began: datetime
    """The instant at which the replay began."""
    timezone: str
    """IANA name; days are local days there."""
    first: date
    """Recorded day that the day before `began` stands for."""
    last: date
    """Last recorded day."""

    def __post_init__(self) -> None:
        if self.began.tzinfo is None:
            raise UsageError(f"The replay's beginning {self.began} must have an offset from UTC.")

    @property
    def first_today(self) -> date:
        """The day of today's calendar that stands for `first`."""
        return self.day_before(self.began)

    @property
    def last_today(self) -> date:
        """The day of today's calendar that stands for `last`."""
        return self.first_today + (self.last - self.first)

    def day_before(self, moment: datetime) -> date:
        """The local day before the moment: the last that is over."""
        return moment.astimezone(ZoneInfo(self.timezone)).date() - _ONE_DAY

    def day_of(self, today: date) -> date:
        """The recorded day that a day of today's calendar stands for.

        Raises:
            NothingDue: there is none; the message says since when, or until when, there is one.
        """
        if today < self.first_today:
            raise NothingDue(
                f"Nothing to do for {today}: the replay begins with {self.first_today}, "
                f"which stands for {self.first}."
            )
        if today > self.last_today:
            raise NothingDue(
                f"Nothing to do for {today}: the recorded days ended with {self.last}, for which "
                f"{self.last_today} stood. Another home (NIGHTSHIFT_HOME) with a "
                "landing folder of its own begins anew."
            )
        return self.first + (today - self.first_today)

    def delivered_by(self, today: date) -> date:
        """The last recorded day whose files the source has dropped when that day is over.

        It begins with all up to `first`, and has nothing new after `last`.
        """
        known = min(max(today, self.first_today), self.last_today)
        return self.day_of(known)

    def to_json(self) -> str:
        """What is kept: the rest is declared."""
        began = self.began.isoformat()
        return json.dumps({"began": began, "first": str(self.first)})


def beginning(pipeline: Pipeline, now: datetime, first: date | None = None) -> Calendar:
    """The calendar of a replay that begins now.

    Args:
        pipeline: One that declares a replay.
        now: With an offset from UTC.
        first: Recorded day that the day before stands for; None: the declared one.

    Raises:
        UsageError: the pipeline declares no replay.
    """
    replay, last = pipeline.replay, pipeline.last_day
    if replay is None or last is None:
        raise UsageError(f"'{pipeline.name}' has a live feed: no recorded day stands for another.")
    return Calendar(
        began=now.astimezone(UTC),
        timezone=pipeline.timezone,
        first=first or replay.first,
        last=last,
    )


def file_of(pipeline: Pipeline, environment: Environment) -> Path:
    """Where it is kept when the replay began; to be written once.

    Beside the files that it drops, which all machines of a platform see.
    """
    return environment.landing / ".replay" / f"{pipeline.name}.json"


def calendar(pipeline: Pipeline, environment: Environment) -> Calendar:
    """The calendar of the replay that the platform has begun.

    Raises:
        NothingDue: it has not begun.
        UsageError: the pipeline declares no replay, or what is kept of it cannot be read.
    """
    path = file_of(pipeline, environment)
    try:
        kept = json.loads(path.read_text())
        began = datetime.fromisoformat(kept["began"])
        first = date.fromisoformat(kept["first"])
    except FileNotFoundError:
        raise NothingDue(
            f"The replay of '{pipeline.name}' has not begun in {environment.landing}: `nightshift "
            "up` begins it. Or say which days."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} does not say when the replay of '{pipeline.name}' began ({error!r}). "
            "Remove it: `nightshift up` begins anew."
        ) from None
    return beginning(pipeline, began, first)
