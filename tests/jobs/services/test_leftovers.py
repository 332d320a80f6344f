"""Leftovers that cannot be deleted keep no others from going."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.services.leftovers import Rule, clean


def test_what_cannot_be_deleted_is_told_and_the_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_text("four")
        for path in (folder / "file", folder):
            os.utime(path, (0, 0))
    stubborn = folders[1]

    really = shutil.rmtree

    def remove(folder: Path) -> None:
        # As root may delete everything, the system has to be played.
        if folder == stubborn:
            raise PermissionError(13, "Permission denied", str(folder))
        really(folder)

    monkeypatch.setattr(shutil, "rmtree", remove)
    rule = Rule(before=datetime(2013, 1, 1, tzinfo=UTC), is_dry=False)
    cleaned = clean("reports", folders, rule)
    assert [folder for folder in folders if folder.exists()] == [stubborn]
    assert (cleaned.kept, cleaned.deleted, cleaned.freed) == (0, 2, 8)
    assert cleaned.note == "failed"
    assert str(stubborn) in str(cleaned.fault)
