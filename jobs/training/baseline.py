"""The simple model that a trained one must beat: the historical rate of a few columns' values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SEPARATOR = "|"
_RATE_KEY = "key"


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """Rates by value, as if each had been seen once more with the overall rate as outcome.

    So an unseen value has the overall rate.
    """

    columns: tuple[str, ...]
    rates: Mapping[str, float]
    overall: float

    def predict(self, rows: pa.Table) -> NDArray[np.float64]:
        """The rate of each row's values."""
        return np.array(
            [self.rates.get(key, self.overall) for key in _keys(rows, self.columns).to_pylist()],
            np.float64,
        )


def fit(rows: pa.Table, columns: tuple[str, ...], label: str) -> Baseline:
    """The rates in these rows, all of which have a label."""
    overall = float(pc.mean(rows[label]).as_py())
    keyed = pa.table({_RATE_KEY: _keys(rows, columns), "label": rows[label]})
    sums = keyed.group_by(_RATE_KEY).aggregate([("label", "sum"), ("label", "count")]).to_pylist()
    rates = {s[_RATE_KEY]: (s["label_sum"] + overall) / (s["label_count"] + 1) for s in sums}
    return Baseline(columns=columns, rates=rates, overall=overall)


def _keys(rows: pa.Table, columns: tuple[str, ...]) -> pa.ChunkedArray:
    texts = [pc.fill_null(rows[name].cast(pa.string()), "") for name in columns]
    return pc.binary_join_element_wise(*texts, _SEPARATOR)
