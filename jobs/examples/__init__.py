"""Built-in sources: what the outside world would drop each night for the example pipelines.

One module a pipeline, of its name. It has

- `source() -> Mapping[str, pd.DataFrame]`: the rows of each feed by its name, as text, with the
  feed's columns. Rows of a daily feed have a `drop_date` too, the day of whose drop they are part;
- optionally `DEMO`, a `Demo`: what `nightshift demo` shows of the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec

from pipelines import catalog
from pipelines.days import Days
from pipelines.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What `nightshift demo` does with a pipeline."""

    load: Days
    """Loaded in one pass; enough for a first model."""
    nights: Days
    """Run through Airflow, one night a day, right after `load`."""
    queries: tuple[str, ...]
    """SQL whose rows show what came out; printed too, for people to copy."""

    def __post_init__(self) -> None:
        if self.nights.first - self.load.last != timedelta(days=1):
            raise UsageError(f"Demo: nights must begin the day after {self.load}.")

    @property
    def days(self) -> Days:
        """All days whose files it needs."""
        return Days(self.load.first, self.nights.last)


def names() -> list[str]:
    """Pipelines with a built-in source, sorted."""
    return [name for name in catalog.names() if find_spec(f"{__name__}.{name}")]
