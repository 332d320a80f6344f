"""Pictures of the docs come from the browser tests, and none is shown that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from pipelines.environment import ROOT
from tests.documents import documents
from tools import pictures

_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+\.png)\)")
_OF_TESTS = re.compile(r"screenshot\([a-z_]+, f?\"([^\"]+)\"")


def test_every_picture_is_one_that_a_test_makes() -> None:
    files = (ROOT / "tests" / "e2e").glob("*.py")
    tests = "".join(path.read_text() for path in files)
    made = [name.replace("{name}", ".*") for name in _OF_TESTS.findall(tests)]
    for name in pictures.PICTURES.values():
        assert any(re.fullmatch(one, name) for one in made), name


def test_what_is_shown_is_there_and_said_in_words() -> None:
    for document in documents():
        for words, place in _PICTURE.findall(document.read_text()):
            assert (document.parent / place).exists(), place
            assert len(words) > 20, f"{place} in {document.name}: say what it shows"


def test_they_are_made_of_what_the_tests_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "MADE", tmp_path / "made")
    monkeypatch.setattr(pictures, "SHOWN", tmp_path / "shown")
    monkeypatch.setattr(pictures, "ROOT", tmp_path)
    monkeypatch.setattr(pictures, "PICTURES", {"night": "8-night"})
    assert pictures.main() == 1
    assert "8-night" in capsys.readouterr().out
    for folder in ("made", "shown"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (20, 3000), "red").save(tmp_path / "made" / "8-night.png")
    assert pictures.main() == 0
    with Image.open(tmp_path / "shown" / "night.png") as shown:
        assert shown.size == (20, 1400)
