"""What a number was before a logarithm was taken of it.

Beside `jobs.training.encoding`, which takes it, and not in it: what is there decides over weights,
and a change of it trains every night again.
"""

from __future__ import annotations

import numpy as np


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
