"""What channels say at the same time stays apart."""

from __future__ import annotations

import io
import sys

import pytest

from jobs.notifications.lines import say


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Stream())
    say("Notification: a new model serves.")
    assert pieces == ["Notification: a new model serves.\n"]
