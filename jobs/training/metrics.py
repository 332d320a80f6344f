"""How good predictions are, as figures that have a name: pooled, by day, by slice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import Refused

if TYPE_CHECKING:
    from jobs.training.tasks import LearningTask

Vector = NDArray[np.float64]
Metrics = Mapping[str, float | None]
"""Metric -> value; None where it cannot be told, such as an AUC of labels of one kind."""
Group = tuple[Any, NDArray[np.bool_]]
"""A value, and for each row whether it has it."""
WITHOUT = "(none)"
"""The slice of the rows that have no value."""
_DECIMALS = 6
"""Of the values that people read and that repeated evaluations are compared by."""
_FEWEST_DIGITS = 4
"""That count, of a smaller value: labels may have a small unit, and their squares a smaller one."""
_MOST_DECIMALS = 15
"""Beyond are the last digits of sums that come to nothing."""


def summary(task: LearningTask, label: Vector, prediction: Vector) -> dict[str, Any]:
    """The rows, every metric of the task and both means, JSON-able; of at least one row."""
    measured = {
        **task.measure(label, prediction),
        "mean_prediction": float(prediction.mean()),
        "label_mean": float(label.mean()),
    }
    return {"rows": len(label), **rounded(measured)}


def headline(task: LearningTask, label: Vector, prediction: Vector) -> float:
    """The metric by which models are told apart, of at least one row."""
    value = task.measure(label, prediction)[task.headline]
    assert value is not None, f"{task.headline} can be told of any row"
    return value


def rounded(measured: Metrics) -> dict[str, float | None]:
    """The values as people read them."""
    return {name: None if value is None else shortened(value) for name, value in measured.items()}


def shortened(value: float) -> float:
    """A value as people read it."""
    if value == 0 or not math.isfinite(value):
        return value
    before = math.floor(math.log10(abs(value)))
    wanted = _FEWEST_DIGITS - 1 - before
    return round(value, min(max(_DECIMALS, wanted), _MOST_DECIMALS))


def require_finite(**values: ArrayLike) -> None:
    """Refuse numbers of a training that has come apart.

    Raises:
        Refused: one is infinite or no number; the message says of what.
    """
    broken: list[str] = []
    for name, numbers in values.items():
        if not np.isfinite(numbers).all():
            broken.append(name)
    if broken:
        raise Refused(
            f"The training came apart: its {' and '.join(broken)} are not finite. "
            "Look for extreme values in the features, or learn with a lower rate."
        )


def impossible(task: LearningTask, prediction: Vector) -> str | None:
    """How many predictions are none of the task, in words; None: all are.

    A family of one's own may say anything of rows that its training had none of.
    """
    odd = int((~task.can_be(prediction)).sum())
    return f"{odd:,} of {len(prediction):,} predictions are no {task.foretells}" if odd else None


def slice_values(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """The values of a slice's column as people read them; a row without one is a slice too."""
    # In Arrow: a numpy column of whole numbers with a gap is one of fractions, and 1 becomes 1.0.
    texts = pc.fill_null(column.cast(pa.string()), WITHOUT)
    # No array of texts: in one each has the room of the longest.
    return np.asarray(texts.to_numpy(zero_copy_only=False), object)


def groups(values: NDArray[Any]) -> Iterator[Group]:
    """Each distinct value with the rows that have it, sorted."""
    if values.dtype == object:
        yield from _groups_of_texts(values)
        return
    for value in np.unique(values):
        yield value, values == value


def _groups_of_texts(values: NDArray[np.object_]) -> Iterator[Group]:
    # By Arrow: numpy sorts texts slowly, and compares them without the zeros at their end.
    coded = pa.array(values, pa.string()).dictionary_encode()
    codes = coded.indices.to_numpy()
    for place in pc.array_sort_indices(coded.dictionary).to_pylist():
        yield coded.dictionary[place].as_py(), codes == place
