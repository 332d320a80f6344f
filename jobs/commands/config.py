"""Rows for `nightshift config`: every setting of this installation, and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pipelines.environment import Environment, Setting
from pipelines.redaction import without_secrets

COLUMNS = ("variable", "value", "from", "decides")


def config(
    environment: Environment, environ: Mapping[str, str] = os.environ
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Column names and rows: one for each setting, in the order of their declaration."""
    rows: list[tuple[object, ...]] = []
    for name, setting in environment.settings().items():
        origin = "variable" if environ.get(setting.variable) else "default"
        value = _value(setting, getattr(environment, name))
        rows.append((setting.variable, value, origin, setting.does))
    return COLUMNS, rows


def _value(setting: Setting, value: object) -> object:
    if setting.is_secret:
        return "not set" if value is None else "set"
    return None if value is None else without_secrets(str(value))
