from __future__ import annotations

from pathlib import Path

from jobs.commands.models import COLUMNS, models
from tests.jobs.training import small


def test_a_pipeline_without_models_lists_none(tmp_path: Path) -> None:
    assert models(small.SMALL, small.models_at(tmp_path)) == (COLUMNS, [])
