"""How the last, linear number of a network becomes a prediction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The end of a network: one linear unit, its activation, then `offset + scale * value`."""

    activation: str | None
    """Keras's name of it; None: the linear number itself."""
    start_bias: float
    """What the unit says before it has learned anything."""
    scale: float = 1.0
    offset: float = 0.0
