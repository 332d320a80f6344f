from __future__ import annotations

from pathlib import Path

import pytest

from jobs.services.text import duration, tail


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (59.9, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (93_784, "26 h 3 min"),
        # By a clock that was put back.
        (-3601, "0 s"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_the_tail_of_a_long_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [f"line {number}" for number in range(10_000)]
    log.write_text("\n".join(lines))
    assert tail(log, 2) == "line 9998\nline 9999"


def test_an_empty_log_and_none_at_all_are_told_alike(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert tail(empty) == "(empty)"
    assert tail(tmp_path / "none") == "(empty)"
