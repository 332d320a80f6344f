"""What the stage server of the tests runs in its children."""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from jobs.services import in_turn


def say(argument: dict[str, Any]) -> None:
    print(argument["out"])
    print(argument["err"], file=sys.stderr)


def give(argument: dict[str, Any]) -> int:
    return int(argument["code"])


def generate(argument: dict[str, Any]) -> None:
    """As TensorFlow does with the code that it generates."""
    name = "__autograph_generated_file_of_a_test"
    file = Path(argument["folder"]) / f"{name}.py"
    file.write_text("answer = 42")
    spec = spec_from_file_location(name, file)
    assert spec is not None
    sys.modules[name] = module_from_spec(spec)


def fail(argument: dict[str, Any]) -> None:
    raise ValueError(argument["text"])


def die(argument: dict[str, Any]) -> None:
    os.kill(os.getpid(), argument["signal"])


def make_file(argument: dict[str, Any]) -> None:
    Path(argument["file"]).touch()


def tell_variable(argument: dict[str, Any]) -> None:
    print(os.environ.get(argument["name"]))


def take(argument: dict[str, Any]) -> None:
    """Takes so much processor time, while it holds so many bytes."""
    held = bytearray(argument["bytes"])
    held[::4096] = b"x" * len(held[::4096])
    while time.process_time() < argument["seconds"]:
        sum(range(10_000))


def take_and_die(argument: dict[str, Any]) -> None:
    """Takes half a second of the processor and 100 MB, and is killed."""
    take({"seconds": time.process_time() + 0.5, "bytes": 10**8})
    os.kill(os.getpid(), signal.SIGKILL)


def do_in_turn(_: dict[str, Any]) -> None:
    """What is asked for, one after another: see `_one_of_many`."""
    in_turn.serve(_one_of_many)


def _one_of_many(argument: dict[str, Any]) -> int:
    """Tells its process and what it can read, takes some time, and ends as it is told to."""
    if "module" in argument:
        # As if it were one of ours that was imported.
        module = ModuleType("jobs.of_a_test")
        module.__file__ = argument["module"]
        sys.modules[module.__name__] = module
    can_read = len(os.read(0, 1))
    print("child", os.getpid(), can_read, flush=True)
    take({"seconds": time.process_time() + argument.get("seconds", 0), "bytes": 0})
    if "signal" in argument:
        os.kill(os.getpid(), argument["signal"])
    if "exits" in argument:
        sys.exit(argument["exits"])
    if "text" in argument:
        raise ValueError(argument["text"])
    return int(argument.get("code", 0))


def sleep(argument: dict[str, Any]) -> None:
    """Leaves its process id, and that of a process it has started, in a file."""
    below = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")
    draft = Path(argument["file"] + ".draft")
    draft.write_text(f"{os.getpid()} {below}")
    draft.rename(argument["file"])
    time.sleep(60)
