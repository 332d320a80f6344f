"""Paths as Spark must be given them."""

from __future__ import annotations

import re

_PATTERN = re.compile(r"[\[\]{}*?\\]")
"""What Spark takes for part of a pattern."""


def literal(path: str) -> str:
    """What Spark takes for that very path."""
    return _PATTERN.sub(r"\\\g<0>", path)
