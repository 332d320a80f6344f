"""What kind of value each field of a declaration takes, as it is annotated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import date, datetime
from math import isfinite
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pipelines.errors import UsageError, refuse_unless

_KINDS: Mapping[Any, str] = {
    int: "whole number",
    float: "finite number",
    str: "text",
    bool: "True or False",
    type(None): "None",
    tuple[int, ...]: "tuple of whole numbers",
    tuple[str, ...]: "tuple of texts",
}
"""What people call the kinds of values; others are told by their types."""
_TAKEN: dict[type, Mapping[str, Any]] = {}
"""What `kinds` has found: annotations are texts, and a pipeline has hundreds of declarations."""
_SHOWN = 80
"""Letters of a value that a message shows."""


def refuse_odd_kinds(whose: str, declared: Any) -> None:
    """Refuse a declaration with a value of another kind than its field takes.

    Args:
        whose: Begins the message: "Feed 'sales'".
        declared: A value of a dataclass.

    Raises:
        UsageError: a field has such a value; the message says what it takes.
    """
    for name, kind in kinds(type(declared)).items():
        value = getattr(declared, name)
        if fits(value, kind):
            continue
        # `("zone")` lacks the comma of `("zone",)`.
        tuples = [one for one in (kind, *get_args(kind)) if get_origin(one) is tuple]
        takes_names = any(fits((value,), one) for one in tuples)
        refuse_unless(
            not (isinstance(value, str) and takes_names),
            f"{whose}: {name} must be a tuple of names, but is the text '{value}'. "
            f"Of one name: ('{value}',).",
        )
        says = f"{whose}: {name} has a value of another kind than it takes: {_shown(value)} is no "
        raise UsageError(f"{says}{said_kind(kind)}.")


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of a kind that a field of a declaration takes.

    Words that are given are not judged: whoever knows them all tells which there are.
    """
    options, origin = get_args(kind), get_origin(kind)
    if kind is float:
        return isinstance(value, int | float) and type(value) is not bool and isfinite(value)
    if kind is int:
        return isinstance(value, int) and type(value) is not bool
    if kind is date:
        # A moment is a date to Python, and is never like one.
        return isinstance(value, date) and not isinstance(value, datetime)
    if origin is Literal:
        return isinstance(value, str)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(one, options[0]) for one in value)
    if origin is Mapping:
        # The declaration that has it tells what its values are.
        return isinstance(value, Mapping) and all(fits(name, options[0]) for name in value)
    if options:
        return any(fits(value, option) for option in options)
    return kind is Any or isinstance(value, kind)


def said_kind(kind: Any) -> str:
    """A kind, for people."""
    if kind in _KINDS:
        return _KINDS[kind]
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    options = get_args(kind)
    if get_origin(kind) is tuple:
        return f"tuple of {said_kind(options[0])}, such as (one,) or (one, another)"
    if get_origin(kind) is Mapping:
        return f"dictionary of {said_kind(options[0])} to {said_kind(options[1])}"
    if get_origin(kind) is Literal:
        return "text"
    return " or ".join(map(said_kind, options)) if options else str(kind)


def kinds(declaration: type) -> Mapping[str, Any]:
    """What each field of a dataclass takes, as it is annotated."""
    found = _TAKEN.get(declaration)
    if found is None:
        hints = get_type_hints(declaration)
        found = {one.name: hints[one.name] for one in fields(declaration)}
        _TAKEN[declaration] = found
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
