"""A lake with published predictions, and an empty database beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.environment import Environment
from tests.jobs.warehouse.lake import Lake
from tests.postgres import Postgres


@pytest.fixture
def lake(tmp_path: Path, postgres: Postgres) -> Lake:
    """A lake without tables, and an empty database."""
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    return Lake(replace(environment, warehouse_url=postgres.database("warehouse")))
