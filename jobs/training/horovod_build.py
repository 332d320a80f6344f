"""What the installed Horovod was built with, without importing TensorFlow, which takes seconds.

`python -m jobs.training.horovod_build` prints it as JSON: a process of its own, because a library
that does not fit kills who loads it.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from pathlib import Path

_PARTS = ("nccl", "gloo", "mpi", "cuda")
_NEEDED = ("libtensorflow_framework.so*", "libtensorflow_cc.so*")
"""Its symbols are in them, and they in each other: in this order."""


def parts(path: Sequence[str] = sys.path) -> dict[str, bool]:
    """Which of NCCL, Gloo, MPI and CUDA it has.

    Raises:
        OSError: it is not installed, or does not fit the TensorFlow beside it.
    """
    for pattern in _NEEDED:
        ctypes.CDLL(str(_library(path, "tensorflow", pattern)), ctypes.RTLD_GLOBAL)
    horovod = ctypes.CDLL(str(_library(path, "horovod", "tensorflow/mpi_lib*.so")))
    return {part: bool(getattr(horovod, f"horovod_{part}_built")()) for part in _PARTS}


def _library(path: Sequence[str], package: str, pattern: str) -> Path:
    for folder in path:
        for found in sorted((Path(folder) / package).glob(pattern)):
            return found
    raise OSError(f"no {package}/{pattern} in {', '.join(path)}")


if __name__ == "__main__":
    print(json.dumps(parts()))
