"""What a training ran on: of it only the last bits of weights depend, and it is pinned for that."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pipelines.cores import cores
from pipelines.environment import Environment

_CPU_INFO = Path("/proc/cpuinfo")
_DEVICES = Path("/dev")
_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
"""By these libraries choose how to multiply and add."""
_VARIABLES = (
    *("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "TF_DETERMINISTIC_OPS", "XLA_FLAGS"),
    *("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "MKL_CBWR"),
)
"""By these a person changes what they choose. That TensorFlow repeats itself is set by our code,
which is pinned by its sources."""


def free_cores(environment: Environment) -> int:
    """How many cores trainings at once may keep busy.

    0 where there is a GPU, whose memory two trainings would share; and where ranks are elsewhere,
    whose cores and GPUs two trainings would take twice.
    """
    has_gpu = any(_DEVICES.glob("nvidia[0-9]*"))
    return 0 if has_gpu or environment.place_of_ranks else cores()


def machine() -> dict[str, object]:
    """This machine's processor and Python, and the variables that change how numbers are added."""
    told = _cpu_info()
    flags = told.get("flags", told.get("Features", "")).split()
    return {
        "architecture": platform.machine(),
        "cpu": told.get("model name", platform.processor()),
        "cpu_flags": [flag for flag in _FLAGS if flag in flags],
        "python": platform.python_version(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _cpu_info() -> dict[str, str]:
    """What the system tells of the first processor; nothing where it has no such file."""
    if not _CPU_INFO.exists():
        return {}
    first, _, _ = _CPU_INFO.read_text().partition("\n\n")
    told: dict[str, str] = {}
    for line in first.splitlines():
        name, _, value = line.partition(":")
        told[name.strip()] = value.strip()
    return told
