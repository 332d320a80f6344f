"""Rows of the width of flights, drawn: as many as a case asks for."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.catalog import pipeline
from pipelines.model import NeuralNetwork

TRAINING = pipeline("flights").training
SEED = 20130101
FIRST_DAY = date(2013, 1, 1)
DAYS = 20
KEY, DAY = "row", "landed_date"
_MISSING = 0.05
"""Share of the numbers."""
_VALUES = 40
"""Known ones of each category."""


def network_settings() -> NeuralNetwork:
    """By which flights are learned."""
    settings = TRAINING.family
    assert isinstance(settings, NeuralNetwork), "flights learn by a network"
    return settings


def rows(draw: np.random.Generator, first: int, count: int) -> pa.Table:
    """So many rows with keys from `first` on, whose numbers and categories are drawn."""
    days = np.sort(draw.integers(0, DAYS, count))
    columns: dict[str, Any] = {
        KEY: np.arange(first, first + count),
        DAY: pa.array(np.datetime64(FIRST_DAY) + days, pa.date32()),
    }
    for name in TRAINING.numeric:
        numbers = draw.gamma(2, 10, count)
        is_missing = draw.random(count) < _MISSING
        columns[name] = pa.array(numbers, mask=is_missing)
    values = np.array([f"value {number}" for number in range(_VALUES)])
    for name in TRAINING.categorical:
        # Few are frequent, as airports are.
        columns[name] = values[np.minimum(draw.zipf(1.5, count), _VALUES) - 1]
    return pa.table(columns)
