"""Reasons of a plan in words: days of inputs, and many nights as one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import chain

_DAYS_LISTED = 3
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DAYS_OF_INPUT = re.compile(rf"(?<= of ){_DAY.pattern}(?:(?: to |, |\.\.){_DAY.pattern})*")
"""As `listed` and `Days` tell them in a reason: each night has other days of what it is made
from."""


def without_days(reason: str) -> str:
    """By what reasons are told as one that differ in nothing but the days of inputs."""
    # By what no message has, so that each of them stands for days.
    return _DAYS_OF_INPUT.sub("\0", reason)


def of_all(reasons: Sequence[str]) -> str:
    """Reasons that are the same `without_days`: with the first and the last of the days of each."""
    if len(set(reasons)) == 1:
        return reasons[0]
    by_input = zip(*map(_DAYS_OF_INPUT.findall, reasons), strict=True)
    spans = map(_span, by_input)
    return _DAYS_OF_INPUT.sub(lambda _: next(spans), reasons[0])


def _span(told: Iterable[str]) -> str:
    days = sorted(chain.from_iterable(map(_DAY.findall, told)))
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def listed(days: list[date]) -> str:
    """Days in words: each, or of many the first and the last."""
    in_order = sorted(days)
    if len(in_order) > _DAYS_LISTED:
        return f"{in_order[0]} to {in_order[-1]}"
    return ", ".join(map(str, in_order))
