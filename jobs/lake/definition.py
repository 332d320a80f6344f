"""What a table is by declaration and code, as one digest: when it changes, so may the rows.

Of code counts what a function says, and what the functions and values say that it uses, as far as
they are the project's own. Comments, docs and layout count nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any, TypeGuard

_OWN_PACKAGES = ("pipelines", "jobs", "expectations", "features", "tests")
_WITHOUT_CODE = "pipelines"
"""Package whose classes are declarations: of these the values count, however they are worked
out."""
_NOT_OF_ROWS = frozenset(
    {
        *("doc", "docs", "types", "least", "most", "max_quarantine_share", "is_asked_once"),
        *("warehouse", "rows_in_process", "past_days", "follows_corrections"),
    }
)
"""Fields of declarations that tell people, judge rows, or say where they go or are held: they make
none."""
AS_BEFORE: Mapping[str, object] = {
    "new_columns": "refuse",
    "unread": (),
    "max_categories": 10_000,
    "precision": "float32",
    "compression": "none",
    "accumulated_batches": 1,
    "reduction": "average",
    "restarts": 1,
    "checkpoint_seconds": 60,
}
"""Fields that came later, with the value that means what was meant without them: so a declaration
that does not use them is what it was."""


def digest(*parts: object) -> str:
    """One digest of declarations (dataclass values), plain values and functions."""
    seen: set[str] = set()
    text = "\n".join(_told(part, seen) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_said(name: str, value: object) -> bool:
    """Whether a field of a declaration counts: one that came later does not at its first value."""
    return name not in AS_BEFORE or value != AS_BEFORE[name]


def _told(value: object, seen: set[str]) -> str:
    # What a decorator such as `functools.cache` makes is told by what it was made of.
    if callable(value):
        value = inspect.unwrap(value)
    if inspect.isfunction(value):
        return _code(value, seen)
    if isinstance(value, functools.partial):
        return _told((value.func, value.args, value.keywords), seen)
    if isinstance(value, type):
        return _code_of_class(value, seen)
    if inspect.ismodule(value):
        return value.__name__
    if inspect.ismethod(value):
        owner = value.__self__
        kind = owner if isinstance(owner, type) else type(owner)
        of_class = _code_of_class(kind, seen) if _has_code(kind) else ""
        return f"{_told(owner, seen)}.{value.__name__}{of_class}"
    return _told_by_value(value, seen)


def _told_by_value(value: object, seen: set[str]) -> str:
    if is_dataclass(value):
        names = [one.name for one in fields(value) if one.name not in _NOT_OF_ROWS]
        said = [name for name in names if is_said(name, getattr(value, name))]
        told = [(name, _told(getattr(value, name), seen)) for name in said]
        return f"{type(value).__name__}{told}"
    if isinstance(value, Mapping):
        return str([_told(pair, seen) for pair in value.items()])
    if isinstance(value, tuple | list):
        return str([_told(one, seen) for one in value])
    if isinstance(value, set | frozenset):
        return str(sorted(_told(one, seen) for one in value))
    kind = type(value)
    # The address of an object differs from process to process.
    shown = repr(value) if kind.__repr__ is not object.__repr__ else kind.__name__
    return shown + _code_of_class(kind, seen) if _has_code(kind) else shown


def _has_code(kind: type) -> bool:
    """Whether what the class says counts."""
    package = kind.__module__.partition(".")[0]
    return package in _OWN_PACKAGES and package != _WITHOUT_CODE


def _code_of_class(kind: type, seen: set[str]) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not _has_code(kind):
        return kind.__name__
    if name in seen:
        return name
    seen.add(name)
    try:
        source = inspect.getsource(kind)
    except OSError:
        # Made by a call, such as that of `namedtuple`.
        return name
    return _said(name, source, vars(sys.modules[kind.__module__]), seen)


def _code(function: FunctionType, seen: set[str]) -> str:
    name = f"{function.__module__}.{function.__qualname__}"
    is_own = function.__module__.partition(".")[0] in _OWN_PACKAGES
    if name in seen or not is_own:
        return name
    seen.add(name)
    said = _said(name, inspect.getsource(function), function.__globals__, seen)
    # Of a function that another has made, what that one gave it.
    given = [_told(value, seen) for value in _enclosed(function)]
    return "\n".join([said, *given])


def _said(
    name: str,
    source: str,
    known: Mapping[str, Any],
    seen: set[str],
) -> str:
    """What a function or class says, and what the global values say that it uses."""
    tree = ast.parse(textwrap.dedent(source))
    _drop_docs(tree)
    # Written anew from the tree: comments and layout are gone.
    lines = [name, ast.unparse(tree)]
    lines += [_told(value, seen) for value in _used(tree, known)]
    return "\n".join(lines)


def _enclosed(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        # A cell is empty until its variable has a value.
        with suppress(ValueError):
            yield cell.cell_contents


def _drop_docs(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def _used(tree: ast.AST, known: Mapping[str, Any]) -> Iterator[object]:
    """The global values that the code uses; of `PIPELINE.entity` that attribute alone."""
    nodes = list(ast.walk(tree))
    # An argument or a variable hides the global value of its name.
    hidden = {node.arg for node in nodes if isinstance(node, ast.arg)}
    hidden |= {node.id for node in nodes if _is_variable(node)}
    visible = {name: value for name, value in known.items() if name not in hidden}
    # What an attribute is taken of counts only by that attribute.
    owners = {node.value for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Name) and node not in owners:
            value = _value(node, visible)
            if value is not None:
                yield value


def _is_variable(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """What the expression is; None for what is no global value."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, known)
        return None if owner is None else getattr(owner, node.attr, owner)
    return None
