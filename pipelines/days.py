"""A range of days, the unit that every stage works on: a night is a range of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from pipelines.errors import UsageError


def parse_day(text: str) -> date:
    """The date written as YYYY-MM-DD.

    Raises:
        UsageError: the text is not a date of the calendar.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"'{text}' is not a date. "
            "Write a day of the calendar as YYYY-MM-DD, for example 2013-03-31."
        ) from None


@dataclass(frozen=True, order=True, slots=True)
class Days:
    """The days from `first` to `last`, both included."""

    first: date
    last: date

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise UsageError(
                f"The range {self.first} to {self.last} is empty: "
                "its first day must not be after its last."
            )

    @classmethod
    def of(cls, day: date) -> Days:
        """The range of one day."""
        return cls(day, day)

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=i) for i in range(len(self)))

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and self.first <= day <= self.last

    def __str__(self) -> str:
        return f"{self.first}" if len(self) == 1 else f"{self.first}..{self.last}"

    def shifted(self, days: int) -> Days:
        """The same length of range, `days` later (earlier when negative)."""
        return Days(self.first + timedelta(days=days), self.last + timedelta(days=days))

    def since(self, days: int) -> Days:
        """This range, begun `days` earlier."""
        return Days(self.first - timedelta(days=days), self.last)

    def halves(self) -> tuple[Days, Days]:
        """The range in two; there must be two days at least."""
        middle = self.first + timedelta(days=len(self) // 2)
        return Days(self.first, middle - timedelta(days=1)), Days(middle, self.last)

    def within(self, first: date | None, last: date | None) -> Days | None:
        """The part of this range that lies from `first` to `last`; None when there is none."""
        start = max(self.first, first) if first else self.first
        end = min(self.last, last) if last else self.last
        return Days(start, end) if start <= end else None


def ranges(days: Iterable[date], days_apart: int = 1) -> list[Days]:
    """The days as ranges of consecutive days, in order; or of such as lie no further apart."""
    found: list[Days] = []
    for day in sorted(set(days)):
        if found and day <= found[-1].last + timedelta(days=days_apart):
            found[-1] = Days(found[-1].first, day)
        else:
            found.append(Days.of(day))
    return found
