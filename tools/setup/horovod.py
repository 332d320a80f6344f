"""Builds Horovod 0.28.1 against TensorFlow 2.21, which it does not know.

Upstream calls TensorFlow 2.16 and later unsupported: horovod issue 4290. Three things stop the
build: it includes `tensorflow/compiler/xla/client/xla_builder.h`, which has moved; two libraries'
headers are in folders of their own in TensorFlow's wheel; and for GPUs it calls a function that
TensorFlow has no more. Our file in the place of the first, which one source includes, mends that
and the last: horovod_xla_builder.h. Another, gloo_epoll.h, halves the time of an exchange; and by
gloo_netdb.h ranks find each other whatever this machine is called.

Delete the headers when a Horovod release builds on the TensorFlow of requirements.lock without
them; pin Horovod in requirements.in and delete this file when it also has wheels.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from tools.setup import cuda
from tools.setup.console import SetupError

LOCK = Path(__file__).with_name("horovod.lock")
_COMPILING = Path(__file__).with_name("horovod.cmake")
_HEADERS = {
    "horovod_xla_builder.h": "tensorflow/compiler/xla/client/xla_builder.h",
    "gloo_epoll.h": "sys/epoll.h",
    "gloo_netdb.h": "netdb.h",
}
"""Our files, and in the place of which headers they are compiled."""
_BUILD = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "MAKEFLAGS": f"-j{os.cpu_count() or 2}",  # its own default, 8 compilers at once, needs 8 GiB
    "CMAKE_TOOLCHAIN_FILE": str(_COMPILING),
}
PROOF = "import horovod.tensorflow as hvd; hvd.init(); assert hvd.size() == 1 and hvd.gloo_built()"
"""Python that fails unless what was installed works."""
OF_PROOF = {"HOROVOD_HOSTNAME": "localhost", "HOROVOD_GLOO_IFACE": "lo"}
"""Variables for it: this machine's own name need not have an address."""
PROOF_ON_GPUS = f"{PROOF} and hvd.nccl_built()"
"""The same of a build for GPUs; it needs none."""


def headers(python: Path, folder: Path) -> list[Path]:
    """The folders of headers that the build needs, in order.

    `folder` is made the one with our files in the place of headers.
    """
    for own, header in _HEADERS.items():
        place = folder / header
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(_own(own))
    external = _tensorflow(python) / "include" / "external"
    return [folder, external / "highwayhash", external / "farmhash_archive" / "src"]


def _own(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()


def _tensorflow(python: Path) -> Path:
    # Found, not imported: an import takes seconds.
    find = (
        "import importlib.util as u; print(u.find_spec('tensorflow').submodule_search_locations[0])"
    )
    asked = subprocess.run([str(python), "-c", find], stdout=subprocess.PIPE)
    if asked.returncode:
        raise SetupError(
            "TensorFlow is not installed in .venv, though requirements.lock was. "
            "Remove .venv and set up again."
        )
    return Path(asked.stdout.decode().strip())


def options(tensorflow: str, *, gpu: bool = False) -> list[str]:
    """Options of `uv pip install`.

    The setting names what uv's cached build was made for: another one is never taken for it.
    """
    compiled = hashlib.sha256(b"".join(map(_own, _HEADERS)))
    made_for = f"{tensorflow},{compiled.hexdigest()[:12]},gloo"
    if gpu:
        made_for += f",nccl,{cuda.version(cuda.home())}"
    locked = ["--require-hashes", "--no-deps", "--requirement", str(LOCK)]
    build = ["--no-build-isolation", "--config-setting", f"nightshift-build={made_for}"]
    return [*locked, *build]


def variables(folders: list[Path]) -> dict[str, str]:
    """Variables of the build."""
    searched = [str(folder) for folder in folders]
    given = os.environ.get("CPLUS_INCLUDE_PATH")
    if given:
        searched.append(given)
    return {**_BUILD, "CPLUS_INCLUDE_PATH": os.pathsep.join(searched)}


def variables_for_gpus(python: Path, folder: Path) -> dict[str, str]:
    """What a build for GPUs adds to these."""
    return cuda.variables(_tensorflow(python).parent, folder)
