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
    expectation: str
    column: str | None
    """The column or measure of the expectation."""
    by: str
    why: str
    until: date
    """The last day on which it is in force."""

    def __str__(self) -> str:
        return f"waived by {self.by} because {self.why} until {self.until} ({self.waiver_id})"
