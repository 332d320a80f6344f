"""What a table is by declaration and code, as one digest: when it changes, so may the rows.

Of code counts what a function says, and what the functions and values say that it uses, as far as
they are the project's own; of an object that does not say it, what it holds. Comments, docs and
layout count nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any, TypeGuard

from pipelines import catalog
from pipelines.feeds import Feed

_OWN_PACKAGES = ("pipelines", "jobs", "expectations", "features", "tests")
_WITHOUT_CODE = "pipelines"
"""Package whose classes are declarations: of these the values count, however they are worked
out."""
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
"""Of an object, as Python shows it: it differs from process to process."""
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

_TOLD_AS: Mapping[str, object] = {
    "marker": None,
    "is_optional": False,
    "first_day": None,
    "last_day": None,
}
"""Fields of feeds that say when a file is there, and make no rows, with the value that is told in
place of theirs. To leave them out would change what every feed was."""

_ENDING = re.compile(r"\.\w+(\.gz)?$")
"""Of a file's name."""
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_Seen = dict[int, object]
"""By id what was told already: one of the same name may say something else."""


def _usual_path(feed: Feed) -> str:
    """What is told in place of a feed's path, which makes no row either.

    As most are named, so that these are what they were.
    """
    stem = f"{feed.name}/{{date}}" if "{date}" in feed.path else feed.name
    ending = _ENDING.search(feed.path)
    return stem + (ending.group() if ending else "")


def digest(*parts: object) -> str:
    """One digest of declarations (dataclass values), plain values and functions."""
    seen: _Seen = {}
    text = "\n".join(_told(part, seen) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_said(name: str, value: object) -> bool:
    """Whether a field of a declaration counts: one that came later does not at its first value."""
    return name not in AS_BEFORE or value != AS_BEFORE[name]


def _told(value: object, seen: _Seen) -> str:
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


def _told_by_value(value: object, seen: _Seen) -> str:
    if is_dataclass(value):
        hidden = _hidden(type(value))
        names = [one.name for one in fields(value) if one.name not in hidden]
        said = [name for name in names if is_said(name, getattr(value, name))]
        told_as = {**_TOLD_AS, "path": _usual_path(value)} if isinstance(value, Feed) else {}
        values = {name: told_as.get(name, getattr(value, name)) for name in said}
        told = [(name, _told(one, seen)) for name, one in values.items()]
        return f"{type(value).__name__}{told}"
    if isinstance(value, Mapping):
        return str([_told(pair, seen) for pair in value.items()])
    if isinstance(value, tuple | list):
        return str([_told(one, seen) for one in value])
    if isinstance(value, set | frozenset):
        return str(sorted(_told(one, seen) for one in value))
    kind = type(value)
    if kind.__repr__ is object.__repr__:
        shown = kind.__name__ + _state(value, seen)
    else:
        shown = _ADDRESS.sub("", repr(value))
    return shown + _code_of_class(kind, seen) if _has_code(kind) else shown


def _hidden(kind: type) -> set[str]:
    """Fields that make no rows: those alone that a declaration of Nightshift's own has.

    What a transform uses may have a field of such a name, too, wherever its class stands.
    """
    ours = [base for base in kind.__mro__ if catalog.is_of_spine(base.__module__)]
    names = {one.name for base in ours if is_dataclass(base) for one in fields(base)}
    return names & _NOT_OF_ROWS


def _state(value: object, seen: _Seen) -> str:
    """What an object of ours holds; nothing where there is nothing, or it was told already."""
    held: Mapping[str, object] = getattr(value, "__dict__", {})
    if not (held and _is_own(type(value).__module__) and _is_new(value, seen)):
        return ""
    told = []
    for name, one in sorted(held.items()):
        if not _is_memo(value, name, one):
            told.append((name, _told(one, seen)))
    return str(told)


def _is_memo(owner: object, name: str, value: object) -> bool:
    """Whether an attribute is, or may be, what is kept when it is first asked for.

    It follows from the rest, and grows while the process lives.
    """
    if isinstance(getattr(type(owner), name, None), functools.cached_property):
        return True
    return name.startswith("_") and isinstance(value, MutableMapping | list | set)


def _is_new(value: object, seen: _Seen) -> bool:
    """Whether it is to be told: it was not yet."""
    if id(value) in seen:
        return False
    # Kept: what comes later in its place would have its id.
    seen[id(value)] = value
    return True


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in _OWN_PACKAGES


def _has_code(kind: type) -> bool:
    """Whether what the class says counts."""
    return _is_own(kind.__module__) and not _is_declaration(kind)


def _is_declaration(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == _WITHOUT_CODE


def _code_of_class(kind: type, seen: _Seen) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not _has_code(kind):
        return kind.__name__
    if not _is_new(kind, seen):
        return name
    try:
        tree = _tree(kind)
    except OSError:
        # Made by a call, such as that of `namedtuple`.
        return name
    return _said(name, tree, vars(sys.modules[kind.__module__]), seen)


def _code(function: FunctionType, seen: _Seen) -> str:
    name = f"{function.__module__}.{function.__qualname__}"
    if not (_is_own(function.__module__) and _is_new(function, seen)):
        return name
    try:
        tree = _tree(function)
    except SyntaxError:
        # Of a lambda Python gives the lines, such as one in the midst of a dict.
        tree = _within_file(function)
    said = _said(name, tree, function.__globals__, seen)
    # Of a function that another has made, what that one gave it.
    values = [*_enclosed(function), *_made_defaults(function)]
    given = [_told(value, seen) for value in values]
    return "\n".join([said, *given])


def _tree(code: FunctionType | type) -> ast.AST:
    """Its source.

    Raises:
        OSError: there is none.
        SyntaxError: it is a part of other code.
    """
    return ast.parse(textwrap.dedent(inspect.getsource(code)))


def _within_file(function: FunctionType) -> ast.AST:
    """Its source out of that of the whole file."""
    code = function.__code__
    lines, _ = inspect.findsource(function)
    # The last place of what it does is in its body, and in none of a function within it.
    last = (0, 0)
    for line, _, column, _ in code.co_positions():
        last = max(last, (line or 0, column or 0))
    # Of a file that was changed since it was read, what it does.
    found: ast.AST = ast.Constant(code.co_code)
    for node in ast.walk(ast.parse("".join(lines))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        body = node.body if isinstance(node, ast.Lambda) else node.body[0]
        end = (node.end_lineno or 0, node.end_col_offset or 0)
        if (body.lineno, body.col_offset) <= last < end:
            # Those within it come later.
            found = node
    return found


def _said(
    name: str,
    tree: ast.AST,
    known: Mapping[str, Any],
    seen: _Seen,
) -> str:
    """What a function or class says, and what the global values say that it uses."""
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


def _made_defaults(function: FunctionType) -> Iterator[object]:
    """Defaults of arguments that only the call that made the function knows."""
    if "<locals>" in function.__qualname__:
        yield from function.__defaults__ or ()
        yield from (function.__kwdefaults__ or {}).values()


def _drop_docs(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def _used(tree: ast.AST, known: Mapping[str, Any]) -> Iterator[object]:
    """The global values that the code uses; of `PIPELINE.entity` that attribute alone."""
    nodes = list(ast.walk(tree))
    # A comprehension gives such a name to the function around it.
    walrus = [node.target.id for node in nodes if isinstance(node, ast.NamedExpr)]
    hidden = set(_local([tree], frozenset(walrus)))
    visible = {**known, **_imported(nodes, known)}
    # What an attribute is taken of counts only by that attribute.
    owners = {node.value for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Name) and node not in owners:
            value = _value(node, visible, hidden)
            if value is not None:
                yield value


def _local(
    parts: Iterable[ast.AST],
    around: frozenset[str],
    *,
    is_class: bool = False,
) -> Iterator[ast.AST]:
    """The names in a scope, and within it, that stand for an argument or a variable.

    Args:
        parts: Of the scope.
        around: Names of arguments and variables of the scopes around it.
        is_class: Its own names are none of its functions.
    """
    nodes = list(_own(parts))
    bound = {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.id for node in nodes if _is_variable(node)}
    names = around | bound
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in names:
            yield node
        within = around if is_class else names
        yield from _local(_inside(node), within, is_class=isinstance(node, ast.ClassDef))


def _own(parts: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of a scope, without what is inside another one within it."""
    for node in parts:
        yield node
        inside = _inside(node)
        yield from _own(one for one in ast.iter_child_nodes(node) if one not in inside)


def _inside(node: ast.AST) -> list[ast.AST]:
    """The parts of a node that are a scope; of most there are none."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.args, *node.body]
    if isinstance(node, ast.Lambda):
        return [node.args, node.body]
    if isinstance(node, ast.ClassDef):
        return [*node.body]
    return list(ast.iter_child_nodes(node)) if isinstance(node, _COMPREHENSIONS) else []


def _is_variable(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _imported(
    nodes: Iterable[ast.AST],
    known: Mapping[str, Any],
) -> dict[str, Any]:
    """What the code itself imports of ours, by the name that it has there."""
    found: dict[str, Any] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= _modules(node)
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if not (node.level or _is_own(module)):
            continue
        names = [alias.name for alias in node.names]
        # Of one that is not there whoever calls the code is told.
        with suppress(ImportError):
            given = __import__(module, known, None, names, node.level)
            for alias in node.names:
                local = alias.asname or alias.name
                found[local] = getattr(given, alias.name, None)
    return found


def _modules(node: ast.Import) -> dict[str, Any]:
    """Modules of ours that `import` names, by the name that they have there."""
    found = {}
    for alias in node.names:
        package = alias.name.partition(".")[0]
        if not _is_own(package):
            continue
        with suppress(ImportError):
            named = importlib.import_module(alias.name)
            found[alias.asname or package] = named if alias.asname else sys.modules[package]
    return found


def _value(
    node: ast.expr,
    known: Mapping[str, Any],
    hidden: Collection[ast.AST],
) -> Any:
    """What the expression is; None for what is no global value."""
    if isinstance(node, ast.Name):
        return None if node in hidden else known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, known, hidden)
        return None if owner is None else getattr(owner, node.attr, owner)
    return None
