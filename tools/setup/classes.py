"""The archive of Spark's classes, by which its servers start in half the processor time."""

from __future__ import annotations

from tools.setup.console import VENV, SetupError, run, say, step


def share() -> None:
    """Let Java write the archive; without it all works, a little slower."""
    with step("writing down Spark's classes, for its later starts"):
        try:
            run([VENV / "bin" / "python", "-m", "jobs.commands.class_archive"])
        except SetupError as error:
            say(f"setup: not done, so each start of Spark takes some seconds longer: {error}")
