"""Names in Spark's SQL."""

from __future__ import annotations


def quoted(name: str) -> str:
    """The name between backticks, whatever signs it has."""
    # A backtick would end it; two stand for one.
    doubled = name.replace("`", "``")
    return f"`{doubled}`"
