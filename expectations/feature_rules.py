"""What must hold of features, as it follows from their declarations.

Two expectations hold for all features of a table: one expectation for each would cost a night
seconds. What is wrong in a row names the feature and the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from great_expectations.expectations.expectation import Expectation

from expectations.suite import absent
from pipelines.features import Feature, FeatureView
from pipelines.spec import Pipeline

OUT_OF_RANGE, MISSING = "feature_out_of_range", "feature_missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """A part of a suite."""

    derived: Mapping[str, str]
    """Derived columns: the first feature of a row that breaks its declaration, or null."""
    each_row: tuple[Expectation, ...]
    """That there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judged:
    """A column that is held to what a feature declares."""

    column: str
    feature: Feature
    is_filled: bool = False
    """A missing value is no fault: what `when_unknown` says stands in for it."""
    read: str = ""
    """SQL of the rows that the feature reads; empty: all."""


def of_model(pipeline: Pipeline) -> Rules:
    """What holds of the training and scoring tables."""
    return _rules([_Judged(column=one.name, feature=one) for one in pipeline.features])


def of_table(pipeline: Pipeline, table: str) -> Rules:
    """What holds of a table that features are looked up in, of the rows that its views read.

    Of a feature that is finished by an expression nothing is known before it is.
    """
    judged = []
    for view in pipeline.views:
        read = _rows_read(view)
        for feature in view.features if view.table == table else ():
            if feature.looked_up.isidentifier() and not feature.finish:
                one = _Judged(
                    column=feature.looked_up,
                    feature=feature,
                    is_filled=feature.when_unknown is not None,
                    read=read,
                )
                judged.append(one)
    return _rules(judged)


def _rows_read(view: FeatureView) -> str:
    """SQL of the rows of its table that a view reads; '' for all of them."""
    # Spark's SQL knows the backslash as an escape.
    escaped = str.maketrans({"\\": "\\\\", "'": "\\'"})
    alike = [f"`{key}` = '{one.translate(escaped)}'" for key, one in view.constants.items()]
    return " AND ".join(alike)


def _rules(judged: Sequence[_Judged]) -> Rules:
    derived: dict[str, str] = {}
    rows: list[Expectation] = []
    outside = _branches({one: _when_outside(one.column, one.feature) for one in judged})
    if outside:
        derived[OUT_OF_RANGE] = outside
        rows.append(absent(OUT_OF_RANGE, says="Every feature lies in its declared range."))
    missing = _branches({one: _when_missing(one) for one in judged})
    if missing:
        derived[MISSING] = missing
        rows.append(absent(MISSING, says="Every required feature has a value."))
    return Rules(derived=derived, each_row=tuple(rows))


def _branches(broken: Mapping[_Judged, tuple[str, str]]) -> str:
    """A CASE of what breaks a rule; what several views ask of a column alike is asked once.

    Args:
        broken: When the rule is broken, and what then is told; of no rule two empty texts.
    """
    readers: dict[tuple[str, str], list[str]] = {}
    for one, rule in broken.items():
        if any(rule):
            readers.setdefault(rule, []).append(one.read)
    branches = []
    for (when, told), read in readers.items():
        # A view without constants reads all rows.
        rows = " OR ".join(dict.fromkeys(read)) if all(read) else "true"
        branches.append(f"WHEN ({rows}) AND ({when}) THEN {told}")
    return f"CASE {' '.join(branches)} END" if branches else ""


def _when_missing(one: _Judged) -> tuple[str, str]:
    if not one.feature.is_required or one.is_filled:
        return "", ""
    return f"`{one.column}` IS NULL", f"'{one.column}'"


def _when_outside(column: str, feature: Feature) -> tuple[str, str]:
    bounds = []
    if feature.least is not None:
        bounds.append(f"`{column}` < {feature.least}")
    if feature.most is not None:
        bounds.append(f"`{column}` > {feature.most}")
    elif bounds and not feature.is_whole:
        # Spark's NaN is above every number, so that only an upper bound refuses it.
        bounds.append(f"isnan(`{column}`)")
    if not bounds:
        return "", ""
    return " OR ".join(bounds), f"concat('{column} = ', `{column}`)"
