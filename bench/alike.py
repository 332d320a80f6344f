"""Whether rows of two ways say the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa


def alike(ours: pa.Table, theirs: pa.Table, key: Sequence[str]) -> bool:
    """Whether the rows are the same, in the columns that theirs has; numbers to a billionth."""
    names = theirs.column_names
    if not {*names} <= {*ours.column_names}:
        return False
    own = pl.DataFrame(ours.select(names)).sort(key)
    other = pl.DataFrame(theirs).sort(key)
    if len(own) != len(other):
        return False
    return all(_equal(own[name], other[name]) for name in names)


def _equal(own: pl.Series, other: pl.Series) -> bool:
    if not other.dtype.is_numeric():
        return own.to_list() == other.to_list()
    mine = own.cast(pl.Float64).to_numpy()
    theirs = other.cast(pl.Float64).to_numpy()
    return bool(np.allclose(mine, theirs, rtol=1e-9, atol=1e-12, equal_nan=True))
