from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.lake import log


def test_commits_are_told_to_be_there_or_not(tmp_path: Path) -> None:
    table = str(tmp_path / "table")
    for number in range(2):
        write_deltalake(table, pa.table({"number": [number]}), mode="append")
    assert log.are_there(table, 0, 1, 2) == [True, True, False]
    assert {kind for action in log.actions(table, 1) for kind in action} == {"add", "commitInfo"}
    with pytest.raises(FileNotFoundError):
        log.actions(table, 2)
    assert log.are_there(str(tmp_path / "nothing"), 0) == [False]
