"""The simple models that a trained one must beat, each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.training.encoding import doubles
from jobs.training.metrics import Vector
from pipelines.model import Baseline, GroupMean

_SEPARATOR = "|"
_KEY = "key"


class FittedBaseline(Protocol):
    """A baseline that has seen the rows to learn from."""

    def predict(self, rows: pa.Table) -> Vector:
        """What it says of each row, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """Mean labels by value, as if each value had been seen once more with the overall mean.

    So an unseen value has the overall mean.
    """

    columns: tuple[str, ...]
    means: Mapping[str, float]
    overall: float

    def predict(self, rows: pa.Table) -> Vector:
        """The mean label of each row's values."""
        keys = _keys(rows, self.columns).to_pylist()
        means = [self.means.get(key, self.overall) for key in keys]
        return np.array(means, np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """A feature's value, and the overall mean label where it is missing."""

    feature: str
    overall: float

    def predict(self, rows: pa.Table) -> Vector:
        """The feature's value in each row."""
        values = doubles(rows[self.feature])
        return np.where(np.isnan(values), self.overall, values)


def fit(baseline: Baseline, rows: pa.Table, label: str) -> FittedBaseline:
    """The baseline fitted to these rows, all of which have a label."""
    # As floats: a label may be a decimal, which adds up with none.
    labels = pa.array(doubles(rows[label]))
    overall = float(pc.mean(labels).as_py())
    if isinstance(baseline, GroupMean):
        means = _means(_keys(rows, baseline.columns), labels, overall)
        return Means(columns=baseline.columns, means=means, overall=overall)
    return Repeated(feature=baseline.feature, overall=overall)


def _means(keys: pa.ChunkedArray, labels: pa.Array, overall: float) -> dict[str, float]:
    keyed = pa.table({_KEY: keys, "label": labels})
    # One thread: the last bits of a sum of floats depend on the order in which they are added.
    grouped = keyed.group_by(_KEY, use_threads=False)
    sums = grouped.aggregate([("label", "sum"), ("label", "count")])
    return {
        group[_KEY]: (group["label_sum"] + overall) / (group["label_count"] + 1)
        for group in sums.to_pylist()
    }


def _keys(rows: pa.Table, columns: tuple[str, ...]) -> pa.ChunkedArray:
    texts: list[pa.ChunkedArray] = []
    for name in columns:
        text = rows[name].cast(pa.string())
        # Rows without a value are a group of their own: a null would spread to the whole key.
        texts.append(pc.fill_null(text, ""))
    return pc.binary_join_element_wise(*texts, _SEPARATOR)
