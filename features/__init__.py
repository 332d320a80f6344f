"""What models see: declared features as Feast's definitions, and the join as of a moment."""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar

import typeguard

_Target = TypeVar("_Target")


def _import_feast() -> None:
    """Import Feast without the checks of types that it makes at each call.

    For each of its methods typeguard parses the whole module anew: 3.1 s of the 3.8 s of a
    processor that the import takes. What is handed to Feast here is checked by mypy.
    """
    checked = typeguard.typechecked
    typeguard.typechecked = _as_it_is  # type: ignore[assignment]
    try:
        import_module("feast")
    finally:
        typeguard.typechecked = checked


def _as_it_is(target: _Target) -> _Target:
    return target


_import_feast()
