from __future__ import annotations

from pathlib import Path

import pytest

from jobs.spark.java import java_home, version
from pipelines.errors import NightshiftError


def fake(folder: Path, output: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{output}' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('openjdk version "17.0.15"', 17),
        ('java version "1.8.0_202"', 8),
        ('openjdk version "21" 2023', 21),
        ("what?", None),
    ],
)
def test_the_major_version_is_read(tmp_path: Path, output: str, expected: int | None) -> None:
    assert version(fake(tmp_path, output) / "bin" / "java") == expected


def test_java_home_goes_before_the_path(tmp_path: Path) -> None:
    one = fake(tmp_path / "one", 'version "17"')
    other = fake(tmp_path / "other", 'version "21"')
    assert java_home({"JAVA_HOME": str(one), "PATH": f"{other}/bin:/bin"}) == one
    assert java_home({"PATH": f"{other}/bin:/bin"}) == other


def test_an_old_java_is_passed_over(tmp_path: Path) -> None:
    old = fake(tmp_path / "old", 'version "1.8.0"')
    new = fake(tmp_path / "new", 'version "17"')
    assert java_home({"JAVA_HOME": str(old), "PATH": f"{new}/bin:/bin"}) == new


def test_without_java_the_message_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    old = fake(tmp_path / "old", 'version "11"')
    message = r"JAVA_HOME: version 11 .*PATH: no working java.*apt-get install openjdk-17"
    with pytest.raises(NightshiftError, match=message):
        java_home({"JAVA_HOME": str(old), "PATH": str(tmp_path)})
