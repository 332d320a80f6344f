"""What a stage server of the tests here does in place of a command: what its home is told to."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import wire
from pipelines.forwarding import LOST

SEEN = ("SOME_PASSWORD", "AWS_PROFILE", "https_proxy", "TF_NUM_INTEROP_THREADS")
"""Variables whose values are noted."""


def in_child(argument: dict[str, Any]) -> int:
    home = Path(argument["environment"]["NIGHTSHIFT_HOME"])
    words: list[str] = argument["words"]
    variables = {name: os.environ[name] for name in SEEN if name in os.environ}
    asked = {
        "words": words,
        "folder": str(Path.cwd()),
        "umask": wire.umask(),
        "variables": variables,
    }
    (home / "asked").write_text(json.dumps(asked))
    does: dict[str, Callable[[Path, list[str]], int]] = {
        "refuse": _refuse,
        "sleep": _sleep,
        "die": _die,
        "plan": _plan,
        "come apart": lambda *_: LOST,
    }
    return does[(home / "does").read_text()](home, words)


def _refuse(home: Path, words: list[str]) -> int:
    print("flights 2013-03-01  run r1", file=sys.stderr)
    print("Warning: one thing")
    print("Refused: the reason\n  - of a day", file=sys.stderr)
    _result_of(words).write_text((home / "result").read_text())
    return 1


def _plan(home: Path, words: list[str]) -> int:
    _result_of(words).write_text(json.dumps({"summary": "nothing", "has_work": True}))
    return 0


def _sleep(home: Path, _: list[str]) -> int:
    print("ingest is under way")
    below = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")
    draft = home / "draft"
    draft.write_text(f"{os.getpid()} {below}")
    draft.rename(home / "pids")
    time.sleep(60)
    return 0


def _die(*_: object) -> int:
    print("so far")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _result_of(words: list[str]) -> Path:
    (result,) = (word for word in words if word.startswith("--result="))
    return Path(result.partition("=")[2])
