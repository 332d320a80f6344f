"""Columns that the transforms of any pipeline need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from pipelines.features import day_end

if TYPE_CHECKING:
    from pyspark.sql import Column

    from pipelines.features import Feature

_SEPARATOR, _ESCAPE = "|", "\\"
"""Suites compare keys with them: `expectations/fragments.py`."""


def made_by(features: Iterable[Feature]) -> list[Column]:
    """The columns that the features' declarations make by SQL, under the features' names."""
    made = [feature for feature in features if feature.made_by]
    return [F.expr(feature.made_by).alias(feature.name) for feature in made]


def joined(*columns: str) -> Column:
    """The values of columns joined by '|'; null when one of them is.

    Of several, a '|' or backslash within a value has a backslash before it: else 'a|b' with 'c'
    would be the key that 'a' with 'b|c' is.
    """
    texts = [F.col(column).cast("string") for column in columns]
    first, *others = texts if len(texts) == 1 else map(_escaped, texts)
    parts = [first]
    for other in others:
        parts += [F.lit(_SEPARATOR), other]
    # concat_ws would skip a null, and two keys could become one.
    return F.concat(*parts)


def _escaped(text: Column) -> Column:
    for sign in (_ESCAPE, _SEPARATOR):
        text = F.replace(text, F.lit(sign), F.lit(_ESCAPE + sign))
    return text


def scoring_moment(timezone: str, day: str = "landed_date") -> Column:
    """Local midnight at the end of the day in that column, as an instant."""
    return F.expr(day_end(day, timezone))
