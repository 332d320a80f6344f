"""A table is opened once at a version, and never taken for another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from jobs.lake import opened


@pytest.fixture(autouse=True)
def _of_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "_KEPT", {})
    monkeypatch.setattr(opened, "_NEWEST", {})


@pytest.fixture
def place(tmp_path: Path) -> str:
    place = str(tmp_path / "table")
    _write(place, 0)
    return place


def _write(place: str, number: int) -> None:
    write_deltalake(place, pa.table({"number": [number]}), mode="append")


def _numbers(table: DeltaTable) -> list[int]:
    found: list[int] = table.to_pyarrow_table()["number"].to_pylist()
    return sorted(found)


def test_a_table_that_has_not_changed_is_opened_once(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened.newest(place)
    monkeypatch.delattr(opened, "DeltaTable")
    assert opened.newest(place) is first
    assert opened.at(place, 0) is first


def test_the_newest_version_is_that_of_whoever_wrote_last(place: str) -> None:
    first = opened.newest(place)
    _write(place, 1)
    _write(place, 2)
    assert _numbers(opened.newest(place)) == [0, 1, 2]
    assert _numbers(opened.at(place, 1)) == [0, 1]
    # Who holds a version is not led to another one.
    assert first.version() == 0 and _numbers(first) == [0]
    assert opened.at(place, 0) is first


def test_what_was_asked_at_an_old_version_is_not_the_newest(place: str) -> None:
    _write(place, 1)
    assert opened.at(place, 0).version() == 0
    assert opened.newest(place).version() == 1
    assert opened.at(place, 0).version() == 0
    assert opened.newest(place).version() == 1


def test_a_table_that_was_made_again_is_another_one(place: str) -> None:
    assert _numbers(opened.newest(place)) == [0]
    shutil.rmtree(place)
    with pytest.raises(TableNotFoundError):
        opened.newest(place)
    _write(place, 7)
    assert _numbers(opened.newest(place)) == [7]
    assert _numbers(opened.at(place, 0)) == [7]


def test_a_version_that_is_not_there_is_refused_each_time(place: str) -> None:
    for _ in range(2):
        with pytest.raises(DeltaError):
            opened.at(place, 5)


def test_those_that_were_opened_last_are_kept(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "_MOST", 2)
    for number in range(1, 4):
        _write(place, number)
    kept = [opened.at(place, version) for version in range(4)]
    assert opened.at(place, 3) is kept[3]
    assert opened.at(place, 2) is kept[2]
    assert opened.at(place, 0) is not kept[0]
