"""What must hold of features, as it follows from their declarations.

Two expectations hold for all features of a table: one expectation for each would cost a night
seconds. What is wrong in a row names the feature and the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from great_expectations.expectations.expectation import Expectation

from expectations.suite import absent
from pipelines.features import Feature
from pipelines.spec import Pipeline

OUT_OF_RANGE, MISSING = "feature_out_of_range", "feature_missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """A part of a suite."""

    derived: Mapping[str, str]
    """Derived columns: the first feature of a row that breaks its declaration, or null."""
    each_row: tuple[Expectation, ...]
    """That there is none."""


def of_model(pipeline: Pipeline) -> Rules:
    """What holds of the training and scoring tables."""
    return _rules({feature.name: feature for feature in pipeline.features})


def of_table(pipeline: Pipeline, table: str) -> Rules:
    """What holds of a table that features are looked up in.

    Of a feature that is finished by an expression nothing is known before it is.
    """
    columns: dict[str, Feature] = {}
    for view in pipeline.views:
        for feature in view.features if view.table == table else ():
            if feature.looked_up.isidentifier() and not feature.finish:
                # Two features may be looked up in one column: it is judged once.
                columns.setdefault(feature.looked_up, feature)
    return _rules(columns)


def _rules(columns: Mapping[str, Feature]) -> Rules:
    derived: dict[str, str] = {}
    rows: list[Expectation] = []
    outside = [_when_outside(column, feature) for column, feature in columns.items()]
    if any(outside):
        derived[OUT_OF_RANGE] = f"CASE {' '.join(filter(None, outside))} END"
        rows.append(absent(OUT_OF_RANGE, says="Every feature lies in its declared range."))
    required = [column for column, feature in columns.items() if feature.is_required]
    if required:
        missing = [f"WHEN `{column}` IS NULL THEN '{column}'" for column in required]
        derived[MISSING] = f"CASE {' '.join(missing)} END"
        rows.append(absent(MISSING, says="Every required feature has a value."))
    return Rules(derived=derived, each_row=tuple(rows))


def _when_outside(column: str, feature: Feature) -> str:
    """The branch of a CASE that tells a value outside of the feature's range; '' without one."""
    bounds = []
    if feature.least is not None:
        bounds.append(f"`{column}` < {feature.least}")
    if feature.most is not None:
        bounds.append(f"`{column}` > {feature.most}")
    elif bounds and not feature.is_whole:
        # Spark's NaN is above every number, so that only an upper bound refuses it.
        bounds.append(f"isnan(`{column}`)")
    if not bounds:
        return ""
    return f"WHEN {' OR '.join(bounds)} THEN concat('{column} = ', `{column}`)"
