"""The cases, a module each; see `bench.harness.Case` for what a module has."""

from __future__ import annotations

from importlib import import_module
from typing import Any

NAMES = ("scoring", "sql", "join", "training", "gate", "year", "night", "idle", "start")


def module(name: str) -> Any:
    """The module of a case: one of `NAMES`, or any other by its whole name."""
    return import_module(name if "." in name else f"bench.cases.{name}")
