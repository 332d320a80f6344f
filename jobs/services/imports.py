"""Imports that are made while something else is waited for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from threading import Thread


def import_meanwhile(*modules: str) -> None:
    """Import modules that will be asked for, in a thread.

    Who imports one before it is there waits for the rest of it alone.
    """
    # No daemon: a process that ends in the midst of an import of C code may crash.
    Thread(target=_import_all, args=(modules,)).start()


def _import_all(modules: Iterable[str]) -> None:
    for module in modules:
        # Who needs it is told.
        with suppress(Exception):
            import_module(module)
