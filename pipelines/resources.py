"""What a scheduler gives a stage to run in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.errors import refuse_unless
from pipelines.kinds import refuse_odd_kinds


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """So many tasks may run at once, of all pipelines together; the others wait."""

    name: str
    slots: int
    doc: str = ""

    def __post_init__(self) -> None:
        refuse_odd_kinds("A pool", self)
        refuse_unless(bool(self.name.strip()), "A pool needs a name.")
        refuse_unless(self.slots >= 1, f"Pool '{self.name}': slots must be at least 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Where a stage runs, and beside what."""

    pool: Pool | None = None
    """None: it waits for nobody."""
    pool_slots: int = 1
    """Of the pool, while it runs."""
    queue: str | None = None
    """Which workers take it, where Airflow's executor has queues; None: those of its default."""
    executor_config: Mapping[str, Any] = field(default_factory=dict)
    """What Airflow's executor is told besides; its own docs say what it knows."""

    def __post_init__(self) -> None:
        refuse_odd_kinds("Resources", self)
        refuse_unless(self.pool_slots >= 1, "pool_slots must be at least 1.")
        slots = self.pool.slots if self.pool else 1
        # A task that needs more would wait for ever.
        refuse_unless(self.pool_slots <= slots, f"pool_slots is {self.pool_slots}, of {slots}.")


TRAINING = Pool(
    name="training",
    slots=1,
    doc="Trainings take all ranks of a machine: one at a time, whatever their pipelines.",
)
