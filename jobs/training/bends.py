"""Numbers by their logarithm, as the encoding reads them, and back.

Beside `jobs.training.encoding` and not in it: what is there decides over weights, and a change of
it trains every night again. So it has its own line for the way there.
"""

from __future__ import annotations

import numpy as np

from jobs.training.metrics import Vector


def bent(values: Vector, bend: float | None) -> Vector:
    """The numbers as the model reads them.

    Args:
        values: In their own unit.
        bend: Of the logarithm, see `Encoding.bends`; None: none is taken.
    """
    if bend is None:
        return values
    sizes = np.log1p(np.abs(values) / bend)
    return np.asarray(np.sign(values) * sizes)


def unbent(value: float, bend: float | None) -> float:
    """The number in its own unit.

    Args:
        value: As the encoding reads it.
        bend: Of the logarithm, see `Encoding.bends`; None: none was taken.
    """
    if bend is None:
        return value
    size = bend * np.expm1(abs(value))
    return float(np.copysign(size, value))
