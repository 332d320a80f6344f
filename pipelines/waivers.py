"""A waiver: a person lets a failure through, for some days and until some day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pipelines.days import Days


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """What of a table is let through, and who says so."""

    waiver_id: str
    days: Days
    """Partition dates."""
    expectation: str | None
    """None: any that may be waived."""
    column: str | None
    """The column or measure of the expectation."""
    by: str
    why: str
    until: date | None
    """The last day on which it is in force; None: there is none."""

    def covers(self, expectation: str, column: str | None) -> bool:
        """Whether it lets that failure through."""
        return self.expectation is None or (self.expectation, self.column) == (expectation, column)

    def __str__(self) -> str:
        end = f" until {self.until}" if self.until else ""
        return f"waived by {self.by} because {self.why}{end} ({self.waiver_id})"
