"""What formats share of texts: lines, what no text of a source may hold, values shown as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

INSTANT = "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"
"""With microseconds and offset, so that nothing of an instant is lost."""
AS_JSON = {
    # A record is shown whole, its missing values too.
    "ignoreNullFields": "false",
    "timestampFormat": INSTANT,
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}
"""Options of `to_json` for the record of a quarantined row that was no text."""
_SHOWN = 80
"""Characters of a value that a reason shows."""
_CONTROL_IN_LINE = r"[\x00-\x08\x0a-\x1f\x7f]"
"""All but the tab: in a line they mean that the source wrote something else than text."""
_CONTROL_IN_VALUE = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
"""A value that is no line may be of several lines."""


def line_problem() -> Expression:
    """Why a line (`record`) is no text; null when it is.

    More cases can be appended with `when`.
    """
    record = F.col("record")
    return (
        F.when(~F.is_valid_utf8(record), "record: not UTF-8 text")
        .when(record == "", "record: blank line between records")
        .when(record.rlike(_CONTROL_IN_LINE), "record: control characters")
    )


def beginning(text: Expression) -> Expression:
    """As much of a text as a reason shows: it may be of any length."""
    return F.left(text, F.lit(_SHOWN))


def has_control_characters(value: Expression) -> Expression:
    """Whether a value that was escaped, or is no part of a line, holds what no text may."""
    return value.rlike(_CONTROL_IN_VALUE)
