"""`make image-test`: what lies in the image of the platform, layer by layer.

No secret and nothing that somebody's build has kept aside in any layer, also where a later one
removes it; nothing that runs as another user than the one who starts it; nothing of ours that only
its owner can read; no larger than promised.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_IMAGE = "localhost/nightshift"
_MORE = ("GPU", "KUBERNETES")
"""Variables by which `make image` builds one with more, under a tag of its own."""
_MOST_BYTES = 3_600_000_000
_MOST_BYTES_OF_KUBERNETES = 3_700_000_000
"""With two clients of Kubernetes', of 89 MB together."""
_USER = "10001:10001"
_OURS = "opt/nightshift"
"""Of root, and run by another user."""
_KEPT_ASIDE = re.compile(
    r"(root|home/[^/]+)/\.cache/.|var/lib/apt/lists/.|var/cache/apt/.|tmp/.|var/log/.+"
)
_SECRET_NAMES = re.compile(
    r"(.*/)?(\.env|\.netrc|\.pypirc|\.git-credentials|id_(rsa|ed25519|ecdsa)|credentials)"
)
_SECRET_VARIABLES = re.compile(r"\w*(PASSWORD|SECRET|TOKEN|CREDENTIAL)\w*=.")
_PRIVATE_KEY = re.compile(
    rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}", re.MULTILINE
)
_KEY_BYTES = 100_000
"""Larger files are no keys."""
_REMOVED = ".wh."
"""Begins the name of an entry that removes what an earlier layer has."""
_ALL_REMOVED = ".wh..wh..opq"
"""Removes all that earlier layers have in its folder."""


def main() -> int:
    """Judge the image; returns 0 where nothing is wrong with it."""
    image = built(os.environ)
    with TemporaryDirectory(prefix="nightshift-") as folder:
        archive = Path(folder) / "image.tar"
        if not _save(image, archive):
            return 3
        size, faults = judge(archive, most_bytes(image))
    print(f"{image}: {size / 1e9:.2f} GB")
    for fault in faults:
        print(f"  {fault}", file=sys.stderr)
    if not faults:
        print("No secret, cache or other's right in any layer.")
    return 1 if faults else 0


def built(told: Mapping[str, str]) -> str:
    """The image that `make image` builds where these variables are told."""
    tag = "-".join(name.lower() for name in _MORE if told.get(name))
    return told.get("NIGHTSHIFT_IMAGE") or f"{_IMAGE}:{tag or 'latest'}"


def most_bytes(image: str) -> int | None:
    """How many bytes that image may have; None: any number."""
    tag = image.rpartition(":")[2]
    if tag.startswith("gpu"):
        # It has NVIDIA's libraries.
        return None
    return _MOST_BYTES_OF_KUBERNETES if tag == "kubernetes" else _MOST_BYTES


def judge(archive: Path, most: int | None) -> tuple[int, list[str]]:
    """How many bytes the layers of a saved image have, and what is wrong with it.

    Args:
        archive: As `docker save` writes it.
        most: How many bytes it may have; None: any number.
    """
    with tarfile.open(archive) as saved:
        (described,) = json.load(_content(saved, "manifest.json"))
        config = json.load(_content(saved, described["Config"]))["config"]
        faults = list(_faults_of_config(config))
        modes: dict[str, int] = {}
        size = 0
        for number, name in enumerate(described["Layers"], 1):
            with tarfile.open(fileobj=_content(saved, name)) as layer:
                members = layer.getmembers()
                size += sum(member.size for member in members)
                modes = _laid(modes, members)
                told = [_fault(layer, member) for member in members]
                faults += [f"layer {number}: {fault}" for fault in told if fault]
    faults += _faults_of_modes(modes)
    if most is not None and size > most:
        faults.append(f"it has {size / 1e9:.2f} GB, more than {most / 1e9:g}")
    return size, faults


def _faults_of_modes(modes: dict[str, int]) -> Iterator[str]:
    for path, mode in modes.items():
        # Of a folder such a bit says whose its files are.
        if mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISDIR(mode):
            yield f"{path} runs with the rights of its owner or group"
        is_ours = path == _OURS or path.startswith(f"{_OURS}/")
        if is_ours and _is_closed(mode):
            yield f"{path} is closed to others than its owner"


def _is_closed(mode: int) -> bool:
    """Whether others may not read, or run, what its owner may; of a link nothing is asked."""
    owners = (mode >> 6) & (stat.S_IROTH | stat.S_IXOTH)
    return not stat.S_ISLNK(mode) and mode & owners != owners


def _content(saved: tarfile.TarFile, name: str) -> Any:
    found = saved.extractfile(name)
    assert found is not None, f"{name} is no file"
    return found


def _faults_of_config(config: dict[str, Any]) -> Iterator[str]:
    if config.get("User") != _USER:
        yield f"it runs as user {config.get('User')!r}, not {_USER}"
    for variable in config.get("Env") or ():
        if _SECRET_VARIABLES.match(variable):
            yield f"its variable {variable.partition('=')[0]} has a value"


def _laid(
    below: dict[str, int],
    layer: list[tarfile.TarInfo],
) -> dict[str, int]:
    """The files of a layer and of those below it, with their modes; folders and links as such."""
    modes = dict(below)
    own = {}
    for member in layer:
        path = Path(_path(member))
        if path.name == _ALL_REMOVED:
            _remove(modes, f"{path.parent}/")
        elif path.name.startswith(_REMOVED):
            removed = str(path.with_name(path.name.removeprefix(_REMOVED)))
            modes.pop(removed, None)
            _remove(modes, f"{removed}/")
        else:
            own[str(path)] = _mode(member)
    return {**modes, **own}


def _mode(member: tarfile.TarInfo) -> int:
    if member.issym():
        # In the place of a file it has none of its rights.
        return stat.S_IFLNK
    return member.mode | stat.S_IFDIR if member.isdir() else member.mode


def _remove(modes: dict[str, int], folder: str) -> None:
    for path in [one for one in modes if one.startswith(folder)]:
        del modes[path]


def _path(member: tarfile.TarInfo) -> str:
    """From the root: some programs begin it with `./`, and others do not."""
    return member.name.removeprefix("./")


def _fault(layer: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    # Debian's own images have empty logs, for programs that would not make them.
    if not member.isfile() or not member.size:
        return None
    path = _path(member)
    if _KEPT_ASIDE.match(path):
        return f"{path} was kept aside by a build"
    if _SECRET_NAMES.fullmatch(path):
        return f"{path} is named like a secret"
    if member.size < _KEY_BYTES and _holds_key(layer, member.name):
        return f"{path} holds a private key"
    return None


def _holds_key(layer: tarfile.TarFile, name: str) -> bool:
    content = _content(layer, name).read()
    return _PRIVATE_KEY.search(content) is not None


def _save(image: str, archive: Path) -> bool:
    """Save an image by the program that has it; whether one has."""
    ways = (
        ["docker", "save", "--output", str(archive), image],
        ["podman", "save", "--output", str(archive), image],
        ["buildah", "push", image, f"docker-archive:{archive}"],
    )
    said = []
    for words in ways:
        if shutil.which(words[0]) is None:
            continue
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        if ended.returncode == 0:
            return True
        said.append(ended.stderr.strip()[-500:])
        archive.unlink(missing_ok=True)
    why = said or ["neither docker, podman nor buildah is on PATH"]
    print(f"{image} could not be saved (`make image` builds it): {'; '.join(why)}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
