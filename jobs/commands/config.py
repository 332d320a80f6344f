"""Rows for `nightshift config`: every setting of this installation, and where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from pipelines.environment import Environment, Setting

COLUMNS = ("variable", "value", "from", "decides")

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/\s]*@")
"""Of `scheme://user:password@host`; a password may hold an @ itself."""
_PARAMETER = re.compile(
    r"([;?&][^=;?&]*(?:token|password|secret|key|signature)[^=;?&]*)=[^;?&#]*", re.IGNORECASE
)
"""Such as Spark Connect's `sc://host/;token=…`."""


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


def redacted(text: str) -> str:
    """An address without the passwords and tokens in it."""
    without_password = _PASSWORD.sub(r"\1:***@", text)
    return _PARAMETER.sub(r"\1=***", without_password)


def _value(setting: Setting, value: object) -> object:
    if setting.is_secret:
        return "not set" if value is None else "set"
    return None if value is None else redacted(str(value))
