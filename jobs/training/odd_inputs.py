"""Values that no row of training had: counted, and refused where the pipeline declares so."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.training.encoding import doubles, existing
from pipelines.errors import Refused
from pipelines.spec import SCORING

if TYPE_CHECKING:
    from jobs.training.encoding import Encoding
    from pipelines.run import Run

Kind = Literal["missing", "infinite", "unseen"]
"""A number or category that is not there and was for every row of training, a number without end,
a category that no row of training had."""
Odd = tuple[str, Kind]
"""Column and kind."""


def count(rows: pa.Table, encoding: Encoding) -> Counter[Odd]:
    """How many values of each kind the rows have; sums over rows, so that those of parts add up."""
    found: Counter[Odd] = Counter()
    for name in encoding.numeric:
        missing, infinite = _odd_numbers(existing(rows, name))
        found[name, "infinite"] = infinite
        if name not in encoding.indicators:
            found[name, "missing"] = missing
    # Of a model of before nobody knows what it has seen besides what it knows.
    for name, rare in (encoding.unknown or {}).items():
        values = existing(rows, name).cast(pa.string())
        if None not in rare:
            found[name, "missing"] = values.null_count
        if name in encoding.unlisted:
            continue
        known = encoding.vocabularies[name]
        seen = pa.array([*known, *rare], pa.string())
        is_seen = pc.is_in(values, value_set=seen, skip_nulls=True)
        # Of no rows the sum is null.
        seen_rows = pc.sum(is_seen).as_py() or 0
        found[name, "unseen"] = len(values) - values.null_count - seen_rows
    return +found


def _odd_numbers(values: pa.ChunkedArray) -> tuple[int, int]:
    """How many are missing, and how many infinite."""
    if pa.types.is_float64(values.type):
        # Nearly always a number, and found by one reading, without a copy. Of no values it is null.
        total = pc.sum(values).as_py() or 0.0
        if math.isfinite(total):
            return values.null_count, 0
    numbers = doubles(values)
    missing, infinite = np.isnan(numbers), np.isinf(numbers)
    return int(missing.sum()), int(infinite.sum())


def require_none(run: Run, found: Mapping[Odd, int]) -> None:
    """Refuse to score by guesses, where the pipeline says so.

    Raises:
        Refused: there are some, and `Serving.odd_inputs` is 'refuse'.
    """
    if run.pipeline.serving.odd_inputs != "refuse" or not found:
        return
    name = run.pipeline.name
    raise Refused(
        f"{name}.{SCORING} of {run.days} has values that no row of training had: "
        f"{'; '.join(in_words(found))}. Nothing is scored by guesses (Serving.odd_inputs is "
        "'refuse'): correct the feed that they come from, train on rows that have them, or declare "
        "'score'."
    )


def in_words(found: Mapping[Odd, int]) -> list[str]:
    """Each kind of a column with its count, the most frequent first."""
    # By name first: the second sort keeps that order among those of one number.
    by_name = sorted(found.items())
    ordered = sorted(by_name, key=itemgetter(1), reverse=True)
    return [f"{name} {kind} in {rows:,} rows" for (name, kind), rows in ordered]
