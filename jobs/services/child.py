"""The process that does one piece of work.

Forked by the stage server, or new (`python -m jobs.services.child FUNCTION`).
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipelines.errors import NightshiftError
from pipelines.redaction import redacted

ALLOWED = frozenset(
    {
        "jobs.__main__:in_child",
        "jobs.night:perform",
        "jobs.training.families.neural_network.rank:main",
        "jobs.commands.explain:in_child",
        "jobs.commands.rescore:in_child",
        "jobs.commands.sql:in_child",
        "jobs.training.proof:in_child",
        "jobs.commands.warm_up:main",
        "jobs.training.serving:follow_in_child",
        "jobs.training.serving:find_in_child",
    }
)
"""What the stage server runs, and nothing else."""
_GENERATED = "__autograph_generated_file"
"""How the names of modules begin that TensorFlow writes into the folder for temporary files."""
Function = Callable[[dict[str, object]], int | None]
OWN_PACKAGES = frozenset({"pipelines", "jobs", "expectations", "features"})


def execute(function: str, argument: dict[str, object]) -> int:
    """Call `module:function` with the argument.

    Returns its exit code (None is 0), 3 after an exception.
    """
    signal.signal(signal.SIGTERM, _leave)
    try:
        # Imported here, so that a fault of the module itself ends as an exit code too.
        code = _named(function)(argument)
        return int(code or 0)
    except SystemExit as end:
        # `sys.exit` takes a text too.
        return end.code if isinstance(end.code, int) else NightshiftError.exit_code
    except BaseException:
        # An interrupt too: who waits for us is to get an exit code.
        print(redacted(traceback.format_exc()), file=sys.stderr, end="", flush=True)
        return NightshiftError.exit_code
    finally:
        _release_session()


def forget_own_modules() -> None:
    """Drop our own modules, so that the next import reads the code that is on disk now."""
    for name in list(sys.modules):
        package, _, _ = name.partition(".")
        if package in OWN_PACKAGES:
            del sys.modules[name]
    importlib.invalidate_caches()


def end(code: int) -> NoReturn:
    """Leave without the exit handlers of libraries.

    In a forked process they wait for threads that it never had.
    """
    logging.shutdown()
    _remove_generated_code()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _remove_generated_code() -> None:
    """Delete the files of code that TensorFlow has generated, which it does in an exit handler."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(_GENERATED) and file:
            with suppress(OSError):
                Path(file).unlink()


def _named(function: str) -> Function:
    module, _, name = function.partition(":")
    named: Function = getattr(import_module(module), name)
    return named


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Unwinds, so that the session is released and Spark stops what it was doing for us.
    raise SystemExit(NightshiftError.exit_code)


def _release_session() -> None:
    # Looked up and not imported: work that never asked for Spark has no session.
    if session := sys.modules.get("jobs.spark.session"):
        with suppress(Exception):
            session.disconnect()


if __name__ == "__main__":
    end(execute(sys.argv[1], json.load(sys.stdin)))
