"""What this machine must bring along: a Python, Java, a C++ compiler.

For some tests, Chromium, PostgreSQL and the program ip.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.setup.console import SetupError, run, say, step

PYTHONS = ((3, 11), (3, 12), (3, 13))
JAVA_VERSION = 17
"""The oldest that Spark 4 runs on."""
POSTGRES = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs of PostgreSQL's server, a folder a version, and not on PATH."""
_JAVA_SECONDS = 60
"""A Java that has not told its version by then does not run."""


@dataclass(frozen=True)
class Need:
    """Something that no Python package brings."""

    name: str
    problem: Callable[[], str]
    """What is wrong now; empty when nothing is."""
    packages: tuple[str, ...]
    """Debian's packages that bring it, the first that is known there is taken."""


def java_program() -> str:
    """Java's program: that of JAVA_HOME, else the one that PATH leads to."""
    home = os.environ.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else "java"


def provide(needs: Sequence[Need]) -> None:
    """Make sure of the needs, by apt-get where that is possible.

    Raises:
        SetupError: something is missing still; the message says what to install.
    """
    missing = [need for need in needs if need.problem()]
    if missing and can_install():
        packages = [name for name in map(_known_package, missing) if name]
        _install(packages, ", ".join(need.name for need in missing))
    problems = [need.problem() for need in missing]
    if any(problems):
        raise SetupError("\n".join(filter(None, problems)))


def can_install() -> bool:
    """Whether apt-get is there and this user may use it."""
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def _known_package(need: Need) -> str | None:
    if not any(map(_is_known, need.packages)):
        run(["apt-get", "update", "-q"])
    return next(filter(_is_known, need.packages), None)


def _is_known(package: str) -> bool:
    command = ["apt-cache", "show", package]
    shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return shown.returncode == 0 and bool(shown.stdout)


def _install(packages: Sequence[str], what: str) -> None:
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]
    with step(f"installing {what} with apt-get ({' '.join(packages)})"):
        # What an interrupted install left half done would stop this one.
        run(["dpkg", "--configure", "-a"], env=quiet)
        try:
            run(install, env=quiet)
        except SetupError:
            # The lists may be older than the archive.
            run(["apt-get", "update", "-q"])
            run(install, env=quiet)


def java_version(java: str) -> int | None:
    """The major version that a Java says it is; None when it does not run."""
    try:
        asked = subprocess.run(
            [java, "-version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_JAVA_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Up to Java 8 the major version is the second number: 1.8.0.
    major = re.search(r'version "(?:1\.)?(\d+)', asked.stdout.decode(errors="replace"))
    return int(major.group(1)) if major else None


def _java_problem() -> str:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    version = java_version(java) if java else None
    if version is not None and version >= JAVA_VERSION:
        return ""
    needs = f"Spark needs {JAVA_VERSION} or newer"
    install = f"Install a Java {JAVA_VERSION} runtime (Debian: openjdk-17-jre-headless)"
    if home:
        return (
            f"JAVA_HOME={home} holds {_named(version)}; {needs}. "
            f"{install} and set JAVA_HOME to it, or unset JAVA_HOME."
        )
    if java:
        return f"{java} is {_named(version)}; {needs}. {install} and set JAVA_HOME to it."
    return f"No Java was found, neither by JAVA_HOME nor on PATH. {install}."


def _named(version: int | None) -> str:
    return f"Java {version}" if version else "no Java that runs"


def _compiler_problem() -> str:
    compiler = os.environ.get("CXX", "g++").split()[0]
    if shutil.which(compiler) and shutil.which("make"):
        return ""
    return (
        f"No C++ compiler ('{compiler}') with make was found; Horovod is built with it. "
        "Install both (Debian: build-essential)."
    )


def _chromium_problem() -> str:
    if shutil.which("chromium"):
        return ""
    return "No 'chromium' is on PATH; the browser test needs it. Install it (Debian: chromium)."


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server and `initdb`, of the newest version; None: there is none.

    On PATH first, then where Debian keeps them.
    """
    found = shutil.which("initdb")
    on_path = [Path(found).resolve().parent] if found else []
    of_debian = sorted(POSTGRES.glob("[0-9]*/bin"), key=_version, reverse=True)
    for folder in [*on_path, *of_debian]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _version(folder: Path) -> float:
    return float(folder.parent.name)


def _postgres_problem() -> str:
    if postgres_programs():
        return ""
    return (
        "No PostgreSQL server (initdb, postgres) was found; the tests of the warehouse need it. "
        "Install it (Debian: postgresql)."
    )


def _ip_problem() -> str:
    if shutil.which("ip"):
        return ""
    return "No 'ip' is on PATH; tests with several hosts need it. Install it (Debian: iproute2)."


JAVA = Need(
    "Java",
    _java_problem,
    ("openjdk-17-jre-headless", "openjdk-21-jre-headless", "default-jre-headless"),
)
COMPILER = Need("a C++ compiler", _compiler_problem, ("build-essential",))
CHROMIUM = Need("Chromium", _chromium_problem, ("chromium",))
POSTGRESQL = Need("PostgreSQL", _postgres_problem, ("postgresql",))
IP = Need("ip", _ip_problem, ("iproute2",))


def python() -> Path:
    """A Python that the environment can be made of, with the headers that Horovod is built against.

    Raises:
        SetupError: there is none; the message says which versions would do.
    """
    provide([Need("Python", _python_problem, ("python3-dev",))])
    for path, _, has_headers in _pythons():
        if has_headers:
            return path
    path, version, _ = next(_pythons())
    headers = Need(
        f"the headers of Python {version}",
        lambda: _headers_problem(path),
        (f"python{version}-dev",),
    )
    provide([headers])
    return path


def _python_problem() -> str:
    if any(_pythons()):
        return ""
    wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    return (
        f"No Python {wanted} is on PATH. "
        "Install one, with its headers (Debian: python3 python3-dev)."
    )


def _headers_problem(path: Path) -> str:
    described = describe(str(path))
    if described and described[2]:
        return ""
    return (
        f"{path} has no headers (Python.h), which Horovod is built against. "
        "Install them (Debian: python3-dev)."
    )


def _pythons() -> Iterator[tuple[Path, str, bool]]:
    numbered = [f"python{major}.{minor}" for major, minor in PYTHONS]
    for name in [sys.executable, "python3", *numbered]:
        described = describe(name)
        if described:
            yield described


# `describe` runs it with a Python that is not this one; it prints four lines.
_DESCRIBE = """
import os, sys, sysconfig
header = sysconfig.get_path("include") + "/Python.h"
program, version = os.path.realpath(sys.executable), sys.version_info[:2]
print(program, *version, os.path.exists(header), sep="\\n")
"""


def describe(python_name: str) -> tuple[Path, str, bool] | None:
    """Path, version and whether the headers are there.

    None when it does not run or is no version of ours.
    """
    if not shutil.which(python_name):
        return None
    command = [python_name, "-c", _DESCRIBE]
    asked = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said = asked.stdout.decode().splitlines()
    if len(said) != 4:
        return None
    program, major, minor, has_headers = said
    if (int(major), int(minor)) not in PYTHONS:
        return None
    return Path(program), f"{major}.{minor}", has_headers == "True"


def provide_services() -> None:
    """Make sure of what some tests run beside them; those are skipped without it, but not in CI.

    Raises:
        SetupError: some of it cannot be had, and this is CI.
    """
    problems = []
    for need in (CHROMIUM, POSTGRESQL, IP):
        # One by one: what can be had is had, whatever else cannot.
        try:
            provide([need])
        except SetupError as error:
            problems.append(str(error))
    if not problems:
        return
    told = "\n".join(problems)
    if os.environ.get("CI"):
        raise SetupError(told)
    say(f"setup: the tests that need it will be skipped. {told}")
