"""Runs a program that dies with its parent, however the parent dies.

`die_with_parent.py SIGNAL PROGRAM [ARGUMENT …]`.

A script of its own and not a `preexec_fn`, which may deadlock in a process with threads. It becomes
the program, so process ids and signals are the program's own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from signal import Signals

_PR_SET_PDEATHSIG = 1
"""Of Linux's <sys/prctl.h>; Python has no name for it."""


def dying_with_parent(program: list[str], on_death: Signals = Signals.SIGTERM) -> list[str]:
    """The command that runs `program` and ends it when the process that starts it ends."""
    # -P: this folder must not shadow the standard library's modules; -S: start in milliseconds.
    python = [sys.executable, "-P", "-S"]
    this_script = str(Path(__file__).resolve())
    return [*python, this_script, on_death.name, *program]


def die_with_parent(on_death: Signals) -> None:
    """Have the kernel send the signal to this process when its parent ends.

    Linux only, elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # not to be had everywhere

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(on_death), 0, 0, 0)
    # A parent that ended before the call sends nothing any more.
    if os.getppid() != parent:
        os.kill(os.getpid(), on_death)


if __name__ == "__main__":
    die_with_parent(Signals[sys.argv[1]])
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"The program {sys.argv[2]} cannot be run: {error.strerror}.")
