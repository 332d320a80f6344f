"""What landed files said is kept in the store, where every machine and Pod finds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.lake import publications
from jobs.lake.read_before import ReadBefore
from pipelines import places
from pipelines.environment import Environment
from tests.object_store.conftest import ObjectStore


def _home(folder: Path, bucket: str) -> Environment:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(folder)})
    return replace(environment, jobs=places.place(f"s3://{bucket}/jobs"))


def _read(environment: Environment, file: Path) -> str:
    """As a look that is over."""
    look = ReadBefore(environment, "tiny")
    digest = look.digest(file, 1)
    look.keep()
    return digest


def test_what_one_home_has_read_another_finds_unless_the_store_refuses(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = store.new_bucket()
    file = places.place(f"s3://{bucket}/landing/day.csv")
    file.write_bytes(b"rows")
    first, second = (_home(tmp_path / name, bucket) for name in ("first", "second"))
    store.fail("refused", path=".*/jobs/.*", method="PUT")
    told = _read(first, file)
    assert told == publications.digest_of_file(file)
    assert store.mend() == {"refused": 1}
    assert not (first.jobs / "landed-files-tiny.json").exists()
    _read(first, file)
    monkeypatch.delattr(publications, "digest_of_file")
    assert _read(second, file) == told
