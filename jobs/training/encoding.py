"""Table rows -> the arrays that a model reads.

Training and scoring call the same `encode`, so they cannot drift apart.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.errors import NightshiftError, Refused
from pipelines.model import Training

ENCODING = "encoding.json"
"""File of the encoding beside the files of a model."""
RARE = 10
"""Rows below which a category is too rare to learn: it shares the row of the unknown ones, which is
so learned too."""
LISTED = 10_000
"""Values of a column that were not learned, at most, that a model names: of ids they would be all
that it is."""
TAILS = (0.001, 0.999)
"""Quantiles between which a number is taken as it is."""
_ROWS_TURNED = 16_384
"""At a time, so that they stay in the processor's cache."""
_LARGEST = float(np.finfo(np.float32).max)
"""Families read and scale numbers of 32 bits."""
SAMPLE_ROWS = 1000
"""Of a sample: enough to see whether two models say the same."""
_LISTS = (
    "numeric",
    "means",
    "variances",
    "lows",
    "highs",
    "indicators",
    "shared",
    "unlisted",
)
_OLD_LABEL_MEAN = "base_rate"
"""What files of models that were trained before there were regressions call the mean label."""
_Unknown = Mapping[str, tuple[str | None, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How columns become arrays: what a model must know about its inputs besides its weights."""

    numeric: tuple[str, ...]
    vocabularies: Mapping[str, tuple[str, ...]]
    """Categorical column -> its known values.

    All columns share one table of rows; the first row of each is 'unknown'."""
    means: tuple[float, ...]
    """Of each numeric column over the rows that were trained on."""
    variances: tuple[float, ...]
    lows: tuple[float, ...]
    """Of each numeric column, in standard deviations from the mean: what lies lower counts as this
    low. A month or a storm that no row had must not be extrapolated to."""
    highs: tuple[float, ...]
    """The same for the upper end."""
    indicators: tuple[str, ...]
    """Numeric columns that had missing values: the model also reads whether the value is
    missing."""
    label_mean: float
    """Of the rows that were trained on; of a binary label the share of 1."""
    label_scale: float = 1.0
    """Standard deviation of those labels; 1 when they are all alike."""
    bends: Mapping[str, float] = field(default_factory=dict)
    """Numeric column -> bend of the logarithm by which it is read; means and the like are of it."""
    shared: tuple[str, ...] = ()
    """Numeric columns that all rows of a day share."""
    unknown: _Unknown | None = None
    """Categorical column -> values that some rows had and that were not learned, and None where
    some had no value: what taught the row of the unknown. None: an older version, which does not
    know."""
    unlisted: tuple[str, ...] = ()
    """Categorical columns with more such values than `LISTED`: of them `unknown` says no more than
    whether some rows had no value."""

    @property
    def categorical(self) -> tuple[str, ...]:
        """The categorical columns, in the order of their array."""
        return tuple(self.vocabularies)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the model reads."""
        return self.numeric + self.categorical

    @property
    def embedding_rows(self) -> int:
        """Rows of the table of categories: every known value, and one 'unknown' a column."""
        return sum(len(values) + 1 for values in self.vocabularies.values())

    def to_json(self) -> str:
        """Text from which `from_json` makes an equal value."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Encoding:
        """The encoding that `to_json` wrote.

        What an older version did not know of is empty or 1: only training asks for it.
        """
        value: dict[str, Any] = json.loads(text)
        label_mean = value["label_mean"] if "label_mean" in value else value[_OLD_LABEL_MEAN]
        return cls(
            vocabularies={name: tuple(known) for name, known in value["vocabularies"].items()},
            label_mean=label_mean,
            label_scale=value.get("label_scale", 1.0),
            bends=value.get("bends", {}),
            unknown=_unknown_of(value),
            **{name: tuple(value.get(name, ())) for name in _LISTS},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Rows as a model reads them."""

    numeric: NDArray[np.float32]
    """(rows, numeric columns); NaN where missing: the model itself fills and scales."""
    categorical: NDArray[np.int32]
    """(rows, categorical columns): rows of the table of categories."""
    label: NDArray[np.float32]
    """(rows,); NaN where there is none."""

    def __len__(self) -> int:
        return len(self.numeric)

    def read(self, first: int, count: int) -> Examples:
        """So many rows from that one on; no copies."""
        chosen = slice(first, first + count)
        return Examples(
            numeric=self.numeric[chosen],
            categorical=self.categorical[chosen],
            label=self.label[chosen],
        )

    def take(self, rows: NDArray[np.int64]) -> Examples:
        """The rows at these positions, in this order."""
        return Examples(
            numeric=self.numeric[rows],
            categorical=self.categorical[rows],
            label=self.label[rows],
        )

    def sample(self) -> Examples:
        """The first of them."""
        return self.take(np.arange(min(SAMPLE_ROWS, len(self))))


def _unknown_of(value: Mapping[str, Any]) -> _Unknown | None:
    told = value.get("unknown")
    return None if told is None else {name: tuple(values) for name, values in told.items()}


# What overflows is refused in the end.
@np.errstate(over="ignore", invalid="ignore")
def learn(rows: pa.Table, training: Training) -> Encoding:
    """What the rows to train on tell about the columns.

    Raises:
        Refused: see `require_in_range`.
    """
    numeric = numbers(rows, training.numeric, np.float64, training.bends)
    has_none = np.isnan(numeric)
    # A column without any value counts as one of zeros.
    seen = np.where(has_none.all(axis=0), 0.0, numeric)
    highest = np.nanmax(seen, axis=0)
    varies = highest > np.nanmin(seen, axis=0)
    # The mean of equal numbers may be off by their last digit, which of large ones is much.
    means = np.where(varies, np.nanmean(seen, axis=0), highest)
    variances = np.where(varies, np.nanvar(seen, axis=0), 0.0)
    deviations = np.sqrt(np.where(variances > 0, variances, 1.0))
    lows, highs = (np.nanquantile(seen, TAILS, axis=0) - means) / deviations
    has_gaps = dict(zip(training.numeric, has_none.any(axis=0), strict=True))
    labels = numbers(rows, (training.label,), np.float64, {})
    columns = {name: texts(rows, name) for name in training.categorical}
    counts = {name: counts_of(values) for name, values in columns.items()}
    most = training.max_categories
    known = {name: vocabulary(of_column, most) for name, of_column in counts.items()}
    missing = {name: values.null_count for name, values in columns.items()}
    unknown, unlisted = not_learned(counts, known, missing)
    learned = Encoding(
        numeric=training.numeric,
        vocabularies=known,
        means=tuple(means.tolist()),
        # 1 where all values are alike: numbers are divided by the deviation.
        variances=tuple(float(variance) or 1.0 for variance in variances),
        lows=tuple(lows.tolist()),
        highs=tuple(highs.tolist()),
        indicators=tuple(name for name in training.numeric if has_gaps[name]),
        label_mean=float(np.mean(labels)),
        label_scale=float(np.std(labels)) or 1.0,
        bends=training.bends,
        shared=training.shared,
        unknown=unknown,
        unlisted=unlisted,
    )
    require_in_range(learned, training.label)
    return learned


def require_in_range(learned: Encoding, label: str) -> None:
    """Refuse rows with numbers that no model can scale.

    Args:
        learned: Of the rows.
        label: Name of its column.

    Raises:
        Refused: there are such; the message names their columns.
    """
    known = zip(learned.means, learned.variances, learned.lows, learned.highs, strict=True)
    odd: list[str] = []
    for name, numbers_ in zip(learned.numeric, known, strict=True):
        # No number is not below the limit either.
        if not all(abs(number) <= _LARGEST for number in numbers_):
            odd.append(name)
    # Not a power, which of Python's floats is an error where it overflows.
    of_label = (learned.label_mean, learned.label_scale * learned.label_scale)
    if not all(abs(number) <= _LARGEST for number in of_label):
        odd.append(label)
    if odd:
        raise Refused(
            f"The rows to learn from have values of {', '.join(odd)} that are no number, "
            f"infinite, or so large that their variance is above {_LARGEST:.1e}, the largest "
            "32-bit float: nothing can be learned of them. Look for values out of all "
            "proportion, and have a rule of the table quarantine or refuse them; a feature that "
            "may be so large can be read by its Logarithm."
        )


def encode(rows: pa.Table, encoding: Encoding, label: str | None = None) -> Examples:
    """The arrays for these rows, in their order.

    Args:
        label: Column of the label; None when the rows have none.

    Raises:
        NightshiftError: a column that the model reads is not there; the message names it.
    """
    numeric = numbers(rows, encoding.numeric, np.float32, encoding.bends)
    categorical = _categories(rows, encoding)
    if label is None:
        unknown = np.full(len(rows), np.nan, np.float32)
        return Examples(numeric=numeric, categorical=categorical, label=unknown)
    known = numbers(rows, (label,), np.float32, {})[:, 0]
    return Examples(numeric=numeric, categorical=categorical, label=known)


def _categories(rows: pa.Table, encoding: Encoding) -> NDArray[np.int32]:
    categories = np.empty((len(rows), len(encoding.categorical)), np.int32)
    unknown = 0  # the column's first row of the table
    for position, (name, values) in enumerate(encoding.vocabularies.items()):
        known = pa.array(values, pa.string())
        index = pc.index_in(texts(rows, name), value_set=known, skip_nulls=True)
        from_unknown = pc.add(pc.fill_null(index, -1), 1)
        categories[:, position] = pc.add(from_unknown, unknown).to_numpy()
        unknown += len(values) + 1
    return categories


def counts_of(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value of a categorical column is there."""
    counts = pc.value_counts(values.drop_null()).to_pylist()
    return {one["values"]: one["counts"] for one in counts}


def vocabulary(counts: Mapping[str, int], most: int) -> tuple[str, ...]:
    """The values that are learned: those that are not rare, of many the most frequent ones.

    Args:
        counts: Of the values.
        most: How many of them at most.
    """
    # Sorted, here and below: the same rows in another order must give the same places.
    known = sorted(value for value, rows in counts.items() if rows >= RARE)
    if len(known) > most:
        known = sorted(sorted(known, key=counts.__getitem__, reverse=True)[:most])
    return tuple(known)


def not_learned(
    counts: Mapping[str, Mapping[str, int]],
    known: Mapping[str, Collection[str]],
    missing: Mapping[str, int],
) -> tuple[_Unknown, tuple[str, ...]]:
    """See `Encoding.unknown` and `Encoding.unlisted`.

    Args:
        counts: Of the values of each column.
        known: Those that are learned.
        missing: Rows that had none.
    """
    unknown: dict[str, tuple[str | None, ...]] = {}
    unlisted: list[str] = []
    for name, of_column in counts.items():
        rare = of_column.keys() - set(known[name])
        if len(rare) > LISTED:
            unlisted.append(name)
            rare = set()
        in_order = sorted(rare)
        unknown[name] = (*in_order, None) if missing[name] else tuple(in_order)
    return unknown, tuple(unlisted)


def texts(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """The values of a categorical column."""
    return existing(rows, name).cast(pa.string())


def numbers(
    rows: pa.Table,
    names: tuple[str, ...],
    dtype: type[np.floating[Any]],
    bends: Mapping[str, float],
) -> NDArray[Any]:
    """The columns of those names as (rows, columns); NaN where missing.

    Args:
        rows: That have them.
        names: Of numeric columns, or of the label.
        dtype: Of the numbers.
        bends: See `Encoding.bends`.
    """
    columns = [existing(rows, name) for name in names]
    found = np.empty((len(rows), len(names)), dtype)
    # Column by column, and then turned: written at once, each number would lie far from the last.
    by_column = np.empty((len(names), min(len(rows), _ROWS_TURNED)), dtype)
    for start in range(0, len(rows), _ROWS_TURNED):
        turned = found[start : start + _ROWS_TURNED]
        for position, name in enumerate(names):
            values = doubles(columns[position].slice(start, len(turned)))
            if name in bends:
                values = np.sign(values) * np.log1p(np.abs(values) / bends[name])
            # A larger number than the type holds counts as an infinite one.
            with np.errstate(over="ignore"):
                by_column[position, : len(turned)] = values
        turned[:] = by_column[:, : len(turned)].T
    return found


def doubles(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """The values of a column of numbers; NaN where missing."""
    # Not safely: a whole number beyond 2**53 is rounded, and no error.
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())


def existing(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """A column that the model reads.

    Raises:
        NightshiftError: it is not there; the message names it.
    """
    # Not by `column_names`, which makes a list of all of them each time.
    position = rows.schema.get_field_index(name)
    if position < 0:
        raise NightshiftError(
            f"The model reads column '{name}', which the rows do not have. "
            f"They have: {', '.join(rows.column_names)}. Where it is declared, the rows are of "
            "before: make their days anew by nightshift run PIPELINE --restate --from DAY --to "
            "DAY. Where it was taken out of the declaration, declare it again, or have another "
            "model serve: the next candidate that is fit takes its place (stages train and "
            "evaluate)."
        )
    return rows.column(position)
