"""The simple models that a trained one must beat, each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.training.encoding import doubles
from jobs.training.metrics import Vector
from pipelines.model import Baseline, GroupMean

_Key = tuple[str | None, ...]
"""A row's values as texts; None: it has none, which is a value of its own."""
_LABEL = "label"


class FittedBaseline(Protocol):
    """A baseline that has seen the rows to learn from."""

    def predict(self, rows: pa.Table) -> Vector:
        """What it says of each row, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """Mean labels by value; an unseen value has the overall mean."""

    columns: tuple[str, ...]
    means: Mapping[_Key, float]
    overall: float

    def predict(self, rows: pa.Table) -> Vector:
        """The mean label of each row's values."""
        texts = [column.to_pylist() for column in _texts(rows, self.columns)]
        keys = zip(*texts, strict=True)
        means = [self.means.get(key, self.overall) for key in keys]
        return np.array(means, np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """A feature's value, and the overall mean label where it is missing or infinite."""

    feature: str
    overall: float

    def predict(self, rows: pa.Table) -> Vector:
        """The feature's value in each row."""
        values = doubles(rows[self.feature])
        # One infinite value is an infinite loss, against which any model wins.
        return np.where(np.isfinite(values), values, self.overall)


def fit(
    baseline: Baseline,
    rows: pa.Table,
    label: str,
    *,
    prior_rows: int,
) -> FittedBaseline:
    """The baseline fitted to rows, all of which have a label.

    Args:
        baseline: As declared.
        rows: To learn from.
        label: Column of the label.
        prior_rows: A mean is taken as if so many more rows had been seen, of the overall mean: see
            `LearningTask.prior_rows`.
    """
    # As floats: a label may be a decimal, which adds up with none.
    labels = pa.array(doubles(rows[label]))
    overall = float(pc.mean(labels).as_py())
    if isinstance(baseline, GroupMean):
        means = _means(_texts(rows, baseline.columns), labels, prior_rows, overall)
        return Means(columns=baseline.columns, means=means, overall=overall)
    return Repeated(feature=baseline.feature, overall=overall)


def _means(
    texts: Sequence[pa.ChunkedArray],
    labels: pa.Array,
    prior_rows: int,
    overall: float,
) -> dict[_Key, float]:
    # By number: a column may be named as anything, `label` too.
    names = [str(number) for number in range(len(texts))]
    keyed = pa.table([*texts, labels], names=[*names, _LABEL])
    # One thread: the last bits of a sum of floats depend on the order in which they are added.
    grouped = keyed.group_by(names, use_threads=False)
    sums = grouped.aggregate([(_LABEL, "sum"), (_LABEL, "count")])
    means: dict[_Key, float] = {}
    for group in sums.to_pylist():
        key = tuple(group[name] for name in names)
        total = group[f"{_LABEL}_sum"] + prior_rows * overall
        means[key] = total / (group[f"{_LABEL}_count"] + prior_rows)
    return means


def _texts(rows: pa.Table, columns: Sequence[str]) -> list[pa.ChunkedArray]:
    return [rows[name].cast(pa.string()) for name in columns]
