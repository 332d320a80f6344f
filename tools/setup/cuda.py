"""What Horovod with NCCL is built with: NVIDIA's compiler, and NCCL of TensorFlow's own wheels.

The compiler is this machine's: none of CUDA 12 is on PyPI. CUDA's runtime is linked statically, and
asks for the driver when a GPU is used first: without one Horovod loads, and trains on processors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tools.setup.console import SetupError

LOCK = Path(__file__).with_name("gpu.lock")
"""NVIDIA's libraries that TensorFlow needs on a GPU, and TensorFlow as in the other locks."""
_INSTALL = (
    "Install it (Debian: nvidia-cuda-toolkit, which is in non-free; NVIDIA's archive: "
    "cuda-nvcc-12-* and cuda-cudart-dev-12-*), or set CUDA_HOME to the folder of CUDA 12 or 11.8."
)
_OF_NVIDIA = Path("/usr/local/cuda")
"""Where NVIDIA's own packages and images put it, not always on PATH."""
_HOST_COMPILERS = ("g++", "g++-14", "g++-13", "g++-12", "g++-11")
"""nvcc compiles by another compiler, and refuses those that are newer than itself."""


def require_compiler() -> None:
    """Refuse a machine on which Horovod with NCCL cannot be built.

    Raises:
        SetupError: no nvcc, or no C++ compiler that it takes; the message says what to install.
    """
    host_compiler(home())


def home() -> Path:
    """The folder of CUDA: that of CUDA_HOME, else of the nvcc on PATH.

    Raises:
        SetupError: there is no nvcc.
    """
    given = os.environ.get("CUDA_HOME")
    on_path = shutil.which("nvcc")
    folder = Path(given) if given else Path(on_path).parents[1] if on_path else _OF_NVIDIA
    if (folder / "bin" / "nvcc").exists():
        return folder
    where = f"in CUDA_HOME={given}" if given else f"on PATH or in {_OF_NVIDIA}"
    raise SetupError(
        f"No CUDA compiler (nvcc) was found {where}; Horovod with NCCL is built with it. {_INSTALL}"
    )


def host_compiler(folder: Path) -> str:
    """The C++ compiler that nvcc takes: that of CXX, else the first on PATH.

    Raises:
        SetupError: it takes none; the message says why.
    """
    given = os.environ.get("CXX")
    names = (given,) if given else _HOST_COMPILERS
    # By their paths: Debian's nvcc takes a plain g++ for one of its own choice.
    there = [path for path in map(shutil.which, names) if path]
    refusals = [_refusal(folder, path) for path in there]
    for path, refusal in zip(there, refusals, strict=True):
        if not refusal:
            return path
    tried = ", ".join(there) or ", ".join(names)
    why = "".join(refusals[:1])
    raise SetupError(
        f"{folder / 'bin' / 'nvcc'} compiles by none of {tried}: {why or 'none is on PATH'}\n"
        "Install an older C++ compiler beside it (Debian: g++-11), or CUDA's headers "
        "(NVIDIA's archive: cuda-cudart-dev-12-*). CXX names the compiler."
    )


def _refusal(folder: Path, compiler: str) -> str:
    """The first error of compiling an empty file, which includes CUDA's headers; empty: none."""
    program = str(folder / "bin" / "nvcc")
    words = [program, "-ccbin", compiler, "-x", "cu", "-E", os.devnull]
    asked = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if not asked.returncode:
        return ""
    said = asked.stderr.decode(errors="replace").splitlines()
    errors = [line for line in said if "error" in line]
    return (errors or said or [f"exit code {asked.returncode}"])[0]


def version(folder: Path) -> str:
    """What nvcc says that it is: another one's build is never taken for this one's."""
    words = [str(folder / "bin" / "nvcc"), "--version"]
    asked = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    last = asked.stdout.decode().strip().splitlines()[-1:]
    return "".join(last).removeprefix("Build ")


def variables(packages: Path, scratch: Path) -> dict[str, str]:
    """Variables of a build of Horovod for GPUs.

    Args:
        packages: The folder that TensorFlow and NCCL are installed in.
        scratch: A folder of ours.

    Raises:
        SetupError: NCCL is not installed there, or there is no compiler.
    """
    nccl = packages / "nvidia" / "nccl"
    if not (nccl / "include" / "nccl.h").exists():
        raise SetupError(
            f"NCCL's headers are not in .venv (nccl.h), though {LOCK.name} names nvidia-nccl-cu12. "
            "Remove .venv and set up again."
        )
    # The wheel has the library without the name that a linker looks for.
    linked = scratch / "libnccl.so"
    linked.unlink(missing_ok=True)
    linked.symlink_to(nccl / "lib" / "libnccl.so.2")
    folder = home()
    return {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_CUDA_HOME": str(folder),
        "HOROVOD_NCCL_INCLUDE": str(nccl / "include"),
        "HOROVOD_NCCL_LIB": str(scratch),
        "HOROVOD_NCCL_LINK": "SHARED",
        "CXX": host_compiler(folder),
    }
