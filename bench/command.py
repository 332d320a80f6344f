"""The command `nightshift`, as measurements of many nights run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from pipelines.days import Days


def nightshift(*arguments: str, variables: Mapping[str, str] = os.environ) -> None:
    """Run it; an error ends the measurement, and a candidate that is refused does not."""
    command = [sys.executable, "-m", "jobs", *arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    # Refused is no fault: a candidate that is not good enough ends a night so.
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def named(days: Days) -> Sequence[str]:
    """The arguments that name the days."""
    return ("--from", str(days.first), "--to", str(days.last))
