"""What set-up says, and how it runs a command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
"""Set-up's own folder: lock, log, and uv when this machine has none."""
LOG = TOOLS / "setup.log"
_TAIL_LINES = 30
"""Lines of a failed command's output that its error shows."""


class SetupError(Exception):
    """This machine lacks something, or a step failed; the message says what to do."""


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done, and afterwards how many seconds it took."""
    say(f"setup: {title} ...")
    started = time.monotonic()
    yield
    say(f"setup: {title}: {time.monotonic() - started:.1f} s")


def run(
    command: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a command with its output in the log.

    Args:
        command: program and arguments.
        env: variables to set beside those of this process.

    Raises:
        SetupError: the command failed; the message ends with the last lines of its output.
    """
    words = [str(word) for word in command]
    said = " ".join(words)
    with LOG.open("ab") as log:
        log.write(f"\n$ {said}\n".encode())
        log.flush()
        begun = log.tell()
        # close_fds=False: the command holds set-up's lock too, so another set-up waits for it even
        # when this one is killed.
        code = subprocess.call(
            words,
            cwd=str(ROOT),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=False,
        )
    if code:
        raise SetupError(f"`{said}` ended with {code}.\n{_tail(begun)}\nThe whole output: {LOG}")


def _tail(begun: int) -> str:
    with LOG.open("rb") as log:
        log.seek(begun)
        output = log.read().decode(errors="replace")
    lines = output.splitlines()
    return "\n".join(f"  | {line}" for line in lines[-_TAIL_LINES:])


def fail(error: SetupError) -> int:
    """Say the error; the exit code that a failed set-up returns."""
    print(f"\nsetup: {error}", file=sys.stderr, flush=True)
    return 1
