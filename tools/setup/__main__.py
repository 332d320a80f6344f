"""`make setup`: brings this checkout to where everything runs.

Quick when nothing is to do, safe to interrupt and to run twice at once.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tools.setup import classes, cuda, environment, jars, lock, machine
from tools.setup.console import ROOT, TOOLS, VENV, SetupError, fail, say

_STAMP = VENV / ".set-up"


def main() -> int:
    """Set up what is asked for; the exit code."""
    asked = argparse.ArgumentParser(prog="make setup", description=__doc__)
    asked.add_argument(
        "--services",
        action="store_true",
        help="also Chromium and PostgreSQL, which some tests need",
    )
    asked.add_argument(
        "--runtime",
        action="store_true",
        help="without what only tests and checks need, as an image has it",
    )
    asked.add_argument(
        "--gpu",
        action="store_true",
        help="for GPUs: NVIDIA's libraries, and Horovod built with NCCL, which needs nvcc",
    )
    asked.add_argument(
        "--kubernetes",
        action="store_true",
        help="with --runtime: also what Airflow's KubernetesExecutor needs, as an image has it "
        "where it is asked for; without it is there",
    )
    asked.add_argument(
        "--lock",
        action="store_true",
        help="resolve requirements.in and runtime.in anew into their locks, and do no more",
    )
    options = asked.parse_args()
    try:
        with _alone():
            if options.lock:
                lock.resolve()
                return 0
            packages = environment.RUNTIME_LOCK if options.runtime else environment.LOCK
            _set_up(packages, gpu=options.gpu, kubernetes=options.kubernetes)
            if options.services:
                machine.provide_services()
    except SetupError as error:
        return fail(error)
    except KeyboardInterrupt:
        return fail(
            SetupError("interrupted. The next `make setup` repairs what was left half done.")
        )
    return 0


def _set_up(packages: Path, *, gpu: bool, kubernetes: bool) -> None:
    wanted = fingerprint(ROOT, packages.name, gpu=gpu, kubernetes=kubernetes)
    if _is_done(wanted):
        return
    if gpu:
        # Before anything changes: what is there may train on.
        cuda.require_compiler()
    started = time.monotonic()
    # What is interrupted from here on must be done again.
    _STAMP.unlink(missing_ok=True)
    machine.provide([machine.JAVA, machine.COMPILER])
    environment.install_packages(packages, gpu=gpu, kubernetes=kubernetes)
    jars.make()
    with _sharing_classes(packages):
        environment.complete(packages, gpu=gpu)
    _STAMP.write_text(wanted)
    say(f"setup: ready after {time.monotonic() - started:.0f} s")


@contextmanager
def _sharing_classes(packages: Path) -> Iterator[None]:
    """Let Java write down Spark's classes beside the block, whose compiler leaves it time.

    An image has no such archive, which has 220 MB.
    """
    if packages == environment.RUNTIME_LOCK:
        yield
        return
    with ThreadPoolExecutor(1) as beside:
        made = beside.submit(classes.share)
        yield
        made.result()


def _is_done(wanted: str) -> bool:
    if not _STAMP.exists() or _STAMP.read_text() != wanted:
        return False
    # What lies outside `.venv` may have gone since.
    has_java = shutil.which(machine.java_program()) is not None
    return has_java and (VENV / "bin" / "python").exists()


def fingerprint(
    root: Path,
    packages: str = environment.LOCK.name,
    *,
    gpu: bool = False,
    kubernetes: bool = False,
) -> str:
    """What a finished set-up is the result of.

    A checksum over the folder's place and everything that set-up reads.

    Args:
        root: The folder.
        packages: Name of the lock of packages in it.
        gpu: Whether it was made for GPUs.
        kubernetes: Whether it was made for Airflow's KubernetesExecutor.
    """
    packaging = _packaging((root / "pyproject.toml").read_text())
    seen = hashlib.sha256(f"{root}\n{packaging}".encode())
    if gpu:
        seen.update(b"gpu")
    if kubernetes:
        seen.update(b"kubernetes")
    own_files = sorted((root / "tools" / "setup").iterdir())
    for path in [root / packages, *own_files]:
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).digest()
            seen.update(path.name.encode() + b"\0" + content)
    return seen.hexdigest()


def _packaging(pyproject: str) -> str:
    """The tables that make the installed project.

    A change of a linter's rules asks for no set-up.
    """
    tables = re.split(r"^(?=\[)", pyproject, flags=re.MULTILINE)
    packaging = ("[build-system", "[project", "[tool.setuptools")
    return "".join(table for table in tables if table.startswith(packaging))


@contextmanager
def _alone() -> Iterator[None]:
    """Hold set-up's lock.

    A second set-up of this folder waits until the first, and every command that it ran, is over.
    """
    TOOLS.mkdir(exist_ok=True)
    (TOOLS / ".gitignore").write_text("*\n")
    with (TOOLS / "lock").open("w") as held:
        # Not the lock of jobs/services/locks.py: this runs before anything is installed, and the
        # commands that it runs keep the lock when this process is killed.
        os.set_inheritable(held.fileno(), True)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("setup: waiting for another set-up of this folder to end ...")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
