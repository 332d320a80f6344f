"""The environment `.venv`: everything of requirements.lock, Horovod, and this project itself."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tools.setup import cuda, horovod, machine
from tools.setup.console import ROOT, VENV, SetupError, run, step
from tools.setup.uv import uv, variables

LOCK = ROOT / "requirements.lock"
RUNTIME_LOCK = ROOT / "runtime.lock"
"""The part of it that no test and no check needs."""
KUBERNETES_LOCK = Path(__file__).with_name("kubernetes.lock")
"""What Airflow's KubernetesExecutor needs beside that part."""
_PYTHON = VENV / "bin" / "python"
_UNFINISHED = VENV / ".unfinished"
"""There while packages are being installed: a later set-up that finds it knows that some may be
half there."""
_COMPILE = """
import compileall, re, sys
others_tests = re.compile("site-packages/.*/tests/")
for folder in sys.argv[1:]:
    compileall.compile_dir(folder, rx=others_tests, quiet=2, workers=0)
"""
"""Here and now: where PYTHONDONTWRITEBYTECODE is set, every later start would compile again. Some
files never compile."""
_OWN_PACKAGES = ("pipelines", "jobs", "expectations", "features", "dags", "plugins", "nightshift")
"""Which are not in `.venv`."""
_BUILD_TOOLS = ("setuptools", "wheel", "packaging")
"""What Horovod, and this project itself, are built with."""


def install_packages(lock: Path, *, gpu: bool = False, kubernetes: bool = False) -> None:
    """Bring the packages of `.venv` to what the lock says, in place where that is safe.

    Args:
        lock: `LOCK` or `RUNTIME_LOCK`.
        gpu: NVIDIA's libraries too.
        kubernetes: What Airflow's KubernetesExecutor needs too.

    Raises:
        SetupError: a step failed; the message says which command, and its last output.
    """
    program = uv()
    if not is_sound():
        _create(program)
    _UNFINISHED.touch()
    with step(f"installing the packages of {lock.name} (a few minutes the first time)"):
        asked = {cuda.LOCK: gpu, KUBERNETES_LOCK: kubernetes}
        _install_packages(program, lock, [one for one, is_asked in asked.items() if is_asked])
    # What comes between may fail, and takes nothing of this along.
    _UNFINISHED.unlink()


def complete(lock: Path, *, gpu: bool = False) -> None:
    """Add to these packages what is built here: Horovod, and this project itself.

    Args:
        lock: The one of the packages.
        gpu: Horovod with NCCL.

    Raises:
        SetupError: a step failed; the message says which command, and its last output.
    """
    program = uv()
    _UNFINISHED.touch()
    with step("installing Horovod (built in 2-3 minutes the first time)"):
        _install_horovod(program, lock, gpu=gpu)
    with step("installing the nightshift command"):
        _install_project(program)
    with step("compiling the modules to bytecode"):
        own = [ROOT / name for name in _OWN_PACKAGES]
        run([_PYTHON, "-c", _COMPILE, VENV / "lib", *own])
    with step("proving that Horovod works"):
        proof = horovod.PROOF_ON_GPUS if gpu else horovod.PROOF
        run([_PYTHON, "-c", proof], env=horovod.OF_PROOF)
    _UNFINISHED.unlink()


def is_sound() -> bool:
    """Whether `.venv` is finished and of this folder, and its Python runs and is one of ours."""
    activate = VENV / "bin" / "activate"
    if _UNFINISHED.exists() or not activate.exists():
        return False
    # An environment knows its own path, and breaks when its folder is moved.
    is_of_here = f"'{VENV}'" in activate.read_text()
    return is_of_here and machine.describe(str(_PYTHON)) is not None


def _create(program: str) -> None:
    python = machine.python()
    with step(f"creating .venv with {python}"):
        shutil.rmtree(VENV, ignore_errors=True)
        run([program, "venv", "--python", python, VENV], env=variables())


def _install_packages(program: str, lock: Path, others: list[Path]) -> None:
    # Packages without a wheel are built by these tools, not by what the index offers that day.
    tools = _pins(lock.read_text(), _BUILD_TOOLS)
    locked = ("--require-hashes", "--no-deps", "--constraint", lock)
    _pip(program, "install", *locked, *tools)
    _pip(program, "sync", "--require-hashes", "--no-build-isolation", lock, *others)


def _install_horovod(program: str, lock: Path, *, gpu: bool) -> None:
    scratch = VENV / "horovod-headers"
    tensorflow = "".join(_pins(lock.read_text(), ("tensorflow",)))
    env = horovod.variables(horovod.headers(_PYTHON, scratch))
    if gpu:
        env |= horovod.variables_for_gpus(_PYTHON, scratch)
    try:
        _pip(program, "install", *horovod.options(tensorflow, gpu=gpu), env=env)
    except SetupError as error:
        # Not refused before: uv may have it built already.
        if " " not in str(ROOT):
            raise
        raise SetupError(
            f"{error}\nHorovod is not built where a path has a blank, as {ROOT} has: clone into "
            "another folder."
        ) from None


def _install_project(program: str) -> None:
    alone = ("--offline", "--no-deps", "--no-build-isolation")
    _pip(program, "install", *alone, "--editable", ROOT)


def _pip(
    program: str,
    command: str,
    *arguments: str | Path,
    env: dict[str, str] | None = None,
) -> None:
    words = [program, "pip", command, "--python", _PYTHON, *arguments]
    run(words, env={**variables(), **(env or {})})


def _pins(lock: str, names: tuple[str, ...]) -> list[str]:
    """The `name==version` of these packages."""
    found = (re.search(rf"^{name}==[^ ]+", lock, re.MULTILINE) for name in names)
    return [pin.group(0) for pin in found if pin]
