"""docs/reference/messages.md quotes what the code really says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from pipelines.environment import ROOT
from tools import PACKAGES

PAGE = ROOT / "docs" / "reference" / "messages.md"
_QUOTED = re.compile(r"^\| `([^`]+)`", re.MULTILINE)
_PLACE = "…"
_FILLED_LATER = re.compile(r"\{\w+\}")
"""What `str.format` fills in, in a text that several places say."""


def texts_of_code() -> Iterator[str]:
    """Every text in our code, with `…` for what is filled in."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield _FILLED_LATER.sub(_PLACE, node.value)
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(_part(value) for value in node.values)


def _part(value: ast.expr) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else _PLACE


@pytest.mark.policy
def test_every_message_is_one_that_the_code_says() -> None:
    quoted = _QUOTED.findall(PAGE.read_text())
    assert len(quoted) > 15
    said = "\n".join(texts_of_code())
    assert [text for text in quoted if text not in said] == []
