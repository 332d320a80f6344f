"""What channels say on stderr, a line at a time: they deliver side by side."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Write the line in one piece: between a line and its end, as `print` has it, others write."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
