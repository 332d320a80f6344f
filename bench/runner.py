"""The process of one way: `python -m bench.runner CASE WAY FOLDER`, asked line by line.

`go` does the work and times it; `answer FILE` does it and keeps what it says.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.ipc as ipc

from bench import cases
from bench.ending import INTERRUPTED, end_as_by_ctrl_c
from bench.harness import Round

_LOOK_SECONDS = 0.05
_REST = 20
"""Times as long as a look has taken until the next: what looks takes a twentieth of a core at most
from what is measured."""


def main() -> int:
    """Answer until the input ends, or somebody ends it."""
    end_as_by_ctrl_c()
    try:
        _answer(*sys.argv[1:])
    except KeyboardInterrupt:
        # Whoever ended it knows; what it had started is gone.
        return INTERRUPTED
    return 0


def _answer(case: str, way: str, folder: str) -> None:
    # What the work itself prints must not pass for an answer.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepared = contextmanager(getattr(cases.module(case), way))
    with prepared(Path(folder)) as work:
        for line in sys.stdin:
            command, _, file = line.strip().partition(" ")
            around = work if isinstance(work, Round) else Round(do=work)
            around.before()
            told = _keep(work()(), file) if command == "answer" else _timed(work)
            around.after()
            # Where nobody is left to be told, the input has ended too.
            with suppress(BrokenPipeError):
                print(json.dumps(told), file=out, flush=True)


def _keep(answer: Any, file: str) -> dict[str, Any]:
    with ipc.new_file(file, answer.schema) as sink:
        sink.write_table(answer)
    return {}


def _timed(work: Any) -> dict[str, Any]:
    peak = _Peak()
    peak.start()
    started = time.monotonic()
    work()
    seconds = time.monotonic() - started
    peak.stop()
    return {"seconds": seconds, "peak_megabytes": peak.bytes / 1e6}


class _Peak(threading.Thread):
    """The most memory of this process and all below it; what they share counts once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        own = psutil.Process()
        pause = _LOOK_SECONDS
        is_over = False
        # Once at least, however short the work is.
        while not is_over:
            is_over = self._ended.wait(pause)
            began = time.monotonic()
            processes = [own, *own.children(recursive=True)]
            self.bytes = max(self.bytes, sum(map(_size, processes)))
            took = time.monotonic() - began
            pause = max(_LOOK_SECONDS, _REST * took)

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join()


def _size(process: psutil.Process) -> int:
    try:
        # The proportional size, which the system adds up page by page.
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


if __name__ == "__main__":
    sys.exit(main())
