"""The process that does one piece of work.

Forked by the stage server, or new (`python -m jobs.services.child FUNCTION`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.machinery import FileFinder
from pathlib import Path
from types import FrameType
from typing import NoReturn

from jobs.output import outlive_readers
from pipelines.errors import NightshiftError
from pipelines.landing import marks
from pipelines.redaction import redacted

ALLOWED = frozenset(
    {
        "jobs.__main__:in_child",
        "jobs.night:perform",
        "jobs.night:perform_in_turn",
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
_ENDS_WITH_READER = "jobs.commands.sql:in_child"
"""It may print without end, and does nothing else."""
_GENERATED = "__autograph_generated_file"
"""How the names of modules begin that TensorFlow writes into the folder for temporary files."""
Function = Callable[[dict[str, object]], int | None]
OWN_PACKAGES = frozenset({"pipelines", "jobs", "expectations", "features"})
Code = dict[str, tuple[int, ...]]
"""Of each file its marks (`pipelines.landing.marks`); none: what it was is not known for sure."""
_SAME_MOMENT_NS = 10**9
"""Clocks of file systems go in steps: what was written so shortly before may have been after."""


def execute(function: str, argument: dict[str, object]) -> int:
    """Call `module:function` with the argument.

    Returns its exit code (None is 0), 3 after an exception.
    """
    signal.signal(signal.SIGTERM, _leave)
    if function != _ENDS_WITH_READER:
        outlive_readers()
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


def code_of_own_modules(began_ns: int) -> Code:
    """The files of our own modules here, as they were when these were imported.

    Args:
        began_ns: When the first import began, in nanoseconds since 1970. What was written since
            need not be what was imported.
    """
    code: Code = {}
    for file in _own_files():
        told = marks(Path(file))
        # The last of them is when it was written.
        is_sure = bool(told) and told[-1] < began_ns - _SAME_MOMENT_NS
        code[file] = told if is_sure else ()
    return code


def is_edited(code: Code) -> bool:
    """Whether some of the files are not, or not for sure, what they were."""
    if not all(code.values()):
        return True
    return any(marks(Path(file)) != known for file, known in code.items())


def were_edited_since(began_ns: int) -> bool:
    """Whether the file of some of our own modules was, or may have been.

    Args:
        began_ns: In nanoseconds since 1970.
    """
    since = began_ns - _SAME_MOMENT_NS
    return any(_is_newer(Path(file), since) for file in _own_files())


def _is_newer(file: Path, since: int) -> bool:
    try:
        told = file.stat()
    except OSError:  # it is gone
        return True
    # The first tells of a file that was put in its place with a time of its own.
    return max(told.st_ctime_ns, told.st_mtime_ns) >= since


def look_for_modules_anew() -> None:
    """Have a module found that is new on disk.

    Not by `importlib.invalidate_caches`, which also forgets what is known of installed packages:
    that takes longer than the fork.
    """
    for folder, finder in list(sys.path_importer_cache.items()):
        if finder is None:
            # It was not there then.
            del sys.path_importer_cache[folder]
        elif isinstance(finder, FileFinder):
            finder.invalidate_caches()


def forget_own_modules() -> None:
    """Drop our own modules, so that the next import reads the code that is on disk now."""
    for name in _own_modules():
        del sys.modules[name]


def have_no_input() -> None:
    """Give this process nothing to read, as of a program that is started without a terminal."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _own_files() -> list[str]:
    files = [getattr(sys.modules[name], "__file__", None) for name in _own_modules()]
    return [file for file in files if file]


def _own_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in OWN_PACKAGES]


def end(code: int) -> NoReturn:
    """Leave without the exit handlers of libraries.

    In a forked process they wait for threads that it never had.
    """
    try:
        logging.shutdown()
        _remove_generated_code()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        # Whatever has failed: a forked child must not go on as its server.
        os._exit(code)


def _remove_generated_code() -> None:
    """Delete the files of code that TensorFlow has generated, which it does in an exit handler."""
    # By name first: to ask all for their file takes longer than many a command, as some are loaded
    # only when they are asked for anything.
    # Of a copy, which is made at once: threads may be importing still.
    names = list(sys.modules)
    for name in [name for name in names if name.startswith(_GENERATED)]:
        if file := getattr(sys.modules[name], "__file__", None):
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
