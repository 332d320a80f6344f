"""Names in Spark's SQL."""

from __future__ import annotations

from collections.abc import Mapping


def quoted(name: str) -> str:
    """The name between backticks, whatever signs it has."""
    # A backtick would end it; two stand for one.
    doubled = name.replace("`", "``")
    return f"`{doubled}`"


def aliased(expressions: Mapping[str, str]) -> list[str]:
    """Of name -> SQL expression, each as a SELECT has it: `expression AS name`."""
    return [f"{sql} AS {quoted(name)}" for name, sql in expressions.items()]
