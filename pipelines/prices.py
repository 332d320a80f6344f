"""What a night is reckoned to cost: prices of the machine that it runs on. Edit them to yours.

Each row of `ops.costs` keeps the cost by the prices of its time.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.errors import refuse_unless


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Prices of processor, memory and storage."""

    currency: str
    """ISO code."""
    cpu_hour: float
    """Of one core for one hour."""
    memory_gb_hour: float
    """Of 10^9 bytes of memory for one hour."""
    storage_gb: float
    """Of 10^9 bytes, from when they are written until they go."""

    def __post_init__(self) -> None:
        refuse_unless(bool(self.currency), "Prices need a currency, such as 'EUR'.")
        for name in ("cpu_hour", "memory_gb_hour", "storage_gb"):
            refuse_unless(getattr(self, name) >= 0, f"Prices: {name} must not be negative.")


PRICES = Prices(
    currency="USD",
    # About what clouds ask for on-demand machines of general purpose.
    cpu_hour=0.04,
    memory_gb_hour=0.005,
    # A year of an object store.
    storage_gb=0.28,
)
