"""What is said of an image: each fault by its name, in whatever layer it lies."""

from __future__ import annotations

import io
import json
import stat
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tools.image_test import _faults_of_modes, _laid, built, judge, most_bytes

_CONFIG = {"User": "10001:10001", "Env": ["PATH=/usr/bin", "NIGHTSHIFT_HOME=/var/lib/nightshift"]}
_KEY = b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 64 + b"\n-----END PRIVATE KEY-----\n"
Layer = Mapping[str, tuple[bytes, int]]
"""Path -> what is in the file, and its mode."""


def _tar(files: Layer) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _saved(
    folder: Path,
    layers: Sequence[Layer],
    config: Mapping[str, object],
) -> Path:
    names = [f"{number}.tar" for number, _ in enumerate(layers)]
    described = [{"Config": "config.json", "Layers": names}]
    parts = {
        "manifest.json": json.dumps(described).encode(),
        "config.json": json.dumps({"config": config}).encode(),
        **{name: _tar(layer) for name, layer in zip(names, layers, strict=True)},
    }
    archive = folder / "image.tar"
    files = {name: (part, 0o644) for name, part in parts.items()}
    archive.write_bytes(_tar(files))
    return archive


def _judged(folder: Path, layers: Sequence[Layer]) -> tuple[int, list[str]]:
    return judge(_saved(folder, layers, _CONFIG), None)


def test_an_image_without_a_fault_is_told_by_its_size(tmp_path: Path) -> None:
    layers: list[Layer] = [
        {"./usr/bin/su": (b"su", 0o4755), "etc/ssl/certs/a.pem": (b"a certificate", 0o644)},
        {"usr/bin/su": (b"su", 0o755), "usr/bin/mount": (b"", 0o2755)},
        {"usr/bin/.wh.mount": (b"", 0o644), "opt/old/passwd": (b"", 0o4755)},
        {"opt/old/.wh..wh..opq": (b"", 0o644), "var/log/btmp": (b"", 0o660)},
    ]
    assert _judged(tmp_path, layers) == (17, [])


@pytest.mark.parametrize(
    ("path", "content", "mode", "told"),
    [
        ("usr/bin/su", b"", 0o4755, "usr/bin/su runs with the rights"),
        ("usr/bin/wall", b"", 0o2755, "usr/bin/wall runs with the rights"),
        ("root/.cache/uv/a.whl", b"1", 0o644, "layer 1: root/.cache/uv/a.whl was kept aside"),
        ("var/lib/apt/lists/main", b"1", 0o644, "layer 1: var/lib/apt/lists/main was kept aside"),
        ("./tmp/build.log", b"1", 0o644, "layer 1: tmp/build.log was kept aside"),
        ("opt/nightshift/.env", b"A=1", 0o644, "layer 1: opt/nightshift/.env is named like"),
        ("etc/any.pem", b"Mine:\n" + _KEY, 0o644, "layer 1: etc/any.pem holds a private key"),
    ],
)
def test_a_fault_is_told_with_its_path(
    path: str, content: bytes, mode: int, told: str, tmp_path: Path
) -> None:
    own: Layer = {path: (content, mode)}
    later: Layer = {"b": (b"", 0o644)}
    _, faults = _judged(tmp_path, [own, later])
    (fault,) = faults
    assert fault.startswith(told)


def test_what_a_later_layer_removes_is_told_too(tmp_path: Path) -> None:
    layers: list[Layer] = [
        {"root/.netrc": (b"a", 0o600)},
        {"root/.wh..netrc": (b"", 0o644)},
    ]
    _, faults = _judged(tmp_path, layers)
    assert faults == ["layer 1: root/.netrc is named like a secret"]


def test_who_runs_it_and_its_variables_are_judged(tmp_path: Path) -> None:
    config = {"User": "", "Env": ["STORE_PASSWORD=mine", "TOKENS=", "PATH=/bin"]}
    _, faults = judge(_saved(tmp_path, [], config), None)
    assert faults == [
        "it runs as user '', not 10001:10001",
        "its variable STORE_PASSWORD has a value",
    ]


def test_an_image_larger_than_promised_is_told(tmp_path: Path) -> None:
    archive = _saved(tmp_path, [{"a": (b"123", 0o644)}], _CONFIG)
    assert judge(archive, 3) == (3, [])
    size, faults = judge(archive, 2)
    assert size == 3
    assert len(faults) == 1
    assert faults[0].startswith("it has 0.00 GB, more than")


@pytest.mark.parametrize(
    ("told", "image", "most"),
    [
        ({"GPU": "", "KUBERNETES": ""}, "localhost/nightshift:latest", 3_600_000_000),
        ({"KUBERNETES": "1"}, "localhost/nightshift:kubernetes", 3_700_000_000),
        ({"GPU": "1"}, "localhost/nightshift:gpu", None),
        ({"GPU": "1", "KUBERNETES": "1"}, "localhost/nightshift:gpu-kubernetes", None),
        (
            {"KUBERNETES": "1", "NIGHTSHIFT_IMAGE": "ours:5000/n:1.4"},
            "ours:5000/n:1.4",
            3_600_000_000,
        ),
    ],
)
def test_the_image_that_was_asked_for_is_judged_by_what_it_may_have(
    told: dict[str, str], image: str, most: int | None
) -> None:
    assert built(told) == image
    assert most_bytes(image) == most


def test_a_hard_link_has_the_rights_of_its_file_and_a_symbolic_one_none(tmp_path: Path) -> None:
    linked, replaced = tarfile.TarInfo("usr/bin/b"), tarfile.TarInfo("usr/bin/c")
    linked.type, linked.linkname, linked.mode = tarfile.LNKTYPE, "usr/bin/a", 0o4755
    replaced.type, replaced.linkname, replaced.mode = tarfile.SYMTYPE, "a", 0o4777
    layer: Layer = dict.fromkeys(("usr/bin/a", "usr/bin/c"), (b"", 0o4755))
    laid = _laid({"usr/bin/c": 0o4755}, [linked, replaced])
    assert laid == {"usr/bin/b": 0o4755, "usr/bin/c": stat.S_IFLNK}
    assert len(_judged(tmp_path, [layer])[1]) == 2


@pytest.mark.parametrize(
    ("path", "mode", "is_closed"),
    [
        ("opt/nightshift/jobs/night.py", 0o600, True),
        ("opt/nightshift/jobs/night.py", 0o640, True),
        ("opt/nightshift/docker/slim.sh", 0o744, True),
        ("./opt/nightshift/jobs/night.py", 0o644, False),
        ("opt/nightshift/.venv/bin/nightshift", 0o755, False),
        # Others' files are others' matter.
        ("etc/shadow", 0o640, False),
        ("opt/nightshift-of-others/a", 0o600, False),
    ],
)
def test_what_is_ours_can_be_read_by_who_runs_it(
    path: str, mode: int, is_closed: bool, tmp_path: Path
) -> None:
    _, faults = _judged(tmp_path, [{path: (b"", mode)}])
    assert faults == [f"{path} is closed to others than its owner"] * is_closed


def test_what_a_later_layer_opens_is_open(tmp_path: Path) -> None:
    path = "opt/nightshift/jobs/night.py"
    closed: Layer = {path: (b"", 0o600)}
    opened: Layer = {path: (b"", 0o644)}
    assert _judged(tmp_path, [closed, opened]) == (0, [])


def test_a_folder_is_entered_by_others_and_a_link_is_where_it_leads() -> None:
    folder = tarfile.TarInfo("./opt/nightshift")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o2750
    link = tarfile.TarInfo("opt/nightshift/python")
    link.type, link.linkname = tarfile.SYMTYPE, "python3"
    link.mode = 0o700
    modes = _laid({}, [folder, link])
    (fault,) = _faults_of_modes(modes)
    assert fault == "opt/nightshift is closed to others than its owner"
