"""Homes of the tiny pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.tiny_home import Home, landed


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return landed(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """One with the same files, in which nights are made in another way."""
    return landed(tmp_path / "other")
